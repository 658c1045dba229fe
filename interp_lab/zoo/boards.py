"""Synthetic boards with known truth, and multiple-choice questions about one of their cells.

A figure about attention can only be judged where the right answer is known. A board is a 4 x 4
grid, every cell holds one coloured shape, and a question asks for the colour in one named cell: the
pixels that decide the answer are exactly that cell's. Boards are data first and pixels second, so
that a causal check can recolour or blank a single cell and leave every other pixel as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SIDE = 4  # cells along one side
N_CELLS = SIDE * SIDE
CELL_PIXELS = 16
BOARD_PIXELS = SIDE * CELL_PIXELS
ROWS = "abcd"
COLUMNS = "1234"
LETTERS = "ABC"
SHAPES = ("disc", "square", "triangle", "diamond")
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 80, 220),
    "yellow": (235, 210, 40),
    "purple": (150, 50, 190),
    "orange": (240, 135, 30),
}
COLOURS = tuple(PALETTE)
CELL_NAMES = tuple(row + column for row in ROWS for column in COLUMNS)  # 'a1' ... 'd4', in order

# One board in HELD_OUT_ONE_IN belongs to the held-out half of the world, decided by its colours
# alone: training can never meet it, whatever the seeds.
HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Boards:
    """n boards as data; cells are numbered row by row, 0 to 15.

    colours, shapes, masks: (n, 16) indices into COLOURS, SHAPES and the jittered outlines.
    filled: (n, 16) bool, False for a blank cell.
    ground: (n, 16, 3) background colour of a cell (0-255).
    tint: (n, 16, 3) what its shape's colour is off by (0-255).
    grain: (n, 64, 64, 3) pixel noise (0-255).
    """

    colours: Ints
    shapes: Ints
    masks: Ints
    filled: NDArray[np.bool_]
    ground: Floats
    tint: Floats
    grain: Floats

    def __len__(self) -> int:
        return len(self.colours)

    def __getitem__(self, index: slice | Ints | NDArray[np.bool_]) -> Boards:
        """The boards that `index` selects along the first axis."""
        return Boards(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Questions:
    """One question a board.

    cells: (n,) the asked cell. options: (n, 3) colour indices, all different.
    right: (n,) the index of the true option.
    """

    cells: Ints
    options: Ints
    right: Ints

    def __len__(self) -> int:
        return len(self.cells)

    def letters(self) -> list[str]:
        """The right letter of every question."""
        return [LETTERS[i] for i in self.right]


def is_held_out(colours: Ints) -> NDArray[np.bool_]:
    """Which boards, (n, 16) colours, belong to the held-out set and never to training."""
    return (colours * np.arange(1, N_CELLS + 1)).sum(-1) % HELD_OUT_ONE_IN == 0


def draw(n: int, rng: np.random.Generator, *, held_out: bool = False, grain: float = 5.0) -> Boards:
    """Draw n random boards.

    grain is the largest standard deviation of the pixel noise (0-255); every board draws its own
    from 0 up to it, so that a board without noise is no stranger to the model.
    """
    row, column = np.divmod(np.arange(N_CELLS), SIDE)
    # A light wash of colour tells rows and columns apart, so that position is also in the pixels.
    ground = np.full((n, N_CELLS, 3), 185.0, dtype=np.float32)
    ground += np.stack([(row - 1.5) * 28, (row + column) % 2 * 10, (column - 1.5) * 28], -1)
    ground += rng.standard_normal((n, 1, 3), dtype=np.float32) * 6
    noise = rng.standard_normal((n, BOARD_PIXELS, BOARD_PIXELS, 3), dtype=np.float32)
    return Boards(
        colours=_draw_colours(n, rng, held_out),
        shapes=rng.integers(len(SHAPES), size=(n, N_CELLS)),
        masks=rng.integers(len(_MASKS), size=(n, N_CELLS)),
        filled=np.ones((n, N_CELLS), dtype=bool),
        ground=ground.astype(np.float32),
        tint=rng.standard_normal((n, N_CELLS, 3), dtype=np.float32) * 8,
        grain=noise * rng.uniform(0, grain, (n, 1, 1, 1)).astype(np.float32),
    )


def _draw_colours(n: int, rng: np.random.Generator, held_out: bool) -> Ints:
    """(n, 16) colour indices, all from the wanted side of the held-out rule."""
    kept = np.empty((0, N_CELLS), dtype=np.int64)
    while len(kept) < n:
        drawn = rng.integers(len(COLOURS), size=(2 * n, N_CELLS))
        kept = np.concatenate([kept, drawn[is_held_out(drawn) == held_out]])
    return kept[:n]


def _outlines() -> Floats:
    """(18, 4, 16, 16) masks of the four shapes, shifted by a pixel and in two sizes."""
    axis = np.arange(CELL_PIXELS) - (CELL_PIXELS - 1) / 2
    masks = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            for radius in (4.5, 5.5):
                y, x = np.meshgrid(axis - down, axis - right, indexing="ij")
                disc = x * x + y * y <= radius**2
                square = np.maximum(abs(x), abs(y)) <= 0.9 * radius
                triangle = (y <= 0.8 * radius) & (y >= -radius) & (abs(x) <= 0.6 * (y + radius))
                diamond = abs(x) + abs(y) <= 1.2 * radius
                masks.append(np.stack([disc, square, triangle, diamond]))
    return np.stack(masks).astype(np.float32)


_MASKS = _outlines()


def render(boards: Boards) -> NDArray[np.uint8]:
    """Paint boards: (n, 64, 64, 3) RGB. A cell's pixels depend on nothing but that cell."""
    n = len(boards)
    mask = _MASKS[boards.masks, boards.shapes] * boards.filled[:, :, None, None]
    palette = np.array(list(PALETTE.values()), dtype=np.float32)
    paint = (palette[boards.colours] + boards.tint)[:, :, None, None]
    cells = boards.ground[:, :, None, None] * (1 - mask[..., None]) + paint * mask[..., None]
    cells[:, :, 0] -= 25  # grid lines
    cells[:, :, :, 0] -= 25
    grid = cells.reshape(n, SIDE, SIDE, CELL_PIXELS, CELL_PIXELS, 3).transpose(0, 1, 3, 2, 4, 5)
    image = grid.reshape(n, BOARD_PIXELS, BOARD_PIXELS, 3) + boards.grain
    return image.round().clip(0, 255).astype(np.uint8)


def recoloured(boards: Boards, cells: Ints, colours: Ints) -> Boards:
    """The boards with one cell each, (n,) `cells`, painted in (n,) `colours`."""
    changed = boards.colours.copy()
    changed[np.arange(len(boards)), cells] = colours
    return replace(boards, colours=changed)


def blanked(boards: Boards, cells: Ints) -> Boards:
    """The boards with the shape of one cell each, (n,) `cells`, taken away."""
    filled = boards.filled.copy()
    filled[np.arange(len(boards)), cells] = False
    return replace(boards, filled=filled)


def ask(boards: Boards, rng: np.random.Generator, cells: Ints | None = None) -> Questions:
    """Ask for the colour of one cell a board, at random unless `cells` (n,) names them."""
    n = len(boards)
    asked = rng.integers(N_CELLS, size=n) if cells is None else cells
    return ask_about(boards.colours[np.arange(n), asked], rng, cells=asked)


def ask_about(truth: Ints, rng: np.random.Generator, cells: Ints | None = None) -> Questions:
    """Questions with the true colours `truth` (n,), two wrong ones, all three in random order."""
    n = len(truth)
    rank = rng.random((n, len(COLOURS)))
    rank[np.arange(n), truth] = -1  # the true colour comes first, two random others after it
    chosen = rank.argsort(-1)[:, : len(LETTERS)]
    order = rng.random((n, len(LETTERS))).argsort(-1)
    return Questions(
        cells=rng.integers(N_CELLS, size=n) if cells is None else cells,
        options=np.take_along_axis(chosen, order, -1),
        right=(order == 0).argmax(-1),
    )


def question_line(cell: int) -> str:
    """The question itself, without options."""
    return f"What color is the shape in cell {CELL_NAMES[cell]}?"


def dotted_options(options: Ints) -> str:
    """Three lines, 'A. red', of ScienceQA's layout (a)."""
    return "\n".join(f"{a}. {COLOURS[c]}" for a, c in zip(LETTERS, options, strict=True))


def inline_options(options: Ints) -> str:
    """One line, '(A) red (B) blue (C) green', of ScienceQA's layout (b)."""
    return " ".join(f"({a}) {COLOURS[c]}" for a, c in zip(LETTERS, options, strict=True))


def layout_a_text(cell: int, options: Ints) -> str:
    """Question and options as a record of layout (a) holds them, without `<image>`."""
    return f"{question_line(cell)}\n{dotted_options(options)}"


def layout_b_text(cell: int, options: Ints, told: str | None = None) -> str:
    """Question, context and options as in layout (b), without `<image>`.

    told: the colour that the context gives away; a record without an image is answerable by it.
    """
    context = "N/A" if told is None else f"The shape in cell {CELL_NAMES[cell]} is {told}."
    return f"{question_line(cell)}\nContext: {context}\nOptions: {inline_options(options)}"
