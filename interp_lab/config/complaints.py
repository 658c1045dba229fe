"""Turns the configuration system's exceptions into one line: what, where, what to do."""

import re
from argparse import ArgumentTypeError
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from interp_lab.config.folders import primary_configs
from interp_lab.config.former import (
    default_task,
    instead,
    instead_in,
    option_with,
    task_of,
    typed_options,
)
from interp_lab.config.nodes import conf_dir, quoted
from interp_lab.config.schema import keys_of_schema
from interp_lab.config.typed import how_to_quote
from interp_lab.errors import ConfigError, InterpLabError, did_you_mean, unwritable
from interp_lab.libraries.hydra_inside import ForeignTargetError, composed, parsed

# What a launcher's option or class is called -> the extra that installs it.
EXTRA_OF_LAUNCHER = {
    "hydra_submitit_launcher": "slurm",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
    "hydra_ray_launcher": "ray",
    "ray": "ray",
}

# A complaint about a key that is not there, which one of an original tool may be.
NO_SUCH_KEY = re.compile(r"([\w.\-]+)(?: \(.*\))?: (?:no such key|\w+ takes no such option)")


def explain(error: Exception, arguments: list[str], folders: list[Path]) -> str | None:
    """Return one line for an error that the user can mend, or None for a fault of ours.

    Args:
        error: what was raised.
        arguments: the command line, to know the groups that were chosen.
        folders: the user's own configs, to find the file that a key stands in.
    """
    line = _explained(_own(error), arguments, folders)
    return _with_former(line, arguments, folders) if line else line


def _with_former(line: str, arguments: list[str], folders: list[Path]) -> str:
    """Return a complaint about an unknown key; of an original tool's, what to type for it."""
    unknown = NO_SUCH_KEY.match(line)
    if not unknown:
        return line
    typed = [one.shown for one in typed_options(arguments)]
    if any(key == unknown[1] or key.startswith(f"{unknown[1]}.") for key in typed):
        return instead(arguments, folders, certain=False) or line
    for path in primary_configs(folders).values():
        if f"({path}, line " in line:
            task = task_of(arguments, folders) or default_task()
            return instead_in(path, task, certain=False) or line
    return line


def _explained(error: Exception, arguments: list[str], folders: list[Path]) -> str | None:
    if isinstance(error, ConfigError):
        key = re.match(r"[\w.]+", str(error))
        return f"{_as_typed(error, arguments)}{_file_with(key.group(), folders) if key else ''}"
    if isinstance(error, InterpLabError):
        return _as_typed(error, arguments)
    if isinstance(error, ArgumentTypeError):
        return f"{error}; --help lists the flags"
    if isinstance(error, yaml.YAMLError):
        return _yaml_error(error)
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        first = str(error).splitlines()[0]
        return f"{error.override}: not of the form key=value ({first})"
    if "must be a DictConfig" in str(error) and (damaged := _damaged_file(folders)):
        return damaged
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(error, arguments, folders)
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return f"{error}; a group takes the name of one of its options: group=option"
    if isinstance(error, RuntimeError) and "Unknown plugin class" in str(error):
        return _missing_plugin(str(error))
    if isinstance(error, UnicodeEncodeError):
        return _unencodable(error)
    if isinstance(error, UnicodeDecodeError) or "Invalid loaded object type" in str(error):
        return _damaged_file(folders)
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


def _as_typed(error: Exception, arguments: list[str]) -> str:
    """Return an error's text with the value that it begins with as it was typed.

    Between the two lie a parser and a type: `dataset.path=1e3` is a number by then, 1000.0.
    """
    text = str(error)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+")
        if not equals or argument.startswith(("-", "~")) or not text.startswith(f"{key}="):
            continue
        try:
            (typed,) = parsed([quoted(argument)])
        except OverrideParseException:
            continue
        if typed.is_sweep:
            continue
        for shown in (repr(typed.value), str(typed.value)):
            if text.startswith(f"{key}={shown}: "):
                text = f"{key}={value}{text[len(f'{key}={shown}') :]}"
                break
    return text


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


def _damaged_file(folders: list[Path]) -> str | None:
    """Return which of the user's YAML files is no text, or holds no keys; None if all are well."""
    for path in (p for folder in folders for p in sorted(folder.rglob("*.yaml"))):
        try:
            held = yaml.safe_load(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            return f"{path}: not UTF-8 text ({error.reason}); save it in UTF-8"
        except (OSError, yaml.YAMLError):
            continue
        if held is not None and not isinstance(held, dict):
            return f"{path}: holds {held!r:.40}, not keys with values"
    return None


def _missing_config(error: MissingConfigException) -> str:
    name = str(error.missing_cfg_file)
    if not error.options:
        return (
            f"{name}: no such configuration; your own are looked for in ./conf, ./studies and the "
            "folder of --config-dir"
        )
    known = option_with(name.partition("/")[2]) if name.startswith("model/") else None
    if known:
        return f"{name.replace('/', '=', 1)}: is a checkpoint; type model={known}"
    if name.startswith("model/") and name.count("/") > 1:
        return (
            f"{name.replace('/', '=', 1)}: no such option; for a checkpoint give an option of its "
            f"family and model.checkpoint={name.partition('/')[2]}"
        )
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
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, InterpLabError):  # raised while a value was resolved
            return explain(inner, arguments, folders) or str(inner)
        inner = inner.__cause__ or inner.__context__
    # The cause is chained for what was typed; for what a file says it is in the text alone.
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause)
    never = re.search(r"field '([\w.]+)' is not Optional", text)
    if never:
        return f"{never[1]}=null: cannot be null; leave the key out, or give a value"
    section = re.search(r"is not a subclass of (\w+)", text)
    for name, kind in keys_of_schema().items():
        if section and kind.__name__ == section[1]:
            return f"{name}: give its keys with values, such as {name}.KEY=..."
    several = re.search(r"Ambiguous value for argument '(.*)'$", text.splitlines()[0])
    if several:
        typed = next((a for a in arguments if quoted(a) == several[1]), several[1])
        return f"{typed}: several values are for --multirun; {how_to_quote(typed)}"
    absent = re.search(r"Could not delete (?:from config\. )?'([^']*)'", text)
    if absent:
        near = did_you_mean(absent[1], _known_keys(arguments))
        return f"~{absent[1]}: no such key.{near}"
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else str(getattr(cause, "full_key", None) or "")
    typed = re.search(r"Could not override '([^']+)'", str(error))
    if typed and ("No match" in str(error) or "not in" in text):
        key = typed.group(1)
    if key and re.search(r"Key '.*' (is )?not in|not in struct|No match", f"{error} {text}"):
        known = _known_keys(arguments)
        if key in known:  # a file of the user's own that brings none of our keys
            return f"{key}: no such key here; the defaults of --config-name begin with `- config`"
        return f"{key}: no such key{_file_with(key, folders)}.{did_you_mean(key, known)}"
    lines = [line.strip() for line in text.splitlines() if "full_key" not in line]
    # The first line of a file's error only says that there was one.
    problem = lines[1] if lines[0].endswith("while composing config:") and lines[1:] else lines[0]
    where = _file_with(key, folders) if key else ""
    named = re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", problem)
    return f"{problem}{where}" if named or not key else f"{key}: {problem}{where}"


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
        for path in sorted(p for p in folder.rglob("*.yaml") if p.is_file()):
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if re.search(rf"(^\s*|[{{,]\s*){name}\s*:", line):
                    return f" ({path}, line {number})"
    return ""
