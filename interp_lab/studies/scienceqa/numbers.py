"""The numbers of scienceqa over all samples: who wins, how surely, and what answers have to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.errors import ConfigError
from interp_lab.fields import Field, HeadCounts, HeadScores, LayerCurve, Scalar
from interp_lab.statistics import heads as statistics
from interp_lab.statistics.heads import Estimate
from interp_lab.store.results import Results
from interp_lab.studies.scienceqa.exports import export
from interp_lab.studies.scienceqa.knockout import CONDITIONS

Named = tuple[Field, Any]


class HeadNumbers:
    """Winner counts, shares with intervals, agreement, diversity, accuracy, the report.

    Args:
        top_k: heads a layer that the text report and the figures name.
        near_tie: a layer's winner is a near-tie if (first - second) / first is below this.
        bootstrap: resamples of the intervals.
        seed: of resamples and splits.
    """

    needs = ("max_head_per_layer",)

    def __init__(
        self, top_k: int = 5, near_tie: float = 0.01, bootstrap: int = 2000, seed: int = 0
    ) -> None:
        if top_k < 1 or bootstrap < 100:
            raise ConfigError("numbers: top_k from 1 on, bootstrap from 100 on")
        self.top_k = top_k
        self.near_tie = near_tie
        self.options = {"seed": seed, "n_resamples": bootstrap}
        self.definitions: dict[str, str] = {}

    def compute(self, results: Results) -> list[Named]:
        """Return the fields over the run; without an image samples count for the answers only."""
        rows = list(results.stream(["max_head_per_layer", "correct"]))
        winning = np.concatenate([r["max_head_per_layer"] for r in rows])
        correct = np.concatenate([r["correct"] for r in rows]).astype(bool)
        with_image = winning[:, 0] >= 0
        options, definition = self.options, results.definitions["scores"]
        found = _estimates(
            "accuracy", "answered correctly", statistics.accuracy(correct, **options)
        )
        found += _knockout(results, options)
        found.append(
            (Scalar("n_with_image", "samples with an image", dtype="int64"), with_image.sum())
        )
        if with_image.any():
            n_heads = next(results.stream(["scores"], 1))["scores"].shape[2]
            found += winner_fields(winning[with_image], n_heads, definition, options)
            found += _by_answer(winning[with_image], correct[with_image], n_heads, definition)
            found += _scores(results, definition, self.near_tie)
        return found

    def export(self, results: Results, folder: Path) -> None:
        """Write records, statistics and the text report under the names that scripts know."""
        export(results, folder, self.top_k)


def winner_fields(
    winning: np.ndarray, n_heads: int, definition: str, options: dict[str, int]
) -> list[Named]:
    """Return counts, diversity, the first head's share with its interval, split-half agreement.

    Args:
        winning: head indices (n, n_layers).
        n_heads: heads a layer.
        definition: of the scores that were won with.
        options: seed and n_resamples of the bootstrap.
    """
    counts = statistics.winner_counts(winning, n_heads)
    share = statistics.top_head_share(winning, n_heads, **options)
    found: list[Named] = [
        (
            HeadCounts(
                "layer_head_counts",
                "samples in which the head looks hardest",
                definition=definition,
            ),
            counts,
        ),
        (LayerCurve("distinct_heads", "distinct heads"), statistics.distinct_heads(counts)),
        (LayerCurve("entropy_bits", "entropy", unit="bit"), statistics.entropy_bits(counts)),
    ]
    for suffix, value in zip(("", "_low", "_high"), share, strict=True):
        about = "share of the most frequent head"
        found.append((LayerCurve(f"top_head_share{suffix}", about + _bound(suffix)), value))
    if len(winning) > 1:
        agreement = statistics.split_half_agreement(winning, n_heads, seed=options["seed"])
        about = "two halves name the same most frequent head"
        found.append((LayerCurve("split_half_agreement", about), agreement))
    return found


def _by_answer(
    winning: np.ndarray, correct: np.ndarray, n_heads: int, definition: str
) -> list[Named]:
    found: list[Named] = []
    for name, chosen in (("right", correct), ("wrong", ~correct)):
        if chosen.any():
            about = f"wins where the answer is {name}"
            field = HeadCounts(f"layer_head_counts_{name}", about, definition=definition)
            found.append((field, statistics.winner_counts(winning[chosen], n_heads)))
    return found


def _scores(results: Results, definition: str, near_tie: float) -> list[Named]:
    """Mean scores and near-ties, block by block: all scores of a long run need not fit."""
    total, ties, n = 0.0, 0.0, 0
    for scores in _scores_with_image(results):
        total = total + scores.sum(axis=0, dtype=np.float64)
        ties = ties + statistics.near_ties(scores, near_tie).sum(axis=0)
        n += len(scores)
    about = f"near-ties (the first leads by less than {near_tie:.0%})"
    mean = f"mean over samples: {results.fields['scores'].about}"
    return [
        (HeadScores("mean_scores", mean, definition=definition), total / n),
        (LayerCurve("near_tie_share", about), ties / n),
    ]


def _scores_with_image(results: Results) -> Iterator[np.ndarray]:
    for block in results.stream(["scores", "max_head_per_layer"]):
        chosen = block["max_head_per_layer"][:, 0] >= 0
        if chosen.any():
            yield block["scores"][chosen]


def _knockout(results: Results, options: dict[str, int]) -> list[Named]:
    if "knockout_baseline_correct" not in results.fields:
        return []
    found: list[Named] = []
    for stored, measure in (("correct", "accuracy"), ("logit_difference",) * 2):
        values = {}
        for condition in CONDITIONS:
            name = f"knockout_{condition}_{stored}"
            if name not in results.fields:
                continue
            values[condition] = np.concatenate([b[name] for b in results.stream([name])])
            about = f"{measure.replace('_', ' ')}, {condition}"
            estimate = statistics.bootstrap_mean(values[condition], **options)
            found += _estimates(f"knockout_{condition}_{measure}", about, estimate)
        if "winners" not in values:
            continue
        # The same samples under both conditions: what makes one hard does not widen the interval.
        paired = statistics.paired_difference(values["winners"], values["random"], **options)
        about = f"{measure.replace('_', ' ')}, winners blocked less random heads blocked"
        found += _estimates(f"winners_less_random_{measure}", about, paired)
    return found


def _estimates(name: str, about: str, estimate: Estimate) -> list[Named]:
    return [
        (Scalar(f"{name}{suffix}", about + _bound(suffix)), value)
        for suffix, value in zip(("", "_low", "_high"), estimate, strict=True)
    ]


def _bound(suffix: str) -> str:
    return {"": "", "_low": ", lower 95 % bound", "_high": ", upper 95 % bound"}[suffix]
