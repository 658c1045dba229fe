"""Which cell of its picture each token of a vision tower is, measured on the tower.

Where in the picture every element of the tower's input comes from (`coordinates`), and which token
it feeds (`feeding`), say together which token is which cell. Tokens that no element feeds are class
and register tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.placing.coordinates import coordinates, ramps
from interp_lab.models.placing.feeding import SHARED, feeding

# Centres of two rows or columns of cells are at least this far apart: in parts of a cell's own
# width, and of the picture.
APART, APART_AT_LEAST = 0.3, 1e-3
NOWHERE = -1
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placed:
    """Where the tokens of a tower stand, for one size of input.

    Attributes:
        grid: rows and columns of cells.
        cells: (row, col) of each token; None for those that no pixel feeds.
        box: left, top, right, bottom of what the tower sees, in parts of the picture.
        owner: the token that each element of `pixel_values` feeds, flat; -1 for none.
        size: width and height of the picture that it was measured with.
    """

    grid: tuple[int, int]
    cells: tuple[tuple[int, int] | None, ...]
    box: Box
    owner: np.ndarray
    size: tuple[int, int] = (0, 0)

    @property
    def without_pixels(self) -> tuple[int, ...]:
        """Positions of the tokens that no pixel feeds."""
        return tuple(i for i, cell in enumerate(self.cells) if cell is None)

    @property
    def share(self) -> float:
        """The part of the picture's area that the tower sees."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def place(
    process: Callable[[Image.Image], Mapping[str, Any]],
    embed: Callable[[Mapping[str, Any]], torch.Tensor],
    size: tuple[int, int],
    name: str,
) -> Placed:
    """Measure where the tokens of a tower stand.

    Args:
        process: makes the tower's inputs of one picture, on its device and in its dtype.
        embed: returns what the first layer reads (positions, d_model) for such inputs.
        size: width and height of the picture.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: if the tokens are not the cells of one grid; says what was seen.
    """
    found = coordinates(lambda pictures: dict(process(pictures[0])), [size])
    if found.keys != ("pixel_values",):
        raise UnsupportedModelError(
            f"{name}: its pictures go into {', '.join(found.keys)}; pixel_values alone are read"
        )
    inputs = process(ramps([size], 0)[0])
    with torch.inference_mode(False), torch.enable_grad():
        # What was made in inference mode takes no part in a gradient.
        inputs = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        pixels = inputs["pixel_values"].requires_grad_(True)
        hidden = embed(inputs)
        owner = _owners(hidden, pixels, name)
    return replace(_grid(np.stack([found.x, found.y]), owner, len(hidden), name), size=size)


def check(
    placed: Placed,
    inputs: Mapping[str, Any],
    last: Callable[[Mapping[str, Any]], torch.Tensor],
    name: str,
) -> None:
    """Check a map at the other end of the tower: change half of the cells, see which tokens move.

    Args:
        placed: the map.
        inputs: the tower's inputs for one picture.
        last: returns the last hidden state (positions, d_model), with position-wise attention.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: if other tokens move than those whose pixels were changed.
    """
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(placed.cells)) < max(1, len(placed.cells) // 2)
    chosen &= np.array([cell is not None for cell in placed.cells])
    at = np.flatnonzero((placed.owner >= 0) & chosen[np.maximum(placed.owner, 0)])
    pixels = inputs["pixel_values"]
    changed = pixels.detach().clone().flatten()
    noise = torch.from_numpy(rng.normal(size=len(at)))
    changed[torch.from_numpy(at).to(pixels.device)] += noise.to(pixels)
    with torch.no_grad():
        now = last({**inputs, "pixel_values": changed.view_as(pixels)}).float()
        moved = (now - last(inputs).float()).abs().amax(-1).cpu().numpy()[: len(chosen)]
    if len(moved) != len(chosen):
        raise UnsupportedModelError(
            f"{name}: the first layer of its tower reads {len(chosen)} tokens, and the last writes "
            f"{len(moved)}: they are merged on the way, and have no one grid"
        )
    seen = moved > 1e-3 * max(moved.max(), 1e-30)
    if not np.array_equal(seen, chosen):
        raise UnsupportedModelError(
            f"{name}: pixels of {int(chosen.sum())} cells were changed, and of the tower's last "
            f"hidden state {int(seen.sum())} tokens moved, {int((seen & chosen).sum())} of them "
            "the same: its tokens do not keep their places from layer to layer"
        )


def _owners(hidden: torch.Tensor, pixels: torch.Tensor, name: str) -> np.ndarray:
    """Return which token each element feeds, flat; -1 for none."""
    found = feeding(hidden, [pixels])
    if found.shared > SHARED or not found.reached:
        said = (
            f"{found.shared:.0%} of the pixels feed several tokens"
            if found.reached
            else ("no pixel reaches a token")
        )
        raise UnsupportedModelError(
            f"{name}: {said} of the tower ({len(hidden)} tokens): they are not the cells of one "
            "grid"
        )
    return found.owners


def _grid(where: np.ndarray, owner: np.ndarray, count: int, name: str) -> Placed:
    real = (owner >= 0) & ~np.isnan(where[0])
    n = np.bincount(owner[real], minlength=count)
    fed = np.bincount(owner[owner >= 0], minlength=count) > 0
    padding = np.flatnonzero(fed & (n == 0))
    if len(padding):
        # Behind the last cell they are no tokens of the picture; among cells they have no place.
        count = int(padding.min())
        if (n[count:] > 0).any():
            raise UnsupportedModelError(
                f"{name}: {len(padding)} tokens of the tower see padding only, among those that "
                "see the picture; let the image processor cut and not pad (model.processor_options)"
            )
    there = n[:count] > 0
    sums = [np.bincount(owner[real], w[real], len(n)) for w in where]
    with np.errstate(invalid="ignore"):
        x, y = (s[:count] / n[:count] for s in sums)
    cols, rows = (
        _ranks(values, there, APART * _width(w[real], owner[real], len(n)))
        for values, w in ((x, where[0]), (y, where[1]))
    )
    grid = int(rows.max()) + 1, int(cols.max()) + 1
    cells = tuple(
        (int(r), int(c)) if t else None for r, c, t in zip(rows, cols, there, strict=True)
    )
    found = [cell for cell in cells if cell is not None]
    if len(set(found)) != len(found) or len(found) != grid[0] * grid[1]:
        raise UnsupportedModelError(
            f"{name}: {len(found)} tokens of the tower see the picture, in {grid[0]} rows and "
            f"{grid[1]} columns: they are not the cells of one grid"
        )
    return Placed(grid, cells, _box(where, real), np.where(owner < count, owner, NOWHERE))


def _width(values: np.ndarray, owner: np.ndarray, count: int) -> float:
    """Return how wide a token's own elements reach, in parts of the picture: the median."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, owner, values)
    np.maximum.at(high, owner, values)
    there = high >= low
    return float(np.median((high - low)[there])) if there.any() else 0.0


def _ranks(values: np.ndarray, there: np.ndarray, apart: float) -> np.ndarray:
    """Return which row or column each value belongs to, counted from 0; 0 where there is none."""
    own = np.sort(values[there])
    if not len(own):
        return np.zeros(len(values), int)
    apart = max(apart, APART_AT_LEAST)
    starts = own[np.r_[True, np.diff(own) > apart]]
    ranks = np.searchsorted(starts - apart / 2, np.where(there, values, 0)) - 1
    return np.where(there, ranks, 0)


def _box(where: np.ndarray, real: np.ndarray) -> Box:
    """Return left, top, right, bottom of the elements, which are wider than their centres."""
    sides = []
    for values in where:
        own = np.unique(values[real].round(4))
        half = float(np.median(np.diff(own))) / 2 if len(own) > 1 else 0.0
        sides.append((max(0.0, float(own[0]) - half), min(1.0, float(own[-1]) + half)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom
