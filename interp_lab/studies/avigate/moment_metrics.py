"""How well moments of a video were found: temporal overlap, recall at 1, average precision.

The definitions are those of the QVHighlights benchmark (Lei, Berg and Bansal 2021, arXiv
2107.09609, section 5.1) and of its public evaluation, which follows ActivityNet's for detection.
Windows are (n, 2): start and end in seconds; found ones stand in the order of their scores, the
surest first. Pure functions of NumPy arrays, so that each can be checked by hand.
"""

from collections.abc import Sequence

import numpy as np

RECALL_AT = (0.5, 0.7)
PRECISION_AT = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())
# The benchmark takes so many windows of a query into account.
MOST_FOUND = 10


def overlaps(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each found with each true window.

    Args:
        found: (n, 2) seconds.
        true: (m, 2) seconds.

    Returns:
        (n, m), from 0 to 1; 0 where both windows are empty.

    Raises:
        ValueError: if a window ends before it starts.
    """
    found, true = as_windows(found), as_windows(true)
    start = np.maximum(found[:, None, 0], true[None, :, 0])
    end = np.minimum(found[:, None, 1], true[None, :, 1])
    shared = np.maximum(end - start, 0.0)
    lengths = (found[:, 1] - found[:, 0])[:, None] + (true[:, 1] - true[:, 0])[None]
    union = lengths - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def as_windows(windows: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """Return the windows as (n, 2) float64.

    Raises:
        ValueError: if they are no pairs, or one ends before it starts.
    """
    array = np.asarray(windows, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"windows have shape {array.shape}; give pairs [start, end] in seconds")
    if (array[:, 1] < array[:, 0]).any():
        raise ValueError("a window ends before it starts")
    return array


def recall_at_one(found: np.ndarray, true: np.ndarray, threshold: float) -> bool:
    """Return whether the surest window overlaps some true one by at least `threshold`."""
    if len(found) == 0 or len(true) == 0:
        return False
    return bool(overlaps(found[:1], true).max() >= threshold)


def average_precision(found: np.ndarray, true: np.ndarray, threshold: float) -> float:
    """Return the area under the interpolated precision-recall curve of one query.

    From the surest window down, each found window takes the true one that it overlaps most among
    those that are free; it is right if that overlap is at least `threshold`. Precision at a recall
    is the highest at that recall or a larger one.

    Args:
        found: (n, 2) seconds; the first 10 count.
        true: (m, 2) seconds, m at least 1.
        threshold: intersection over union.
    """
    shared = overlaps(found[:MOST_FOUND], true)
    free = np.ones(len(true), dtype=bool)
    right = np.zeros(len(shared), dtype=bool)
    for number, row in enumerate(shared):
        best = int(np.argmax(np.where(free, row, -1.0)))
        right[number] = free[best] and row[best] >= threshold
        free[best] &= not right[number]
    if not right.any():
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[right].sum() / len(true))


def mean_average_precision(found: np.ndarray, true: np.ndarray) -> float:
    """Return one query's average precision, averaged over thresholds 0.5, 0.55, ..., 0.95.

    The mean over queries of this number is the benchmark's mAP.
    """
    return float(np.mean([average_precision(found, true, t) for t in PRECISION_AT]))


def moment_values(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return `r1_0_5`, `r1_0_7` (0 or 1) and `average_precision` of one query.

    Raises:
        ValueError: if there is no true window, or a window is malformed.
    """
    true = as_windows(true)
    found = as_windows(found)
    if len(true) == 0:
        raise ValueError("there is no true window to compare with")
    values = {name_of(t): float(recall_at_one(found, true, t)) for t in RECALL_AT}
    return values | {"average_precision": mean_average_precision(found, true)}


def name_of(threshold: float) -> str:
    """Return the field name of recall at 1 at a threshold: r1_0_5."""
    return f"r1_{threshold:g}".replace(".", "_")
