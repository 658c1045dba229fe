"""A spot check of a token map: a few places of a picture are changed, and their tokens looked at.

Two forwards of the towers a token. Inverting what lies in its box must change the token by at least
half of what inverting the whole picture does; inverting all but a box that is half a token larger
on each side must change it by less than a tenth. It shares no arithmetic with what placed the
tokens, and so checks maps that are written by hand as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp_lab.models.placing.local import decoder_inputs, position_wise
from interp_lab.models.placing.pictures import example_pictures, image_positions, on_device

SPOTS = 8
INSIDE, OUTSIDE = 0.5, 0.1
# One token may be off by rounding at a padded edge; two are a wrong map.
MOST_BAD = 1


@dataclass(frozen=True)
class SpotCheck:
    """What was found.

    Args:
        n: how many tokens were looked at.
        bad: which of them, counted from 0 among the image tokens, are not where the map says.
        forwards: of the towers.
    """

    n: int
    bad: tuple[int, ...]
    forwards: int

    @property
    def holds(self) -> bool:
        """Whether the map is right as far as was looked."""
        return len(self.bad) <= MOST_BAD


def spot_check(
    module: Any,
    process: Callable[[Sequence[Image.Image]], Mapping[str, Any]],
    sizes: Sequence[tuple[int, int]],
    boxes: np.ndarray,
    pictures: np.ndarray,
    seed: int = 0,
) -> SpotCheck:
    """Return whether image tokens are where a map has them.

    Args:
        module: a transformers model.
        process: pictures -> the processor's output for one row.
        sizes: (width, height) of the pictures.
        boxes: (token, 4) left, top, right, bottom in shares of the picture; NaN: no place.
        pictures: (token,) which picture.
        seed: of which tokens are looked at.
    """
    examples = example_pictures(sizes, seed=1)
    base, n = _states(module, process, examples)
    if n != len(boxes):
        return SpotCheck(n, tuple(range(n)), 1)
    whole = _change(base, _states(module, process, [_inverted(p) for p in examples])[0])
    placed = np.flatnonzero(~np.isnan(boxes[:, 0]))
    if not len(placed):
        return SpotCheck(0, (), 2)
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.choice(placed, min(SPOTS, len(placed)), replace=False))
    bad = []
    for token in chosen:
        inner, outer = _areas(boxes[token], sizes[int(pictures[token])])
        changes = []
        for area, within in ((inner, True), (outer, False)):
            changed = list(examples) if within else [_inverted(p) for p in examples]
            # Inside the inner area the picture is inverted, or everything but the outer one.
            at = pictures[token]
            changed[at] = _with_area(changed[at], area)
            changes.append(_change(base, _states(module, process, changed)[0])[token])
        inside, outside = changes
        if not (inside > INSIDE * whole[token] and outside < OUTSIDE * whole[token]):
            bad.append(int(token))
    return SpotCheck(len(chosen), tuple(bad), 2 + 2 * len(chosen))


def _states(module: Any, process: Any, pictures: Sequence[Image.Image]) -> tuple[Any, int]:
    batch = process(pictures)
    at = image_positions(module, batch["input_ids"][0])
    with torch.no_grad(), position_wise(module, module.get_decoder()):
        states = decoder_inputs(module, on_device(module, batch))
    return states[at.to(states.device)].float().cpu().numpy(), len(at)


def _change(base: np.ndarray, now: np.ndarray) -> np.ndarray:
    return np.linalg.norm(now - base, axis=-1)


def _inverted(picture: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(picture))


def _with_area(picture: Image.Image, area: tuple[int, int, int, int]) -> Image.Image:
    """Return the picture with an area (left, top, right, bottom in pixels) inverted."""
    data = np.array(picture)
    left, top, right, bottom = area
    data[top:bottom, left:right] = 255 - data[top:bottom, left:right]
    return Image.fromarray(data)


def _areas(box: np.ndarray, size: tuple[int, int]) -> tuple[Any, Any]:
    """Return the areas in pixels that must and that may change the token.

    Scaling smears a change over a few pixels, so the inner area reaches an eighth over the box.
    """
    scale = np.array([*size, *size])
    side = box[2:] - box[:2]
    grow = np.concatenate([-side, side])
    areas = (np.round((box + share * grow) * scale).astype(int) for share in (0.125, 0.5))
    inner, outer = (tuple(int(v) for v in a.clip(0, scale)) for a in areas)
    return inner, outer
