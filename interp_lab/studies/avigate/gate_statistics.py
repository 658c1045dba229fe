"""Statistics of gates: how large, of which sign, and what goes with them. Pure functions.

Sizes: n samples or values, n_layers. Every random number comes from a seed. Memory is bounded:
percentiles are exact up to `EXACT_UP_TO` values; of more, the nearest value to a millionth of the
range.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from interp_lab.statistics.heads import Estimate

PERCENTILES = {"p5": 5.0, "p25": 25.0, "median": 50.0, "p75": 75.0, "p95": 95.0}
SHARES = ("share_positive", "share_negative", "share_near_zero")
STATISTICS = ("mean", "std", "min", "max", *PERCENTILES, "magnitude", *SHARES)
# About 40 MB of values; elementwise gates of a whole benchmark are more.
EXACT_UP_TO = 10_000_000
BINS = 1_000_000

Blocks = Callable[[], Iterator[np.ndarray]]


def describe(
    blocks: Blocks, near_zero: float, exact_up_to: int = EXACT_UP_TO
) -> dict[str, np.ndarray]:
    """Return every statistic of `STATISTICS` for each layer, and last for all layers together.

    All values count alike: those of every clip and channel of every sample. `std` is the
    population's; a share is of values above `near_zero`, below its negative, or between; magnitude
    is mean |g|; percentiles are interpolated linearly.

    Args:
        blocks: gives an iterator over blocks (n_layers, n); is called twice for many values.
        near_zero: the largest |g| that counts as zero.
        exact_up_to: so many values are held for exact percentiles.

    Returns:
        name -> (n_layers + 1,) float64.

    Raises:
        ValueError: without values.
    """
    found, held = _first_pass(blocks, near_zero, exact_up_to)
    if held is not None:
        rows = [*held, held.ravel()]
        points = np.array([np.percentile(row, list(PERCENTILES.values())) for row in rows])
    else:
        points = _binned_percentiles(blocks, found["min"], found["max"])
    return found | dict(zip(PERCENTILES, points.T, strict=True))


def _first_pass(
    blocks: Blocks, near_zero: float, exact_up_to: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    n, kept, size = 0, [], 0
    mean = squares = magnitude = positive = negative = np.zeros(1)
    low, high = np.array(np.inf), np.array(-np.inf)
    for block in blocks():
        values = block.astype(np.float64)
        m = values.shape[1]
        # Chan, Golub and LeVeque 1983: blocks combine without losing precision.
        own = values.mean(axis=1)
        delta = own - mean
        squares = squares + ((values - own[:, None]) ** 2).sum(axis=1)
        squares = squares + delta**2 * (n * m / (n + m))
        mean = mean + delta * (m / (n + m))
        n += m
        low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
        magnitude = magnitude + np.abs(values).sum(axis=1)
        positive = positive + (values > near_zero).sum(axis=1)
        negative = negative + (values < -near_zero).sum(axis=1)
        size += values.size
        kept = [*kept, values] if size <= exact_up_to else []
    if n == 0:
        raise ValueError("statistics of gates need at least 1 value")
    shares = np.stack([positive, negative, n - positive - negative]) / n
    found = {
        "mean": _with_all(mean),
        "std": np.sqrt(_with_all(squares / n + (mean - mean.mean()) ** 2)),
        "min": np.append(low, low.min()),
        "max": np.append(high, high.max()),
        "magnitude": _with_all(magnitude / n),
        **{name: _with_all(share) for name, share in zip(SHARES, shares, strict=True)},
    }
    found["std"][:-1] = np.sqrt(squares / n)
    return found, np.concatenate(kept, axis=1) if kept else None


def _with_all(layers: np.ndarray) -> np.ndarray:
    """Append the mean: every layer has as many values as the others."""
    return np.append(layers, layers.mean())


def _binned_percentiles(blocks: Blocks, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return percentiles (n_layers + 1, 5) from fine bins; a value is its bin's middle."""
    counts = np.zeros((len(low), BINS), dtype=np.int64)
    width = np.maximum(high - low, np.finfo(np.float64).tiny) / BINS
    for block in blocks():
        for row in range(len(low)):
            values = block[row] if row < len(block) else block.ravel()
            place = ((values.astype(np.float64) - low[row]) / width[row]).astype(np.int64)
            counts[row] += np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)
    found = np.empty((len(low), len(PERCENTILES)))
    for row, cumulative in enumerate(np.cumsum(counts, axis=1)):
        rank = np.array(list(PERCENTILES.values())) / 100 * (cumulative[-1] - 1)
        place = np.searchsorted(cumulative, rank, side="right")
        found[row] = low[row] + (place + 0.5) * width[row]
    return np.clip(found, low[:, None], high[:, None])


def spearman(
    x: np.ndarray, y: np.ndarray, *, seed: int, n_resamples: int, level: float = 0.95
) -> Estimate | None:
    """Return Spearman's rank correlation of each column of x with y, with bootstrap intervals.

    Ties get their mean rank. Pairs are resampled; a resample in which one side is constant has no
    correlation and is left out.

    Args:
        x: (n, n_layers).
        y: (n,).
        seed, n_resamples, level: of the percentile interval.

    Returns:
        (n_layers,) each, or None with fewer than 3 samples or where one side is constant.
    """
    if len(y) < 3 or np.ptp(y) == 0 or (np.ptp(x, axis=0) == 0).any():
        return None
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(y), len(y)) for _ in range(n_resamples)]
    resampled = np.array([_rank_correlation(x[draw], y[draw]) for draw in draws])
    return _percentile_interval(_rank_correlation(x, y), resampled, level)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    one, other = stats.rankdata(x, axis=0), stats.rankdata(y)[:, None]
    one, other = one - one.mean(axis=0), other - other.mean()
    scale = np.sqrt((one**2).sum(axis=0) * (other**2).sum())
    return np.divide(
        (one * other).sum(axis=0), scale, out=np.full(x.shape[1], np.nan), where=scale > 0
    )


def separation(
    x: np.ndarray, first: np.ndarray, *, seed: int, n_resamples: int, level: float = 0.95
) -> Estimate | None:
    """Return the area under the ROC curve: how often the first group's value is the larger.

    It is the Mann-Whitney statistic over the number of pairs, ties counted half: 0.5 is no
    separation. Each group is resampled by itself.

    Args:
        x: (n, n_layers).
        first: (n,) bool; which samples are of the first group.
        seed, n_resamples, level: of the percentile interval.

    Returns:
        (n_layers,) each, or None if a group is empty.
    """
    one, other = x[first], x[~first]
    if not len(one) or not len(other):
        return None
    rng = np.random.default_rng(seed)
    draws = [[rng.integers(0, len(g), len(g)) for g in (one, other)] for _ in range(n_resamples)]
    resampled = np.array([_area(one[first], other[second]) for first, second in draws])
    return _percentile_interval(_area(one, other), resampled, level)


def _area(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    n = len(one)
    ranks = stats.rankdata(np.concatenate([one, other]), axis=0)[:n].sum(axis=0)
    return (ranks - n * (n + 1) / 2) / (n * len(other))


def _percentile_interval(value: np.ndarray, resampled: np.ndarray, level: float) -> Estimate:
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return Estimate(value, low, high)
