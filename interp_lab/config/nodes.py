"""The configuration: where it lies, what a run is called, and the checks before any model.

Two kinds of nodes. The root and its small sections are the dataclasses of `schema`.
The nodes `model`, `dataset`, `analysis` and `visualization` name a class in `_target_`; the
signature of that class is their schema, so a new study brings its own and edits nothing here. A
command may set every key of the signature, whether the node's YAML lists it or not.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from interp_lab.config.schema import EMPTY, Config, Mode, limits, problem_of
from interp_lab.config.signature import parameters_of, typed, unknown_option
from interp_lab.config.targets import (
    ALLOW,
    allowed_by,
    check_contract,
    check_importable,
    check_kind,
    check_node,
    check_targets,
)
from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.identity.run import (
    NOT_IN_RUN_ID,
    adoptable,
    identity_of_run,
    run_id_before,
    run_id_of,
)
from interp_lab.identity.signatures import GIVEN_BY_RUNNER, defaults_of

PACKAGE = Path(__file__).parents[1]
# Keys that every node may hold beside its class's own arguments.
NODE_KEYS = ("_target_", "name", ALLOW)


def quoted(override: str) -> str:
    """Return an override with words of other scripts in quotes, which Hydra's grammar asks for.

    A value that has quotes of its own is left as it is. Otherwise every element of a list, or the
    whole value where there are none, is quoted with its blanks and signs: `고양이 (1).jpg`.
    """
    key, equals, value = override.partition("=")
    if not equals or value.isascii() or "'" in value or '"' in value:
        return override
    call = re.fullmatch(r"([a-z_]+\()(.*)(\))", value)
    before, value, after = call.groups() if call else ("", value, "")
    # A colon parts key and value inside braces alone; elsewhere it belongs to a path.
    marks = ",[]{}:" if "{" in value else ",[]" if value.startswith("[") else ","
    element = rf"[^\s{re.escape(marks)}](?:[^{re.escape(marks)}]*[^\s{re.escape(marks)}])?"
    inside = re.sub(element, lambda m: m[0] if m[0].isascii() else f"'{m[0]}'", value)
    return f"{key}={before}{inside}{after}"


def conf_dir() -> Path:
    """Return the folder of the YAML files: inside an installed package, else beside it."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parent / "conf"


def node_name(cfg: DictConfig, node: str) -> str:
    """Return the name that a node goes by in paths and figures."""
    values = cfg[node]
    name = values.get("name") or values.get("checkpoint") or values["_target_"].rsplit(".")[-1]
    return str(name).rstrip("/").rsplit("/")[-1]


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a node as a dict, its interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def identity_nodes(cfg: DictConfig) -> dict[str, Any]:
    """Return the plain values that a run's identity is made from.

    Its defaults are read from classes, of which the user's own are imported for that.

    Raises:
        ConfigError: if a class is neither ours nor allowed; it is not imported.
    """
    check_targets(cfg)
    check_task_name(cfg)
    nodes: dict[str, Any] = {key: cfg[key] for key in ("task_name", "seed")}
    nodes |= {key: without_allowance(plain(cfg[key])) for key in NOT_IN_RUN_ID}
    interventions = OmegaConf.to_container(cfg.capture.interventions, resolve=True)
    # Not part of it, but earlier versions called a run by it too.
    nodes["numbers"] = without_allowance(plain(cfg["numbers"]))
    return nodes | {"capture": {"method": cfg.capture.method, "interventions": interventions}}


def without_allowance(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's values without what it allows to import, which changes no number."""
    return {key: value for key, value in node.items() if key != ALLOW}


def check_task_name(cfg: DictConfig) -> None:
    """Refuse a task name that is no name of a folder below `output.root`.

    Raises:
        ConfigError: says what a name is.
    """
    name = str(cfg.task_name)
    if not re.fullmatch(r"\w[\w.\- ]{0,99}", name) or len(name.encode()) > 200:
        raise ConfigError(
            f"task_name={name!r}: names a folder below output.root; give letters, digits, dots, "
            "dashes and underscores"
        )


def run_id(cfg: DictConfig) -> str:
    """Return a hash of everything that changes the numbers: not device, workers or style."""
    return run_id_of(identity_of_run(identity_nodes(cfg)))


def run_dir(cfg: DictConfig) -> str:
    """Return the run's stable directory: outputs/<task>/<model>-<dataset>-<run_id>.

    For `mode=render | summary | compute` with `results=` it is the directory of that result; for a
    run that an earlier version began under another id, it is that directory.
    """
    # Hydra makes the folder before anything else is checked.
    _check_nodes(cfg)
    for key, value in (("output.root", cfg.output.root), ("task_name", cfg.task_name)):
        if not value.strip():
            raise ConfigError(f"{key}={_shown(value)}: {EMPTY}")
    if cfg.mode in (Mode.render, Mode.summary, Mode.compute) and cfg.results:
        path = Path(cfg.results)
        return str(path if path.is_dir() else path.parent)
    place = _place(cfg, run_id(cfg))
    before = place_before(cfg)
    if not place.exists() and before.is_dir() and adoptable(before, identity_nodes(cfg)):
        return str(before)
    return str(place)


def place_before(cfg: DictConfig) -> Path:
    """Return where schema version 1 had the run with these settings."""
    return _place(cfg, run_id_before(identity_nodes(cfg)))


def _place(cfg: DictConfig, name: str) -> Path:
    place = f"{node_name(cfg, 'model')}-{node_name(cfg, 'dataset')}-{name}"
    return Path(cfg.output.root) / cfg.task_name / place


def register() -> None:
    """Make the schema and the resolvers known to Hydra; called when this module is imported."""
    ConfigStore.instance().store(name="base_config", node=Config)
    OmegaConf.register_new_resolver("run_dir", lambda *, _root_: run_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("embedded", lambda path: str(PACKAGE / path), replace=True)
    # A run keeps the configuration it was made with; drawing it again must not overwrite that.
    OmegaConf.register_new_resolver(
        "run_only",
        lambda value, *, _root_: value if _root_.mode == Mode.run else None,
        replace=True,
    )


def check_root(cfg: DictConfig) -> None:
    """Check what OmegaConf's types leave open: added keys, ranges, words out of few.

    Raises:
        ConfigError: names the key and, where it can, the nearest valid one.
    """
    _check_keys(cfg, Config, "")
    check_targets(cfg)
    check_task_name(cfg)
    for key, _, about in limits():
        # A text is looked at as it stands: resolving `output.dir` reads the model's weights.
        section, _, name = key.rpartition(".")
        holder = OmegaConf.select(cfg, section) if section else cfg
        if not about or (about.get("text") and OmegaConf.is_interpolation(holder, name)):
            continue
        value = OmegaConf.select(cfg, key)
        problem = problem_of(value, about)
        if problem:
            raise ConfigError(f"{key}={_shown(value)}: {problem}")
    device = OmegaConf.to_container(cfg, resolve=False)["device"]  # type: ignore[index, call-overload]
    if isinstance(device, bool | float | list | dict) or device == "":
        raise ConfigError(f"device={_shown(device)}: give one device, such as cpu, cuda:1 or 1")
    _check_nodes(cfg)
    if not cfg.results:  # the nodes of a stored result are its own
        _point_to_numbers(cfg)
        for node in (*NOT_IN_RUN_ID, "numbers"):
            _check_options(cfg[node], node)


def _shown(value: Any) -> str:
    """Return a value as it is typed; an empty text by its quotes."""
    return str(value) if str(value).strip() else repr(value)


def _check_nodes(cfg: DictConfig) -> None:
    """Check that every node names a class: one that was set to a number has no keys at all."""
    for node in (*NOT_IN_RUN_ID, "numbers", "visualization"):
        if OmegaConf.is_missing(cfg, node) or not isinstance(cfg[node], DictConfig):
            shown = "???" if OmegaConf.is_missing(cfg, node) else cfg[node]
            raise ConfigError(f"{node}={shown}: give one of its options, such as {node}=NAME")
        for key in ("_target_", "name"):
            value = cfg[node].get(key, "-")
            if not isinstance(value, str | int) or not str(value).strip():
                wanted = "a dotted path" if key == "_target_" else "a text that is not empty"
                raise ConfigError(f"{node}.{key}={value!r}: give {wanted}")


def _check_options(node: DictConfig, key: str) -> None:
    """Check a node's keys by its class's signature: without importing one of this package.

    Its YAML need not list them, so Hydra lets every key in.
    """
    target = str(node.get("_target_", ""))
    known = [name for name in defaults_of(target) if name not in GIVEN_BY_RUNNER]
    for name in node if known else ():
        if name not in known and name not in NODE_KEYS:
            raise unknown_option(key, str(name), target.rpartition(".")[2], known)


def _point_to_numbers(cfg: DictConfig) -> None:
    """Say where an option is that stands below `analysis` but belongs to `numbers`.

    Raises:
        ConfigError: names the key to type.
    """
    own, numbers = (
        defaults_of(str(cfg[node].get("_target_", ""))) for node in ("analysis", "numbers")
    )
    for name in cfg.analysis:
        if name in numbers and name not in own and name not in GIVEN_BY_RUNNER:
            raise ConfigError(
                f"analysis.{name}: is an option of what is made of the measured samples: give "
                f"numbers.{name}, which needs no new measurement"
            )


def _check_keys(cfg: DictConfig, schema: type, prefix: str) -> None:
    known = {f.name: f for f in fields(schema)}
    for key in cfg:
        if key not in known:
            raise ConfigError(
                f"{prefix}{key}: no such key.{did_you_mean(str(key), known)} "
                f"Known here: {', '.join(known)}"
            )
        section = known[key].type
        if isinstance(section, type) and is_dataclass(section):
            _check_keys(cfg[key], section, f"{prefix}{key}.")


def target_of(node: Mapping[str, Any], key: str) -> Any:
    """Import and return what a node's `_target_` names.

    Raises:
        ConfigError: if there is no `_target_` or it cannot be imported.
    """
    if "_target_" not in node:
        raise ConfigError(f"{key}: has no _target_ (the dotted path of its class)")
    path = str(node["_target_"])
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ValueError as error:
        raise ConfigError(f"{key}._target_={path!r}: give a dotted path") from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key}._target_={path}: module {error.name!r} is not installed or not on the path"
        ) from error
    except AttributeError as error:
        near = did_you_mean(name, dir(import_module(module)))
        raise ConfigError(f"{key}._target_={path}: {module} has no {name!r}.{near}") from error


def build(cfg: DictConfig, key: str, **given: Any) -> Any:
    """Make the object that the node `key` describes, its values checked against the signature.

    Args:
        cfg: the root.
        key: the node.
        given: arguments that the runner gives; those that the class does not take are left out.

    Raises:
        ConfigError: for an unknown key, a wrong type or a missing value; names key and file.
    """
    values = plain(cfg[key])
    allowed = allowed_for(cfg, key)
    target = allowed_target(values, key, allowed)
    arguments = check_arguments(target, values, key, allowed)
    parameters = inspect.signature(target).parameters
    made = target(**arguments, **{k: v for k, v in given.items() if k in parameters})
    check_contract(made, key, f"{key}._target_={values['_target_']}")
    if key == "dataset":
        check_ids(made.ids())
    return made


def allowed_for(cfg: DictConfig, key: str) -> tuple[str, ...]:
    """Return the packages that the command, or the node `key` itself, allows to import."""
    return allowed_by(cfg) + allowed_by(cfg[key], f"{key}.")


def allowed_target(values: Mapping[str, Any], key: str, allowed: Sequence[str]) -> Any:
    """Import and return a node's class, if it is one of its kind; nested targets are checked too.

    Raises:
        ConfigError: if it may not be imported, cannot be, or is no class of the kind.
    """
    check_node(values, key, key, allowed)
    target = target_of(values, key)
    check_kind(target, key, key, str(values["_target_"]))
    return target


def check_ids(ids: Sequence[str]) -> None:
    """Check the samples' ids, which files are named after.

    Raises:
        ConfigError: if one leaves its folder or holds control characters, or two differ by case
            alone, which is one name on many file systems.
    """
    seen: dict[str, str] = {}
    for name in ids:
        parts = re.split(r"[/\\]", str(name))
        if ".." in parts or any(ord(c) < 32 for c in str(name)):
            raise ConfigError(
                f"dataset: sample id {str(name)!r} is no name below the run's folder; rename it"
            )
        if any(0xD800 <= ord(c) < 0xE000 for c in str(name)):
            raise ConfigError(
                f"dataset: sample id {str(name)!r} is no UTF-8, which a result cannot hold; rename "
                "the file (or, if its name is right and this shell is of the C locale, give "
                "PYTHONUTF8=1)"
            )
        other = seen.setdefault(str(name).casefold(), str(name))
        if other != name:
            raise ConfigError(
                f"dataset: sample ids {other!r} and {name!r} differ by case alone, which is one "
                "file on many systems; rename one"
            )


def check_arguments(
    target: Any, values: Mapping[str, Any], key: str, allowed: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the node's values as the types that `target`'s signature asks for.

    Args:
        target: the node's class.
        values: of the node.
        key: the node, for errors.
        allowed: packages that values may name as dotted paths.

    Raises:
        ConfigError: for an unknown key, a wrong type or a missing value.
    """
    parameters = parameters_of(target)
    known = [p for p in parameters if p not in GIVEN_BY_RUNNER]
    given = {k: v for k, v in values.items() if k not in NODE_KEYS or k in parameters}
    for name, value in given.items():
        if name not in known:
            raise unknown_option(key, name, target.__qualname__, known)
        if value == MISSING:
            raise ConfigError(f"{key}.{name} has no value yet: give {key}.{name}=...")
    check_importable(target, given, key, allowed)
    checked = typed(target, given, key)
    for name in known:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise ConfigError(f"{key}.{name} is not given: {target.__qualname__} needs it")
    return checked


register()
