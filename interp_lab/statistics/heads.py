"""Statistics of which head wins a layer, and of answers: counts, diversity, and how sure they are.

Pure functions of NumPy arrays, so that each can be checked by hand. A head wins a layer of a sample
if its score is the highest there; on ties the first index wins. Sizes: n samples, n_layers,
n_heads. Every random number comes from a seed, so the same samples give the same intervals.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

# Numbers drawn at once by the bootstrap: bounds its memory at 8 bytes each.
NUMBERS_AT_ONCE = 4_000_000


class Estimate(NamedTuple):
    """A number, or an array of them, with its interval; all three have one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def winners(scores: np.ndarray) -> np.ndarray:
    """Return the head with the highest score, the first on ties: (..., n_heads) -> (...) int64."""
    return np.argmax(scores, axis=-1).astype(np.int64)


def winner_counts(winning: np.ndarray, n_heads: int) -> np.ndarray:
    """Return in how many samples each head wins each layer.

    Args:
        winning: head indices (n, n_layers).
        n_heads: heads a layer.

    Returns:
        (n_layers, n_heads) int64; every row sums to n.

    Raises:
        ValueError: if an index is not from 0 to n_heads - 1.
    """
    if winning.size and not 0 <= winning.min() <= winning.max() < n_heads:
        raise ValueError(f"head indices from {winning.min()} to {winning.max()}, of {n_heads}")
    n_layers = winning.shape[1]
    cells = winning + np.arange(n_layers) * n_heads
    counts = np.bincount(cells.ravel().astype(np.int64), minlength=n_layers * n_heads)
    return counts.reshape(n_layers, n_heads)


def distinct_heads(counts: np.ndarray) -> np.ndarray:
    """Return how many heads win at least once: (n_layers, n_heads) -> (n_layers,) int64."""
    return (counts > 0).sum(axis=1)


def entropy_bits(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of the winners, base 2: (n_layers, n_heads) -> (n_layers,).

    `H = -sum_h p_h log2 p_h` with `p_h` the share of samples that head h wins; from 0 (always the
    same head) to log2(n_heads). It is the plug-in estimate: with few samples it lies too low, and
    at most at log2(n). 0 for a layer without samples.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    terms = np.where(share > 0, -share * np.log2(np.where(share > 0, share, 1.0)), 0.0)
    return terms.sum(axis=1)


def top_heads(counts: np.ndarray) -> np.ndarray:
    """Return each layer's most frequent head, the first on ties: (n_layers,) int64."""
    return np.argmax(counts, axis=1).astype(np.int64)


def top_head_share(
    winning: np.ndarray,
    n_heads: int,
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Return the share of samples that each layer's most frequent head wins, with its interval.

    The head is the most frequent one of all samples, and stays so in every resample: the interval
    is that head's, not that of the largest share, which would be biased upwards.

    Args:
        winning: head indices (n, n_layers), n at least 1.
        n_heads: heads a layer.
        seed, n_resamples, level: see `bootstrap_mean`.

    Returns:
        (n_layers,) each.
    """
    heads = top_heads(winner_counts(winning, n_heads))
    return bootstrap_mean(winning == heads, seed=seed, n_resamples=n_resamples, level=level)


def split_half_agreement(
    winning: np.ndarray, n_heads: int, *, seed: int, n_splits: int = 200
) -> np.ndarray:
    """Return how often two random halves of the samples agree on a layer's most frequent head.

    Each split shuffles the samples and takes floor(n / 2) for each half; on ties a half's most
    frequent head is the first. The mean over layers is the mean share of layers that agree.

    Args:
        winning: head indices (n, n_layers), n at least 2.
        n_heads: heads a layer.
        seed: of the splits.
        n_splits: how many.

    Returns:
        (n_layers,), from 0 to 1: share of the splits.

    Raises:
        ValueError: with fewer than 2 samples.
    """
    n, n_layers = winning.shape
    if n < 2:
        raise ValueError("split halves need at least 2 samples")
    rng = np.random.default_rng(seed)
    agreed = np.zeros(n_layers, dtype=np.int64)
    for _ in range(n_splits):
        order = rng.permutation(n)
        halves = winning[order[: n // 2]], winning[order[n // 2 : n // 2 * 2]]
        one, other = (top_heads(winner_counts(half, n_heads)) for half in halves)
        agreed += one == other
    return agreed / n_splits


def head_margins(scores: np.ndarray) -> np.ndarray:
    """Return the highest score minus the second: (..., n_heads) -> (...).

    With one head there is no second, and the margin is the score itself.
    """
    if scores.shape[-1] == 1:
        return scores[..., 0]
    highest = np.partition(scores, -2, axis=-1)[..., -2:]
    return highest[..., 1] - highest[..., 0]


def near_ties(scores: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Return where a win is too close to be trusted: (..., n_heads) -> (...) bool.

    True where `(first - second) / first < threshold`, and where all scores are 0. Scores must not
    be negative.
    """
    first = scores.max(axis=-1)
    # Not divided: a first of 0 is a tie of zeros.
    return (head_margins(scores) < threshold * first) | (first == 0)


def accuracy(
    correct: np.ndarray, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """Return the share of right answers with its interval.

    Args:
        correct: (n,) bool or 0 and 1, n at least 1.
        seed, n_resamples, level: see `bootstrap_mean`.
    """
    return bootstrap_mean(correct, seed=seed, n_resamples=n_resamples, level=level)


def paired_difference(
    after: np.ndarray,
    before: np.ndarray,
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Return the mean of `after - before` over the same samples, with its interval.

    Samples are resampled as pairs, so what makes a sample hard in both does not widen the interval.

    Args:
        after: (n, ...), bool or numbers, n at least 1.
        before: (n, ...), of the same samples.
        seed, n_resamples, level: see `bootstrap_mean`.

    Raises:
        ValueError: if the shapes differ.
    """
    if after.shape != before.shape:
        raise ValueError(f"pairs need one shape: {after.shape} and {before.shape}")
    difference = after.astype(np.float64) - before.astype(np.float64)
    return bootstrap_mean(difference, seed=seed, n_resamples=n_resamples, level=level)


def bootstrap_mean(
    values: np.ndarray, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """Return the mean over samples with its percentile bootstrap interval.

    Whole samples are drawn with replacement, so layers stay together. The interval says how the
    mean varies with the samples; one sample alone gives an interval of width 0, and values that
    are all equal do too, however few they are.

    Args:
        values: (n, ...), n at least 1.
        seed: of the draws.
        n_resamples: how many.
        level: the interval's, such as 0.95.

    Returns:
        (...) each, float64.

    Raises:
        ValueError: without samples.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) == 0:
        raise ValueError("a mean needs at least 1 sample")
    mean = numbers.mean(axis=0)
    if len(numbers) == 1:
        return Estimate(mean, mean.copy(), mean.copy())
    found = stats.bootstrap(
        (numbers,),
        np.mean,
        axis=0,
        method="percentile",
        n_resamples=n_resamples,
        confidence_level=level,
        batch=max(1, NUMBERS_AT_ONCE // numbers.size),
        random_state=np.random.default_rng(seed),
    )
    interval = found.confidence_interval
    return Estimate(mean, np.asarray(interval.low), np.asarray(interval.high))
