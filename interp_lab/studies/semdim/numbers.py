"""The numbers of semdim over all words: phone and dimension means, curves, accuracy, knock-out.

Option orders of one word and pair are averaged first; heads are averaged within a word. What a
phone or dimension is given is the share of the pair's canonical first feature.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp_lab.errors import ConfigError
from interp_lab.fields import DimensionCurve, Document, Field, PhoneMap, Scalar
from interp_lab.statistics.heads import bootstrap_mean
from interp_lab.store.results import Results
from interp_lab.studies.semdim import shares as statistics
from interp_lab.studies.semdim.head_fields import Numbers, head_fields
from interp_lab.studies.semdim.heads import HeadTotals
from interp_lab.studies.semdim.knockout import CONDITIONS
from interp_lab.studies.semdim.report import report
from interp_lab.studies.semdim.samples import (
    Aggregation,
    Pooling,
    Word,
    kept,
    pairs_of,
    words_of,
)

log = logging.getLogger(__name__)
Named = tuple[Field, Any]
PHONE_MEANS = {"word": "semdim.phone_mean/1", "run": "semdim.phone_runs/1"}


@dataclass
class _Rows:
    """Everything that the statistics need of all words, a few numbers each."""

    words: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    units: dict[str, list[tuple[str, str, np.ndarray]]] = field(default_factory=dict)
    entries: list[tuple[str, list[str], np.ndarray, np.ndarray]] = field(default_factory=list)
    heads: HeadTotals = field(default_factory=HeadTotals)

    def add(self, word: Word, pooled: bool) -> None:
        self.words.append(word.word)
        self.pairs.append(word.pair)
        self.means.append(word.values.mean(axis=1))
        self.entries.append((word.pair, word.labels, word.entries, word.mass))
        if word.asked is not None:
            self.heads.update(word.word, word.asked)
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
    for word in words_of(results, how):
        rows.add(word, pooled)
    if not rows.words:
        log.warning("numbers.correct_only=%s leaves no word: there are no means", how.correct_only)
        return found
    dimensions = sorted(set(rows.pairs))
    totals, masses = (
        statistics.PhoneTotals(len(rows.means[0]), dimensions, pooled) for _ in range(2)
    )
    for pair, labels, entries, mass in rows.entries:
        totals.update(pair, labels, entries)
        masses.update(pair, labels, mass)
    means = totals.compute()
    found += [
        (
            Document("dimensions", "dimensions, the canonical first feature first"),
            _list(dimensions),
        ),
        (Document("phones", "phones or tokens"), _list(means.phones)),
        *_phone_maps(means, masses.compute().mean, rows, dimensions, how),
        *_curves(rows, dimensions, how),
        *head_fields(
            rows.heads,
            dimensions,
            Numbers(how.layers, how.heads),
            seed=how.seed,
            n_permutations=how.permutations,
        ),
    ]
    return found


def _phone_maps(
    means: statistics.PhoneMeans,
    mass: np.ndarray,
    rows: _Rows,
    dimensions: list[str],
    how: Aggregation,
) -> list[Named]:
    share = "share of the first feature"
    count = np.broadcast_to(means.n_words, means.mean.shape)
    runs = how.pooling == "run"
    definition = how.definition + f", {PHONE_MEANS['run']}" * runs
    counted = "runs of the phone" if runs else "words"
    attention = "attention of a dimension word's token on the phone, mean over heads"
    # Never seen together: 0 words, and a value that the count says to leave blank.
    mean, mass = (np.where(count > 0, one, 0.0) for one in (means.mean, mass))
    return [
        (PhoneMap("phone_dimension", share, definition=definition), mean),
        (PhoneMap("phone_mass", attention, definition="semdim.phone_mass/1"), mass),
        (PhoneMap("phone_dimension_count", counted, dtype="int64"), count),
        *_chance(means.phones, rows, dimensions, how),
    ]


def _chance(
    phones: Sequence[str], rows: _Rows, dimensions: list[str], how: Aggregation
) -> list[Named]:
    """Return where shares lie with phones shuffled: each cell by itself, and all together."""
    place = {phone: i for i, phone in enumerate(phones)}
    found = []
    for pair in dimensions:
        units = rows.units[pair]
        found.append(
            statistics.shuffle_phones(
                np.stack([values for _, _, values in units]),
                [label for label, _, _ in units],
                [word for _, word, _ in units],
                seed=how.seed,
                n_permutations=how.permutations,
            )
        )
    shape = (len(rows.means[0]), len(phones), len(dimensions))
    low, high, all_low, all_high = np.zeros(shape), np.ones(shape), np.zeros(shape), np.ones(shape)
    together = statistics.familywise_bounds(found)
    for column, (one, ends) in enumerate(zip(found, together, strict=True)):
        columns = [place[label] for label in one.labels]
        low[:, columns, column], high[:, columns, column] = one.estimate.low, one.estimate.high
        all_low[:, columns, column], all_high[:, columns, column] = ends
    about = "share of the first feature, phones shuffled between words"
    joint = "semdim.phone_familywise/1"
    all_cells = f"{about}, of all cells together"
    return [
        (PhoneMap("phone_permutation_low", f"{about}, lower 95 % bound"), low),
        (PhoneMap("phone_permutation_high", f"{about}, upper 95 % bound"), high),
        (PhoneMap("phone_familywise_low", f"{all_cells}, lower bound", definition=joint), all_low),
        (
            PhoneMap("phone_familywise_high", f"{all_cells}, upper bound", definition=joint),
            all_high,
        ),
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
    pairs = [rows for _, rows in pairs_of(results)]
    counted = [kept(rows, [bool(correct[row]) for row in rows], how.correct_only) for rows in pairs]
    dropped = sum(not rows for rows in counted), len(results) - sum(map(len, counted))
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
