"""Synthetic maps with a path of arrows, whose next step is decided by one known cell.

A map is a 6 x 6 grid with an arrow in nearly every cell. The path begins at the red start, which
the question names, and goes where the arrows lead, to a yellow end. Asked for a point of the path,
the answer walks there cell by cell and gives the point's coordinates. At each step the pixels that
decide the next move are those of the cell that was named last: the cells beside the path have
arrows and ends too, so no neighbour gives the way away. (On maps with nothing but the path, a model
writes right replies by looking for the next piece of road, and its attention to the current cell
decides little.)
Maps are data first and pixels second, so that a causal check can turn one arrow or blank one cell
and leave every other pixel as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Ints = NDArray[np.int64]
Images = NDArray[np.uint8]

SIDE = 6  # cells along one side
N_CELLS = SIDE * SIDE
CELL_PIXELS = 8
MAP_PIXELS = SIDE * CELL_PIXELS
CELL_NAMES = tuple(row + column for row in "abcdef" for column in "123456")  # 'a1' ... 'f6'
MOVES = ("right", "down", "left", "up")
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (row, column) of each move
BLANK, END_SIGN = 0, len(MOVES) + 1  # what a cell shows; between them the arrows, 1 to 4
BLANK_SHARE, END_SHARE = 0.06, 0.08  # of the cells beside the path
SHORTEST, LONGEST = 4, 8  # cells of a path
FIRST_ASKED = 3  # no question asks for a point before the third
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")
LAST = "last"

# One path in HELD_OUT_ONE_IN belongs to the held-out half of the world, decided by its cells alone:
# training can never meet it, whatever the seeds.
HELD_OUT_ONE_IN = 8

_FINE = 64  # pixels of a cell as it is drawn; smaller ones are made from it


@dataclass(frozen=True)
class PathMap:
    """One map as data; cells are numbered row by row, 0 to 35.

    cells: the path, (n,) from start to end. signs: (36,) what each cell shows: BLANK, 1 to 4 for an
    arrow in the order of MOVES, END_SIGN.
    """

    cells: tuple[int, ...]
    signs: Ints

    def move(self, cell: int) -> str:
        """The move that a cell's arrow shows. Raises ValueError where there is none."""
        sign = int(self.signs[cell])
        if sign in (BLANK, END_SIGN):
            raise ValueError(f"cell {CELL_NAMES[cell]} has no arrow")
        return MOVES[sign - 1]


@dataclass(frozen=True)
class Question:
    """A map and the point of its path that is asked for.

    point: counted from 1; None asks for the last one.
    """

    map: PathMap
    point: int | None = None

    @property
    def walked(self) -> tuple[int, ...]:
        """The cells from the start to the asked point."""
        return self.map.cells[: self.point]

    @property
    def asked(self) -> str:
        """How the question names the point: '5th', 'last'."""
        return LAST if self.point is None else ORDINALS[self.point - 1]

    @property
    def problem(self) -> str:
        """The question's text; it stands after the image and is the whole of the user's text."""
        start = CELL_NAMES[self.map.cells[0]]
        return (
            "The map shows arrows from cell to cell. Based on the following requirements, "
            f"follow the arrows from the red start {start} to a yellow end. "
            f"Predict the location of the {self.asked} point."
        )

    @property
    def reply(self) -> str:
        """What a right answer says, word for word."""
        return f"{self.said(len(self.walked) - 1)}</think><answer>{box(self.walked[-1])}</answer>"

    def said(self, index: int) -> str:
        """The right answer up to the name of the path's cell `index`, counted from 0."""
        words = []
        for number, cell in enumerate(self.walked[: index + 1], start=1):
            if words:
                words.append(self.map.move(self.walked[number - 2]))
            words += [str(number), CELL_NAMES[cell]]
        return f"<think>{' '.join(words)}"


def centre(cell: int) -> tuple[int, int]:
    """(x, y) of a cell's centre in thousandths of the map's width and height, rounded."""
    row, column = divmod(cell, SIDE)
    return round((column + 0.5) / SIDE * 1000), round((row + 0.5) / SIDE * 1000)


def box(cell: int) -> str:
    """A cell's centre as a box of one thousandth, in Qwen-VL's notation."""
    x, y = centre(cell)
    return f"<|box_start|>({x},{y}),({x + 1},{y + 1})<|box_end|>"


def is_held_out(cells: Sequence[int]) -> bool:
    """Whether a path belongs to the held-out set and never to training."""
    return sum((i + 1) * cell for i, cell in enumerate(cells)) % HELD_OUT_ONE_IN == 0


def draw_map(rng: np.random.Generator, *, held_out: bool = False) -> PathMap:
    """One random map from the wanted side of the held-out rule."""
    while True:
        cells = _walk(rng, int(rng.integers(SHORTEST, LONGEST + 1)))
        if cells is not None and is_held_out(cells) == held_out:
            return map_of(cells, _decoys(rng))


def draw_questions(n: int, rng: np.random.Generator, *, held_out: bool = False) -> list[Question]:
    """n questions with a map each; half of them ask for the last point, half for an earlier one."""
    questions = []
    for _ in range(n):
        drawn = draw_map(rng, held_out=held_out)
        earlier = int(rng.integers(FIRST_ASKED, len(drawn.cells) + 1))
        questions.append(Question(drawn, earlier if rng.random() < 0.5 else None))
    return questions


def map_of(cells: Sequence[int], around: Ints | None = None) -> PathMap:
    """The map of a path; the other cells show the signs of `around` (36,), or nothing.

    Raises ValueError where two cells in a row are no neighbours.
    """
    signs = np.full(N_CELLS, BLANK) if around is None else around.copy()
    for here, there in itertools.pairwise(cells):
        (row, column), (to_row, to_column) = divmod(here, SIDE), divmod(there, SIDE)
        step = (to_row - row, to_column - column)
        if step not in _STEPS:
            raise ValueError(f"{CELL_NAMES[there]} is no neighbour of {CELL_NAMES[here]}")
        signs[here] = _STEPS.index(step) + 1
    signs[cells[-1]] = END_SIGN
    return PathMap(tuple(cells), signs)


def blanked(drawn: PathMap, cell: int) -> PathMap:
    """The map with one cell's sign taken away."""
    signs = drawn.signs.copy()
    signs[cell] = BLANK
    return replace(drawn, signs=signs)


def turned(drawn: PathMap, cell: int, move: str) -> PathMap:
    """The map with the arrow of one cell turned to another move."""
    signs = drawn.signs.copy()
    signs[cell] = MOVES.index(move) + 1
    return replace(drawn, signs=signs)


def other_moves(drawn: PathMap, index: int) -> list[str]:
    """The moves that the arrow of the path's cell `index` could show instead.

    They stay on the map and do not go back to the cell before.
    """
    cell = drawn.cells[index]
    taken = {*drawn.cells[max(0, index - 1) : index], *drawn.cells[index + 1 : index + 2]}
    return [MOVES[code - 1] for code, there in _neighbours(cell) if there not in taken]


def render(maps: Sequence[PathMap], cell_pixels: int = CELL_PIXELS) -> Images:
    """Paint maps: (n, side, side, 3) RGB with a side of 6 * cell_pixels.

    A cell's pixels depend on nothing but that cell.
    """
    tiles = _tiles(cell_pixels)
    signs = np.stack([drawn.signs for drawn in maps])
    starts = np.arange(N_CELLS) == np.array([drawn.cells[0] for drawn in maps])[:, None]
    cells = tiles[np.arange(N_CELLS), starts.astype(int), signs]
    grid = cells.reshape(len(maps), SIDE, SIDE, cell_pixels, cell_pixels, 3)
    side = SIDE * cell_pixels
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(len(maps), side, side, 3)


def _walk(rng: np.random.Generator, n: int) -> tuple[int, ...] | None:
    """A path of n cells, each of them once, or None where the walk runs into a corner."""
    cells = [int(rng.integers(N_CELLS))]
    while len(cells) < n:
        free = [cell for _, cell in _neighbours(cells[-1]) if cell not in cells]
        if not free:
            return None
        cells.append(free[rng.integers(len(free))])
    return tuple(cells)


def _decoys(rng: np.random.Generator) -> Ints:
    """(36,) random signs: arrows that stay on the map, some ends, some blanks."""
    arrows = [[code for code, _ in _neighbours(cell)] for cell in range(N_CELLS)]
    signs = np.array([codes[rng.integers(len(codes))] for codes in arrows])
    kind = rng.random(N_CELLS)
    signs[kind < BLANK_SHARE + END_SHARE] = END_SIGN
    signs[kind < BLANK_SHARE] = BLANK
    return signs


def _neighbours(cell: int) -> list[tuple[int, int]]:
    """The arrow (1 to 4) and the cell that it leads to, for each move that stays on the map."""
    row, column = divmod(cell, SIDE)
    places = [(code, row + d, column + r) for code, (d, r) in enumerate(_STEPS, start=1)]
    return [(code, r * SIDE + c) for code, r, c in places if 0 <= r < SIDE and 0 <= c < SIDE]


@cache
def _tiles(cell_pixels: int) -> Images:
    """(36, 2, 6, pixels, pixels, 3): every cell, as the start or not, with every sign."""
    tiles = np.empty((N_CELLS, 2, END_SIGN + 1, cell_pixels, cell_pixels, 3), dtype=np.uint8)
    for cell, start, sign in np.ndindex(tiles.shape[:3]):
        fine = _paint_cell(int(cell), bool(start), int(sign))
        small = fine.resize((cell_pixels, cell_pixels), Image.Resampling.BOX)
        tiles[cell, start, sign] = np.asarray(small)
    return tiles


def _paint_cell(cell: int, start: bool, sign: int) -> Image.Image:
    """One cell, 64 x 64 pixels."""
    row, column = divmod(cell, SIDE)
    # A wash of colour tells rows and columns apart: the tower sees a cell by itself, and its
    # position must be in the pixels.
    red, blue = 45 + 30 * column, 45 + 30 * row
    image = Image.new("RGB", (_FINE, _FINE), (red, 85, blue))
    pen = ImageDraw.Draw(image)
    pen.line([(0, _FINE - 1), (0, 0), (_FINE - 1, 0)], fill=(red - 15, 65, blue - 15), width=2)
    middle = _FINE // 2
    if start:
        pen.ellipse(_around(middle, 26), fill=(255, 20, 20))
    if sign == END_SIGN:
        pen.ellipse(_around(middle, 19), fill=(255, 235, 0))
    elif sign != BLANK:
        down, right = _STEPS[sign - 1]
        tail = (middle - 22 * right, middle - 22 * down)
        pen.line([tail, (middle, middle)], fill=(255, 255, 255), width=14)
        pen.polygon(_arrow_head(middle, down, right), fill=(255, 255, 255))
    return image


def _around(middle: int, radius: int) -> tuple[int, int, int, int]:
    return middle - radius, middle - radius, middle + radius, middle + radius


def _arrow_head(middle: int, down: int, right: int) -> list[tuple[int, int]]:
    """A triangle from the middle of the cell almost to the side that it points at."""
    return [
        (middle + 28 * right, middle + 28 * down),
        (middle + 22 * down, middle + 22 * right),
        (middle - 22 * down, middle - 22 * right),
    ]
