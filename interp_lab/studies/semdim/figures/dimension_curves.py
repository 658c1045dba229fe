"""How the share toward a dimension's first side changes over the layers, with what chance gives."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import DimensionCurve
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.phones import EVEN, LEAST_SPAN, labels_of
from interp_lab.studies.semdim.figures.words import numbers_of
from interp_lab.visualization.base import Style
from interp_lab.visualization.toolbox import (
    LINE,
    SECOND,
    TOP,
    aggregate,
    aggregate_or_none,
    head_sheet,
)

CHANCE = "0.86"
MOST_IN_A_ROW = 5


def dimension_layer_curves(
    results: Results,
    style: Style,
    *,
    curve: str = "dimension_curve",
    permutation: str = "permutation",
    dimensions: str = "dimensions",
    interval: str = "95 % bootstrap interval over words",
) -> Figure:
    """Draw a panel a dimension: its share over the layers, with its interval and the 0.5 line.

    Args:
        results: an open result.
        style: how.
        curve: DimensionCurve (dimension, layer); its interval is named with `_low` and `_high`.
        permutation: the band of shuffled phones, named the same way; left out where there is none.
        dimensions: Document with the labels, first side first: "big-small".
        interval: what the interval is.

    Raises:
        NothingToDrawError: if the result holds no curve or labels.
    """
    field, values = aggregate(results, curve, DimensionCurve)
    labels = labels_of(results, dimensions)
    interval_ends, chance_ends = (_ends(results, name) for name in (curve, permutation))
    n, n_layers = values.shape
    columns = min(MOST_IN_A_ROW, n)
    foot = "Line: mean share toward the first side; below 0.5 it is toward the second. "
    foot += f"Band: {interval}. " * bool(interval_ends)
    foot += "Gray: where the mean lies with phones shuffled between words. " * bool(chance_ends)
    rows = math.ceil(n / columns)
    page = style.page((max(6.0, columns * 2.1 + 0.6), rows * 1.5 + 2.2), fill=True)
    numbers = np.array(numbers_of(results, "layer", n_layers))
    span = _span([values, *interval_ends, *chance_ends])
    with style.context(page.points):
        title = "Which side of each dimension attends to the words"
        figure = head_sheet(results, style, page, title, [field], foot.strip())
        grid = figure.add_gridspec(rows, columns)
        for place, label in enumerate(labels):
            axes = figure.add_subplot(grid[divmod(place, columns)])
            chance = [end[place] for end in chance_ends]
            _curve(axes, numbers, values[place], [e[place] for e in interval_ends], chance)
            _name_sides(axes, label)
            is_lowest = place + columns >= n
            axes.set(ylim=(EVEN - span, EVEN + span), xlim=(numbers[0], numbers[-1] + 1e-9))
            axes.tick_params(
                labelbottom=is_lowest, labelleft=place % columns == 0, length=2, labelsize="x-small"
            )
            axes.set_xlabel("layer" if is_lowest else "", fontsize="small")
            axes.set_ylabel("share" if place % columns == 0 else "", fontsize="small")
    return figure


def _ends(results: Results, name: str) -> list[np.ndarray]:
    """Return the lower and upper ends of a band, or nothing if either is not there."""
    found = [aggregate_or_none(results, f"{name}_{e}", DimensionCurve) for e in ("low", "high")]
    held = [end for end in found if end is not None]
    return held if len(held) == 2 else []


def _span(arrays: Sequence[np.ndarray]) -> float:
    """Return how far from 0.5 the axes reach, the same for all panels."""
    return 1.06 * max([LEAST_SPAN, *(float(np.abs(one - EVEN).max()) for one in arrays)])


def _curve(
    axes: Axes,
    layers: np.ndarray,
    values: np.ndarray,
    interval: Sequence[np.ndarray],
    chance: Sequence[np.ndarray],
) -> None:
    """Draw one curve (layer,) over its bands; red above 0.5 at the last layer, else blue."""
    if chance:
        axes.fill_between(layers, chance[0], chance[1], color=CHANCE, linewidth=0, zorder=0)
    width = matplotlib.rcParams["axes.linewidth"]
    axes.axhline(EVEN, color=LINE, linewidth=width, linestyle=(0, (4, 3)), zorder=1)
    color = TOP if values[-1] >= EVEN else SECOND
    if interval:
        axes.fill_between(
            layers, interval[0], interval[1], color=color, alpha=0.22, linewidth=0, zorder=2
        )
    axes.plot(layers, values, color=color, linewidth=width * 2, zorder=3)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _name_sides(axes: Axes, label: str) -> None:
    """Write a pair's first side at the top and its second at the bottom of its panel."""
    first, _, second = label.partition("-")
    for text, y, side, color in ((first, 0.97, "top", TOP), (second, 0.03, "bottom", SECOND)):
        axes.text(
            0.04,
            y,
            text,
            transform=axes.transAxes,
            va=side,
            fontsize="small",
            color=color,
            zorder=4,
        )
