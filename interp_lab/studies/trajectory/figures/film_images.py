"""The image panel of a film: pictures under translucent cells that cover them exactly.

Everything that does not change from frame to frame is computed once: where the pictures lie, their
pixels with the cells' share taken off, which cell each pixel belongs to, and the markers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from interp_lab.studies.trajectory.figures.film_colors import mixed

GRID_STRENGTH = 0.28
# Around a cell: pixels of white, and of its colour within.
FRAME = (2, 4)
# A cell smaller than this has no lines around it, which would hide it.
LEAST_LINED = 6
# A picture is drawn at most this many times as long as high; a longer one is stretched.
MOST_SIDES = 12.0
RINGED, RING = "predicted", 1.5
PREDICTED, REFERENCE = (196, 30, 160), (16, 16, 16)


@dataclass(frozen=True)
class Marker:
    """A point on a picture: x and y as shares of its width and height, and whose it is."""

    image: int
    x: float
    y: float
    kind: str


@dataclass(frozen=True)
class Slot:
    """Where a picture lies in the panel, in pixels; `stretched`: its proportions are not kept."""

    left: int
    top: int
    width: int
    height: int
    stretched: bool = False


def cell_edges(n: int, length: int) -> np.ndarray:
    """Return the n + 1 borders of n cells on `length` pixels: round(i * length / n)."""
    return np.rint(np.arange(n + 1) * length / n).astype(int)


def arranged(sides: Sequence[tuple[int, int]], room: tuple[int, int], gap: int) -> list[Slot]:
    """Return where pictures lie: the number of columns is the one that shows them largest.

    Args:
        sides: (height, width) of each picture.
        room: (height, width) of the panel in pixels.
        gap: pixels between pictures.
    """
    ratios = [width / height for height, width in sides]
    layouts = [_in_columns(ratios, room, gap, cols) for cols in range(1, len(sides) + 1)]
    # Large by the geometric mean of what they cover: none is sacrificed to another.
    return max(layouts, key=lambda slots: sum(math.log(s.width * s.height) for s in slots))


def _in_columns(ratios: Sequence[float], room: tuple[int, int], gap: int, cols: int) -> list[Slot]:
    shown = [min(MOST_SIDES, max(1 / MOST_SIDES, ratio)) for ratio in ratios]
    cell = max(1, (room[1] - gap * (cols - 1)) // cols)
    lines = [shown[begin : begin + cols] for begin in range(0, len(shown), cols)]
    tallest = [max(cell / ratio for ratio in line) for line in lines]
    heights = _shared_out(tallest, room[0] - gap * (len(lines) - 1))
    slots: list[Slot] = []
    top = 0
    for line, height in zip(lines, heights, strict=True):
        bottom = top
        for col, ratio in enumerate(line):
            h = max(1, min(height, round(cell / ratio)))
            w = max(1, min(cell, round(h * ratio)))
            stretched = ratio != ratios[len(slots)]
            slots.append(Slot(col * (cell + gap), top, w, h, stretched))
            bottom = max(bottom, top + h)
        top = bottom + gap
    return slots


def _shared_out(wanted: Sequence[float], total: int) -> list[int]:
    """Return heights that fit in a total: low ones get what they want, tall ones equal parts."""
    found = [0] * len(wanted)
    left = total
    for n, index in enumerate(sorted(range(len(wanted)), key=lambda i: wanted[i])):
        found[index] = max(1, min(round(wanted[index]), left // (len(wanted) - n)))
        left -= found[index]
    return found


class CellImage:
    """One picture with its cells.

    Args:
        picture: (y, x, 3) uint8, or None if it was not kept: white.
        grid: rows and columns of its cells.
        slot: where it lies.
        markers: points on it.
        marker_size: pixels.
        tag: (height, width) coverage of a number in its corner, or None.
    """

    def __init__(
        self,
        picture: np.ndarray | None,
        grid: tuple[int, int],
        slot: Slot,
        markers: Sequence[Marker],
        marker_size: int,
        tag: np.ndarray | None = None,
    ) -> None:
        self.grid, self.slot = grid, slot
        size = (slot.height, slot.width)
        self.pixels = np.full((*size, 3), 255, np.uint8) if picture is None else fit(picture, size)
        self._ground = self.pixels.astype(np.float32)
        self._edges = [cell_edges(n, length) for n, length in zip(grid, size, strict=True)]
        self._repeats = [np.diff(edges) for edges in self._edges]
        self._markers = [self._placed(marker, marker_size) for marker in markers]
        if tag is not None:
            self._markers.append((0, 0, tag_sprite(tag)[: slot.height, : slot.width]))

    def draw(
        self,
        out: np.ndarray,
        colors: np.ndarray,
        strengths: np.ndarray,
        framed: np.ndarray | None = None,
    ) -> None:
        """Draw picture, cells, lines, frames and points.

        Args:
            out: the slot's part of the panel, (height, width, 3) uint8; filled.
            colors: (rows * cols, 3) uint8, row by row.
            strengths: (rows * cols,) how much of each cell is its colour, 0 to 1.
            framed: (rows * cols,) whether a cell has a frame; None = no cell.
        """
        shares = strengths.astype(np.float32)[:, None]
        cells = np.concatenate([shares * colors, 1 - shares], axis=1).reshape(*self.grid, 4)
        rows = np.repeat(cells, self._repeats[1], axis=1)
        for row, (top, bottom) in enumerate(pairwise(self._edges[0])):
            # Adding a half and cutting off rounds to the nearest whole number.
            out[top:bottom] = self._ground[top:bottom] * rows[row, :, 3:] + (rows[row, :, :3] + 0.5)
        self._draw_lines(out)
        for cell in () if framed is None else np.flatnonzero(framed):
            self._draw_frame(out, int(cell), colors[cell])
        for top, left, sprite in self._markers:
            patch = out[top : top + sprite.shape[0], left : left + sprite.shape[1]]
            alpha = sprite[..., 3:] / 255
            patch[...] = np.rint(patch * (1 - alpha) + sprite[..., :3] * alpha)

    def _draw_lines(self, out: np.ndarray) -> None:
        for axis, edges in enumerate(self._edges):
            if self._repeats[axis].min() < LEAST_LINED:
                continue
            inner = edges[1:-1]
            lines = out[inner] if axis == 0 else out[:, inner]
            drawn = mixed(np.zeros(3), lines, GRID_STRENGTH)
            if axis == 0:
                out[inner] = drawn
            else:
                out[:, inner] = drawn

    def _draw_frame(self, out: np.ndarray, cell: int, color: np.ndarray) -> None:
        """Draw a cell's frame in its colour within one of white, unless it would fill the cell."""
        y, x = divmod(cell, self.grid[1])
        top, bottom = self._edges[0][y : y + 2]
        left, right = self._edges[1][x : x + 2]
        if min(bottom - top, right - left) < 4 * FRAME[1]:
            return
        part = out[top:bottom, left:right]
        inner = part[FRAME[1] : -FRAME[1], FRAME[1] : -FRAME[1]].copy()
        part[...] = 255
        part[FRAME[0] : -FRAME[0], FRAME[0] : -FRAME[0]] = color
        part[FRAME[1] : -FRAME[1], FRAME[1] : -FRAME[1]] = inner

    def _placed(self, marker: Marker, size: int) -> tuple[int, int, np.ndarray]:
        """Return top, left and pixels of a marker, cut where it leaves the picture."""
        # A ring around a cross: both are seen where they meet.
        sprite = marker_sprite(marker.kind, round(size * RING) if marker.kind == RINGED else size)
        half = sprite.shape[0] // 2
        # The last pixel of the picture is the farthest that a point can be.
        y = min(self.slot.height - 1, max(0, int(marker.y * self.slot.height)))
        x = min(self.slot.width - 1, max(0, int(marker.x * self.slot.width)))
        top, left = max(0, half - y), max(0, half - x)
        bottom, right = half + self.slot.height - y, half + self.slot.width - x
        return max(0, y - half), max(0, x - half), sprite[top:bottom, left:right]


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture at (height, width): small ones keep their pixels as squares."""
    image = Image.fromarray(picture)
    grows = size[0] > 3 * image.height and size[1] > 3 * image.width
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return np.asarray(image.resize((size[1], size[0]), how))


def grayed(picture: np.ndarray) -> np.ndarray:
    """Return a picture's brightness as gray, lighter than it was: dark cells must stand out."""
    brightness = picture[..., :3] @ np.array([0.299, 0.587, 0.114])
    return np.repeat((80 + brightness * 175 / 255)[..., None], 3, axis=2).astype(np.uint8)


def marker_sprite(kind: str, size: int) -> np.ndarray:
    """Return a marker as (side, side, 4) uint8 with an odd side: a ring, or an upright cross.

    Args:
        kind: predicted or reference.
        size: about its side in pixels.
    """
    scale = 8  # drawn large and made small, which smooths its borders
    side = size | 1
    image = Image.new("RGBA", (side * scale, side * scale), (255, 255, 255, 0))
    draw = ImageDraw.Draw(image)
    middle, reach, thin = side * scale / 2, side * scale * 0.46, side * scale / 9

    def ring(width: float, color: tuple[int, ...], inset: float) -> None:
        r = reach - inset
        box = (middle - r, middle - r, middle + r, middle + r)
        draw.ellipse(box, outline=color, width=round(width))

    def cross(width: float, color: tuple[int, ...], inset: float) -> None:
        r, w = reach - inset, width / 2
        draw.rectangle((middle - r, middle - w, middle + r, middle + w), fill=color)
        draw.rectangle((middle - w, middle - r, middle + w, middle + r), fill=color)

    shape: Any = ring if kind == RINGED else cross
    color = PREDICTED if kind == RINGED else REFERENCE
    shape(2.6 * thin, (255, 255, 255, 255), 0)
    shape(1.3 * thin, (*color, 255), 0.65 * thin)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def tag_sprite(mask: np.ndarray) -> np.ndarray:
    """Return a number on white as (height, width, 4) uint8, with room on either side."""
    cover = np.pad(mask, ((0, 0), (mask.shape[0] // 3,) * 2)).astype(np.uint8)
    return np.dstack([255 - cover] * 3 + [np.maximum(cover, 225)])
