"""A run's words one after the other: the samples of a word and pair, its option orders, together.

Everything that semdim's numbers need of a word is made here from what is stored of its samples.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np

from interp_lab.store.results import Results
from interp_lab.studies.semdim import shares as statistics
from interp_lab.studies.semdim.heads import Asked

Pooling = Literal["word", "run"]


@dataclass(frozen=True)
class Aggregation:
    """How words are put together.

    Args:
        normalize: which fraction: `sum` or `mean` over a feature's tokens.
        correct_only: leave out what was answered wrongly: a `pair` with all its orders, or the
            single `sample`; None = nothing.
        pooling: see `WordNumbers`.
        resamples: of the bootstrap, and permutations of the baseline.
        seed: of both.
        definition: of the fraction, with its scope and normalisation.
        layers, heads: which are stored; null = all.
    """

    normalize: str
    correct_only: Literal["pair", "sample"] | None
    pooling: Pooling
    resamples: int
    seed: int
    definition: str
    layers: tuple[int, ...] | None
    heads: tuple[int, ...] | None

    @property
    def permutations(self) -> int:
        """How many shuffles: each costs as much as the means themselves."""
        return min(self.resamples, 200)


@dataclass(frozen=True)
class Word:
    """One word and pair, its option orders combined: values (layer, unit).

    `entries` (layer, entry) are what means over phones are made of: the same units, or every run of
    every order; `mass` is the attention on each, of a dimension word's token. `asked` is the same
    of every head; None where units are no phones.
    """

    word: str
    pair: str
    values: np.ndarray
    labels: list[str]
    entries: np.ndarray
    mass: np.ndarray
    asked: Asked | None


class _Order(NamedTuple):
    """One sample, (layer, head, unit): shares of the canonical first feature, attention a token."""

    units: list[dict[str, Any]]
    shares: np.ndarray
    mass: np.ndarray


def words_of(results: Results, how: Aggregation) -> Iterator[Word]:
    """Yield words in the data set's order; the orders of one word and pair follow each other."""
    for key, rows in pairs_of(results):
        rows = kept(rows, [bool(results.read("correct", row)) for row in rows], how.correct_only)
        if not rows:
            continue
        orders = [_order(results, row, how) for row in rows]
        shares = [order.shares.mean(axis=1) for order in orders]
        values = statistics.combine_orders(shares)
        labels, entries = _labels(orders[0]), values
        mass = statistics.combine_orders([order.mass.mean(axis=1) for order in orders])
        if how.pooling == "run":
            runs = [_runs(results, row, one, how) for row, one in zip(rows, orders, strict=True)]
            labels = [label for own, _, _ in runs for label in own]
            entries = np.concatenate([shares for _, shares, _ in runs], axis=1)
            mass = np.concatenate([own for _, _, own in runs], axis=1)
        pair = str(results.read("pair", rows[0]))
        word = key.rpartition("/")[0]
        yield Word(word, pair, values, labels, entries, mass, _asked(pair, orders))


def _order(results: Results, row: int, how: Aggregation) -> _Order:
    """Read one sample."""
    mass = np.asarray(results.read("mass", row), dtype=np.float64)
    shown, flipped = results.read(f"fraction_{how.normalize}", row), results.read("flipped", row)
    shares = statistics.canonical_fraction(shown, bool(flipped), mass > 0)
    n_tokens = sum(int(results.read(f"n_dim{n}_tokens", row)) for n in (1, 2))
    return _Order(json.loads(results.read("units", row)), shares, mass / n_tokens)


def _asked(pair: str, orders: Sequence[_Order]) -> Asked | None:
    """Return what every head gives to the phones; None if the units are tokens."""
    units = orders[0].units
    if any(unit.get("unit") == "token" for unit in units):
        return None
    mass = statistics.combine_orders([order.mass for order in orders])
    first = statistics.combine_orders([order.mass * order.shares for order in orders])
    return Asked(pair, _labels(orders[0]), mass, first)


def kept(rows: list[int], correct: list[bool], only: str | None) -> list[int]:
    """Return the orders of a word and pair that count."""
    if only == "sample":
        return [row for row, is_right in zip(rows, correct, strict=True) if is_right]
    return rows if only is None or all(correct) else []


def _labels(order: _Order) -> list[str]:
    return [unit["label"] for unit in order.units]


def _runs(
    results: Results, row: int, order: _Order, how: Aggregation
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return label, the canonical first feature's share and the mass of each run, (layer, run)."""
    runs = statistics.phone_runs(order.units)
    if len(runs) == len(order.units):
        return _labels(order), order.shares.mean(axis=1), order.mass.mean(axis=1)
    mass = results.read("mass", row)
    sizes = [int(results.read(f"n_dim{n}_tokens", row)) for n in (1, 2)]
    shown = statistics.run_fractions(
        results.read("fraction_sum", row),
        mass,
        runs,
        (sizes[0], sizes[1]) if how.normalize == "mean" else None,
    )
    whole = np.stack([order.mass[..., run].sum(axis=-1) for run in runs], axis=-1)
    flipped = bool(results.read("flipped", row))
    shares = statistics.canonical_fraction(shown, flipped, whole > 0).mean(axis=1)
    return [order.units[run[0]]["label"] for run in runs], shares, whole.mean(axis=1)


def pairs_of(results: Results) -> Iterator[tuple[str, list[int]]]:
    """Yield the id of each word and pair, without the order, and the rows of its orders."""
    numbered = enumerate(results.sample_ids)
    for key, group in groupby(numbered, key=lambda item: item[1].rpartition("/")[0]):
        yield key, [row for row, _ in group]
