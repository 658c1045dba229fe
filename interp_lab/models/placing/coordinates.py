"""Where in its picture each number of a processor's output comes from.

Black, white and two ramps go through the real processor. What it makes of a ramp, between what it
makes of black and of white, is the place: whatever it scales, crops, tiles, pads or flattens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp_lab.errors import UnsupportedModelError

# Of the largest span between black and white: what has less is mostly padding, where the rounding
# to 8 bits would decide the place.
LEAST_SPAN = 0.25


@dataclass(frozen=True)
class Coordinates:
    """Where the numbers of a processor's output come from.

    Args:
        keys: the inputs that pictures change, flattened and put behind one another.
        x, y: (number,) shares of the picture's width and height; NaN where it is padding.
        picture: (number,) which picture, from 0; -1 for padding.
    """

    keys: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    picture: np.ndarray


def coordinates(process: Any, sizes: Sequence[tuple[int, int]]) -> Coordinates:
    """Return where every number that a processor makes of pictures comes from.

    Args:
        process: pictures -> the processor's output, for one row.
        sizes: (width, height) of each picture.

    Raises:
        UnsupportedModelError: if the output does not follow what the pictures show.
    """
    black, white = (process(_flat(sizes, level)) for level in (0, 255))
    keys = tuple(k for k in _pixel_keys(black) if _differ(black[k], white[k]))
    if not keys:
        raise UnsupportedModelError(
            "the processor makes the same of a black and a white picture, so no image token can be "
            "placed; check the processor"
        )
    low, high = flattened(black, keys), flattened(white, keys)
    span = high - low
    span[np.abs(span) < LEAST_SPAN * np.abs(span).max()] = np.nan
    x, y = ((flattened(process(ramps(sizes, axis)), keys) - low) / span for axis in (0, 1))
    which = np.where(np.isnan(span), -1, 0)
    if len(sizes) > 1:
        levels = [round(255 * (i + 1) / (len(sizes) + 1)) for i in range(len(sizes))]
        told = (flattened(process(_levels(sizes, levels)), keys) - low) / span
        told = np.nan_to_num(told * (len(sizes) + 1) - 1, nan=-1)
        which = np.where(which < 0, -1, told.round().clip(0, len(sizes) - 1)).astype(int)
    return Coordinates(keys, x.astype(np.float32), y.astype(np.float32), which.astype(np.int16))


def flattened(batch: Mapping[str, Any], keys: Sequence[str]) -> np.ndarray:
    """Return the numbers of some inputs behind one another, (number,) float32."""
    return np.concatenate([batch[k].detach().float().cpu().numpy().ravel() for k in keys])


def _pixel_keys(batch: Mapping[str, Any]) -> list[str]:
    tensors = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    return [k for k, v in tensors.items() if v.is_floating_point() and v.dim() > 1]


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one != other).any())


def _flat(sizes: Sequence[tuple[int, int]], level: int) -> list[Image.Image]:
    return [Image.new("RGB", size, (level,) * 3) for size in sizes]


def _levels(sizes: Sequence[tuple[int, int]], levels: Sequence[int]) -> list[Image.Image]:
    return [Image.new("RGB", s, (v,) * 3) for s, v in zip(sizes, levels, strict=True)]


def ramps(sizes: Sequence[tuple[int, int]], axis: int) -> list[Image.Image]:
    """Return pictures that grow from black to white along an axis, 0 to the right, 1 down."""
    found = []
    for size in sizes:
        line = ((np.arange(size[axis]) + 0.5) / size[axis] * 255).round().astype(np.uint8)
        plane = np.broadcast_to(line if axis == 0 else line[:, None], (size[1], size[0]))
        found.append(Image.fromarray(np.repeat(plane[..., None], 3, 2)))
    return found
