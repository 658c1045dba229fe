"""What a model of moment retrieval says of one video and one query."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Predicted moments, best first.

    Args:
        spans: (n_queries, 2), start and end in seconds, within the video.
        scores: (n_queries,), the probability of being a moment, falling.
        saliency: (n_clips,), how well each clip fits the query; no unit, higher is better.
        loss: how wrong the prediction is by the model's own criterion, or None where the data set
            does not say which moments are right.
    """

    spans: np.ndarray
    scores: np.ndarray
    saliency: np.ndarray
    loss: float | None = None
