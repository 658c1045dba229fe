"""Heat maps of attention between a word's tokens and the dimensions that it is asked about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from interp_lab.fields import Pattern, Spectrogram
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.word_axes import (
    borders,
    draw_separators,
    draw_strip,
    strip_height,
    token_ticks,
)
from interp_lab.studies.semdim.figures.words import (
    Token,
    Unit,
    WordStyle,
    bands_of,
    facts_of,
    heads_of,
    read_tokens,
    read_units,
    word_heading,
)
from interp_lab.visualization.base import NothingToDrawError, Page
from interp_lab.visualization.reading import read_field
from interp_lab.visualization.sheets import sheet

Scale: TypeAlias = Literal["sqrt", "linear", "log"]
SCALE_WORDS = {
    "sqrt": "Colours follow the square root of the attention.",
    "linear": "",
    "log": "Colours follow the logarithm of the attention, over three decades at most.",
}
UNSEEN = "0.9"
UNSEEN_WORDS = "Gray: later tokens, which a token cannot attend to."
PANEL = 3.5  # inches of a square panel


@dataclass(frozen=True)
class Panel:
    """One heat map with the labels of its axes.

    Args:
        title: what it averages.
        values: (rows, columns); masked where a row cannot attend.
        rows, columns: what the axes are.
        names: what the columns' groups are called.
        sound: (mel, frame) of the word, or None.
        units: its phones.
        row_borders: rows with a line before them; None = where the group changes.
    """

    title: str
    values: np.ma.MaskedArray
    rows: Sequence[Token]
    columns: Sequence[Token]
    names: Mapping[str, str]
    sound: np.ndarray | None
    units: Sequence[Unit]
    row_borders: Sequence[int] | None = None


def attention_heatmap(
    results: Results,
    style: WordStyle,
    sample: str,
    *,
    matrix: str = "attention_matrix",
    tokens: str = "matrix_tokens",
    sound: str = "spectrogram",
    title: str = "{word}: {dimension1} or {dimension2}?",
    scale: Scale = "log",
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
    facts = facts_of(results, sample)
    groups = (("dim1", "dimension1"), ("dim2", "dimension2"))
    names = {group: facts[key] for group, key in groups if key in facts}
    about = names, sound_of(results, sample, sound), read_units(results, sample)
    unseen = (values == 0).all(axis=(0, 1))
    # A block of one row is what the answer position attends to.
    rows = named if len(unseen) == len(named) else [Token("answer", "answer")]
    panels = [
        Panel(
            band.name,
            np.ma.masked_where(unseen, values[np.ix_(band.rows, heads)].mean((0, 1))),
            rows,
            named,
            *about,
        )
        for band in bands_of(results, len(values), style)
    ]
    foot = " ".join(
        ["Rows attend to columns; lines part the word from the two dimensions."]
        + [UNSEEN_WORDS] * bool(unseen.any())
        + [SCALE_WORDS[scale]]
    )
    head = word_heading(results, sample, title, [field], [words], foot.strip())
    page = style.page((max(6.0, len(panels) * (PANEL + 0.1) + 1.6), PANEL + 2.6), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        draw_panels(figure, page, panels, style.colormap, scale)
    return figure


def sound_of(results: Results, sample: str, name: str) -> np.ndarray | None:
    """Return a sample's spectrogram (mel, frame), or None if it has none."""
    try:
        return read_field(results, sample, name, Spectrogram)[1]
    except NothingToDrawError:
        return None


def norm_of(panels: Sequence[Panel], scale: Scale) -> Normalize:
    """Return the limits that panels share: from 0, or three decades at most, to the top."""
    held = [p.values.compressed() for p in panels]
    seen = np.concatenate([values[values > 0] for values in held])
    top = float(seen.max(initial=0.0)) or 1.0
    if scale == "log":
        return LogNorm(min(max(float(seen.min(initial=top)), top / 1000), top / 2), top, clip=True)
    return PowerNorm(0.5 if scale == "sqrt" else 1.0, 0.0, top)


def draw_panels(
    figure: Figure,
    page: Page,
    panels: Sequence[Panel],
    cmap: str,
    scale: Scale,
    colors: Sequence[int] | None = None,
) -> None:
    """Draw heat maps side by side, each below its strip.

    Neighbours whose rows are the same label them once.

    Args:
        figure, page: where, and of which size.
        panels: from left to right.
        cmap, scale: from attention to colour.
        colors: a number for each panel; those of one number share colour limits, and the last of
            them has the colour bar. None = all share them.
    """
    colors = colors or [0] * len(panels)
    labelled = [i == 0 or p.rows is not panels[i - 1].rows for i, p in enumerate(panels)]
    # Letters of row labels and of colour bars take their room from the maps.
    width = (page.width - 0.3 - 0.9 * len(set(colors)) - 0.8 * sum(labelled)) / len(panels)
    strip = max(
        strip_height(p.columns, p.names, width, page.points, has_sound=p.sound is not None)
        for p in panels
    )
    ratios = [strip, max(1.0, page.height - strip - 2.2)]
    # On paper the sheet is lower than the page by its heading, and so by most of what is taken off.
    height = max(1.0, min(ratios[1], figure.get_figheight() - strip - 0.9))
    grid = figure.add_gridspec(2, len(panels), height_ratios=ratios)
    for place, panel in enumerate(panels):
        above = figure.add_subplot(grid[0, place])
        draw_strip(above, panel.columns, panel.names, width, panel.sound, panel.units)
        above.set_title(panel.title, loc="left", fontsize="small")
        axes = figure.add_subplot(grid[1, place])
        same = [p for p, color in zip(panels, colors, strict=True) if color == colors[place]]
        norm = norm_of(same, scale)
        draw_map(axes, panel, norm, cmap, (width, height))
        axes.tick_params(axis="y", labelleft=labelled[place])
        axes.set_ylabel("attending token (query)" if place == 0 else "")
        if colors[place] not in colors[place + 1 :]:
            is_cut = any(bool((p.values < (norm.vmin or 0.0)).any()) for p in same)
            draw_bar(axes, ScalarMappable(norm, cmap), scale, is_cut=is_cut)


def draw_bar(axes: Axes, mappable: ScalarMappable, scale: Scale, *, is_cut: bool) -> None:
    """Draw the colour bar of attention beside a heat map, pointed where values lie below it."""
    assert axes.figure is not None
    place = axes.inset_axes((1.03, 0.0, 0.04, 1.0))
    bar = axes.figure.colorbar(mappable, cax=place, extend="min" if is_cut else "neither")
    bar.outline.set_visible(False)
    if scale == "log":
        # Labels without exponents: formulas are switched off, for the sake of dollar signs.
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
        bar.minorlocator = NullLocator()
        bar.locator = _log_ticks(*mappable.get_clim())
    else:
        bar.locator = MaxNLocator(5)
    bar.set_label("attention")


def _log_ticks(low: float | None, top: float | None) -> Locator:
    """Return ticks at 1 and 3 of each decade, or even ones within less than a decade."""
    low, top = low or 0.0, top or 1.0
    if top >= 10 * low:
        return LogLocator(subs=(1, 3))
    even = MaxNLocator(4).tick_values(low, top)
    return FixedLocator([tick for tick in even if low <= tick <= top])


def draw_map(
    axes: Axes, panel: Panel, norm: Normalize, cmap: str, inches: tuple[float, float]
) -> None:
    """Draw one heat map with token labels and separators; a masked cell is gray.

    Args:
        axes: where.
        panel: what.
        norm, cmap: from value to colour.
        inches: width and height of the axes, about; the labels take some of them.
    """
    axes.set_facecolor(UNSEEN)
    axes.imshow(panel.values, cmap=cmap, norm=norm, aspect="auto")
    rows = borders(panel.rows) if panel.row_borders is None else panel.row_borders
    n_rows, n_columns = panel.values.shape
    draw_separators(axes, borders(panel.columns), rows, (n_rows, n_columns))
    axes.spines[:].set_visible(False)
    token_ticks(axes.xaxis, panel.columns, 0.85 * inches[0] / n_columns)
    token_ticks(axes.yaxis, panel.rows, 0.85 * inches[1] / n_rows)
    axes.set(xlim=(-0.5, n_columns - 0.5), ylim=(n_rows - 0.5, -0.5))
    axes.set_xlabel("attended token (key)")
