"""From the places of tokens to grids: rows and columns of cells that lie evenly on a picture.

A tile, a crop or a whole picture of one scale is a view. Tiles that together are one larger grid
are one view; a thumbnail beside them is another, and the same place then has a token in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.placing.pictures import MIXING, OVERLAPPING, PLACED, Places
from interp_lab.tokens import View

# Tokens of one row differ by less than one of these shares of a token's extent: the extents of
# tokens that overlap are wider than their cells.
SAME = (0.25, 0.12, 0.06)
# Tokens that are narrower than this share of the others hold padding.
CUT = 0.75
# Sizes of one scale differ by less.
SCALE = 0.2
# A view that shows so much of its picture shows the whole.
WHOLE = 0.9
# Overlapping tokens that are made of more than so many cells across have no cell.
WIDEST = 3.0
# An edge this near to the picture's, in cells, is the picture's.
SNAP = 0.15
# A centre may be so far from where an even grid has it, in cells: padding cuts edge tokens.
OFF = 0.5
# Rounding to 8 bits: one level of the ramps.
LEVEL = 1 / 255


@dataclass(frozen=True)
class Grid:
    """The tokens of one view.

    Args:
        view: which picture, which part of it.
        rows, cols: of the grid.
        tokens: image tokens, counted from 0 among a row's, row by row.
    """

    view: View
    rows: int
    cols: int
    tokens: tuple[int, ...]


def grids_of(places: Places) -> list[Grid]:
    """Return the grids that tokens with a place form, in the order of their first tokens.

    Overlapping tokens have a cell where most of what they are made of is about one cell.

    Raises:
        UnsupportedModelError: if they form none; says what was seen.
    """
    is_placed = np.isin(places.verdicts, (PLACED, OVERLAPPING))
    found: list[Grid] = []
    for picture in np.unique(places.pictures[is_placed]):
        own = np.flatnonzero(is_placed & (places.pictures == picture))
        parts = [own[places.views[own] == v] for v in np.unique(places.views[own])]
        found += _joined(places, [g for part in parts for g in _grids(places, part, int(picture))])
    kept = [g for g in found if not _too_wide(places, g)]
    return sorted((_named(g, kept) for g in kept), key=lambda g: min(g.tokens))


def _grids(places: Places, tokens: np.ndarray, picture: int) -> list[Grid]:
    """Return the grid of some tokens, or those of the runs or scales among them."""
    for cut in (lambda p, t: [t], _by_runs, _by_scale):
        parts = [as_grid(places, part, picture) for part in cut(places, tokens)]
        if None not in parts:
            return [g for g in parts if g is not None]
    if all(places.verdicts[t] == OVERLAPPING for t in tokens):
        return []
    raise UnsupportedModelError(_unclear(places, tokens))


def as_grid(places: Places, tokens: np.ndarray, picture: int) -> Grid | None:
    """Return the grid that some tokens form, every cell once; None if they form none."""
    for same in SAME:
        lines = [_lines(places, tokens, axis, same) for axis in (0, 1)]
        (of_col, cols), (of_row, rows) = lines
        at = of_row * cols + of_col
        if rows * cols != len(tokens) or len(np.unique(at)) != len(tokens):
            continue
        sides = [_even(places, tokens, line, axis) for axis, (line, _) in enumerate(lines)]
        if None not in sides:
            (left, right), (top, bottom) = (s for s in sides if s is not None)
            view = View(picture, (left, top, right, bottom))
            return Grid(view, rows, cols, tuple(int(t) for t in tokens[np.argsort(at)]))
    return None


def _lines(
    places: Places, tokens: np.ndarray, axis: int, same: float = SAME[0]
) -> tuple[np.ndarray, int]:
    """Return the row (axis 1) or column (axis 0) of each token, and how many there are."""
    centres = places.centres[tokens, axis]
    widths = places.boxes[tokens, axis + 2] - places.boxes[tokens, axis]
    order = np.argsort(centres, kind="stable")
    starts = np.diff(centres[order]) > max(same * float(np.median(widths)), LEVEL / 2)
    line = np.empty(len(tokens), int)
    line[order] = np.concatenate([[0], np.cumsum(starts)])
    return line, int(line.max()) + 1


def _even(
    places: Places, tokens: np.ndarray, line: np.ndarray, axis: int
) -> tuple[float, float] | None:
    """Return where an even grid begins and ends; None if the tokens do not lie evenly."""
    low, high = (places.boxes[tokens, axis + side] for side in (0, 2))
    n = int(line.max()) + 1
    centres = np.array([places.centres[tokens, axis][line == i].mean() for i in range(n)])
    widths = np.array([(high - low)[line == i].max() for i in range(n)])
    if n == 1:
        begin, end = float(low.min()) - LEVEL / 2, float(high.max()) + LEVEL / 2
        return _snapped(begin, end, max(end - begin, LEVEL))
    full = widths > CUT * np.median(widths)
    if full.sum() < 2:
        full[:] = True
    step, first = (float(v) for v in np.polyfit(np.flatnonzero(full), centres[full], 1))
    if step <= 0 or (np.abs(first + step * np.arange(n) - centres) > OFF * step).any():
        return None
    return _snapped(first - step / 2, first + step * (n - 0.5), step)


def _snapped(begin: float, end: float, step: float) -> tuple[float, float]:
    near = SNAP * step
    return 0.0 if abs(begin) < near else begin, 1.0 if abs(end - 1) < near else end


def _by_runs(places: Places, tokens: np.ndarray) -> list[np.ndarray]:
    """Return the tokens cut where they begin again further up, by more than a token."""
    y, box = places.centres[tokens, 1], places.boxes[tokens]
    back = np.diff(y) < -np.maximum(box[1:, 3] - box[1:, 1], LEVEL)
    return _cut(tokens, np.flatnonzero(back) + 1)


def _by_scale(places: Places, tokens: np.ndarray) -> list[np.ndarray]:
    """Return the tokens of each size of box."""
    sides = places.boxes[tokens, 2:] - places.boxes[tokens, :2]
    area = np.log(np.maximum(sides.prod(1), LEVEL**2))
    order = np.argsort(area, kind="stable")
    cuts = np.flatnonzero(np.diff(area[order]) > 2 * SCALE) + 1
    return [np.sort(tokens[part]) for part in _cut(order, cuts)]


def _cut(values: np.ndarray, at: np.ndarray) -> list[np.ndarray]:
    """Return the parts of values that begin at 0 and at these places."""
    ends = [0, *at.tolist(), len(values)]
    return [values[a:b] for a, b in pairwise(ends)]


def _joined(places: Places, grids: Sequence[Grid]) -> list[Grid]:
    """Return the grids of a picture, its tiles as one where they form one.

    Tiles are what does not show the whole picture; padded ones tell their scale badly, so all are
    tried first, and then those of one scale.
    """
    tiles = [g for g in grids if not _shows_whole(g)]
    if (joined := _together(places, tiles)) is not None:
        return [g for g in grids if _shows_whole(g)] + [joined]
    left, found = list(grids), []
    while left:
        same = [g for g in left if _same_scale(g, left[0])]
        left = [g for g in left if g not in same]
        joined = _together(places, same)
        found += same if joined is None else [joined]
    return found


def _together(places: Places, grids: Sequence[Grid]) -> Grid | None:
    """Return the one grid that several form; None if they do not."""
    if len(grids) < 2:
        return None
    tokens = np.sort(np.concatenate([g.tokens for g in grids]))
    grid = as_grid(places, tokens, grids[0].view.picture)
    return grid and replace(grid, view=replace(grid.view, kind="tiles"))


def _too_wide(places: Places, grid: Grid) -> bool:
    """Return whether most overlapping tokens of a grid are made of more than a few cells."""
    own = [t for t in grid.tokens if places.verdicts[t] == OVERLAPPING]
    if not own:
        return False
    sides = places.boxes[own, 2:] - places.boxes[own, :2]
    return bool(np.median((sides / _cell(grid)).max(1)) > WIDEST)


def _shows_whole(grid: Grid) -> bool:
    left, top, right, bottom = (min(1.0, max(0.0, v)) for v in grid.view.box)
    return (right - left) * (bottom - top) > WHOLE


def _cell(grid: Grid) -> np.ndarray:
    left, top, right, bottom = grid.view.box
    return np.array([(right - left) / grid.cols, (bottom - top) / grid.rows])


def _same_scale(one: Grid, other: Grid) -> bool:
    return bool(np.all(np.abs(np.log(_cell(one) / _cell(other))) < SCALE))


def _named(grid: Grid, every: Sequence[Grid]) -> Grid:
    """Return the grid with what its view is called beside the others of its picture."""
    if grid.view.kind == "tiles":
        return grid
    beside = [g for g in every if g.view.picture == grid.view.picture and g is not grid]
    finer = any(_shows_whole(g) and len(g.tokens) > len(grid.tokens) for g in beside)
    tiled = finer or any(not _shows_whole(g) or g.view.kind == "tiles" for g in beside)
    shown = "crop" if not _shows_whole(grid) else "thumbnail" if tiled else "tiles"
    kind = shown if beside else "picture"
    return replace(grid, view=replace(grid.view, kind=kind))


def _unclear(places: Places, tokens: np.ndarray) -> str:
    rows, cols = (_lines(places, tokens, axis)[1] for axis in (1, 0))
    mixing = sum(v == MIXING for v in places.verdicts)
    return (
        f"the {len(tokens)} image tokens with a place stand in {rows} rows and {cols} columns, "
        f"which is no grid ({places.shared:.0%} of what they are made of is shared, {mixing} mix "
        "the picture), so no cell can be given to them; take another model, or report this one"
    )
