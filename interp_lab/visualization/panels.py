"""Drawing on one pair of axes: a picture, its token grid, and fields that lie on that grid.

All functions take arrays. Coordinates are cells: the picture covers x from 0 to cols and y from 0
(top) to rows, so a field that belongs to cell (row, col) covers exactly that part of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import CellMap, DownEdgeMap, Field, RightEdgeMap

MAP_KINDS: tuple[type[Field], ...] = (RightEdgeMap, DownEdgeMap, CellMap)
EDGE_KINDS = (RightEdgeMap, DownEdgeMap)
NO_VALUE = "0.88"
# A bar's share of a cell: wide enough for its colour, narrow enough to leave the photograph.
BAR_WIDTH = 0.34
BAR_LENGTH = 0.86

Grid: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class DrawnMap:
    """A field with its numbers and the colour limits it is drawn with.

    Args:
        field: a CellMap, RightEdgeMap or DownEdgeMap.
        values: (rows, cols), (rows, cols - 1) or (rows - 1, cols).
        norm: from value to colour.
    """

    field: Field
    values: np.ndarray
    norm: Normalize

    @property
    def grid(self) -> Grid:
        """Rows and columns of the token grid."""
        rows, cols = self.values.shape
        return rows + isinstance(self.field, DownEdgeMap), cols + isinstance(
            self.field, RightEdgeMap
        )

    @property
    def title(self) -> str:
        """What a person calls the field."""
        return sentence(self.field.about)

    @property
    def unit(self) -> str:
        """The colour bar's label."""
        return unit_of(self.field)


def sentence(text: str) -> str:
    """Return the text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def unit_of(field: Field) -> str:
    """Return what a field's numbers are: its definition's variant, and its unit if it has one."""
    _, _, variant = field.definition.partition("(")
    words = [variant.rstrip(")").replace("_", " ")] if variant else []
    words += [f"[{field.unit}]"] if field.unit != "1" else []
    return " ".join(words)


def with_limits(
    maps: Sequence[tuple[Field, np.ndarray]], fixed: tuple[float, float] | None = None
) -> list[DrawnMap]:
    """Give every map its colour limits.

    Nothing is clipped: limits are the smallest and the largest value. The edge maps of one unit
    are one quantity in two directions and share their limits.

    Args:
        maps: fields with their values; empty ones (a grid of one cell has no edge) are left out.
        fixed: limits for all of them, to compare figures.
    """
    held = [(field, np.asarray(values)) for field, values in maps if np.size(values)]
    groups: dict[str, list[np.ndarray]] = {}
    for field, values in held:
        groups.setdefault(limit_group(field), []).append(values)
    return [
        DrawnMap(field, values, limits(groups[limit_group(field)], fixed)) for field, values in held
    ]


def limit_group(field: Field) -> str:
    """Return a name that fields with common colour limits have in common."""
    return f"edge {field.unit}" if isinstance(field, EDGE_KINDS) else field.name


def limits(arrays: Sequence[np.ndarray], fixed: tuple[float, float] | None = None) -> Normalize:
    """Return colour limits that span all the values, or the fixed ones."""
    low, high = fixed or (float(min(a.min() for a in arrays)), float(max(a.max() for a in arrays)))
    if not low < high:  # one value only: a range around it, so that its colour is the middle one
        margin = max(abs(low), 1.0) * 0.05
        low, high = low - margin, high + margin
    return Normalize(low, high)


def frame(axes: Axes, grid: Grid, cell_aspect: float, *, labels: bool) -> None:
    """Set the axes to the token grid, row 0 at the top; `labels` names rows and columns."""
    rows, cols = grid
    axes.set(xlim=(0, cols), ylim=(rows, 0), aspect=cell_aspect)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if not labels:
        axes.set(xticks=[], yticks=[])
        return
    for axis, n in ((axes.xaxis, cols), (axes.yaxis, rows)):
        step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100, 1000, n) if n / s <= 7)
        ticks = np.arange(0, n, step)
        axis.set_ticks(ticks + 0.5, [str(t) for t in ticks])
    axes.set(xlabel="token column", ylabel="token row")


def cell_aspect(picture: np.ndarray | None, grid: Grid) -> float:
    """Return height over width of one cell of the picture (y, x, channel)."""
    if picture is None:
        return 1.0
    height, width = picture.shape[:2]
    return (height / grid[0]) / (width / grid[1])


def draw_picture(axes: Axes, picture: np.ndarray, grid: Grid, *, gray: bool = False) -> AxesImage:
    """Draw the picture so that it covers the grid exactly.

    Args:
        axes: where.
        picture: (y, x, 3), 0 to 255.
        grid: rows and columns.
        gray: draw its brightness only, so that every hue on it is a value's.
    """
    if gray:
        brightness = picture[..., :3] @ np.array([0.299, 0.587, 0.114])
        # Lighter than the photograph: dark colours must stand out from dark ground as well.
        picture = np.repeat((80 + brightness * 175 / 255)[..., None], 3, axis=2).astype(np.uint8)
    return axes.imshow(picture, extent=_extent(grid), interpolation="auto", aspect="auto")


def draw_grid(axes: Axes, grid: Grid, *, strength: float = 1.0) -> None:
    """Draw the borders of the tokens, light on dark so that they show on any picture."""
    rows, cols = grid
    lines = [[(x, 0), (x, rows)] for x in range(cols + 1)]
    lines += [[(0, y), (cols, y)] for y in range(rows + 1)]
    width = matplotlib.rcParams["axes.linewidth"] * strength
    axes.add_collection(LineCollection(lines, colors="black", linewidths=width * 1.1, alpha=0.35))
    axes.add_collection(LineCollection(lines, colors="white", linewidths=width * 0.6, alpha=0.8))


def draw_tiles(axes: Axes, drawn: DrawnMap, cmap: str) -> AxesImage:
    """Draw the numbers as tiles of full colour.

    A cell's tile is the cell. An edge's tile is as large, and reaches from the centre of the one
    token to the centre of the other; the half cells at the margin have no value and are gray.
    """
    rows, cols = drawn.grid
    # An edge map is one shorter along its axis: half a cell is missing at either end.
    x, y = (cols - drawn.values.shape[1]) / 2, (rows - drawn.values.shape[0]) / 2
    axes.set_facecolor(NO_VALUE)
    return axes.imshow(
        drawn.values, extent=(x, cols - x, rows - y, y), cmap=cmap, norm=drawn.norm, aspect="auto"
    )


def draw_over_picture(
    axes: Axes, drawn: DrawnMap, picture: np.ndarray, cmap: str, *, alpha: float, gray: bool
) -> ScalarMappable:
    """Draw a map on the picture: cells as translucent heat, edges as bars on their borders."""
    draw_picture(axes, picture, drawn.grid, gray=gray)
    if isinstance(drawn.field, EDGE_KINDS):
        draw_grid(axes, drawn.grid, strength=0.5)
        return draw_bars(axes, drawn, cmap)
    heat = axes.imshow(
        drawn.values,
        extent=_extent(drawn.grid),
        cmap=cmap,
        norm=drawn.norm,
        alpha=alpha,
        aspect="auto",
    )
    draw_grid(axes, drawn.grid, strength=0.5)
    return heat


def draw_bars(axes: Axes, drawn: DrawnMap, cmap: str) -> PolyCollection:
    """Draw one opaque bar for each pair of neighbours, on the border that the two share.

    The bars are in the order of the flattened values.
    """
    row, col = np.indices(drawn.values.shape).reshape(2, -1)
    across, along = BAR_WIDTH / 2, BAR_LENGTH / 2
    if isinstance(drawn.field, RightEdgeMap):
        x, y, half = col + 1.0, row + 0.5, (across, along)
    else:
        x, y, half = col + 0.5, row + 1.0, (along, across)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    bars = PolyCollection(
        list(np.stack([x, y], axis=-1)[:, None, :] + corners),
        cmap=cmap,
        norm=drawn.norm,
        linewidths=0,
        zorder=3,
    )
    bars.set_array(drawn.values.ravel())
    axes.add_collection(bars)
    return bars


def draw_colorbar(axes: Axes, mappable: ScalarMappable, drawn: DrawnMap) -> None:
    """Draw a colour bar of the axes' own height beside them, with the quantity and its unit.

    Its ends are pointed where fixed limits cut values off.
    """
    beside = axes.inset_axes((1.03, 0.0, 0.045, 1.0))
    low, high = drawn.values.min() < drawn.norm.vmin, drawn.values.max() > drawn.norm.vmax
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(low), int(high)]
    figure = axes.figure
    assert figure is not None
    bar = figure.colorbar(mappable, cax=beside, extend=extend, alpha=1.0)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(6)
    bar.set_label(drawn.unit)


def draw_values(axes: Axes, drawn: DrawnMap, cmap: str, *, one_line: bool, bins: int = 40) -> None:
    """Draw how often which value occurs, in the colours of the map, with mean and spread."""
    values = drawn.values.ravel()
    counts, borders = np.histogram(values, bins=bins, range=_range(values))
    centres = (borders[1:] + borders[:-1]) / 2
    draw_counts(axes, counts, borders, matplotlib.colormaps[cmap](drawn.norm(centres)))
    text = f"mean {values.mean():.3g}, SD {values.std():.2g}, n = {values.size}"
    axes.axvline(values.mean(), color="black", linewidth=matplotlib.rcParams["axes.linewidth"] * 2)
    axes.set_title(drawn.title + (": " if one_line else "\n") + text, loc="left", fontsize="small")


def draw_counts(axes: Axes, counts: np.ndarray, borders: np.ndarray, color: Any) -> None:
    """Draw counts (bins,) over bin borders (bins + 1,) in one colour, or one a bar."""
    axes.bar(
        borders[:-1],
        counts,
        np.diff(borders),
        align="edge",
        color=color,
        edgecolor="0.4",
        linewidth=matplotlib.rcParams["axes.linewidth"] * 0.4,
    )
    axes.margins(x=0.02)
    axes.set_yticks([0, max(1, int(counts.max(initial=0)))])


def _range(values: np.ndarray) -> tuple[float, float]:
    norm = limits([values])
    return float(norm.vmin or 0.0), float(norm.vmax or 0.0)


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    return (0.0, float(grid[1]), float(grid[0]), 0.0)
