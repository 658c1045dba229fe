"""Which phones are attended to for which side of a dimension.

Shares are toward the first side of a pair; 0.5 is no preference and the middle of the colours.
"""

import json
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import Document, PhoneMap
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.words import (
    WordStyle,
    bands_of,
)
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import shown
from interp_lab.visualization.toolbox import aggregate, aggregate_or_none, head_sheet

EVEN = 0.5
ROW, COLUMN = 0.16, 0.19  # inches of a phone and of a dimension, at the least
# The smallest distance from 0.5 that has a full colour: noise must not look like an effect.
LEAST_SPAN = 0.02


def phone_dimension_heatmap(
    results: Results,
    style: WordStyle,
    *,
    shares: str = "phone_dimension",
    counts: str = "phone_dimension_count",
    phones: str = "phones",
    dimensions: str = "dimensions",
    permutation: str = "phone_permutation",
    min_count: int = 1,
    cmap: str = "RdBu_r",
) -> Figure:
    """Draw phones (down) by dimensions (across), one panel a band of layers or the chosen layer.

    Args:
        results: an open result.
        style: how; gives the bands, or the layer.
        shares: PhoneMap (layer, phone, dimension) of mean shares toward a pair's first side.
        counts: PhoneMap of how many words each is the mean of; a layer of a band weighs by it.
        phones, dimensions: Documents with the labels, as JSON lists.
        permutation: PhoneMaps named with `_low` and `_high`, where shares lie with phones shuffled
            between words; a cell outside both bounds' means has a dot. Left out if not there.
        min_count: cells of fewer words are blank, not a value.
        cmap: a diverging colormap, its middle at 0.5.

    Raises:
        NothingToDrawError: if the result does not hold them, or no cell has enough words.
        ConfigError: if it does not hold the chosen layer.
    """
    field, values = aggregate(results, shares, PhoneMap)
    counted, numbers = aggregate(results, counts, PhoneMap)
    rows, columns = labels_of(results, phones), labels_of(results, dimensions)
    bands = bands_of(results, len(values), style)
    maps = {b.name: band_mean(values[b.rows], numbers[b.rows], min_count) for b in bands}
    if not any(one.count() for one in maps.values()):
        raise NothingToDrawError(f"no phone was measured with {min_count} words or more")
    norm = even_norm(list(maps.values()))
    ends = [aggregate_or_none(results, f"{permutation}_{e}", PhoneMap) for e in ("low", "high")]
    foot = _foot(numbers.max(axis=0), min_count, counted.about or "words")
    foot += " Dots: beyond 95 % of shuffles of the phones between words." * all(
        end is not None for end in ends
    )
    width = len(maps) * max(1.6, len(columns) * COLUMN) + 2.0
    page = style.page((max(6.0, width), max(2.0, len(rows) * ROW) + 3.4), fill=True)
    with style.context(page.points):
        title = "Which side of a dimension attends to each phone"
        figure = head_sheet(results, style, page, title, [field], foot)
        panels = figure.subplots(1, len(maps), squeeze=False)[0]
        for place, (axes, (name, one)) in enumerate(zip(panels, maps.items(), strict=True)):
            axes.set_title(name, loc="left", fontsize="small")
            _phone_map(axes, one, norm, cmap)
            _dots(axes, one, [end[bands[place].rows].mean(0) for end in ends if end is not None])
            axes.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize="x-small")
            size = "small" if len(rows) <= 20 else "x-small"
            axes.set_yticks(np.arange(len(rows)), rows if place == 0 else [], fontsize=size)
            axes.tick_params(length=0)
        panels[0].set_ylabel("phone")
        _share_bar(panels[-1], ScalarMappable(norm, cmap))
    return figure


def _foot(counts: np.ndarray, min_count: int, what: str) -> str:
    """Return how to read the cells, each the mean of so many `what`: counts (phone, dimension)."""
    counted = counts[counts >= max(1, min_count)]
    few, most = int(counted.min()), int(counted.max())
    foot = (
        "Above 0.5 a phone is attended to more from the first side of the pair, below 0.5 from "
        f"the second. {what.capitalize()} that a cell is the mean of: {few}"
        f"{f' to {most}' * (few < most)}."
    )
    if counted.size < counts.size:
        foot += f" Hatched: {f'fewer than {min_count} {what}' if min_count > 1 else f'no {what}'}."
    return foot


def even_norm(arrays: Sequence[np.ma.MaskedArray]) -> TwoSlopeNorm:
    """Return colour limits as far from 0.5 on either side, that span all values."""
    spans = [float(np.abs(one - EVEN).max()) for one in arrays if one.count()]
    span = max([LEAST_SPAN, *spans])
    return TwoSlopeNorm(EVEN, EVEN - span, EVEN + span)


def labels_of(results: Results, name: str) -> list[str]:
    """Return the labels that a Document over the whole run lists as JSON.

    Raises:
        NothingToDrawError: if the result does not hold it.
    """
    if not isinstance(results.aggregates.get(name), Document):
        raise NothingToDrawError(f"the result holds no Document {name}")
    return [shown(str(label)) for label in json.loads(str(results.aggregate(name)))]


def band_mean(shares: np.ndarray, counts: np.ndarray, min_count: int = 1) -> np.ma.MaskedArray:
    """Return the mean over a band's layers (phone, dimension), masked where words are too few.

    Args:
        shares: (layer, phone, dimension).
        counts: the same shape.
        min_count: of the layer that has most words.
    """
    total = counts.sum(axis=0)
    mean = (shares * counts).sum(axis=0) / np.maximum(total, 1)
    return np.ma.masked_where(counts.max(axis=0) < max(1, min_count), mean)


def _phone_map(axes: Axes, values: np.ma.MaskedArray, norm: TwoSlopeNorm, cmap: str) -> None:
    """Draw one map; a cell without a value shows the hatched ground."""
    axes.set_facecolor("0.97")
    axes.patch.set(hatch="/////", edgecolor="0.78", linewidth=0)
    axes.imshow(values, cmap=cmap, norm=norm, aspect="auto")
    axes.spines[:].set_visible(False)


def _dots(axes: Axes, values: np.ma.MaskedArray, ends: Sequence[np.ndarray]) -> None:
    """Mark the cells that lie outside of their two bounds (phone, dimension)."""
    if len(ends) < 2:
        return
    outside = np.ma.filled((values < ends[0]) | (values > ends[1]), False)
    rows, columns = np.nonzero(outside)
    size = matplotlib.rcParams["font.size"] * 0.22
    axes.plot(
        columns,
        rows,
        linestyle="",
        marker="o",
        markersize=size,
        color="black",
        markeredgecolor="white",
        markeredgewidth=size * 0.35,
    )


def _share_bar(axes: Axes, mappable: ScalarMappable) -> None:
    assert axes.figure is not None
    bar = axes.figure.colorbar(mappable, cax=axes.inset_axes((1.04, 0.0, 0.045, 1.0)))
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(7)
    bar.set_label("share toward the first side")
