"""Which heads look at other phones for one dimension than for another, head by head.

A mean over heads and words is near 0.5 whatever single heads do. Here every head keeps what it
gives to each phone and to vowels and consonants, for each dimension, and one number says how far
its look moves between them when the dimension changes.

Attention is per token of the dimension words, so from 0 to 1, and option orders are averaged.
Sizes: n_layers, n_heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from interp_lab.studies.semdim.phone_classes import CLASSES, phone_class, sorted_by_class

MASS = "semdim.head_phone_mass/1"
SHARE = "semdim.head_phone_share/1"
CLASS_MASS = "semdim.class_mass/1"
CLASS_SHARE = "semdim.class_share/1"
MOVE = "semdim.class_move/1"
VOWEL, CONSONANT = CLASSES.index("vowel"), CLASSES.index("consonant")
# Words are shuffled in so many groups at most: memory does not grow with the words.
BLOCKS = 64


class Asked(NamedTuple):
    """One word asked for one dimension, its option orders averaged.

    Args:
        dimension: the pair.
        labels: of its phones.
        mass: (n_layers, n_heads, phone) attention of a dimension word's token on the phone.
        first: the same shape, the canonical first feature's part of it.
    """

    dimension: str
    labels: Sequence[str]
    mass: np.ndarray
    first: np.ndarray


class Maps(NamedTuple):
    """Means over words: (n_layers, n_heads, label, dimension), and how many (label, dimension).

    `share` is the first feature's part of the attention of all words together, so words that a
    head does not look at weigh nothing; 0.5 where it looks at none.
    """

    labels: tuple[str, ...]
    mass: np.ndarray
    share: np.ndarray
    n_words: np.ndarray


class Moves(NamedTuple):
    """How far each head's look moves between vowels and consonants with the dimension.

    Args:
        score: (n_layers, n_heads) `semdim.class_move/1`, 0 to 2.
        toward: (n_layers, n_heads, dimension) each dimension's balance, vowels positive; their
            largest less their smallest is the score.
        threshold: what the largest score of all heads stays below in 95 % of shuffles.
        n_words: that were asked for two dimensions or more.
    """

    score: np.ndarray
    toward: np.ndarray
    threshold: float
    n_words: int


@dataclass
class _Sums:
    """Sums over words by label and dimension."""

    mass: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    first: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    count: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, key: tuple[str, str], mass: np.ndarray, first: np.ndarray) -> None:
        self.mass[key] = self.mass.get(key, 0.0) + mass
        self.first[key] = self.first.get(key, 0.0) + first
        self.count[key] = self.count.get(key, 0) + 1

    def maps(self, labels: Sequence[str], dimensions: Sequence[str], shape: tuple) -> Maps:
        whole = np.zeros((2, *shape, len(labels), len(dimensions)))
        n_words = np.zeros((len(labels), len(dimensions)), dtype=np.int64)
        for row, label in enumerate(labels):
            for column, dimension in enumerate(dimensions):
                key = label, dimension
                n_words[row, column] = self.count.get(key, 0)
                if key in self.mass:
                    whole[0, ..., row, column] = self.mass[key]
                    whole[1, ..., row, column] = self.first[key]
        mass, first = whole
        share = np.divide(first, mass, out=np.full(mass.shape, 0.5), where=mass > 0)
        return Maps(tuple(labels), mass / np.maximum(n_words, 1), share.clip(0, 1), n_words)


class HeadTotals:
    """Sums of every head over words; memory grows with phones and dimensions, not with words."""

    def __init__(self) -> None:
        self._phones, self._classes = _Sums(), _Sums()
        self._word: tuple[str, dict[str, np.ndarray]] | None = None
        self._blocks: list[dict[str, np.ndarray]] = []
        self._counts: list[dict[str, int]] = []
        self._n_words = 0
        self._shape: tuple[int, int] = (0, 0)

    def __bool__(self) -> bool:
        """Whether any word had phones."""
        return bool(self._phones.count)

    def update(self, word: str, asked: Asked) -> None:
        """Add one word and dimension; the dimensions of one word follow each other.

        A phone that a word has twice counts as its mean, a class as its sum over the word.
        """
        labels = np.asarray(asked.labels, dtype=object)
        kinds = np.array([CLASSES.index(phone_class(label)) for label in asked.labels])
        self._shape = asked.mass.shape[:2]
        for label in dict.fromkeys(asked.labels):
            at = labels == label
            means = (one[..., at].mean(axis=-1) for one in (asked.mass, asked.first))
            self._phones.add((label, asked.dimension), *means)
        for kind in np.unique(kinds):
            at = kinds == kind
            sums = (one[..., at].sum(axis=-1) for one in (asked.mass, asked.first))
            self._classes.add((CLASSES[kind], asked.dimension), *sums)
        if not np.isin(kinds, (VOWEL, CONSONANT)).any():
            return
        vowels, consonants = (asked.mass[..., kinds == k].sum(-1) for k in (VOWEL, CONSONANT))
        if self._word is None or self._word[0] != word:
            self._finish_word()
            self._word = word, {}
        self._word[1][asked.dimension] = vowels - consonants

    def phones(self, dimensions: Sequence[str]) -> Maps:
        """Return the means by phone, vowels first."""
        labels = sorted_by_class({label for label, _ in self._phones.count})
        return self._phones.maps(labels, dimensions, self._shape)

    def classes(self, dimensions: Sequence[str]) -> Maps:
        """Return the means by class of phones, all classes."""
        return self._classes.maps(CLASSES, dimensions, self._shape)

    def moves(self, dimensions: Sequence[str], *, seed: int, n_permutations: int) -> Moves | None:
        """Return how far each head's look moves, `semdim.class_move/1`; None with one dimension.

        A word's balance for a dimension is a head's attention on its vowels less that on its
        consonants. The mean over the word's dimensions is taken off, so that words which are asked
        for other dimensions do not count as a move; then the mean over words by dimension. The
        score is the largest of these less the smallest. For two dimensions it is (vowels less
        consonants) for the one, less the same for the other.

        In a shuffle the dimensions of each of at most 64 groups of words change places; the
        largest score of all heads is what has no effect to thank for it.
        """
        self._finish_word()
        if not self._n_words:
            return None
        shape = (len(self._blocks), len(dimensions))
        sums, counts = np.zeros((*shape, *self._shape)), np.zeros(shape)
        for block, (own, n) in enumerate(zip(self._blocks, self._counts, strict=True)):
            for column, dimension in enumerate(dimensions):
                if dimension in own:
                    sums[block, column], counts[block, column] = own[dimension], n[dimension]
        toward = _toward(sums, counts)
        rng = np.random.default_rng(seed)
        rows = np.arange(shape[0])[:, None]
        highest = []
        for _ in range(n_permutations):
            order = rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
            highest.append(np.ptp(_toward(sums[rows, order], counts[rows, order]), axis=0).max())
        threshold = float(np.quantile(highest, 0.95, method="higher"))
        return Moves(np.ptp(toward, axis=0), np.moveaxis(toward, 0, -1), threshold, self._n_words)

    def _finish_word(self) -> None:
        """Add the last word's balances, less their mean, to its group."""
        if self._word is None or len(self._word[1]) < 2:
            self._word = None
            return
        if len(self._blocks) < BLOCKS:
            self._blocks.append({})
            self._counts.append({})
        place = self._n_words % BLOCKS
        balances = self._word[1]
        mean = np.mean(list(balances.values()), axis=0)
        sums, counts = self._blocks[place], self._counts[place]
        for dimension, balance in balances.items():
            sums[dimension] = sums.get(dimension, 0.0) + balance - mean
            counts[dimension] = counts.get(dimension, 0) + 1
        self._n_words += 1
        self._word = None


def _toward(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return means (dimension, n_layers, n_heads) of group sums; 0 where there is no word."""
    return sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)[:, None, None]


def standing_out(score: np.ndarray, threshold: float, most: int) -> list[tuple[int, int]]:
    """Return at most so many (layer, head), those with the highest scores above the threshold.

    Args:
        score: (n_layers, n_heads).
    """
    order = np.argsort(-score, axis=None, kind="stable")[:most]
    places = np.stack(np.unravel_index(order, score.shape), axis=-1)
    # Of a single group of words every shuffle has the score itself, but for rounding.
    return [(int(a), int(b)) for a, b in places if score[a, b] > threshold + 1e-9]
