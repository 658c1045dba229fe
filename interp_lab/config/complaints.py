"""Turns the configuration system's exceptions into one line: what, where, what to do."""

import re
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError, InterpLabError, did_you_mean, unwritable
from interp_lab.libraries.hydra_inside import ForeignTargetError, composed

# What a launcher's option or class is called -> the extra that installs it.
EXTRA_OF_LAUNCHER = {
    "hydra_submitit_launcher": "slurm",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
    "hydra_ray_launcher": "ray",
    "ray": "ray",
}


def explain(error: Exception, arguments: list[str], folders: list[Path]) -> str | None:
    """Return one line for an error that the user can mend, or None for a fault of ours.

    Args:
        error: what was raised.
        arguments: the command line, to know the groups that were chosen.
        folders: the user's own configs, to find the file that a key stands in.
    """
    error = _own(error)
    if isinstance(error, ConfigError):
        key = re.match(r"[\w.]+", str(error))
        return f"{error}{_file_with(key.group(), folders) if key else ''}"
    if isinstance(error, InterpLabError):
        return str(error)
    if isinstance(error, yaml.YAMLError):
        return _yaml_error(error)
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        first = str(error).splitlines()[0]
        return f"{error.override}: not of the form key=value ({first})"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(error, arguments, folders)
    if isinstance(error, RuntimeError) and "Unknown plugin class" in str(error):
        return _missing_plugin(str(error))
    if isinstance(error, UnicodeEncodeError):
        return _unencodable(error)
    return _refused(error) if isinstance(error, OSError) and error.errno else None


def _own(error: Exception) -> Exception:
    """Return our own error that another wraps, such as one raised while a value was resolved."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ForeignTargetError):
            return ConfigError(str(inner))
        if isinstance(inner, InterpLabError):
            return inner
        inner = inner.__cause__ or inner.__context__
    return error


def _refused(error: OSError) -> str:
    """Explain what the file system refuses; whatever it is, the machine can be mended, not we."""
    # h5py says the file in the text alone.
    named = re.search(r"filename = '([^']+)'", str(error))
    place = error.filename or (named.group(1) if named else "a file of the run")
    if "usable temporary directory" in str(error):
        return (
            f"no temporary folder can be written ({error}); free some space there, or give "
            "TMPDIR=... a folder that can"
        )
    return unwritable(error, place)


def _unencodable(error: UnicodeEncodeError) -> str:
    """Explain a text that a file's name, the terminal or a result cannot hold."""
    text = repr(error.object[:200])
    if any(0xD800 <= ord(c) < 0xE000 for c in error.object):
        return (
            f"{text}: a file's name that is not UTF-8, which a result cannot hold; rename it (or, "
            "if it is not ASCII in a shell of the C locale, give PYTHONUTF8=1)"
        )
    return (
        f"{text}: cannot be written in {error.encoding}, the encoding of this shell's file names "
        "and output; give PYTHONUTF8=1, or LC_ALL=C.UTF-8"
    )


def _yaml_error(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = (
        f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a YAML file"
    )
    return f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}"


def _missing_config(error: MissingConfigException) -> str:
    name = str(error.missing_cfg_file)
    if not error.options:
        return f"{name}: no such configuration; --config-dir names the folder of your own"
    group, _, option = name.rpartition("/")
    if group == "hydra/launcher" and option in EXTRA_OF_LAUNCHER:
        return _missing_plugin(option)
    options = [str(o) for o in error.options]
    return (
        f"{group}={option}: no such option.{did_you_mean(option, options)} "
        f"There are: {', '.join(options)}"
    )


def _missing_plugin(text: str) -> str:
    """Say which extra brings a launcher, from its name or the path of its class."""
    extra = next((e for name, e in EXTRA_OF_LAUNCHER.items() if name in text), None)
    wanted = f"pip install 'interp-lab[{extra}]'" if extra else "install its Hydra plugin"
    return f"hydra/launcher: this launcher is not installed; {wanted}"


def _composition(error: Exception, arguments: list[str], folders: list[Path]) -> str:
    """Explain an override that fits no key, or a value of a wrong type."""
    # The cause is chained for what was typed; for what a file says it is in the text alone.
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause)
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else str(getattr(cause, "full_key", None) or "")
    typed = re.search(r"Could not override '([^']+)'", str(error))
    if typed and ("No match" in str(error) or "not in" in text):
        key = typed.group(1)
    if key and re.search(r"Key '.*' (is )?not in|not in struct|No match", f"{error} {text}"):
        near = did_you_mean(key, _known_keys(arguments))
        return f"{key}: no such key{_file_with(key, folders)}.{near}"
    lines = [line.strip() for line in text.splitlines() if "full_key" not in line]
    # The first line of a file's error only says that there was one.
    problem = lines[1] if lines[0].endswith("while composing config:") and lines[1:] else lines[0]
    where = _file_with(key, folders) if key else ""
    return f"{key}: {problem}{where}" if key and key not in problem else f"{problem}{where}"


def _known_keys(arguments: list[str]) -> list[str]:
    """Return every key and group that could have been meant, with the groups that were chosen."""
    groups = sorted(p.name for p in conf_dir().iterdir() if p.is_dir())
    choices = [a for a in arguments if a.partition("=")[0] in groups]
    try:
        cfg = composed(conf_dir(), choices)
    except (HydraException, OmegaConfBaseException):
        cfg = composed(conf_dir())
    return groups + _flat(OmegaConf.to_container(cfg, resolve=False))


def _flat(node: object, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys: list[str] = []
    for name, value in node.items():
        keys += [f"{prefix}{name}", *_flat(value, f"{prefix}{name}.")]
    return keys


def _file_with(key: str, folders: list[Path]) -> str:
    """Return ` (file, line n)` of the user's own YAML that sets a key, if there is one.

    Args:
        key: with dots; a file sets it if it has its last part at the start of a line or mapping.
        folders: where the user's files are.
    """
    name = re.escape(key.rpartition(".")[2])
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(rf"(^\s*|[{{,]\s*){name}\s*:", line):
                    return f" ({path}, line {number})"
    return ""
