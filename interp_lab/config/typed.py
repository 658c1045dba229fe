"""What was typed, read before a configuration is composed of it.

Hydra's grammar takes a value with `= ( ) [ ] #` and others in quotes only, and says of a value
that it cannot read what a parser says. Here such a value is shown as it was typed, with what to
type instead; a key of the schema is held against its type, which says whether `007` is a number
or the name of a folder.
"""

import shlex
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any

from hydra.errors import OverrideParseException

from interp_lab.config.nodes import conf_dir, quoted
from interp_lab.config.schema import bounds_of, keys_of_schema, limits_of_schema, problem_of
from interp_lab.errors import ConfigError
from interp_lab.libraries.hydra_inside import Typed, parsed

# Groups of which none may be chosen.
MAY_BE_NONE = ("experiment",)


def understood(overrides: Sequence[str]) -> list[str]:
    """Return overrides as Hydra reads them right, each the same in number and order.

    Raises:
        ConfigError: for one that cannot be read, a group without an option, or a key that is taken
            away but must be there; shows it as it was typed.
    """
    return [_understood(override) for override in overrides]


def _understood(override: str) -> str:
    readable = quoted(override)
    try:
        (typed,) = parsed([readable])
    except OverrideParseException as error:
        raise ConfigError(_unreadable(override, error)) from error
    if not typed.key:
        raise ConfigError(f"{override}: no key before the equals sign; give key=value")
    if typed.deletes:
        _check_deletion(override, typed)
        return readable
    if typed.is_sweep:
        return readable
    if typed.key in groups():
        _check_option(override, typed)
        return readable
    kind = keys_of_schema().get(typed.key)
    if kind is str and isinstance(typed.value, int | float):
        return as_text(readable) or readable
    if kind is bool:
        _check_switch(override, typed.value)
    if kind in (str, int, float):
        _check_limits(override, typed, kind)
    return readable


def as_text(override: str) -> str | None:
    """Return an override whose whole value is one text, in quotes; None if it cannot be written."""
    key, _, value = override.partition("=")
    for mark in "\"'":
        escaped = value.replace(mark, f"\\{mark}")
        written = f"{key}={mark}{escaped}{mark}"
        try:
            (typed,) = parsed([written])
        except OverrideParseException:
            continue
        if not typed.is_sweep and typed.value == value:
            return written
    return None


def how_to_quote(override: str) -> str:
    """Return what to type in a shell for an override whose value is one text."""
    written = as_text(override)
    return f"as one text it is typed {shlex.quote(written)}" if written else "put it into a YAML"


@lru_cache(maxsize=1)
def groups() -> frozenset[str]:
    """Return the package's groups of options, also those of Hydra that it adds to."""
    folders = (p for p in conf_dir().rglob("*") if p.is_dir() and any(p.glob("*.yaml")))
    return frozenset(p.relative_to(conf_dir()).as_posix() for p in folders)


def _unreadable(override: str, error: OverrideParseException) -> str:
    key, equals, _ = override.partition("=")
    if not equals or not key.strip("+~ "):
        return f"{override}: not of the form key=value; give a key, an equals sign and a value"
    if not key.lstrip("+~").replace("@", "").replace("/", "").replace(".", "").isidentifier():
        return f"{override}: not of the form key=value ({str(error).splitlines()[0]})"
    return f"{override}: this value cannot be read as it stands; {how_to_quote(override)}"


def _check_option(override: str, typed: Typed) -> None:
    if isinstance(typed.value, str) and typed.value:
        return
    if typed.value is None and typed.key in MAY_BE_NONE:
        return
    if isinstance(typed.value, dict):  # sets keys of the chosen option
        return
    options = sorted(p.stem for p in (conf_dir() / typed.key).glob("*.yaml"))
    raise ConfigError(f"{override}: give one of the options: {', '.join(options)}")


def _check_deletion(override: str, typed: Typed) -> None:
    if typed.key in MAY_BE_NONE:
        return
    kinds = keys_of_schema()
    if typed.key in ("hydra", *kinds, *groups()):
        section = typed.key == "hydra" or is_dataclass(kinds.get(typed.key))
        what = f"give {typed.key}.KEY=..." if section else f"give {typed.key}=..."
        raise ConfigError(f"{override}: this key cannot be taken away; {what} another value")


def _check_limits(override: str, typed: Typed, kind: type) -> None:
    """Refuse a value out of its bounds here, where Hydra has not made a folder for the run yet."""
    value, about = typed.value, limits_of_schema()[typed.key]
    if value is None or (isinstance(value, str) and "${" in value):
        return
    kinds = int | float if kind is float else kind
    if isinstance(value, kinds) and not isinstance(value, bool):
        problem = problem_of(value, about)
    else:
        problem = bounds_of(about) if kind is not str else None
    if problem:
        raise ConfigError(f"{override}: {problem}")


def _check_switch(override: str, value: Any) -> None:
    """Refuse 2 and -1, which would pass for true."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value not in (0, 1):
        raise ConfigError(f"{override}: give true or false")
