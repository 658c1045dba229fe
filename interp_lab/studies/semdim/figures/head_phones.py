"""Which heads look at other phones for one dimension than for another, and where each looks.

The mean over heads hides a head that turns to the vowels for one dimension and to the consonants
for another. First all heads by how far they move, then those that move beyond chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle

from interp_lab.errors import ConfigError
from interp_lab.fields import HeadClassMap, HeadPhoneMap, HeadScores, Scalar
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.phones import even_norm, label_cells, labels_of, map_page
from interp_lab.studies.semdim.figures.squares import (
    colour_words,
    draw_keys,
    share_squares,
    size_words,
)
from interp_lab.studies.semdim.figures.words import WordStyle, numbers_of
from interp_lab.studies.semdim.heads import standing_out
from interp_lab.studies.semdim.phone_classes import CLASSES, phone_class
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.toolbox import TOP, aggregate, head_sheet, index_ticks

# Vowel, consonant, unknown: apart in brightness too.
CLASS_COLORS = ("#e69f00", "#4b3f8f", "0.7")
AXES = ("layer", "head")
# Cells up to this number have their value written in them.
MOST_WRITTEN = 160


@dataclass(frozen=True)
class Chosen:
    """A head that a figure shows: its rows in the arrays, and what it is called."""

    layer: int
    head: int
    name: str


def class_overview(
    results: Results,
    style: WordStyle,
    *,
    move: str = "class_move",
    mass: str = "head_class_mass",
    dimensions: str = "dimensions",
    most_heads: int = 3,
) -> Figure:
    """Draw how far each head moves, and what those that stand out give to vowels and consonants.

    Args:
        results: an open result.
        style: how; a chosen layer and head is shown in place of those that stand out.
        move: HeadScores; its Scalar `_threshold` is the largest of all heads in 95 % of shuffles.
        mass: HeadClassMap of attention on each class.
        dimensions: Document with the labels.
        most_heads: so many heads are shown beside the overview.

    Raises:
        NothingToDrawError: if the result does not hold them.
        ConfigError: if it does not hold the chosen layer or head.
    """
    field, score = aggregate(results, move, HeadScores)
    known, threshold = aggregate(results, f"{move}_threshold", Scalar)
    of_class, values = aggregate(results, mass, HeadClassMap)
    names = labels_of(results, dimensions)
    heads = chosen_heads(results, style, score, float(threshold), most_heads)
    foot = [
        "Left: attention on a word's vowels less that on its consonants, its largest less its "
        f"smallest over the dimensions; {float(threshold):.2g} is the {known.about}.",
        "No head moves further." * bool(score.max() <= threshold),
        "Framed: the heads beside." * bool(heads),
        "Bars: attention of a dimension word's token, mean over words." * bool(heads),
    ]
    width = 4.4 + len(heads) * max(1.7, len(names) * 0.34 + 0.5)
    height = max(2.4, min(len(score), 40) * 0.2) + 2.6
    page = style.page((max(6.0, width), height), fill=True)
    with style.context(page.points):
        title = "Which heads look at other phones for another dimension"
        figure = head_sheet(
            results, style, page, title, [field, of_class], " ".join(filter(None, foot))
        )
        beside = [max(1.7, len(names) * 0.34 + 0.5)] * len(heads)
        grid = figure.add_gridspec(1, 1 + len(heads), width_ratios=[3.4, *beside])
        _overview(figure, grid[0], results, score, float(threshold), heads)
        top = max([1e-9, *(float(values[one.layer, one.head].max()) for one in heads)])
        for place, one in enumerate(heads):
            axes = figure.add_subplot(grid[place + 1])
            _bars(axes, values[one.layer, one.head], names, top)
            axes.set_title(one.name, loc="left", fontsize="small")
            axes.tick_params(labelleft=place == 0)
        if heads:
            figure.axes[-len(heads)].set_ylabel("attention", fontsize="small")
            figure.axes[-1].legend(
                loc="upper left", bbox_to_anchor=(1, 1), fontsize="x-small", borderaxespad=0.2
            )
    return figure


def head_phones(
    results: Results,
    style: WordStyle,
    *,
    move: str = "class_move",
    mass: str = "head_phone_mass",
    shares: str = "head_phone_share",
    counts: str = "head_phone_count",
    phones: str = "head_phones",
    dimensions: str = "dimensions",
    min_count: int = 1,
    most_heads: int = 3,
    cmap: str = "RdBu_r",
) -> Figure:
    """Draw phones (down, vowels first) by dimensions, one panel a head that stands out.

    Args:
        results: an open result.
        style: how; a chosen layer and head is shown in place of those that stand out.
        move: HeadScores that say which heads stand out, with their `_threshold`.
        mass, shares, counts: HeadPhoneMaps of attention, of the first side's share of it, of words.
        phones, dimensions: Documents with the labels.
        min_count: cells of fewer words are blank.
        most_heads: panels at most.
        cmap: a diverging colormap, its middle at 0.5.

    Raises:
        NothingToDrawError: if the result does not hold them, or no head stands out.
        ConfigError: if it does not hold the chosen layer or head.
    """
    field, attention = aggregate(results, mass, HeadPhoneMap)
    of_share, share = aggregate(results, shares, HeadPhoneMap)
    _, counted = aggregate(results, counts, HeadPhoneMap)
    rows, columns = labels_of(results, phones), labels_of(results, dimensions)
    score, threshold = _moves(results, move, attention.shape[:2])
    heads = chosen_heads(results, style, score, threshold, most_heads)
    if not heads:
        raise NothingToDrawError(
            "no head moves beyond chance; select.layer= and select.head= show one"
        )
    too_few = counted[0, 0] < max(1, min_count)
    maps = [np.ma.masked_where(too_few, share[one.layer, one.head]) for one in heads]
    looks = [np.where(too_few, 0.0, attention[one.layer, one.head]) for one in heads]
    top = max(float(look.max()) for look in looks) or 1.0
    norm = even_norm(maps)
    foot = f"{size_words(top)} Its colour is the first side's share of it. {colour_words(norm)}"
    foot += f" Hatched: fewer than {max(1, min_count)} words." * bool(too_few.any())
    page = map_page(style, len(heads), len(rows), len(columns))
    with style.context(page.points):
        title = "Where single heads look for each dimension"
        figure = head_sheet(results, style, page, title, [field, of_share], foot)
        panels = figure.subplots(1, len(heads), squeeze=False)[0]
        for place, (axes, one) in enumerate(zip(panels, heads, strict=True)):
            axes.set_title(one.name, loc="left", fontsize="small")
            share_squares(axes, maps[place], looks[place], norm, cmap, top)
            _class_borders(axes, rows, len(columns))
            label_cells(axes, rows, columns, is_first=place == 0)
        panels[0].set_ylabel(_class_words(rows))
        draw_keys(panels[-1], norm, cmap, top, "share toward the first side")
    return figure


def chosen_heads(
    results: Results, style: WordStyle, score: np.ndarray, threshold: float, most: int
) -> list[Chosen]:
    """Return the heads that a figure shows: the chosen one, else those beyond the threshold.

    With a layer chosen alone it is the heads of that layer, with a head alone that of each layer.

    Args:
        results: an open result, for the model's numbers.
        style: gives `layer` and `head`.
        score: (n_layers, n_heads), how far each moves.
        threshold: what is beyond chance.
        most: how many.

    Raises:
        ConfigError: if the chosen layer or head is not stored.
    """
    numbers = [numbers_of(results, axis, n) for axis, n in zip(AXES, score.shape, strict=True)]
    at = []
    for axis, known, wanted in zip(AXES, numbers, (style.layer, style.head), strict=True):
        if wanted is not None and wanted not in known:
            there = ", ".join(map(str, known))
            raise ConfigError(f"select.{axis}={wanted}: the result holds {axis}s {there}")
        at.append([known.index(wanted)] if wanted is not None else range(len(known)))
    allowed = np.full(score.shape, -1.0)
    allowed[np.ix_(*at)] = score[np.ix_(*at)]
    is_one = style.layer is not None and style.head is not None
    places = standing_out(allowed, -0.5 if is_one else threshold, most)
    return [Chosen(a, b, f"layer {numbers[0][a]}, head {numbers[1][b]}") for a, b in places]


def _moves(results: Results, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Return score and threshold; a run of one dimension has none, and no head stands out."""
    if name not in results.aggregates:
        return np.zeros(shape), np.inf
    return aggregate(results, name, HeadScores)[1], float(results.aggregate(f"{name}_threshold"))


def _overview(
    figure: Figure,
    cell: SubplotSpec,
    results: Results,
    score: np.ndarray,
    threshold: float,
    heads: Sequence[Chosen],
) -> None:
    axes = figure.add_subplot(cell)
    norm = Normalize(0, max(float(score.max()), threshold, 1e-6))
    image = axes.imshow(score, cmap="Greys", norm=norm, aspect="auto")
    axes.spines[:].set_visible(False)
    for axis, place, n in ((axes.yaxis, "layer", 0), (axes.xaxis, "head", 1)):
        index_ticks(axis, score.shape[n], 16)
        known = numbers_of(results, place, score.shape[n])
        ticks = axis.get_majorticklocs()
        axis.set_ticks(ticks, [str(known[int(tick)]) for tick in ticks])
    axes.tick_params(length=0)
    axes.set(xlabel="head", ylabel="layer")
    if score.size <= MOST_WRITTEN:
        for (layer, head), value in np.ndenumerate(score):
            color = "white" if norm(value) > 0.55 else "black"
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "x-small"}
            axes.text(head, layer, f"{value:.2f}", color=color, **look)
    width = matplotlib.rcParams["axes.linewidth"] * 2.4
    for one in heads:
        corner = (one.head - 0.46, one.layer - 0.46)
        frame = Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=TOP, linewidth=width, zorder=3)
        frame.set_clip_on(False)
        axes.add_patch(frame)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.045, 1.0)))
    bar.outline.set_visible(False)
    bar.ax.axhline(threshold, color=TOP, linewidth=width * 0.7)
    bar.set_label("move; line: 95 % of shuffles", fontsize="small")


def _bars(axes: Axes, mass: np.ndarray, names: Sequence[str], top: float) -> None:
    """Draw bars of mass (class, dimension), a group a dimension; unknown ones if there are."""
    shown = [row for row in range(len(CLASSES)) if row < 2 or mass[row].any()]
    wide = 0.8 / len(shown)
    for place, row in enumerate(shown):
        x = np.arange(len(names)) + (place - (len(shown) - 1) / 2) * wide
        axes.bar(x, mass[row], wide, color=CLASS_COLORS[row], label=f"{CLASSES[row]}s")
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, top * 1.05))
    axes.set_xticks(np.arange(len(names)), names, rotation=90, fontsize="x-small")
    axes.tick_params(axis="x", length=0)


def _class_borders(axes: Axes, phones: Sequence[str], n_columns: int) -> None:
    """Draw a line where another class of phones begins."""
    kinds = [phone_class(phone) for phone in phones]
    rows = [i - 0.5 for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    width = matplotlib.rcParams["axes.linewidth"] * 1.5
    axes.hlines(rows, -0.5, n_columns - 0.5, color="0.2", linewidth=width)


def _class_words(phones: Sequence[str]) -> str:
    """Return the classes from top to bottom, as a label of the axis that is read upwards."""
    kinds = dict.fromkeys(phone_class(phone) for phone in phones)
    words = {"vowel": "vowels", "consonant": "consonants", "unknown": "of no class"}
    return "phone: " + " | ".join(words[kind] for kind in reversed(kinds))
