"""Statistics over samples whose memory does not grow with their number."""

from collections.abc import Iterator

import numpy as np

from interp_lab.fields import Histogram
from interp_lab.store.results import Results


class RunningMoments:
    """Mean, standard deviation and range along the first axis, fed block by block.

    The blocks' moments are combined pairwise (Chan, Golub and LeVeque 1983), in float64, so that
    a long run loses no precision.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lowest = np.inf
        self.highest = -np.inf
        self._mean: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def update(self, block: np.ndarray) -> None:
        """Take a block (n, *axes)."""
        values = block.astype(np.float64)
        n = len(values)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        total = self.count + n
        delta = mean - self._mean
        self._mean = self._mean + delta * (n / total)
        self._squares = self._squares + squares + delta**2 * (self.count * n / total)
        self.count = total
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))

    @property
    def mean(self) -> np.ndarray:
        """(*axes)"""
        return np.asarray(self._mean)

    @property
    def std(self) -> np.ndarray:
        """(*axes), population standard deviation; 0 for a single sample."""
        return np.sqrt(np.asarray(self._squares) / max(self.count, 1))


def histogram(
    results: Results, name: str, lowest: float, highest: float, bins: int = 100
) -> tuple[Histogram, np.ndarray]:
    """Return the pooled counts of a stacked field in equal bins from `lowest` to `highest`."""
    if highest <= lowest:
        highest = lowest + max(abs(lowest), 1.0) * 1e-6
    counts = np.zeros(bins, dtype=np.int64)
    for block in results.stream([name]):
        counts += np.histogram(block[name], bins=bins, range=(lowest, highest))[0]
    return _histogram_field(results, name, lowest, highest), counts


def ragged_histogram(results: Results, name: str, bins: int = 100) -> tuple[Histogram, np.ndarray]:
    """Return the pooled counts of a field whose arrays differ in shape from sample to sample."""

    def arrays() -> Iterator[np.ndarray]:
        return (np.asarray(results.read(name, i)) for i in results.sample_ids)

    lowest = min(float(values.min()) for values in arrays())
    highest = max(float(values.max()) for values in arrays())
    if highest <= lowest:
        highest = lowest + max(abs(lowest), 1.0) * 1e-6
    counts = np.zeros(bins, dtype=np.int64)
    for values in arrays():
        counts += np.histogram(values, bins=bins, range=(lowest, highest))[0]
    return _histogram_field(results, name, lowest, highest), counts


def _histogram_field(results: Results, name: str, lowest: float, highest: float) -> Histogram:
    of = results.fields[name]
    return Histogram(
        f"histogram_{name}",
        of.about,
        unit=of.unit,
        definition=of.definition,
        lowest=lowest,
        highest=highest,
    )
