"""Figures of heads: what is drawn are the numbers of the result, each under its own layer and head.

The results are written by the real store, with aggregates by the real statistics.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from interp_lab.analyses import head_statistics as heads
from interp_lab.fields import Field, HeadCounts, HeadIndex, HeadScores, LayerCurve, Scalar
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results

DEFINITION = "scienceqa.max_text_to_image/1"
SHARE_ENDS = ("", "_low", "_high")


def planted_scores(n: int, n_layers: int, n_heads: int, seed: int = 0) -> np.ndarray:
    """Scores (n, n_layers, n_heads) in which layer l prefers head (3 l + 1) mod n_heads.

    The preference falls from the first layer (always) to the last (hardly).
    """
    rng = np.random.default_rng(seed)
    scores = rng.random((n, n_layers, n_heads)) * 0.5
    for layer in range(n_layers):
        strength = 0.55 * (1 - layer / n_layers) + 0.02
        scores[:, layer, (3 * layer + 1) % n_heads] += strength
    return scores.astype(np.float32)


def estimates(name: str, about: str, kind: type[Field], estimate: heads.Estimate) -> list:
    """The three fields of a number and its interval."""
    return [(kind(f"{name}{e}", about), v) for e, v in zip(SHARE_ENDS, estimate, strict=True)]


def statistics(scores: np.ndarray, correct: np.ndarray) -> list[tuple[Field, object]]:
    """The aggregates of a run, as an analysis of heads gives them."""
    n, _, n_heads = scores.shape
    winning = heads.winners(scores)
    counts = heads.winner_counts(winning, n_heads)
    about = "samples in which the head scores highest"
    share = heads.top_head_share(winning, n_heads, seed=0)
    found: list[tuple[Field, object]] = [
        (HeadCounts("layer_head_counts", about, definition=DEFINITION), counts),
        (LayerCurve("distinct_heads", "heads that win at least once"), heads.distinct_heads(counts)),
        (LayerCurve("entropy_bits", "entropy of the winners", "bit"), heads.entropy_bits(counts)),
        (LayerCurve("near_tie_share", "near ties, margin below 1 %"), heads.near_tie_share(scores)),
        (HeadScores("mean_scores", "mean score", definition=DEFINITION), scores.mean(0)),
        *estimates("top_head_share", "share of samples", LayerCurve, share),
        *estimates("accuracy", "accuracy", Scalar, heads.accuracy(correct, seed=0)),
    ]
    for word, chosen in (("right", correct), ("wrong", ~correct)):
        split = heads.winner_counts(winning[chosen], n_heads)
        found.append((HeadCounts(f"layer_head_counts_{word}", about, definition=DEFINITION), split))
    if n > 1:
        agreement = heads.split_half_agreement(winning, n_heads, seed=0)
        found.append((LayerCurve("split_half_agreement", "agreement of split halves"), agreement))
    return found


def knockouts() -> list[tuple[Field, object]]:
    """Numbers of three conditions; the random heads' logit difference is below zero."""
    found: list[tuple[Field, object]] = []
    for condition, accuracy, logit in (
        ("winners", 0.4, 0.3), ("baseline", 0.9, 2.5), ("random", 0.85, -0.4)
    ):  # fmt: skip
        for measure, value in (("accuracy", accuracy), ("logit_difference", logit)):
            spread = heads.Estimate(*(np.array(value + d) for d in (0, -0.08, 0.08)))
            found += estimates(f"knockout_{condition}_{measure}", measure, Scalar, spread)
    return found


@pytest.fixture
def write_heads(tmp_path: Path) -> Callable[..., Results]:
    """Return a function that writes a result of heads and opens it."""
    return lambda *args, **options: written(tmp_path, *args, **options)


def written(
    folder: Path,
    n: int = 40,
    n_layers: int = 4,
    n_heads: int = 4,
    *,
    scores: np.ndarray | None = None,
    correct: np.ndarray | None = None,
    without: tuple[str, ...] = (),
    has_knockout: bool = True,
) -> Results:
    """Write a result into `folder` and open it."""
    scores = planted_scores(n, n_layers, n_heads) if scores is None else scores
    n = len(scores)
    correct = np.arange(n) % 5 != 4 if correct is None else correct
    fields = [
        HeadScores("scores", "highest attention", definition=DEFINITION),
        HeadIndex("max_head_per_layer", "head that scores highest", definition=DEFINITION),
    ]
    writer = PartWriter(folder / "parts", fields, size=10_000, seconds=1e9)
    for i, one in enumerate(scores):
        writer.add(i, str(i), {"scores": one, "max_head_per_layer": heads.winners(one)})
    writer.flush()
    aggregates = statistics(scores, correct) + (knockouts() if has_knockout else [])
    kept = [(f, v) for f, v in aggregates if f.name not in without]
    attributes = {"task_name": "scienceqa", "model": "llava_1_5_7b", "dataset": "scienceqa"}
    final = folder / "results.h5"
    merge(list_parts(folder / "parts"), [str(i) for i in range(n)], final, attributes,
          lambda results: kept)  # fmt: skip
    return open_results(final)
