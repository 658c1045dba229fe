"""Which samples, layer and head a user asks to see, when a finished result is drawn again.

Pure functions: a result and the `select` section of a configuration go in, sample ids come out. A
value that matches nothing is an error that lists what there is; nothing is left out in silence.
"""

import dataclasses
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.fields import Category, LayerIndex
from interp_lab.store.results import Results
from interp_lab.visualization.base import Style

# The keys that choose within a sample: they go to the style. Every other key chooses samples.
WITHIN = ("layer", "head")
# Values that an error lists before it says how many more there are.
MOST_LISTED = 20


@dataclass(frozen=True)
class SampleLayer:
    """One layer of one sample, by its number in the model."""

    sample: str
    layer: int


AnyStyle = TypeVar("AnyStyle", bound=Style)


def chosen_samples(results: Results, select: Mapping[str, Any] | None) -> list[str]:
    """Return the ids of the samples that `select` asks for, in the data set's order.

    Args:
        results: an open result.
        select: name of a Category of the samples -> a value or a list of them; or the plural of two
            that are numbered, `sides` of `side1` and `side2`, -> one value or the two of a pair in
            either order ("big", [big, small] or "big-small"); null = all. layer and head are not
            looked at (see `restyled`).

    Raises:
        ConfigError: for a value that no sample has, or a result without the field.
    """
    wanted = {key: value for key, value in _given(select).items() if key not in WITHIN}
    paired = [key for key in wanted if _sides(results, key)]
    columns = {key: _column(results, key, key) for key in wanted if key not in paired}
    left = np.arange(len(results))
    before: list[str] = []
    for key, values in columns.items():
        names = _names(wanted[key])
        _check_known(key, names, {values[row] for row in left}, before, wanted)
        left = np.array([row for row in left if values[row] in names], dtype=np.int64)
        before.append(key)
    # A later key may have left no sample of a value that an earlier one names.
    for key, values in columns.items():
        others = [other for other in columns if other != key]
        _check_known(key, _names(wanted[key]), {values[row] for row in left}, others, wanted)
    for key in paired:
        left = _of_pair(results, key, wanted, left)
    return [results.sample_ids[row] for row in left]


def restyled(style: AnyStyle, select: Mapping[str, Any] | None) -> AnyStyle:
    """Return the style with the layer and the head that `select` asks for.

    Raises:
        ConfigError: if the figures of this style know no layer or head, or for a wrong value.
    """
    wanted = {key: value for key, value in _given(select).items() if key in WITHIN}
    known = {field.name for field in dataclasses.fields(style)}
    for key, value in wanted.items():
        if key not in known:
            raise ConfigError(f"select.{key}={value!r}: the figures of this task have no {key}")
    return dataclasses.replace(style, **wanted) if wanted else style


def unlimited(style: AnyStyle, select: Mapping[str, Any] | None, typed: Iterable[str]) -> AnyStyle:
    """Return the style with figures of all samples that a command asks for.

    A choice of samples that is typed beats a limit that is not; typed together, both hold.

    Args:
        style: its `max_samples` is the limit.
        select: as of `chosen_samples`.
        typed: the keys of the command, with dots.

    Raises:
        ConfigError: if samples are chosen and none may have figures.
    """
    wanted = [key for key in _given(select) if key not in WITHIN]
    keys = set(typed)
    chosen = wanted and ("select" in keys or any(f"select.{key}" in keys for key in wanted))
    if chosen and not keys & {"visualization", "visualization.max_samples"}:
        return dataclasses.replace(style, max_samples=-1)
    if wanted and style.max_samples == 0:
        key = wanted[0]
        raise ConfigError(
            f"select.{key}={_given(select)[key]!s}: asks for figures of samples, and "
            "visualization.max_samples=0 for none; leave that out, or give -1 (all)"
        )
    return style


def _given(select: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keys that have a value."""
    return {key: value for key, value in (select or {}).items() if value is not None}


def _sides(results: Results, key: str) -> tuple[str, str] | None:
    """Return the two Categories whose plural a key is, if the samples have them."""
    sides = f"{key.removesuffix('s')}1", f"{key.removesuffix('s')}2"
    there = all(isinstance(results.fields.get(side), Category) for side in sides)
    return sides if key.endswith("s") and there else None


def _column(results: Results, field: str, key: str) -> list[str]:
    """Return a Category of every sample, its letters composed."""
    if not isinstance(results.fields.get(field), Category):
        known = [name for name, kind in results.fields.items() if isinstance(kind, Category)]
        raise ConfigError(
            f"select.{key}: the samples of this result have no {field}."
            f"{did_you_mean(field, known)} They have: {_listed(known)}"
        )
    blocks = [block[field] for block in results.stream([field])]
    return [composed(value) for value in np.concatenate(blocks)] if blocks else []


def composed(text: Any) -> str:
    """Return a text in Unicode's composed form: keyboards and files differ in how they write é."""
    text = str(text).lower() if isinstance(text, bool) else str(text)
    return unicodedata.normalize("NFC", text)


def _names(value: Any) -> list[str]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [composed(one) for one in value] if is_list else [composed(value)]


def _of_pair(results: Results, key: str, wanted: Mapping[str, Any], left: np.ndarray) -> np.ndarray:
    """Return the rows among `left` whose two sides include those that are wanted."""
    first, second = (_column(results, side, key) for side in _sides(results, key) or ())
    pairs = {int(row): {first[row], second[row]} for row in left}
    known = set().union(*pairs.values())
    names = _names(wanted[key])
    if len(names) == 1 and names[0] not in known:
        names = names[0].split("-", 1)
    if not 1 <= len(names) <= 2:
        raise ConfigError(
            f"select.{key}={wanted[key]!r}: give one {key.removesuffix('s')} or the two of a pair"
        )
    others = [other for other in wanted if other != key]
    _check_known(key, names, known, others, wanted)
    found = [row for row, pair in pairs.items() if set(names) <= pair]
    if not found:
        partners = _listed(
            {
                side
                for pair in pairs.values()
                if names[0] in pair
                for side in pair
                if side != names[0]
            }
        )
        raise ConfigError(
            f"select.{key}={names}: no pair of these two; {names[0]} stands against {partners}"
        )
    return np.array(found, dtype=np.int64)


def _check_known(
    key: str,
    names: Sequence[str],
    known: set[str],
    others: Sequence[str],
    wanted: Mapping[str, Any],
) -> None:
    """Refuse a value that no sample has which the other keys leave."""
    for name in names:
        if name in known:
            continue
        among = " and ".join(f"{other}={wanted[other]}" for other in others)
        raise ConfigError(
            f"select.{key}={name!r}: no sample{f' with {among}' if among else ''} has it."
            f"{did_you_mean(name, known)} There are: {_listed(known)}"
        )


def _listed(values: Iterable[str]) -> str:
    ordered = sorted(values)
    more = len(ordered) - MOST_LISTED
    return ", ".join(ordered[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def groups(
    results: Results, by: Sequence[str], chosen: Sequence[str], limit: int
) -> list[tuple[str, ...]]:
    """Return the samples that agree in the Category fields `by`, group by group.

    Args:
        results: an open result.
        by: names of Category fields.
        chosen: the samples that may be shown.
        limit: only groups of the first so many samples; each is complete all the same, since an
            average over a part of a word's samples would not be the word's.

    Raises:
        ConfigError: if the samples have no such field.
    """
    columns = [_named_column(results, name) for name in by]
    keys = {sample: tuple(column[sample] for column in columns) for sample in chosen}
    members: dict[tuple[str, ...], list[str]] = {}
    for sample, key in keys.items():
        members.setdefault(key, []).append(sample)
    return [tuple(members[key]) for key in dict.fromkeys(keys[one] for one in chosen[:limit])]


def _named_column(results: Results, name: str) -> dict[str, str]:
    if not isinstance(results.fields.get(name), Category):
        known = [n for n, field in results.fields.items() if isinstance(field, Category)]
        raise ConfigError(
            f"by={name}: the samples have no such Category.{did_you_mean(name, known)}"
        )
    values = [value for block in results.stream([name]) for value in block[name]]
    return dict(zip(results.sample_ids, values, strict=True))


def layers(results: Results, style: Style, sample: str) -> list[SampleLayer]:
    """Return the layers of a sample that figures of one layer show.

    Args:
        results: an open result.
        style: its `layer`, if it has one, is the layer or the list of them that is asked for.
        sample: whose field `layers` says which layers it holds.

    Raises:
        ConfigError: if the samples hold no such field, or not the layer that is asked for.
    """
    if not isinstance(results.fields.get("layers"), LayerIndex):
        raise ConfigError("per: layer: the samples of this result have no LayerIndex layers")
    stored = [int(number) for number in results.read("layers", sample)]
    asked = getattr(style, "layer", None)
    wanted = stored if asked is None else list(asked) if isinstance(asked, Sequence) else [asked]
    for number in wanted:
        if number not in stored:
            raise ConfigError(
                f"select.layer={number}: sample {sample!r} holds the rows of layers "
                f"{', '.join(map(str, stored))}"
            )
    return [SampleLayer(sample, int(number)) for number in wanted]
