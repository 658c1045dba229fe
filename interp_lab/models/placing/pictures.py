"""Which part of which picture each image token stands for, measured on the model and its processor.

The towers run once forward and a few times backward for each shape of input; where the numbers of
that input come from is asked of the processor once for each size of picture. Both are remembered
with the loaded model, so that a data set of one shape costs one measurement.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.placing.coordinates import Coordinates, coordinates
from interp_lab.models.placing.feeding import Feeding, fed_tokens

# A token made of so much of what the tokens of its view are made of has no place in it.
MIXING_AREA = 0.5
# The share of a token's weight that its extent leaves out on each side.
TAIL = 0.02
PLACED, NO_PLACE, PADDING, OVERLAPPING, MIXING = (
    *("placed", "no place", "padding"),
    *("overlapping", "mixing"),
)
# So many shapes of input are remembered, and so many sizes of pictures.
SHAPES, SIZES = 8, 4096

Pictures = Sequence[Image.Image]


@dataclass(frozen=True)
class Places:
    """What each image token of one row is made of.

    Args:
        boxes: (token, 4) left, top, right, bottom between the outermost pixels' centres, in shares
            of the picture; NaN without a place.
        centres: (token, 2) x and y of what it is made of, weighted.
        pictures: (token,) which picture, from 0; -1 without a place.
        views: (token,) number of the tile, crop or picture of the processor's output that it is
            made of, as far as the output is cut into such; -1 if of several.
        verdicts: (token,) `placed`; `no place`: made of no pixel, such as the end of a line;
            `padding`: of none of a picture; `overlapping`: of pixels that other tokens are made of
            too; `mixing`: of most of the picture.
        shared: the share of the towers' response that several tokens have in common.
    """

    boxes: np.ndarray
    centres: np.ndarray
    pictures: np.ndarray
    views: np.ndarray
    verdicts: tuple[str, ...]
    shared: float


class PicturePlacer:
    """Places image tokens of one loaded model.

    Args:
        module: a transformers model, on its device.
        process: pictures -> the processor's output for one row that shows them, on the CPU.
        options: what the processor's options are now, as text; remembered places are of them.
    """

    def __init__(
        self,
        module: Any,
        process: Callable[[Pictures], Mapping[str, Any]],
        options: Callable[[], str],
    ) -> None:
        self.module = module
        self.process = process
        self.options = options
        self._fed: OrderedDict[str, Feeding] = OrderedDict()
        self._places: OrderedDict[Any, Places] = OrderedDict()

    def places(self, sizes: Sequence[tuple[int, int]]) -> Places:
        """Return the places of the image tokens of a row with pictures of these sizes.

        Raises:
            UnsupportedModelError: if the pictures reach no image token of the prompt.
        """
        key = (tuple(sizes), self.options())
        if key not in self._places:
            # A run is in inference mode, in which nothing has a gradient.
            with torch.inference_mode(False):
                found = self._measured(sizes)
            _remember(self._places, key, found, SIZES)
        return self._places[key]

    def _measured(self, sizes: Sequence[tuple[int, int]]) -> Places:
        batch = self.process(example_pictures(sizes))
        at = image_positions(self.module, batch["input_ids"][0])
        where = coordinates(self.process, sizes)
        key = _shape_key(batch, where.keys)
        if key not in self._fed:
            inputs = on_device(self.module, batch)
            _remember(self._fed, key, fed_tokens(self.module, inputs, where.keys, at), SHAPES)
        fed = self._fed[key]
        if not fed.reached:
            raise UnsupportedModelError(
                f"{type(self.module).__name__}: no image token of its prompt follows the picture's "
                "pixels (pictures enter by cross-attention, or as tokens of a vocabulary), so none "
                "can be placed; take a model that puts patches of the picture into its prompt"
            )
        return judged(fed, where, [tuple(batch[k].shape) for k in where.keys], len(at))


def example_pictures(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Image.Image]:
    """Return pictures of these (width, height) without a flat place, always the same."""
    draw = np.random.default_rng(seed)
    return [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


def image_positions(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the positions of the image tokens among a row's ids.

    Raises:
        UnsupportedModelError: if the configuration does not say which token they are, or there is
            none.
    """
    token = image_token_of(module)
    at = torch.nonzero(ids == token)[:, 0]
    if not len(at):
        raise UnsupportedModelError(
            f"{type(module).__name__}: the processor puts no image token (id {token}) into the "
            "prompt; are processor and weights of one checkpoint?"
        )
    return at


def image_token_of(module: Any) -> int:
    """Return the id of the tokens that pictures stand for, as the configuration says.

    Raises:
        UnsupportedModelError: if it does not.
    """
    for name in ("image_token_id", "image_token_index"):
        value = getattr(module.config, name, None)
        if isinstance(value, int):
            return value
    raise UnsupportedModelError(
        f"{type(module).__name__}: its configuration names no image_token_id, so which tokens are "
        "a picture's is not known; take another model"
    )


def on_device(module: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a processor's output where the model is, in its dtype."""
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    tensors = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    return {
        k: v.to(module.device, dtype) if v.is_floating_point() else v.to(module.device)
        for k, v in tensors.items()
    }


def judged(fed: Feeding, where: Coordinates, shapes: Sequence[tuple[int, ...]], n: int) -> Places:
    """Return the places of n tokens of what they are made of, and of where that comes from."""
    found = [_Token.of(*fed.weights[t]) if t in fed.weights else None for t in range(n)]
    if fed.weights:
        every = next(iter(fed.weights.values()))
        made = [t or _Token(*every) for t in found]  # of a few that are looked at, all mix
    else:
        made = [_Token(numbers, None) for numbers in fed.numbers(n)]
    lead = _leading(shapes, made)
    boxes, centres = np.full((n, 4), np.nan), np.full((n, 2), np.nan)
    pictures, verdicts = np.full(n, -1), [NO_PLACE] * n
    for t, token in enumerate(made):
        if len(token.numbers):
            verdicts[t], pictures[t], boxes[t], centres[t] = token.place(where)
    for group in {(p, v) for p, v in zip(pictures, lead, strict=True) if p >= 0}:
        own = [t for t in range(n) if (pictures[t], lead[t]) == group]
        whole = _area(np.append(boxes[own, :2].min(0), boxes[own, 2:].max(0)))
        for t in own:
            if verdicts[t] == OVERLAPPING and _area(boxes[t]) > MIXING_AREA * whole:
                verdicts[t] = MIXING
    return Places(boxes, centres, pictures, lead, tuple(verdicts), fed.shared)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


@dataclass(frozen=True)
class _Token:
    """The numbers that one token is made of, and their weights where it shares them."""

    numbers: np.ndarray
    weights: np.ndarray | None

    @classmethod
    def of(cls, numbers: np.ndarray, weights: np.ndarray) -> "_Token":
        return cls(numbers, weights)

    def place(self, where: Coordinates) -> tuple[str, int, Any, Any]:
        """Return verdict, picture, box and centre."""
        real = ~np.isnan(where.x[self.numbers])
        if not real.any():
            return PADDING, -1, np.nan, np.nan
        numbers = self.numbers[real]
        x, y, of = (v[numbers] for v in (where.x, where.y, where.picture))
        weights = np.ones(len(x)) if self.weights is None else self.weights[real]
        picture = int(np.bincount(of, weights).argmax())
        centre = [float(np.average(v, weights=weights)) for v in (x, y)]
        if self.weights is None:
            return PLACED, picture, [x.min(), y.min(), x.max(), y.max()], centre
        (left, right), (top, bottom) = (_extent(v, weights) for v in (x, y))
        return OVERLAPPING, picture, [left, top, right, bottom], centre


def _extent(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return between which values all but the tails of the weight lie."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, [TAIL * total[-1], (1 - TAIL) * total[-1]])
    low, high = values[order][np.minimum(at, len(order) - 1)]
    return float(low), float(high)


def _leading(shapes: Sequence[tuple[int, ...]], made: Sequence[_Token]) -> np.ndarray:
    """Return which of the outer parts of the pixels each token is made of, -1 if of several.

    Pixels are (tile, channel, row, column), with a batch before them or not, or patches one after
    the other. As many outer axes are taken together as leave each token within one part, and more
    tokens than parts.
    """
    ends = [np.array([t.numbers.min(), t.numbers.max()]) for t in made if len(t.numbers)]
    which = np.full(len(made), 0)
    if len(shapes) != 1 or not ends:
        return which
    bounds = np.array(ends)
    for depth in range(1, len(shapes[0]) - 1):
        step = int(np.prod(shapes[0][depth:]))
        parts = bounds // step
        if (parts[:, 0] != parts[:, 1]).any() or len(np.unique(parts[:, 0])) == len(parts):
            break
        which = np.full(len(made), -1)
        which[[i for i, t in enumerate(made) if len(t.numbers)]] = parts[:, 0]
    return which


def _shape_key(batch: Mapping[str, Any], pixels: Sequence[str]) -> str:
    """Return a text that is the same where the towers treat pixels alike: all but their values."""
    digest = hashlib.sha256()
    for name in sorted(batch):
        value = batch[name]
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)}".encode())
        if name not in pixels:
            digest.update(value.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    known[key] = value
    if len(known) > most:
        known.popitem(last=False)
