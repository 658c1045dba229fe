"""Which heads look at one place of the image after the other while the answer is written.

A mean over heads hides such a head, and so does a mean over steps: it looks at the image when it
needs it. The score asks for several places, since many models have heads that look at one and the
same cell all the time, whatever is written.
"""

import numpy as np

PEAK = "trajectory.moving_peak/1"
PEAK_SHARE = "trajectory.peak_share/1"
PEAK_CELL = "trajectory.peak_cell/1"
# So many places a head must look at.
PLACES = 3
MEANING = (
    "The score of a head is the largest x for which three different image cells get at least x of "
    "its attention, each at a token at which no image cell gets more"
)


def moving_peak(peaks: np.ndarray, cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the score of each head, (layer, head), 0 to 1.

    A step's peak is the image cell with the largest attention of the row that predicts the token.
    A cell counts with the largest attention that it gets as a peak, in any step; the score is the
    third largest of these numbers. A head that looks at one or two cells only scores 0, and so does
    an answer of fewer than three tokens.

    Args:
        peaks: (layer, head, step) attention on the peak.
        cells: (layer, head, step) which cell it is, below `n_cells`.
        n_cells: of all images together.
    """
    n_layers, n_heads, n_steps = peaks.shape
    if min(n_cells, n_steps) < PLACES:
        return np.zeros((n_layers, n_heads), dtype=np.float32)
    highest = np.zeros((n_layers, n_heads, n_cells), dtype=np.float32)
    layer, head = np.ogrid[:n_layers, :n_heads]
    for step in range(n_steps):
        at = (layer, head, cells[:, :, step])
        highest[at] = np.maximum(highest[at], peaks[:, :, step])
    return np.partition(highest, -PLACES, axis=-1)[..., -PLACES]


def of_best_heads(
    scores: np.ndarray, peaks: np.ndarray, cells: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each layer's head of the highest score, and its peaks step by step.

    Args:
        scores: (layer, head).
        peaks, cells: (layer, head, step), as for `moving_peak`.
    """
    best = scores.argmax(axis=1)
    layers = np.arange(len(best))
    return {"peak_head": best, "peak_share": peaks[layers, best], "peak_cell": cells[layers, best]}
