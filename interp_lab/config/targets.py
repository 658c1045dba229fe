"""Which classes and functions a configuration may name, decided before anything is imported.

Importing runs code. So what a text names is one of this package, of the kind that the node asks
for, or one of a package that the user named on purpose, in the same command or file:
`allow_targets: [my_package]`. What a result stores is never a permission.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args

from omegaconf import DictConfig, OmegaConf

from interp_lab.config.signature import parameters_of
from interp_lab.errors import ConfigError

ALLOW = "allow_targets"
TARGET = "_target_"
OWN = "interp_lab."
_MARK = "dotted path"
# A parameter of a class that takes the dotted path of a function, or another word without a dot.
Importable = Annotated[str, _MARK]

# Node -> where classes of its kind are, in this package.
KINDS: dict[str, Sequence[str]] = {
    "model": ("models.",),
    "dataset": ("datasets.",),
    "analysis": ("studies.",),
    "numbers": ("studies.",),
    "visualization": ("studies.", "visualization."),
    "importers": ("studies.",),
}
# What a node's class holds below itself, such as a network.
INNER: dict[str, Sequence[str]] = {"model": ("models.", "zoo.")}
# Node -> what an object of its kind has.
METHODS = {
    "model": ("prepare", "run"),
    "dataset": ("ids", "load"),
    "analysis": ("for_model",),
    "numbers": ("compute", "export"),
}


def allowed_by(node: Any, key: str = "") -> tuple[str, ...]:
    """Return what a configuration, or a node of it, names in `allow_targets`.

    Raises:
        ConfigError: if it is not a list of names of modules.
    """
    found = node.get(ALLOW) if isinstance(node, Mapping | DictConfig) else None
    if found is None:
        return ()
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, Sequence) and not OmegaConf.is_list(names):
        raise ConfigError(f"{key}{ALLOW}={found!r}: give a list of packages, as [my_package]")
    for name in names:
        if not _is_dotted(name, 1):
            raise ConfigError(f"{key}{ALLOW}: {name!r} is no name of a package, as my_package")
    return tuple(str(name) for name in names)


def check_target(target: Any, key: str, places: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse a dotted path that is neither ours of this kind nor allowed; nothing is imported.

    Args:
        target: the path.
        key: where it stands, for the error.
        places: where this kind is, in this package.
        allowed: packages or dotted paths that the user named.

    Raises:
        ConfigError: says what to add, if it is the user's own.
    """
    if not _is_dotted(target, 2):
        raise ConfigError(f"{key}={target!r}: give a dotted path")
    if any(target == name or target.startswith(f"{name}.") for name in allowed):
        return
    if not target.startswith(OWN):
        top = target.partition(".")[0]
        if top in sys.stdlib_module_names:
            raise ConfigError(
                f"{key}={target}: is of Python's own library and was not imported; give a class of "
                "interp_lab, or of a package of yours that allow_targets names"
            )
        raise ConfigError(
            f"{key}={target}: is not of interp_lab and was not imported; if it is yours, or you "
            f"trust it, name its package in the same command or file: {ALLOW}=[{top}]"
        )
    rest = target.removeprefix(OWN)
    if not rest.startswith(tuple(places)):
        near = " or ".join(f"{OWN}{place}*" for place in places)
        raise ConfigError(f"{key}={target}: nothing of this kind is there; give one of {near}")


def check_node(node: Any, name: str, key: str, allowed: Sequence[str]) -> None:
    """Check every `_target_` of a node, also in nested ones; see `check_target`."""
    places = KINDS[name]
    for where, target in _targets(node, key):
        own = places if where == f"{key}.{TARGET}" else INNER.get(name, places)
        check_target(target, where, own, allowed)


def check_targets(cfg: DictConfig) -> None:
    """Check everything that a configuration would import, before any of it is.

    Raises:
        ConfigError: for the first that is neither ours of its kind nor allowed.
    """
    given = allowed_by(cfg)
    for name in KINDS:
        node = cfg.get(name)
        if not isinstance(node, DictConfig):
            continue
        values = OmegaConf.to_container(node, resolve=False)
        if name == "importers":
            for ending, target in node.items():
                check_target(target, f"{name}.{ending}", KINDS[name], given)
            continue
        check_node(values, name, name, given + allowed_by(node, f"{name}."))


def check_importable(
    target: Callable[..., Any], values: Mapping[str, Any], key: str, allowed: Sequence[str]
) -> None:
    """Check the values of parameters of `target` that are annotated as `Importable`.

    Raises:
        ConfigError: see `check_target`.
    """
    places = KINDS.get(key.partition(".")[0], ())
    for name, parameter in parameters_of(target).items():
        value = values.get(name)
        if isinstance(value, str) and "." in value and _takes_path(parameter.annotation):
            check_target(value, f"{key}.{name}", places, allowed)


def defined_here(found: Any) -> bool:
    """Return whether a thing found in a module of this package is this package's own.

    A module also holds what it imports, such as functions of the standard library.
    """
    return str(getattr(found, "__module__", "")).startswith(OWN)


def check_kind(found: Any, node: str, key: str, target: str) -> None:
    """Check what a dotted path named, once it is imported and before it is called.

    Raises:
        ConfigError: if one of ours is no class of the kind, or a class lacks its methods.
    """
    is_class = isinstance(found, type)
    if target.startswith(OWN) and not (is_class and defined_here(found)):
        raise ConfigError(f"{key}.{TARGET}={target}: is no class of this package")
    if not callable(found):
        raise ConfigError(f"{key}.{TARGET}={target}: is no class")
    if is_class:
        check_contract(found, node, f"{key}.{TARGET}={target}")


def check_contract(thing: Any, node: str, where: str) -> None:
    """Check that a class, or what it made, has the methods of its kind.

    Raises:
        ConfigError: names the first that it lacks.
    """
    lacking = [m for m in METHODS.get(node, ()) if not callable(getattr(thing, m, None))]
    if lacking:
        raise ConfigError(f"{where}: is no {node}: it has no method {lacking[0]!r}")


def _targets(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == TARGET:
                yield f"{key}.{TARGET}", inner
            elif name != ALLOW:
                yield from _targets(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _targets(inner, f"{key}[{number}]")


def _is_dotted(name: Any, fewest: int) -> bool:
    if not isinstance(name, str) or len(name) > 300:
        return False
    parts = name.split(".")
    return len(parts) >= fewest and all(part.isidentifier() for part in parts)


def _takes_path(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return _MARK in metadata or any(_takes_path(a) for a in get_args(annotation))
