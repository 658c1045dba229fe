"""YAML texts of unknown origin: read as data, and never larger than they look.

A few lines of anchors can stand for more values than a machine holds, and a stored text can hold
a reference that the configuration system would follow.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from interp_lab.config.targets import ALLOW
from interp_lab.errors import ConfigError, StoreError

# Values that a text may stand for once its anchors are written out; real ones have hundreds.
MOST_VALUES = 100_000
DEEPEST = 100


def check_yaml(text: str, where: str) -> None:
    """Refuse a text whose anchors stand for more than `MOST_VALUES`, or hold themselves.

    Raises:
        ConfigError: names the place. What is no YAML at all is left to its reader.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        size = _size(root, {}, 0) if root is not None else 0
    except yaml.YAMLError:
        return
    except RecursionError:
        size = MOST_VALUES + 1
    if size > MOST_VALUES:
        raise ConfigError(
            f"{where}: stands for more than {MOST_VALUES} values, by nesting or anchors (&, *); "
            "write out what you need"
        )


def check_folder(folder: Path) -> None:
    """Check every YAML file of a folder that has anchors or is deep; see `check_yaml`."""
    for path in sorted(folder.rglob("*.yaml")):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if ("&" in text and "*" in text) or max(map(text.count, "[{"), default=0) > DEEPEST:
                check_yaml(text, str(path))


def as_data(text: Any, where: str) -> dict[str, Any]:
    """Return a text that a result stores as plain values.

    Raises:
        StoreError: if it is no mapping of values, or an absurd one.
    """
    try:
        check_yaml(str(text), where)
        # Without resolving: a reference stays the text that it is.
        found = OmegaConf.to_container(OmegaConf.create(str(text)), resolve=False)
    except (ConfigError, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise StoreError(f"{where}: cannot be read as YAML ({first})") from error
    if not isinstance(found, dict):
        raise StoreError(f"{where}: is no mapping of keys to values")
    return cast(dict[str, Any], _without_allowance(found))


def literal(value: Any) -> Any:
    """Return nested values whose texts mean themselves, also where they hold `${`."""
    if isinstance(value, dict):
        return {k: literal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [literal(v) for v in value]
    if isinstance(value, str) and "${" in value:
        # A backslash before `${` makes it text; one that stands there already is doubled.
        return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)
    return value


def _without_allowance(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_allowance(v) for k, v in value.items() if k != ALLOW}
    return [_without_allowance(v) for v in value] if isinstance(value, list) else value


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for; one that holds itself has no end."""
    if depth > DEEPEST:
        return MOST_VALUES + 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in _parts(node))
    return known[id(node)]


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
