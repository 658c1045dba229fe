"""Figures of a whole run: mean maps on the token grid, and how values spread over the samples."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import Field, Histogram, Scalar
from interp_lab.store.results import Results
from interp_lab.studies.clip_similarity.figures.map_figures import (
    PANEL,
    MapStyle,
    draw_tiles_panel,
    with_guide,
)
from interp_lab.studies.clip_similarity.figures.maps import (
    SEEN,
    choose,
    heading,
    in_kind_order,
)
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.panels import DrawnMap, unit_of
from interp_lab.visualization.sheets import sheet


def mean_maps(results: Results, style: MapStyle, *, fields: Sequence[str] | None = None) -> Figure:
    """Draw the maps over all samples, one row a statistic (mean, std).

    Args:
        results: an open result.
        style: how.
        fields: names of aggregate maps, such as `mean_cls_similarity`; all of them where None.

    Raises:
        NothingToDrawError: if the result holds none of them.
    """
    chosen = choose(results.aggregates, fields)
    rows = [_drawn(results, same, style) for same in _by_statistic(chosen)]
    page = style.page((max(map(len, rows)) * PANEL * 1.25, len(rows) * PANEL + 0.9))
    drawn_maps = [drawn for row in rows for drawn in row]
    title = "Similarity of tokens: mean and spread over the maps"
    head = with_guide(
        heading(results, None, chosen, over_run=title), drawn_maps, style, over_picture=False
    )
    with style.context(page.points):
        figure = sheet(style, page, head)
        for places, row in zip(_places(figure, rows), rows, strict=True):
            for place, drawn in zip(places, row, strict=True):
                draw_tiles_panel(figure, place, drawn, 1.0, style)
    return figure


def _places(figure: Figure, rows: Sequence[Sequence[Any]]) -> list[list[SubplotSpec]]:
    """Return a place for each panel: aligned in columns if the rows are as long, else filled."""
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        grid = figure.add_gridspec(len(rows), lengths[0])
        return [[grid[r, c] for c in range(lengths[0])] for r in range(len(rows))]
    outer = figure.add_gridspec(len(rows), 1)
    inner = [outer[r].subgridspec(1, n) for r, n in enumerate(lengths)]
    return [[grid[c] for c in range(n)] for grid, n in zip(inner, lengths, strict=True)]


def _by_statistic(fields: Sequence[Field]) -> list[list[Field]]:
    groups: dict[str, list[Field]] = {}
    for field in fields:
        groups.setdefault(field.name.partition("_")[0], []).append(field)
    return list(groups.values())


def _drawn(results: Results, fields: Sequence[Field], style: MapStyle) -> list[DrawnMap]:
    # Fixed limits belong to the samples' values; a spread has a scale of its own.
    fixed = style.limits if fields[0].name.startswith("mean") else None
    maps = [(field, results.aggregate(field.name)) for field in fields]
    return panels.with_limits(maps, fixed)


def distributions(
    results: Results, style: MapStyle, *, fields: Sequence[str] | None = None
) -> Figure:
    """Draw how values spread: pooled over all samples, and each sample's own number, sorted.

    Args:
        results: an open result.
        style: how.
        fields: names of histograms and scalars; all of them where None.

    Raises:
        NothingToDrawError: if the result holds none of them.
    """
    pooled = [f for f in results.aggregates.values() if isinstance(f, Histogram)]
    scalars: list[Field] = [f for f in results.of_kind(Scalar) if f.name != SEEN]
    rows = [
        [f for f in _in_order(results, row) if fields is None or f.name in fields]
        for row in (pooled, scalars)
    ]
    rows = [row for row in rows if row]
    if not rows:
        raise NothingToDrawError("the result holds neither histograms nor numbers of samples")
    page = style.page((max(map(len, rows)) * PANEL * 1.15, len(rows) * PANEL * 0.85 + 0.7))
    color = matplotlib.colormaps[style.colormap](0.4)
    title, shown = "Values, pooled and sample by sample,", [f for row in rows for f in row]
    with style.context(page.points):
        figure = sheet(style, page, heading(results, None, shown, over_run=title))
        for places, row in zip(_places(figure, rows), rows, strict=True):
            for place, field in zip(places, row, strict=True):
                axes = figure.add_subplot(place)
                if isinstance(field, Histogram):
                    _pooled(axes, field, results.aggregate(field.name), color)
                    axes.set_xlim(*_shared_range(pooled, field.unit))
                else:
                    _sorted_samples(axes, field, _values(results, field), results, color)
    return figure


def _in_order(results: Results, fields: Sequence[Field]) -> list[Field]:
    """Sort fields such as `mean_x` and `histogram_x` as the maps `x` are sorted elsewhere."""
    maps = [f.name for f in in_kind_order(results.fields)]

    def place(field: Field) -> int:
        base = field.name.partition("_")[2]
        return maps.index(base) if base in maps else len(maps)

    return sorted(fields, key=place)


def _shared_range(fields: Sequence[Histogram], unit: str) -> tuple[float, float]:
    same = [f for f in fields if f.unit == unit]
    low, high = min(f.lowest for f in same), max(f.highest for f in same)
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def _values(results: Results, field: Field) -> np.ndarray:
    if field.ragged:
        return np.array([results.read(field.name, name) for name in results.sample_ids])
    return np.concatenate([block[field.name] for block in results.stream([field.name])])


def _pooled(axes: Axes, field: Histogram, counts: np.ndarray, color: Any) -> None:
    borders = np.linspace(field.lowest, field.highest, len(counts) + 1)
    panels.draw_counts(axes, counts, borders, color)
    _title(axes, field, f"all samples pooled, n = {counts.sum()}")
    axes.set(xlabel=_label(field), ylabel="count")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _sorted_samples(
    axes: Axes, field: Field, values: np.ndarray, results: Results, color: Any
) -> None:
    """Draw a dot a sample in rising order over median and middle half; name the two extremes."""
    order = np.argsort(values, kind="stable")
    n = len(values)
    low, middle, high = np.percentile(values, [25, 50, 75])
    points, line = matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.linewidth"]
    axes.axhspan(low, high, color="0.92", linewidth=0)
    axes.axhline(middle, color="0.5", linewidth=line * 1.5)
    axes.scatter(
        np.arange(1, n + 1),
        values[order],
        s=points**2 * (0.25 if n < 100 else 0.08),
        color=color,
        linewidths=0,
        rasterized=n > 2000,
        zorder=2,
    )
    for rank, side, way in ((0, "left", -1), (n - 1, "right", 1)):
        name = results.sample_ids[order[rank]]
        axes.annotate(
            name if len(name) <= 28 else f"...{name[-25:]}",
            (rank + 1, values[order[rank]]),
            textcoords="offset points",
            xytext=(0, way * 0.8 * points),
            ha=side,
            va="center",
            fontsize="x-small",
            color="0.3",
        )
    spread = f"median {middle:.3g}, middle half {low:.3g} to {high:.3g}, n = {n}"
    _title(axes, field, spread)
    axes.set(xlabel="samples, sorted", ylabel=_label(field))
    axes.margins(x=0.04, y=0.14)


def _title(axes: Axes, field: Field, numbers: str) -> None:
    axes.set_title(f"{panels.sentence(field.about)}\n{numbers}", loc="left", fontsize="small")


def _label(field: Field) -> str:
    return unit_of(field) or "value"
