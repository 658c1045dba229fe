"""The head that the score names, so that every figure of another head can say where to look."""

from dataclasses import dataclass

import numpy as np

from interp_lab.fields import HeadScores
from interp_lab.store.results import Results
from interp_lab.visualization.toolbox import aggregate_or_none

MEAN = "mean_moving_peak"


@dataclass(frozen=True)
class Standout:
    """The head of the highest score."""

    layer: int
    head: int
    score: float

    def hint(self, layer: int) -> str:
        """Say which head it is, and what draws its film, for a figure of a layer."""
        drawn = f"analysis.layers={self.layer} analysis.heads=[{self.head}]"
        whose = "of this layer" if layer == self.layer else f"of layer {self.layer}"
        which = f"the highest moving peak, {self.score:.2f}, is that of head {self.head} {whose}"
        return f"{which}; {drawn} shows it"


def standout(results: Results) -> Standout | None:
    """Return the head of the highest mean score; None if no head has any."""
    scores = aggregate_or_none(results, MEAN, HeadScores)
    if scores is None or not scores.size or not scores.max() > 0:
        return None
    layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
    return Standout(int(layer), int(head), float(scores.max()))


def hint_beside(results: Results, layer: int, heads: str) -> str:
    """Return what a figure of a layer and head says of the head of the highest score.

    Args:
        results: an open result.
        layer: that is shown.
        heads: that are shown, in words.

    Returns:
        The sentence; nothing where that head is shown, or where none has any score.
    """
    found = standout(results)
    if found is None or (layer, heads) == (found.layer, f"head {found.head}"):
        return ""
    return found.hint(layer).capitalize()
