"""Which phones are attended to for which side of a dimension, and how much.

Shares are toward the first side of a pair; 0.5 is no preference and the middle of the colours.
"""

import json
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from interp_lab.fields import Document, PhoneMap
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.squares import (
    ALIKE,
    colour_words,
    draw_keys,
    share_squares,
    size_words,
)
from interp_lab.studies.semdim.figures.words import WordStyle, bands_of
from interp_lab.visualization.base import NothingToDrawError, Page
from interp_lab.visualization.reading import shown
from interp_lab.visualization.toolbox import aggregate, aggregate_or_none, head_sheet

EVEN = 0.5
ROW, COLUMN = 0.16, 0.19  # inches of a phone and of a dimension, at the least
# The smallest distance from 0.5 that has a full colour: noise must not look like an effect.
LEAST_SPAN = 0.1


def phone_dimension_heatmap(
    results: Results,
    style: WordStyle,
    *,
    shares: str = "phone_dimension",
    counts: str = "phone_dimension_count",
    phones: str = "phones",
    dimensions: str = "dimensions",
    mass: str = "phone_mass",
    permutation: str = "phone_familywise",
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
        mass: PhoneMap of the attention behind the shares; cells are all full if it is not there.
        permutation: PhoneMaps named with `_low` and `_high`, where shares lie with phones shuffled
            between words; a cell outside both bounds' means has a dot. `phone_familywise` holds for
            all cells together, `phone_permutation` for each by itself. Left out if not there.
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
    attention = aggregate_or_none(results, mass, PhoneMap)
    looks = [None if attention is None else attention[b.rows].mean(axis=0) for b in bands]
    top = _top(maps.values(), looks)
    ends = [aggregate_or_none(results, f"{permutation}_{e}", PhoneMap) for e in ("low", "high")]
    foot = [_foot(numbers.max(axis=0), min_count, counted.about or "words"), colour_words(norm)]
    foot += [size_words(top, ", mean over heads"), ALIKE] if top is not None else []
    foot += [_dots_words(results, permutation, ends)]
    page = map_page(style, len(maps), len(rows), len(columns))
    with style.context(page.points):
        title = "Which side of a dimension attends to each phone"
        figure = head_sheet(results, style, page, title, [field], " ".join(foot).strip())
        panels = figure.subplots(1, len(maps), squeeze=False)[0]
        for place, (axes, (name, one)) in enumerate(zip(panels, maps.items(), strict=True)):
            axes.set_title(name, loc="left", fontsize="small")
            share_squares(axes, one, looks[place], norm, cmap, top or 1.0)
            _dots(axes, one, [end[bands[place].rows].mean(0) for end in ends if end is not None])
            label_cells(axes, rows, columns, is_first=place == 0)
        panels[0].set_ylabel("phone")
        draw_keys(panels[-1], norm, cmap, top, "share toward the first side")
    return figure


def map_page(style: WordStyle, n_panels: int, n_rows: int, n_columns: int) -> Page:
    """Return the page of maps side by side, each of so many phones and dimensions."""
    width = n_panels * max(1.6, n_columns * COLUMN) + 2.0
    return style.page((max(6.0, width), max(2.0, n_rows * ROW) + 3.4), fill=True)


def label_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], *, is_first: bool) -> None:
    """Write dimensions across, and phones down where it is the first panel."""
    axes.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize="x-small")
    size = "small" if len(rows) <= 20 else "x-small"
    axes.set_yticks(np.arange(len(rows)), rows if is_first else [], fontsize=size)


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


def _top(maps: Iterable[np.ma.MaskedArray], looks: Sequence[np.ndarray | None]) -> float | None:
    """Return the largest attention of any drawn cell; None if it is not known, or nothing."""
    shown = [
        float(look[~np.ma.getmaskarray(one)].max(initial=0))
        for one, look in zip(maps, looks, strict=True)
        if look is not None
    ]
    return max(shown, default=0.0) or None


def _dots_words(results: Results, name: str, ends: Sequence[np.ndarray | None]) -> str:
    """Return what the dots are: corrected for the number of cells, or not."""
    if any(end is None for end in ends):
        return ""
    definition = results.aggregates[f"{name}_low"].definition
    if definition:
        return (
            "Dots: beyond what 95 % of shuffles of the phones between words reach in any cell, "
            f"by the largest deviation of all layers, phones and dimensions ({definition})."
        )
    return (
        "Dots: beyond 95 % of shuffles of the phones between words, each cell by itself; not "
        "corrected for the number of cells."
    )


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
