"""Drawn things lie where their numbers belong: on the cell, or on the border of two cells."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.fields import CellMap, DownEdgeMap, RightEdgeMap
from interp_lab.visualization import panels

PICTURE = np.zeros((30, 60, 3), dtype=np.uint8)
RIGHT = (RightEdgeMap("r", "right"), np.arange(4.0).reshape(2, 2))  # a grid of 2 x 3
DOWN = (DownEdgeMap("d", "down"), np.arange(10.0, 13.0).reshape(1, 3))
CELLS = (CellMap("c", "cells"), np.arange(6.0).reshape(2, 3))


@pytest.fixture
def axes() -> Iterator[Axes]:
    yield Figure().add_subplot()


def test_the_grid_is_that_of_the_cells_for_every_kind() -> None:
    assert [d.grid for d in panels.with_limits([RIGHT, DOWN, CELLS])] == [(2, 3)] * 3


def test_cells_cover_the_picture_exactly(axes: Axes) -> None:
    (drawn,) = panels.with_limits([CELLS])
    heat = panels.draw_over_picture(axes, drawn, PICTURE, "viridis", alpha=0.5, gray=True)
    panels.frame(axes, drawn.grid, panels.cell_aspect(PICTURE, drawn.grid), labels=False)
    photo = axes.get_images()[0]
    assert photo.get_extent() == heat.get_extent() == [0, 3, 2, 0]
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim() == (2, 0)  # row 0 at the top
    assert axes.get_aspect() == pytest.approx((30 / 2) / (60 / 3))


def test_the_grid_lines_are_the_borders_of_the_cells(axes: Axes) -> None:
    panels.draw_grid(axes, (2, 3))
    ends = np.array(axes.collections[0].get_segments())
    upright = ends[ends[:, 0, 0] == ends[:, 1, 0]]
    assert upright[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert len(ends) == 4 + 3


@pytest.mark.parametrize(
    ("edge", "centres"),
    [
        (RIGHT, [(1, 0.5), (2, 0.5), (1, 1.5), (2, 1.5)]),
        (DOWN, [(0.5, 1), (1.5, 1), (2.5, 1)]),
    ],
)
def test_a_bar_lies_on_the_border_of_its_two_cells(
    axes: Axes, edge: tuple, centres: list[tuple[float, float]]
) -> None:
    (drawn,) = panels.with_limits([edge])
    bars = panels.draw_bars(axes, drawn, "viridis")
    corners = np.array([path.vertices[:4] for path in bars.get_paths()])
    assert corners.mean(axis=1) == pytest.approx(np.array(centres))
    # Half as wide as the distance to the next border at most, within the two cells' row or column.
    assert np.ptp(corners, axis=1).max() <= 1
    bars.update_scalarmappable()
    expected = bars.cmap(drawn.norm(edge[1].ravel()))
    assert bars.get_facecolor() == pytest.approx(expected)


@pytest.mark.parametrize(("edge", "extent"), [(RIGHT, [0.5, 2.5, 2, 0]), (DOWN, [0, 3, 1.5, 0.5])])
def test_an_edge_tile_reaches_from_centre_to_centre(
    axes: Axes, edge: tuple, extent: list[float]
) -> None:
    (drawn,) = panels.with_limits([edge])
    tiles = panels.draw_tiles(axes, drawn, "viridis")
    assert list(tiles.get_extent()) == extent


def test_limits_span_the_values_and_are_shared_by_both_directions() -> None:
    right, down, cells = panels.with_limits([RIGHT, DOWN, CELLS])
    assert (right.norm.vmin, right.norm.vmax) == (0, 12)
    assert (down.norm.vmin, down.norm.vmax) == (0, 12)
    assert (cells.norm.vmin, cells.norm.vmax) == (0, 5)


def test_fixed_limits_are_taken_as_they_are() -> None:
    assert [(d.norm.vmin, d.norm.vmax) for d in panels.with_limits([RIGHT, CELLS], (0.5, 2))] == [
        (0.5, 2)
    ] * 2


def test_a_constant_map_has_the_middle_colour() -> None:
    (drawn,) = panels.with_limits([(CELLS[0], np.full((2, 3), 0.7))])
    assert drawn.norm(0.7) == pytest.approx(0.5)


def test_a_grid_of_one_token_has_no_edges_to_draw() -> None:
    assert panels.with_limits([(RIGHT[0], np.empty((1, 0)))]) == []


def test_the_colour_bar_shows_quantity_and_limits(axes: Axes) -> None:
    (drawn,) = panels.with_limits([(CellMap("c", "cells", "m", "x/1 (dot_product)"), CELLS[1])])
    panels.draw_colorbar(axes, panels.draw_tiles(axes, drawn, "viridis"), drawn)
    (bar,) = axes.child_axes
    assert bar.get_ylabel() == "dot product [m]"
    assert bar.get_ylim() == (0, 5)


def test_values_are_counted_in_full(axes: Axes) -> None:
    (drawn,) = panels.with_limits([CELLS])
    panels.draw_values(axes, drawn, "viridis", one_line=True)
    assert sum(bar.get_height() for bar in axes.patches) == 6
    assert axes.get_title(loc="left") == "Cells: mean 2.5, SD 1.7, n = 6"
