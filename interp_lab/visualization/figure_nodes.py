"""The figure nodes of a configuration: what each may say, checked before a model is loaded.

A draw function's signature is its schema, so a new figure is a function and its lines of YAML.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from interp_lab.config.signature import parameters_of, typed
from interp_lab.config.targets import (
    ALLOW,
    KINDS,
    OWN,
    allowed_by,
    check_importable,
    check_target,
    defined_here,
)
from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.visualization.base import FORMATS
from interp_lab.visualization.figure_files import LAYER, template_fields
from interp_lab.visualization.film import FILM_FORMATS, Film

OWN_KEYS = ("_target_", "file", "per", "by", "enabled", "min_samples", "format", ALLOW)
# A figure over samples says little of one, unless its node says otherwise.
MIN_SAMPLES = 2
# What draw_all gives to a draw function, by position. A group is the samples that agree in the
# Category fields that the node names in `by`: all pairs of a word, say. A layer is one of those
# whose numbers the sample's field `layers` holds.
GIVEN = {
    "sample": ("results", "style", "sample"),
    "layer": ("results", "style", "sample", "layer"),
    "group": ("results", "style", "samples"),
    "run": ("results", "style"),
}


def check_figures(
    figures: Mapping[str, Mapping[str, Any]], allow_targets: Sequence[str] = ()
) -> None:
    """Check the figure nodes of a configuration before anything is measured.

    Args:
        figures: see `draw.draw_all`.
        allow_targets: packages beside this one whose draw functions may be imported.

    Raises:
        ConfigError: for a target that may not be or cannot be imported, an unknown or missing
            option, a file outside the folder, or two figures of one name.
    """
    if not isinstance(figures, Mapping):
        raise ConfigError(
            f"visualization.figures={figures!r}: give nodes by name, or null for no figure"
        )
    taken: dict[str, str] = {}
    for name, node in figures.items():
        key = f"visualization.figures.{name}"
        if not isinstance(node, Mapping) or "_target_" not in node:
            others = [other for other in figures if other != name]
            raise ConfigError(
                f"{key}: no such figure, or a new one without _target_ (the dotted path of its "
                f"draw function).{did_you_mean(name, others)}"
            )
        per = node.get("per")
        if per not in GIVEN:
            raise ConfigError(
                f"{key}.per={per!r}: give sample, layer or run.{did_you_mean(str(per), GIVEN)} "
                "A figure of several samples has per: group, with by: [...]"
            )
        file = node.get("file")
        if not isinstance(file, str) or not file or not _is_inside(file):
            raise ConfigError(f"{key}.file={file!r}: give a name without suffix, as individual/map")
        if file in taken:
            raise ConfigError(f"{key}.file={file!r}: {taken[file]} lies there already")
        taken[file] = key
        _check_template(key, file, per, node.get("by"))
        if not isinstance(node.get("enabled", True), bool):
            raise ConfigError(f"{key}.enabled={node['enabled']!r}: give true or false")
        fewest = node.get("min_samples", MIN_SAMPLES)
        if not isinstance(fewest, int) or isinstance(fewest, bool) or fewest < 1:
            raise ConfigError(f"{key}.min_samples={fewest!r}: give a whole number of at least 1")
        _check_options(key, node, GIVEN[per], (*allow_targets, *allowed_by(node, f"{key}.")))


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and not file.endswith("/")


def _check_template(key: str, file: str, per: str, by: Any) -> None:
    try:
        names = template_fields(file)
    except ValueError as error:
        raise ConfigError(f"{key}.file={file!r}: {error}") from error
    if per == "run" and names:
        raise ConfigError(f"{key}.file={file!r}: a figure of the run has no {{{names[0]}}}")
    if (per == "layer") != (LAYER in names):
        raise ConfigError(f"{key}.file={file!r}: {{{LAYER}}} and per: {LAYER} go together")
    if per != "group":
        if by is not None:
            raise ConfigError(f"{key}.by={by!r}: only a figure with per: group has it")
        return
    is_list = isinstance(by, Sequence) and not isinstance(by, str)
    if not is_list or not by or not all(isinstance(name, str) for name in by):
        raise ConfigError(f"{key}.by={by!r}: give the Category fields that a group agrees in")
    if set(names) != set(by):
        raise ConfigError(
            f"{key}.file={file!r}: name the fields of by in braces, no others, as "
            + "_".join(f"{{{name}}}" for name in by)
        )


def _check_options(
    key: str, node: Mapping[str, Any], given: Sequence[str], allowed: Sequence[str]
) -> None:
    check_target(node["_target_"], f"{key}._target_", KINDS["visualization"], allowed)
    function = resolve(str(node["_target_"]), f"{key}._target_")
    if str(node["_target_"]).startswith(OWN) and not defined_here(function):
        raise ConfigError(f"{key}._target_={node['_target_']}: is no draw function of ours")
    parameters = parameters_of(function)
    if tuple(parameters)[: len(given)] != tuple(given) or (
        len(given) == 2 and {"sample", "samples"} & set(parameters)
    ):
        raise ConfigError(
            f"{key}._target_={node['_target_']}: with per={node['per']} a draw function starts "
            f"with ({', '.join(given)}), this one with ({', '.join(tuple(parameters)[:3])})"
        )
    _check_format(key, node, function)
    options = [name for name in parameters if name not in given]
    for name in node:
        if name not in OWN_KEYS and name not in options:
            raise ConfigError(
                f"{key}.{name}: {function.__name__} takes no such option."
                f"{did_you_mean(name, [*options, *OWN_KEYS])} Known: {', '.join(options)}"
            )
    check_importable(function, node, key, allowed)
    typed(function, {k: plain(v) for k, v in node.items() if k in options}, key)
    for name in options:
        if parameters[name].default is inspect.Parameter.empty and name not in node:
            raise ConfigError(f"{key}.{name} is not given: {function.__name__} needs it")


def _check_format(key: str, node: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Check that the format, if the node has one, is of the kind that the function draws."""
    is_film = inspect.signature(function, eval_str=True).return_annotation is Film
    known = FILM_FORMATS if is_film else FORMATS
    value = node.get("format")
    if value is None and not is_film:
        return
    # A film may be wanted in several formats; each is drawn by itself.
    several = plain(value) if is_film and isinstance(value, Sequence) else value
    for one in several if isinstance(several, list) else [several]:
        if one not in known:
            near = did_you_mean(str(one), known, 1)
            raise ConfigError(f"{key}.format={one!r}: give one of {', '.join(known)}.{near}")


def formats_of(node: Mapping[str, Any], otherwise: str) -> list[str]:
    """Return the formats that a figure is saved in: several of a film, if its node lists them."""
    value = plain(node.get("format", otherwise))
    return list(value) if isinstance(value, list) else [value]


def plain(value: Any) -> Any:
    """Return built-in lists and dictionaries: a configuration's own kinds stay in this process."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    return value


def resolve(target: str, key: str) -> Callable[..., Any]:
    """Import the draw function that a dotted path names.

    Raises:
        ConfigError: if there is none; names the key.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{key}={target!r}: give a dotted path")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{key}={target}: cannot import {module_name} ({error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        near = did_you_mean(name, [n for n in dir(module) if callable(getattr(module, n))])
        raise ConfigError(f"{key}={target}: {module_name} has no function {name!r}.{near}")
    return function
