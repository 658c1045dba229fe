"""Whole figures of maps on one picture, from arrays: nothing here knows a result or a sample.

The layout follows the number of maps and the shape of the sheet, so that no place stays empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from interp_lab.fields import CellMap, Field
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.panels import DrawnMap
from interp_lab.visualization.sheets import Heading, sheet

PANEL = 3.4  # inches a panel takes in a figure that chooses its own size
TILE_GUIDE = (
    "Between neighbours: a tile reaches from the centre of one token to the centre of the next."
)
BAR_GUIDE = "On the image a bar lies on the border that two tokens share."
LIMIT_GUIDE = (
    "Colours span the smallest to the largest value; maps between neighbours share their scale."
)
NO_NEIGHBOURS = "a token that has no neighbour there cannot be compared"
HEAT_GUIDE = "On the image the heat is translucent: read values from the map beside it."


@dataclass(frozen=True)
class MapStyle(Style):
    """Style of figures on a token grid (see `Style` for the rest).

    Args:
        limits: [lowest, highest] value of the colours in every figure, to compare samples;
            null = the range of each figure's own values.
        overlay_alpha: how much of the photograph the heat covers, above 0 to 1.
        overlay_gray: draw the photograph under a map without its colours, so that every hue is
            a value's.
        save_combined: whether the configuration asks for the combined figure.
        save_individual: whether it asks for one figure a field.
    """

    limits: tuple[float, float] | None = None
    overlay_alpha: float = 0.6
    overlay_gray: bool = True
    save_combined: bool = True
    save_individual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("overlay_alpha", 0.01, 1)
        for key in ("overlay_gray", "save_combined", "save_individual"):
            if not isinstance(getattr(self, key), bool):
                self.refuse(key, "give true or false")
        if self.limits is not None:
            self._check_pair("limits", "give [lowest, highest]")
            if not self.limits[0] < self.limits[1]:
                self.refuse("limits", "the first must be smaller than the second")


def combined_figure(
    maps: Sequence[tuple[Field, np.ndarray]],
    picture: np.ndarray | None,
    head: Heading,
    style: MapStyle,
) -> Figure:
    """Draw photograph, maps, maps on the photograph, and distributions.

    Args:
        maps: fields with their values, on one token grid.
        picture: (y, x, 3) uint8, or None.
        head: title and notes.
        style: how.
    """
    drawn = _drawn(maps, style)
    n = len(drawn)
    slots = _Slots(n, picture is not None, style.figsize)
    page = style.page((slots.cols * PANEL * 1.25, slots.rows * PANEL + 0.9), fill=True)
    with style.context(page.points):
        figure = sheet(
            style, page, with_guide(head, drawn, style, over_picture=picture is not None)
        )
        grid = figure.add_gridspec(slots.rows, slots.cols)
        aspect = panels.cell_aspect(picture, drawn[0].grid)
        if picture is not None:
            axes = figure.add_subplot(grid[slots.photo])
            panels.draw_picture(axes, picture, drawn[0].grid)
            panels.draw_grid(axes, drawn[0].grid)
            panels.frame(axes, drawn[0].grid, aspect, labels=True)
            axes.set_title("Image as the model saw it")
        for position, one in enumerate(drawn):
            draw_tiles_panel(figure, grid[slots.tiles(position)], one, aspect, style)
            if picture is not None:
                _overlay(figure, grid[slots.overlay(position)], one, picture, style)
        _distributions(figure, grid[slots.values], drawn, style, slots.has_wide_values)
    return figure


def individual_figure(
    maps: Sequence[tuple[Field, np.ndarray]],
    picture: np.ndarray | None,
    head: Heading,
    style: MapStyle,
) -> Figure:
    """Draw one map, and the same on the photograph.

    Args:
        maps: the map, and behind it those that only share its colour limits.
        picture, head, style: as for `combined_figure`.
    """
    one, *others = _drawn(maps, style)
    if one.field is not maps[0][0]:
        raise NothingToDrawError(NO_NEIGHBOURS)
    panes = 1 if picture is None else 2
    aspect = panels.cell_aspect(picture, one.grid)
    proportion = min(2.0, max(0.4, aspect * one.grid[0] / one.grid[1]))
    page = style.page((panes * PANEL * 1.3, PANEL * 1.1 * proportion + 1.2))
    with style.context(page.points):
        shown = with_guide(head, [one, *others], style, over_picture=picture is not None)
        figure = sheet(style, page, shown)
        grid = figure.add_gridspec(1, panes)
        draw_tiles_panel(figure, grid[0, 0], one, aspect, style)
        if picture is not None:
            _overlay(figure, grid[0, 1], one, picture, style)
    return figure


class _Slots:
    """Where panels lie: two rows with the photograph in front, or three with it on top.

    Neither leaves a hole; the one whose panels are larger in the figure's box is taken.

    Args:
        n: maps.
        with_picture: whether there is a photograph; without one there are two rows of panels.
        figsize: the figure's box, None where it follows the panels.
    """

    def __init__(self, n: int, with_picture: bool, figsize: tuple[float, float] | None) -> None:
        width, height = figsize or (4.0, 3.0)
        beside = min(width / (n + 1), height / 2)
        # Three and more histograms below a photograph are too low to be read.
        above = min(width / n, height / 3) * (0 if n == 1 else 1 if n == 2 else 1.3)
        self.is_above = with_picture and above > beside
        if not with_picture:
            self.rows, self.cols = 2, n
            self.values: Any = (1, slice(None))
        elif self.is_above:
            self.rows, self.cols = 3, n
            self.values = (0, slice(1, None))
        else:
            self.rows, self.cols = 2, n + 1
            self.values = (1, 0)
        self.photo = (0, 0)
        self.has_wide_values = n > 2 and (self.is_above or not with_picture)
        self._offset = 0 if self.is_above or not with_picture else 1

    def tiles(self, position: int) -> tuple[int, int]:
        """Row and column of a map's heat map."""
        return int(self.is_above), position + self._offset

    def overlay(self, position: int) -> tuple[int, int]:
        """Row and column of the same map on the photograph."""
        return self.rows - 1, position + self._offset


def _drawn(maps: Sequence[tuple[Field, np.ndarray]], style: MapStyle) -> list[DrawnMap]:
    drawn = panels.with_limits(maps, style.limits)
    if not drawn:
        raise NothingToDrawError(NO_NEIGHBOURS)
    return drawn


def with_guide(
    head: Heading, drawn: Sequence[DrawnMap], style: MapStyle, *, over_picture: bool
) -> Heading:
    """Return the heading with what a reader must know of these maps at its foot."""
    has_edges = any(isinstance(d.field, panels.EDGE_KINDS) for d in drawn)
    has_cells = any(isinstance(d.field, CellMap) for d in drawn)
    guides = (
        (TILE_GUIDE, has_edges),
        (BAR_GUIDE, has_edges and over_picture),
        (HEAT_GUIDE, has_cells and over_picture),
        (LIMIT_GUIDE, len(drawn) > 1 and style.limits is None),
    )
    words = [head.foot, *(guide for guide, applies in guides if applies)]
    return replace(head, foot=" ".join(word for word in words if word))


def draw_tiles_panel(
    figure: Figure, slot: SubplotSpec, drawn: DrawnMap, aspect: float, style: MapStyle
) -> None:
    """Add a panel with a heat map, its title and its colour bar."""
    axes = figure.add_subplot(slot)
    tiles = panels.draw_tiles(axes, drawn, style.colormap)
    panels.frame(axes, drawn.grid, aspect, labels=True)
    panels.draw_colorbar(axes, tiles, drawn)
    axes.set_title(drawn.title)


def _overlay(
    figure: Figure, slot: SubplotSpec, drawn: DrawnMap, picture: np.ndarray, style: MapStyle
) -> None:
    axes = figure.add_subplot(slot)
    panels.draw_over_picture(
        axes, drawn, picture, style.colormap, alpha=style.overlay_alpha, gray=style.overlay_gray
    )
    panels.frame(axes, drawn.grid, panels.cell_aspect(picture, drawn.grid), labels=False)
    axes.set_title("On the image")


def _distributions(
    figure: Figure, slot: SubplotSpec, drawn: Sequence[DrawnMap], style: MapStyle, is_wide: bool
) -> None:
    """Stack one histogram a field; those with the same colour limits share the x-axis."""
    grid = slot.subgridspec(len(drawn), 1)
    for position, one in enumerate(drawn):
        axes = figure.add_subplot(grid[position])
        panels.draw_values(axes, one, style.colormap, one_line=is_wide)
        axes.set_ylabel("count")
        # Fixed colour limits must not hide the values beyond them.
        whole = panels.limits([one.values, np.array([one.norm.vmin, one.norm.vmax])])
        axes.set_xlim(whole.vmin, whole.vmax)
        if one is drawn[-1]:
            axes.set_xlabel(one.unit or "value")
