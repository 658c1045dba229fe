"""The mean attention of one word, over all pairs and option orders that it was asked with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from interp_lab.fields import Field, Pattern
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.word_maps import (
    PANEL,
    SCALE_WORDS,
    UNSEEN_WORDS,
    Panel,
    Scale,
    draw_panels,
    sound_of,
)
from interp_lab.studies.semdim.figures.words import (
    Token,
    WordStyle,
    bands_of,
    facts_of,
    heads_of,
    read_tokens,
    read_units,
    word_heading,
)
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import read_field, shown
from interp_lab.visualization.sheets import sheet

SIDES = ("dim1", "dim2")
ROW = 0.16  # inches of a dimension's row, where there are many
MOST_PAIRS = 15  # in one panel


@dataclass(frozen=True)
class Pooled:
    """A word's samples, each dimension's tokens pooled into one.

    Args:
        field: what they are read from.
        samples: those that are averaged: the ones with the most usual number of word tokens.
        word: the word's tokens.
        square: (word + 2, word + 2) mean over samples; rows are means over a dimension's tokens,
            columns sums.
        sides: dimension -> (word,) mean over its tokens and its samples.
        pairs: how many pairs of dimensions there are.
        words: which layers and heads are averaged.
    """

    field: Field
    samples: Sequence[str]
    word: Sequence[Token]
    square: np.ndarray
    sides: dict[Token, np.ndarray]
    pairs: int
    words: tuple[str, str]


def average_heatmap(
    results: Results,
    style: WordStyle,
    samples: Sequence[str],
    *,
    matrix: str = "attention_matrix",
    tokens: str = "matrix_tokens",
    sound: str = "spectrogram",
    scale: Scale = "log",
) -> Figure:
    """Draw a word's attention, averaged over its pairs and option orders.

    Left: the mean square block, each dimension as one row and one column, since pairs differ in
    their number of tokens. Right: what each dimension attends to in the word, mean over its orders.

    Args:
        results: an open result.
        style: how; its layer and head are shown, else the mean over all.
        samples: the word's samples.
        matrix, tokens, sound, scale: as for `attention_heatmap`.

    Raises:
        NothingToDrawError: if the samples do not hold matrix and tokens.
        ConfigError: if they do not hold the chosen layer or head.
    """
    pooled = pool(results, style, samples, matrix, tokens)
    first = pooled.samples[0]
    rows = [*pooled.word, Token("1st dimension", "dim1"), Token("2nd dimension", "dim2")]
    columns = [*pooled.word, Token("1st", "dim1"), Token("2nd", "dim2")]
    extra = ({"dim1": "", "dim2": ""}, sound_of(results, first, sound), read_units(results, first))
    square = np.ma.masked_equal(pooled.square, 0)
    panels = [Panel("mean over pairs and orders", square, rows, columns, *extra)]
    panels += _side_panels(pooled, extra)
    left_out = len(samples) - len(pooled.samples)
    foot = [
        "Rows attend to columns. Left: a dimension's row is the mean over its tokens, its column "
        "the sum.",
        UNSEEN_WORDS,
        SCALE_WORDS[scale],
        f"Left out, since the word has other tokens there: {left_out} samples." * (left_out > 0),
    ]
    counted = f"{pooled.pairs} pair{'s' * (pooled.pairs != 1)}, {len(pooled.samples)} samples"
    heading = word_heading(
        results,
        first,
        "{word}: mean attention",
        [pooled.field],
        [counted, *pooled.words],
        " ".join(part for part in foot if part),
        of_one=False,
    )
    most = max(len(panel.rows) for panel in panels[1:])
    page = style.page((len(panels) * (PANEL + 0.7) + 0.9, max(PANEL, most * ROW) + 2.6), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, heading)
        # What dimensions attend to is little beside what a word's tokens do: colours of its own.
        draw_panels(figure, page, panels, style.colormap, scale, [0] + [1] * (len(panels) - 1))
    return figure


def _side_panels(pooled: Pooled, extra: tuple[Any, Any, Any]) -> list[Panel]:
    """Return one panel of the dimensions, or two where they are many; pairs stay together."""
    rows, values = list(pooled.sides), np.stack(list(pooled.sides.values()))
    starts = [place for place, row in enumerate(rows) if row.group == "dim1"]
    middle = starts[(len(starts) + 1) // 2] if len(starts) > MOST_PAIRS else len(rows)
    panels = []
    for begin, end in ((0, middle), (middle, len(rows))):
        if begin < end:
            title = "each dimension, mean over orders" if begin == 0 else "further dimensions"
            lines = [start - begin for start in starts if begin < start < end]
            panels.append(
                Panel(
                    title,
                    np.ma.masked_array(values[begin:end]),
                    rows[begin:end],
                    pooled.word,
                    *extra,
                    lines,
                )
            )
    return panels


def pool(
    results: Results, style: WordStyle, samples: Sequence[str], matrix: str, tokens: str
) -> Pooled:
    """Average the matrices of a word's samples; see `Pooled`.

    Raises:
        NothingToDrawError: if the samples do not hold matrix and tokens.
        ConfigError: if they do not hold the chosen layer or head.
    """
    named = {sample: read_tokens(results, sample, tokens) for sample in samples}
    lengths = {s: sum(t.group == "word" for t in named[s]) for s in samples}
    usual = Counter(lengths.values()).most_common(1)[0][0]
    used = [sample for sample in samples if lengths[sample] == usual]
    fields: list[Field] = []
    words: list[tuple[str, str]] = []
    squares: list[np.ndarray] = []
    sides: dict[Token, list[np.ndarray]] = {}
    pairs: list[frozenset[str]] = []
    for sample in used:
        field, values = read_field(results, sample, matrix, Pattern)
        heads, head_words = heads_of(results, values.shape[1], style)
        (band,) = bands_of(results, len(values), style, bands=1)
        if values.shape[-2] != values.shape[-1]:
            raise NothingToDrawError(f"{matrix} is no square block")
        groups = np.array([token.group for token in named[sample]])
        square = _pooled_square(values[np.ix_(band.rows, heads)].mean((0, 1)), groups)
        squares.append(square)
        fields.append(field)
        words.append((band.name, head_words))
        names = _side_names(results, sample)
        pairs.append(frozenset(names))
        for name, row in zip(names, square[usual:, :usual], strict=True):
            sides.setdefault(_side(name, names, sides), []).append(row)
    word = [token for token in named[used[0]] if token.group == "word"]
    means = {token: np.mean(rows, axis=0) for token, rows in sides.items()}
    return Pooled(fields[0], used, word, np.mean(squares, axis=0), means, len(set(pairs)), words[0])


def _pooled_square(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (word + 2, word + 2): a dimension's rows become their mean, its columns their sum."""
    word = np.flatnonzero(groups == "word")
    members = [[place] for place in word] + [np.flatnonzero(groups == side) for side in SIDES]
    if any(len(places) == 0 for places in members):
        raise NothingToDrawError("a dimension has no tokens")
    rows = np.stack([values[places].mean(axis=0) for places in members])
    return np.stack([rows[:, places].sum(axis=1) for places in members], axis=1)


def _side_names(results: Results, sample: str) -> tuple[str, str]:
    facts = facts_of(results, sample)
    return shown(facts.get("dimension1", "dim1")), shown(facts.get("dimension2", "dim2"))


def _side(name: str, names: tuple[str, str], known: dict[Token, list[np.ndarray]]) -> Token:
    """Return the row of a dimension: the one that it has, or a new one."""
    for token in known:
        if token.text == name:
            return token
    return Token(name, SIDES[names.index(name)])
