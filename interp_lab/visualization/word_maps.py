"""Heat maps of attention between a word's tokens and the dimensions it is asked about.

One of a sample, in bands of layers; one of a word, averaged over its pairs and option orders.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import Field, Pattern, Spectrogram
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Page
from interp_lab.visualization.sheets import sheet
from interp_lab.visualization.word_axes import (
    draw_separators,
    draw_strip,
    strip_height,
    token_ticks,
)
from interp_lab.visualization.words import (
    Token,
    Unit,
    WordStyle,
    bands_of,
    facts_of,
    heads_of,
    read_field,
    read_tokens,
    read_units,
    spans,
    word_heading,
)

Scale: TypeAlias = Literal["sqrt", "linear", "log"]
SCALE_WORDS = {"sqrt": "Colours follow the square root of the attention. ", "linear": "",
               "log": "Colours follow the logarithm of the attention. "}  # fmt: skip
UNSEEN = "0.92"
UNSEEN_WORDS = "Gray: later tokens, which a token cannot attend to. "
PANEL = 3.6  # inches of a square panel
BAR = 0.16  # and of the colour bar


@dataclass(frozen=True)
class Labelled:
    """Rows and columns of tokens with what is drawn above the columns."""

    rows: Sequence[Token]
    columns: Sequence[Token]
    names: Mapping[str, str]
    sound: np.ndarray | None
    units: Sequence[Unit]


def attention_heatmap(
    results: Results,
    style: WordStyle,
    sample: str,
    *,
    matrix: str = "attention_matrix",
    tokens: str = "matrix_tokens",
    sound: str = "spectrogram",
    title: str = "{word}: {dimension1} or {dimension2}?",
    scale: Scale = "sqrt",
) -> Figure:
    """Draw a sample's square block of attention, one panel a band of layers or the chosen layer.

    Args:
        results: an open result.
        style: how; its layer and head are shown.
        sample: its id.
        matrix: name of the Pattern (layer, head, query, key).
        tokens: Document that names the tokens of both axes.
        sound: Spectrogram above the word of an audio sample; left out where there is none.
        title: with names of fields in braces.
        scale: from attention to colour.

    Raises:
        NothingToDrawError: if the sample does not hold matrix and tokens.
        ConfigError: if it does not hold the chosen layer or head.
    """
    field, values = read_field(results, sample, matrix, Pattern)
    named = read_tokens(results, sample, tokens)
    heads, words = heads_of(results, values.shape[1], style)
    bands = bands_of(results, len(values), style)
    unseen = (values == 0).all(axis=(0, 1))
    maps = {
        band.name: np.ma.masked_where(unseen, values[np.ix_(band.rows, heads)].mean((0, 1)))
        for band in bands
    }
    facts = facts_of(results, sample)
    names = {"word": "word", "dim1": facts.get("dimension1", "dim1"),
             "dim2": facts.get("dimension2", "dim2")}  # fmt: skip
    one = Labelled(named, named, names, _sound(results, sample, sound), read_units(results, sample))
    foot = (
        "Rows attend to columns; lines part the word from the two dimensions. "
        + (UNSEEN_WORDS if unseen.any() else "") + SCALE_WORDS[scale]
    )  # fmt: skip
    head = word_heading(results, sample, title, [field], [words], foot.strip())
    page = style.page((len(maps) * (PANEL + 0.2) + 1.6, PANEL + 2.5), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        _panels(figure, page, maps, [one] * len(maps), _norm(list(maps.values()), scale), style)
    return figure


def average_heatmap(
    results: Results,
    style: WordStyle,
    samples: Sequence[str],
    *,
    matrix: str = "attention_matrix",
    tokens: str = "matrix_tokens",
    sound: str = "spectrogram",
    scale: Scale = "sqrt",
) -> Figure:
    """Draw a word's attention, averaged over its pairs and option orders.

    Left: the mean square block, each dimension as one row and column, since pairs differ in their
    number of tokens (a row is the mean, a column the sum over a dimension's tokens). Right: what
    each single dimension attends to in the word, averaged over the orders.

    Args:
        results: an open result.
        style: how; its layer and head are shown, else the mean over all.
        samples: the word's samples.
        matrix, tokens, sound, scale: as for `attention_heatmap`.

    Raises:
        NothingToDrawError: if no sample holds matrix and tokens.
        ConfigError: if they do not hold the chosen layer or head.
    """
    pooled = _Pooled(results, style, samples, matrix, tokens)
    squares, sides = pooled.mean_square(), pooled.mean_sides()
    facts = facts_of(results, pooled.used[0])
    words = [Token("1st dimension", "dim1"), Token("2nd dimension", "dim2")]
    named = [*pooled.word, *words]
    extra = (_sound(results, pooled.used[0], sound), read_units(results, pooled.used[0]))
    names = {"word": "word", "dim1": "1st", "dim2": "2nd"}
    rows = [Token(name, group) for name, group in sides]
    maps = {
        "mean over pairs and orders": np.ma.masked_equal(squares, 0),
        "by dimension": np.ma.masked_array(np.stack(list(sides.values()))),
    }
    labelled = [
        Labelled(named, named, names, *extra), Labelled(rows, pooled.word, names, *extra)
    ]  # fmt: skip
    foot = (
        "Rows attend to columns. Left: a dimension's row is the mean and its column the sum over "
        f"its tokens. {UNSEEN_WORDS}{SCALE_WORDS[scale]}"
    )
    if len(pooled.used) < len(samples):
        foot += f"{len(samples) - len(pooled.used)} samples with other tokens are left out. "
    pairs = {frozenset((first, second)) for _, first, second in pooled.named}
    counted = [f"{len(pairs)} pair{'s' * (len(pairs) != 1)}", f"{len(pooled.used)} samples",
               pooled.layers, pooled.heads]  # fmt: skip
    heading = word_heading(results, pooled.used[0], "{word}: mean attention", [pooled.field],
                           counted, foot.strip(), of_one=False)  # fmt: skip
    height = max(PANEL, min(8.5, len(rows) * 0.15))
    page = style.page((2 * (PANEL + 1.0) + 0.9, height + 2.5), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, heading)
        _panels(figure, page, maps, labelled, _norm(list(maps.values()), scale), style)
    assert facts
    return figure
