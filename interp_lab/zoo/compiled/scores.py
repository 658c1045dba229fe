"""How well a score of heads finds those that are used, on a model whose heads are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp_lab.zoo.compiled.truth import Truth

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Found:
    """What a score says of heads, held against the truth.

    A head is accepted if its score is among the k highest, k being the number of used heads; a tie
    at the border is decided by layer and head.

    Args:
        auroc: chance that a used head scores higher than one that is not, a tie counting half.
        auroc_readers: the same of used heads that look at the image, against all others.
        used_found: used heads that are accepted, of k.
        decoys_accepted: decoys that are accepted.
        sinks_accepted: sinks that are accepted.
        redundant_missed: redundant heads that are not accepted.
    """

    auroc: float
    auroc_readers: float
    used_found: int
    decoys_accepted: int
    sinks_accepted: int
    redundant_missed: int


def held_against(truth: Truth, scores: Floats) -> Found:
    """Hold the score of every head, (layer, head), against the truth.

    Raises:
        ValueError: if the scores are not of this model's shape, or not all numbers.
    """
    last = max(head.place for head in truth.heads)
    shape = last[0] + 1, last[1] + 1
    if scores.shape != shape or not np.isfinite(scores).all():
        raise ValueError(
            f"scores of {truth.model} are finite numbers of shape {shape}, got {scores.shape} with "
            f"{np.isfinite(scores).sum()} finite"
        )
    used = truth.places("used")
    readers = used & truth.places("looks_at_image")
    order = np.argsort(-scores, axis=None, kind="stable")[: len(used)]
    accepted = {divmod(int(i), shape[1]) for i in order}
    return Found(
        auroc=auroc(scores, used),
        auroc_readers=auroc(scores, readers),
        used_found=len(accepted & used),
        decoys_accepted=len(accepted & truth.places("decoy")),
        sinks_accepted=len(accepted & truth.places("sink")),
        redundant_missed=len(truth.places("redundant_with") - accepted),
    )


def auroc(scores: Floats, positive: set[tuple[int, int]]) -> float:
    """Return the chance that a positive head scores higher than another, a tie counting half."""
    is_positive = np.zeros(scores.shape, dtype=bool)
    for place in positive:
        is_positive[place] = True
    ours, others = scores[is_positive][:, None], scores[~is_positive][None]
    return float(((ours > others) + 0.5 * (ours == others)).mean())
