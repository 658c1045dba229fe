"""Which of two features attends to a part of a word: shares, means over words, how sure they are.

Pure functions of NumPy arrays, so that each can be checked by hand. A unit is a phone or a token of
the word. A fraction belongs to the first feature of a pair, and 0.5 means no preference; what is
averaged over option orders or words belongs to the canonical first feature. Every random number
comes from a seed. Sizes: n rows, n_layers, n_heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from interp_lab.statistics.heads import Estimate, bootstrap_mean

Groups = Sequence[Sequence[int]]
Normalize = Literal["sum", "mean"]


def masses(
    block: np.ndarray,
    units: Groups,
    dim1: Sequence[int],
    dim2: Sequence[int],
    normalize: Normalize = "sum",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the attention of two features on each unit of the word.

    `S_i = sum_{q in dim_i} sum_{k in unit} A[layer, head, q, k]`; with `mean` divided by the number
    of the feature's tokens, so that a long feature is not favoured.

    Args:
        block: attention after softmax (n_layers, n_heads, query, key).
        units: key indices of each unit.
        dim1: query indices of the first feature's tokens.
        dim2: of the second's.
        normalize: sum or mean over the feature's tokens.

    Returns:
        S_1 and S_2, (n_layers, n_heads, unit) float64 each.

    Raises:
        ValueError: if a feature has no token, or `normalize` is neither.
    """
    if not len(dim1) or not len(dim2):
        raise ValueError("a feature without tokens has no attention")
    if normalize not in ("sum", "mean"):
        raise ValueError(f"normalize={normalize!r}: should be sum or mean")
    pattern = np.asarray(block, dtype=np.float64)
    members = np.zeros((len(units), pattern.shape[-1]))
    for row, keys in zip(members, units, strict=True):
        row[list(keys)] = 1
    both = []
    for queries in (dim1, dim2):
        rows = pattern[:, :, list(queries)].sum(axis=2) @ members.T
        both.append(rows / len(queries) if normalize == "mean" else rows)
    return both[0], both[1]


def ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return `first / (first + second)`, and 0 where both are 0 (the study's convention)."""
    total = first + second
    return np.divide(first, total, out=np.zeros_like(total, dtype=np.float64), where=total > 0)


def fraction(
    block: np.ndarray,
    units: Groups,
    dim1: Sequence[int],
    dim2: Sequence[int],
    normalize: Normalize = "sum",
) -> np.ndarray:
    """Return the first feature's share of the attention on each unit (LEX-ICON's fraction).

    `S_1 / (S_1 + S_2)`, 0 where nothing attends (arXiv 2511.10045); arguments and errors as in
    `masses`.

    Returns:
        (n_layers, n_heads, unit) float64 from 0 to 1.
    """
    return ratio(*masses(block, units, dim1, dim2, normalize))


def canonical_fraction(
    shown: np.ndarray, flipped: bool, attended: np.ndarray | None = None
) -> np.ndarray:
    """Return the canonical first feature's fraction from that of the feature shown first.

    Args:
        shown: fractions, any shape.
        flipped: whether the canonical second feature was shown first.
        attended: same shape, False where nothing attends: there the fraction is 0 for both
            features and not `1 - 0`. None = something attends everywhere.
    """
    if not flipped:
        return np.asarray(shown, dtype=np.float64)
    other = 1.0 - np.asarray(shown, dtype=np.float64)
    return other if attended is None else np.where(attended, other, 0.0)


def combine_orders(orders: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over option orders of one word and pair.

    Args:
        orders: one or two arrays of one shape, all of the canonical first feature.

    Raises:
        ValueError: without arrays, or if the shapes differ.
    """
    if not orders or any(array.shape != orders[0].shape for array in orders):
        raise ValueError(f"orders of one word: {[a.shape for a in orders]}, should be one shape")
    return np.asarray(np.mean(orders, axis=0, dtype=np.float64))


def phone_runs(units: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the units of each run: neighbours with one label, nothing between them.

    Args:
        units: `label` of each and, where known, `start`, `end` and `unit` (`char`: phones that a
            space separates are neighbours; `second`, `token`: where one ends the next begins).
    """
    runs: list[list[int]] = []
    for place, one in enumerate(units):
        before = units[place - 1] if place else None
        if before is not None and before["label"] == one["label"] and _touch(before, one):
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _touch(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    gap = float(other.get("start", 0)) - float(one.get("end", 0))
    return gap <= (1 if one.get("unit") == "char" else 1e-6)


def run_fractions(
    fractions: np.ndarray,
    mass: np.ndarray,
    runs: Sequence[Sequence[int]],
    n_queries: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the first feature's share of the attention on whole runs.

    Args:
        fractions: `fraction` of each unit with `normalize="sum"`, (n_layers, n_heads, unit).
        mass: S_1 + S_2 of each unit, the same shape.
        runs: the units of each, which share no token.
        n_queries: tokens of the two features, for `normalize="mean"`.

    Returns:
        (n_layers, n_heads, run) float64.
    """
    share, whole = np.asarray(fractions, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    first = np.stack([(share * whole)[..., list(run)].sum(axis=-1) for run in runs], axis=-1)
    both = np.stack([whole[..., list(run)].sum(axis=-1) for run in runs], axis=-1)
    # The stored numbers are rounded: what is left of a whole must not fall below nothing.
    second = np.maximum(both - first, 0.0)
    n_first, n_second = n_queries or (1, 1)
    return ratio(first / n_first, second / n_second)


class PhoneMeans(NamedTuple):
    """Means over words.

    Args:
        phones: sorted labels.
        mean: (n_layers, phone, dimension); NaN where no word has the phone.
        n_words: (phone, dimension) int64; how many runs, if those are pooled.
    """

    phones: tuple[str, ...]
    mean: np.ndarray
    n_words: np.ndarray


class PhoneTotals:
    """Sums by layer, phone and dimension; memory grows with the phones, not with the words.

    Every word counts once for each phone that it holds, however often it holds it; if pooled,
    every unit counts alike.

    Args:
        n_layers: layers of the values.
        dimensions: names of the last axis, all different.
        pooled: whether units are pooled over words.
    """

    def __init__(self, n_layers: int, dimensions: Sequence[str], pooled: bool = False) -> None:
        self._pooled = pooled
        self._columns = {name: i for i, name in enumerate(dimensions)}
        self._n_layers = n_layers
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, np.ndarray] = {}

    def update(self, dimension: str, phones: Sequence[str], values: np.ndarray) -> None:
        """Add one word, its option orders combined.

        Args:
            dimension: one of `dimensions`.
            phones: label of each unit.
            values: (n_layers, unit).

        Raises:
            ValueError: if the shape is another.
            KeyError: if the dimension is unknown.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (self._n_layers, len(phones)):
            raise ValueError(
                f"values {numbers.shape}: should be {self._n_layers} layers by {len(phones)} phones"
            )
        column = self._columns[dimension]
        labels = np.asarray(phones, dtype=object)
        for phone in dict.fromkeys(phones):
            if phone not in self._sums:
                self._sums[phone] = np.zeros((self._n_layers, len(self._columns)))
                self._counts[phone] = np.zeros(len(self._columns), dtype=np.int64)
            own = numbers[:, labels == phone]
            self._sums[phone][:, column] += own.sum(axis=1) if self._pooled else own.mean(axis=1)
            self._counts[phone][column] += own.shape[1] if self._pooled else 1

    def compute(self) -> PhoneMeans:
        """Return the means over the words so far."""
        phones = tuple(sorted(self._sums))
        shape = (len(phones), self._n_layers, len(self._columns))
        sums = np.array([self._sums[p] for p in phones]).reshape(shape).swapaxes(0, 1)
        counts = np.array([self._counts[p] for p in phones], dtype=np.int64)
        counts = counts.reshape(len(phones), len(self._columns))
        mean = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return PhoneMeans(phones, mean, counts)


def dimension_curves(
    values: np.ndarray,
    words: Sequence[str],
    row_dimensions: Sequence[str],
    dimensions: Sequence[str],
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Return each dimension's mean over words by layer, with its bootstrap interval over words.

    Rows of one word and dimension are averaged first, then words are drawn with replacement.

    Args:
        values: (n, n_layers), a word's fraction for a dimension each.
        words: n names that tell words apart (a homograph has its own).
        row_dimensions: n names.
        dimensions: names of the result's first axis.
        seed, n_resamples, level: see `head_statistics.bootstrap_mean`.

    Returns:
        (dimension, n_layers) each; NaN for a dimension without words.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, of_row = np.asarray(words, dtype=object), np.asarray(row_dimensions, dtype=object)
    found = np.full((3, len(dimensions), numbers.shape[1]), np.nan)
    for column, dimension in enumerate(dimensions):
        rows = of_row == dimension
        if not rows.any():
            continue
        _, word = np.unique(names[rows].astype(str), return_inverse=True)
        sums = np.zeros((word.max() + 1, numbers.shape[1]))
        np.add.at(sums, word, numbers[rows])
        means = sums / np.bincount(word)[:, None]
        estimate = bootstrap_mean(means, seed=seed, n_resamples=n_resamples, level=level)
        found[:, column] = estimate
    return Estimate(*found)


class Shuffles(NamedTuple):
    """Means over words of one dimension's phones, and those with the phones shuffled.

    Args:
        labels: sorted phones.
        estimate: (n_layers, phone) the mean, and low and high of the shuffled ones, a cell at a
            time.
        middle, spread: (n_layers, phone) mean and standard deviation of the shuffled ones.
        largest: (n_permutations,) of each shuffle the largest |mean - middle| / spread.
    """

    labels: tuple[str, ...]
    estimate: Estimate
    middle: np.ndarray
    spread: np.ndarray
    largest: np.ndarray


def shuffle_phones(
    values: np.ndarray,
    phones: Sequence[str],
    words: Sequence[str],
    *,
    seed: int,
    n_permutations: int = 200,
    level: float = 0.95,
) -> Shuffles:
    """Return each phone's mean over words, and where it would lie if phones did not matter.

    The labels of all units are shuffled between words, which keeps how often each phone occurs; the
    means are then taken as in `PhoneTotals`. The interval holds `level` of them: a mean outside of
    it is not what chance gives a phone that is as frequent. Give the units of one dimension.

    Args:
        values: (n, n_layers), one unit each.
        phones: n labels.
        words: n names of the words that the units belong to.
        seed, n_permutations, level: of the shuffles and the interval.

    Raises:
        ValueError: without units.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) == 0:
        raise ValueError("a baseline needs at least 1 unit")
    labels, phone = np.unique(np.asarray(phones, dtype=str), return_inverse=True)
    _, word = np.unique(np.asarray(words, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    observed = _means_over_words(numbers, phone, word)
    shuffled = np.stack(
        [_means_over_words(numbers, rng.permutation(phone), word) for _ in range(n_permutations)]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(shuffled, [tail, 1 - tail], axis=0)
    middle, spread = shuffled.mean(axis=0), shuffled.std(axis=0)
    # A mean that no shuffle moves, but for rounding, is no case of chance.
    distance = np.abs(shuffled - middle)
    z = np.divide(distance, spread, out=np.zeros_like(distance), where=spread > 1e-9)
    names = tuple(str(label) for label in labels)
    return Shuffles(names, Estimate(observed, low, high), middle, spread, z.max(axis=(1, 2)))


def familywise_bounds(
    shuffles: Sequence[Shuffles], level: float = 0.95
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return bounds (n_layers, phone) for each dimension that hold for all cells together.

    `semdim.phone_familywise/1`: middle - c * spread and middle + c * spread, with c what the
    largest standardised distance over all layers, phones and dimensions stays below in `level` of
    the shuffles. So in 95 of 100 runs without any effect no cell lies outside. A mean of cells over
    layers that lies outside the mean of their bounds has one of these cells outside its own.

    Args:
        shuffles: of all dimensions, with one number of permutations.
        level: of all cells together.
    """
    largest = np.max([one.largest for one in shuffles], axis=0)
    c = np.quantile(largest, level, method="higher")
    return [
        (np.clip(s.middle - c * s.spread, 0, 1), np.clip(s.middle + c * s.spread, 0, 1))
        for s in shuffles
    ]


def _means_over_words(values: np.ndarray, phone: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Return the mean over words of each phone's mean within a word: (n_layers, phone)."""
    order = np.lexsort((word, phone))
    phone, word = phone[order], word[order]
    cell_starts = np.flatnonzero(np.r_[True, (np.diff(phone) != 0) | (np.diff(word) != 0)])
    sizes = np.diff(np.r_[cell_starts, len(phone)])
    within = np.add.reduceat(values[order], cell_starts, axis=0) / sizes[:, None]
    starts = np.flatnonzero(np.r_[True, np.diff(phone[cell_starts]) != 0])
    n_words = np.diff(np.r_[starts, len(cell_starts)])
    return (np.add.reduceat(within, starts, axis=0) / n_words[:, None]).T
