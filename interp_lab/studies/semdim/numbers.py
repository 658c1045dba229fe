"""The numbers of semdim over all words: phone and dimension means, curves, accuracy, knock-out.

Option orders of one word and pair are averaged first; heads are averaged within a word. What a
phone or dimension is given is the share of the pair's canonical first feature.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp_lab.errors import ConfigError
from interp_lab.fields import DimensionCurve, Document, Field, PhoneMap, Scalar
from interp_lab.statistics.heads import bootstrap_mean
from interp_lab.store.results import Results
from interp_lab.studies.semdim import shares as statistics
from interp_lab.studies.semdim.knockout import CONDITIONS
from interp_lab.studies.semdim.report import report

log = logging.getLogger(__name__)
Named = tuple[Field, Any]
Pooling = Literal["word", "run"]
PHONE_MEANS = {"word": "semdim.phone_mean/1", "run": "semdim.phone_runs/1"}


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


@dataclass
class _Word:
    """One word and pair, its option orders combined: values (layer, unit).

    `entries` (layer, entry) are what means over phones are made of: the same units, or every run of
    every order.
    """

    word: str
    pair: str
    values: np.ndarray
    labels: list[str]
    entries: np.ndarray


@dataclass
class _Rows:
    """Everything that the statistics need of all words, a few numbers each."""

    words: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    units: dict[str, list[tuple[str, str, np.ndarray]]] = field(default_factory=dict)

    def add(self, word: _Word, pooled: bool) -> None:
        self.words.append(word.word)
        self.pairs.append(word.pair)
        self.means.append(word.values.mean(axis=1))
        of_pair = self.units.setdefault(word.pair, [])
        for i, label in enumerate(word.labels):
            # What is pooled is its own word: nothing is averaged before it counts.
            name = f"{word.word} {len(of_pair)}" if pooled else word.word
            of_pair.append((label, name, word.entries[:, i]))


class WordNumbers:
    """Phone and dimension means, layer curves with intervals, accuracy, knock-out, the report.

    Args:
        normalize: `sum` or `mean` over a dimension's own tokens; both are stored, this one is
            aggregated.
        correct_only: aggregate only what the model answers correctly: `pair` (or true) leaves out a
            word's pair if one of its orders is answered wrongly, `sample` that order alone.
        pooling: what a mean over phones counts. `word`: a word once, its orders and repeated phones
            averaged first. `run`: every run of a phone in every order alike, as in LEX-ICON.
        bootstrap: resamples of the intervals, and permutations of the baseline.
        seed: of both.
    """

    needs = ("word",)

    def __init__(
        self,
        normalize: Literal["sum", "mean"] = "sum",
        correct_only: Literal[False, True, "pair", "sample"] = False,
        bootstrap: int = 1000,
        seed: int = 0,
        pooling: Pooling = "word",
    ) -> None:
        if bootstrap < 100:
            raise ConfigError(f"numbers.bootstrap={bootstrap}: give at least 100")
        self.normalize = normalize
        self.correct_only: Literal["pair", "sample"] | None = (
            "pair" if correct_only is True else correct_only or None
        )
        self.pooling: Pooling = pooling
        self.bootstrap = bootstrap
        self.seed = seed
        chosen = f"normalize={normalize}, correct_only={correct_only}"
        self.definitions = {
            "aggregated": f"{chosen}, orders of the options averaged",
            "phone_dimension": PHONE_MEANS[pooling],
        }

    def compute(self, results: Results) -> list[Named]:
        """Return the fields over the run."""
        return aggregates(results, self._how(results.definitions))

    def export(self, results: Results, folder: Path) -> None:
        """Write the text report; what the original tool pickled is in the HDF5 file."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "semdim_report.txt").write_text(report(results), encoding="utf-8")

    def _how(self, definitions: Mapping[str, str]) -> Aggregation:
        layers, heads = (json.loads(definitions.get(name, "null")) for name in ("layers", "heads"))
        return Aggregation(
            self.normalize,
            self.correct_only,
            self.pooling,
            self.bootstrap,
            self.seed,
            f"{definitions['fraction']} {self.normalize}",
            None if layers is None else tuple(layers),
            None if heads is None else tuple(heads),
        )


def aggregates(results: Results, how: Aggregation) -> list[Named]:
    """Return the fields over the run."""
    found = _answers(results, how) + _knockout(results, how) + _chosen(how)
    if f"fraction_{how.normalize}" not in results.fields:
        return found
    rows = _Rows()
    pooled = how.pooling == "run"
    for word in _words(results, how):
        rows.add(word, pooled)
    if not rows.words:
        log.warning("numbers.correct_only=%s leaves no word: there are no means", how.correct_only)
        return found
    dimensions = sorted(set(rows.pairs))
    totals = statistics.PhoneTotals(len(rows.means[0]), dimensions, pooled)
    for word in _words(results, how):
        totals.update(word.pair, word.labels, word.entries)
    means = totals.compute()
    found += [
        (
            Document("dimensions", "dimensions, the canonical first feature first"),
            _list(dimensions),
        ),
        (Document("phones", "phones or tokens"), _list(means.phones)),
        *_phone_maps(means, rows, dimensions, how),
        *_curves(rows, dimensions, how),
    ]
    return found


def _words(results: Results, how: Aggregation) -> Iterator[_Word]:
    """Yield words in the data set's order; the orders of one word and pair follow each other."""
    for key, rows in _pairs(results):
        rows = _kept(rows, [bool(results.read("correct", row)) for row in rows], how.correct_only)
        if not rows:
            continue
        values = statistics.combine_orders([_canonical(results, row, how) for row in rows])
        labels, entries = _labels(results, rows[0]), values
        if how.pooling == "run":
            runs = [_runs(results, row, how) for row in rows]
            labels = [label for own, _ in runs for label in own]
            entries = np.concatenate([shares for _, shares in runs], axis=1)
        pair = str(results.read("pair", rows[0]))
        yield _Word(key.rpartition("/")[0], pair, values, labels, entries)


def _kept(rows: list[int], correct: list[bool], only: str | None) -> list[int]:
    """Return the orders of a word and pair that count."""
    if only == "sample":
        return [row for row, is_right in zip(rows, correct, strict=True) if is_right]
    return rows if only is None or all(correct) else []


def _labels(results: Results, row: int) -> list[str]:
    return [unit["label"] for unit in json.loads(results.read("units", row))]


def _runs(results: Results, row: int, how: Aggregation) -> tuple[list[str], np.ndarray]:
    """Return the label and the canonical first feature's share of each run, (layer, run)."""
    units = json.loads(results.read("units", row))
    runs = statistics.phone_runs(units)
    if len(runs) == len(units):
        return _labels(results, row), _canonical(results, row, how)
    mass = results.read("mass", row)
    sizes = [int(results.read(f"n_dim{n}_tokens", row)) for n in (1, 2)]
    shown = statistics.run_fractions(
        results.read("fraction_sum", row),
        mass,
        runs,
        (sizes[0], sizes[1]) if how.normalize == "mean" else None,
    )
    attended = np.stack([mass[..., run].sum(axis=-1) for run in runs], axis=-1) > 0
    flipped = bool(results.read("flipped", row))
    shares = statistics.canonical_fraction(shown, flipped, attended).mean(axis=1)
    return [units[run[0]]["label"] for run in runs], shares


def _pairs(results: Results) -> Iterator[tuple[str, list[int]]]:
    """Yield the id of each word and pair, without the order, and the rows of its orders."""
    numbered = enumerate(results.sample_ids)
    for key, group in groupby(numbered, key=lambda item: item[1].rpartition("/")[0]):
        yield key, [row for row, _ in group]


def _canonical(results: Results, row: int, how: Aggregation) -> np.ndarray:
    """Return the canonical first feature's fraction of one sample, (layer, unit)."""
    shown = results.read(f"fraction_{how.normalize}", row)
    attended = results.read("mass", row) > 0
    flipped = bool(results.read("flipped", row))
    return statistics.canonical_fraction(shown, flipped, attended).mean(axis=1)


def _phone_maps(
    means: statistics.PhoneMeans, rows: _Rows, dimensions: list[str], how: Aggregation
) -> list[Named]:
    share = "share of the first feature"
    low = np.zeros(means.mean.shape)
    high = np.ones(means.mean.shape)
    place = {phone: i for i, phone in enumerate(means.phones)}
    for column, pair in enumerate(dimensions):
        units = rows.units[pair]
        labels, estimate = statistics.permutation_baseline(
            np.stack([values for _, _, values in units]),
            [label for label, _, _ in units],
            [word for _, word, _ in units],
            seed=how.seed,
            n_permutations=min(how.resamples, 200),
        )
        columns = [place[label] for label in labels]
        low[:, columns, column], high[:, columns, column] = estimate.low, estimate.high
    count = np.broadcast_to(means.n_words, means.mean.shape)
    # Never seen together: 0 words, and a value that the count says to leave blank.
    mean = np.where(count > 0, means.mean, 0.0)
    about = f"{share}, phones shuffled between words"
    runs = how.pooling == "run"
    definition = how.definition + f", {PHONE_MEANS['run']}" * runs
    counted = "runs of the phone" if runs else "words"
    return [
        (PhoneMap("phone_dimension", share, definition=definition), mean),
        (PhoneMap("phone_dimension_count", counted, dtype="int64"), count),
        (PhoneMap("phone_permutation_low", f"{about}, lower 95 % bound"), low),
        (PhoneMap("phone_permutation_high", f"{about}, upper 95 % bound"), high),
    ]


def _curves(rows: _Rows, dimensions: list[str], how: Aggregation) -> list[Named]:
    curves = statistics.dimension_curves(
        np.stack(rows.means),
        rows.words,
        rows.pairs,
        dimensions,
        seed=how.seed,
        n_resamples=how.resamples,
    )
    names = ("dimension_curve", "dimension_curve_low", "dimension_curve_high")
    about = "share of the first feature"
    bounds = ("", ", lower 95 % bound", ", upper 95 % bound")
    return [
        (DimensionCurve(name, about + bound, definition=how.definition), value)
        for name, bound, value in zip(names, bounds, curves, strict=True)
    ]


def _chosen(how: Aggregation) -> list[Named]:
    """Name the layers and heads that the stored axes count, if they are not all."""
    return [
        (Document(name, f"{name} that are stored"), json.dumps(list(chosen)))
        for name, chosen in (("layers", how.layers), ("heads", how.heads))
        if chosen is not None
    ]


def _answers(results: Results, how: Aggregation) -> list[Named]:
    correct = np.concatenate([b["correct"] for b in results.stream(["correct"])])
    found = _estimates("accuracy", "answered correctly", correct, how)
    pairs = [rows for _, rows in _pairs(results)]
    kept = [_kept(rows, [bool(correct[row]) for row in rows], how.correct_only) for rows in pairs]
    dropped = sum(not rows for rows in kept), len(results) - sum(map(len, kept))
    about = "words and pairs left out as answered wrongly"
    found.append((Scalar("n_dropped", about, dtype="int64"), dropped[0]))
    about = "samples left out as answered wrongly, or with their pair"
    found.append((Scalar("n_dropped_samples", about, dtype="int64"), dropped[1]))
    return found


def _knockout(results: Results, how: Aggregation) -> list[Named]:
    found: list[Named] = []
    for band in ("baseline", *CONDITIONS):
        for stored, measure in (("correct", "accuracy"), ("answer_change", "answer_change")):
            name = f"knockout_{band}_{stored}"
            if name in results.fields:
                values = np.concatenate([b[name] for b in results.stream([name])])
                about = f"{measure.replace('_', ' ')}, {band}"
                found += _estimates(f"knockout_{band}_{measure}", about, values, how)
    if found and "n_options" in results.fields:
        sizes = np.concatenate([b["n_options"] for b in results.stream(["n_options"])])
        found.append((Scalar("chance_accuracy", "accuracy of guessing"), (1 / sizes).mean()))
    return found


def _estimates(name: str, about: str, values: np.ndarray, how: Aggregation) -> list[Named]:
    estimate = bootstrap_mean(values, seed=how.seed, n_resamples=how.resamples)
    bounds = {"": "", "_low": ", lower 95 % bound", "_high": ", upper 95 % bound"}
    return [
        (Scalar(f"{name}{suffix}", about + bound), value)
        for (suffix, bound), value in zip(bounds.items(), estimate, strict=True)
    ]


def _list(labels: list[str] | tuple[str, ...]) -> str:
    return json.dumps(list(labels), ensure_ascii=False)
