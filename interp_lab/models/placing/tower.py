"""A vision tower inside a larger model: where it is, what beside it is not needed, its tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.base import as_picture
from interp_lab.models.patches import share_seen
from interp_lab.models.placing.cells import Placed
from interp_lab.tokens import Token, TokenMap, View

# What the key of a vision tower's configuration holds: `vision_config`, `image_encoder_config`.
VISION = ("vision", "image", "visual")
# From this part of a picture on all of it is seen; a ramp of 8 bits tells it no better.
WHOLE = 0.97


def path_in(model: nn.Module, name: str) -> str:
    """Return the dotted path of the vision tower in a model; "" if the model is one itself.

    Args:
        model: a transformers model.
        name: of it, for messages.

    Raises:
        UnsupportedModelError: if none or several modules may be meant.
    """
    if not hasattr(model, "get_image_features"):
        return ""
    kinds = {
        type(value)
        for key, value in vars(model.config).items()
        if hasattr(value, "model_type") and any(word in key for word in VISION)
    }
    found = [
        path
        for path, part in model.named_modules()
        if path and isinstance(part, PreTrainedModel) and type(part.config) in kinds
    ]
    outer = [p for p in found if not any(p.startswith(f"{o}.") for o in found)]
    if len(outer) != 1:
        raise UnsupportedModelError(
            f"{name}: {type(model).__name__} has {len(outer)} modules that may be its vision tower "
            f"({', '.join(outer) or 'none'}); name the path of one as model.tower"
        )
    return outer[0]


def let_go(model: nn.Module, tower: str, run: Callable[[], Any]) -> None:
    """Drop the memory of every part of a model that is not run, the tower left whole.

    A part that is run is kept with all that it holds: it may read weights of a module that it does
    not call. What is dropped and wanted nevertheless fails, for its weights are nowhere.

    Args:
        model: the whole model.
        tower: path of its vision tower.
        run: runs what is needed of it.
    """
    ran = {tower}
    handles = [
        part.register_forward_pre_hook(lambda _, __, name=name: ran.add(name))
        for name, part in model.named_modules()
    ]
    try:
        with torch.inference_mode():
            run()
    finally:
        for handle in handles:
            handle.remove()
    for name, part in model.named_children():
        _drop(name, part, ran)


def _drop(name: str, part: nn.Module, ran: set[str]) -> None:
    if name in ran:
        return
    if not any(other.startswith(f"{name}.") for other in ran):
        part.to("meta")
        return
    for child, inner in part.named_children():
        _drop(f"{name}.{child}", inner, ran)


def processed(processor: Any, images: Sequence[Image.Image], name: str) -> dict[str, torch.Tensor]:
    """Return the tensors that an image processor makes of pictures, a row each.

    Args:
        processor: the image processor.
        images: the pictures.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: if it gives no pixel values of one shape.
    """
    batch = _tensors(processor(images=list(images), return_tensors="pt"))
    pixels = batch.get("pixel_values")
    if pixels is not None and pixels.dim() > 4 and len(images) > 1:
        # Several pictures would be those of one text.
        alone = [_tensors(processor(images=[image], return_tensors="pt")) for image in images]
        if len({tuple(one["pixel_values"].shape) for one in alone}) == 1:
            return {key: torch.cat([one[key] for one in alone]) for key in batch}
        pixels = None
    if pixels is None:
        raise UnsupportedModelError(
            f"{name}: its image processor {type(processor).__name__} gives no pixel_values of one "
            "shape for the pictures of a batch; give batch_size=1, or other "
            "model.processor_options"
        )
    return batch


def _tensors(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}


def kind_of_input(inputs: Mapping[str, Any], row: int) -> tuple[Any, ...]:
    """Return what the order of a row's tokens can depend on: shapes, and grids of its picture.

    Args:
        inputs: of a batch: `pixel_values`, with or without a batch axis, and whole numbers such as
            grids and masks, a row each.
        row: of the batch.
    """
    numbers = {
        key: tuple(value[row].flatten().tolist())
        for key, value in inputs.items()
        if isinstance(value, torch.Tensor) and not value.is_floating_point()
    }
    return (tuple(inputs["pixel_values"].shape[1:]), *sorted(numbers.items()))


def token_map(placed: Placed, registers: int, name: str) -> TokenMap:
    """Return the map of a picture: cells, and what no pixel feeds.

    Of the tokens without a pixel the first is the class token and the others are registers if the
    configuration states so many; where it states none, the others are special.

    Args:
        placed: where the tokens stand.
        registers: how many register tokens the configuration states.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: if there are other tokens without a pixel than stated.
    """
    without = placed.without_pixels
    if registers and len(without) - registers not in (0, 1):
        raise UnsupportedModelError(
            f"{name}: its configuration states {registers} register tokens, and {len(without)} "
            "tokens of the tower see no pixel; one more, the class token, would be understood"
        )
    roles = _roles(len(without), registers)
    named = dict(zip(without, roles, strict=True))
    tokens = [_token(cell, named.get(i)) for i, cell in enumerate(placed.cells)]
    own = [cell for cell in placed.cells if cell is not None]
    # Blocks and windows of cells are told by a view; row by row none is needed.
    views = () if own == sorted(own) else (View(0),)
    return TokenMap(tuple(tokens), (placed.grid,), views=views)


def _roles(count: int, registers: int) -> Sequence[str]:
    if registers:
        return ["cls"] * (count - registers) + ["register"] * registers
    return (["cls"] + ["special"] * (count - 1))[:count]


def _token(cell: tuple[int, int] | None, role: str | None) -> Token:
    if cell is not None:
        return Token(f"cell {cell[0]},{cell[1]}", "image", "image", image=0, cell=cell)
    text = {"cls": "CLS", "register": "register"}.get(role or "", "no pixel")
    return Token(text, role or "special", "none")


def picture_of(
    processor: Any, inputs: Mapping[str, Any], row: int, image: Image.Image, placed: Placed
) -> np.ndarray:
    """Return a row's picture as the tower sees it, uint8 (height, width, 3).

    Args:
        processor: the image processor.
        inputs: of a batch.
        row: of the batch.
        image: as it came.
        placed: where the row's tokens stand.
    """
    pixels = inputs["pixel_values"]
    if pixels.dim() == 4:
        own = pixels[row]
        if "image_sizes" in inputs:  # a batch is padded to its largest picture
            height, width = (int(v) for v in inputs["image_sizes"][row])
            own = own[:, :height, :width]
        if getattr(processor, "do_normalize", True):
            return as_picture(own, processor.image_mean, processor.image_std)
        return as_picture(own, (0, 0, 0), (1, 1, 1))
    left, top, right, bottom = placed.box
    width, height = image.size
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    return np.asarray(image.convert("RGB").crop(box), np.uint8)


def shares_of(processor: Any, placed: Placed, image: Image.Image) -> tuple[float, ...]:
    """Return the part of a picture's area that the tower sees; empty where it is not known."""
    measured = placed.share if placed.share < WHOLE else 1.0
    if not getattr(processor, "do_center_crop", False):
        return (measured,)
    # What is cut off depends on the picture's shape; the formula is used where it is right.
    if abs(share_seen(processor, *placed.size) - measured) > 1 - WHOLE:
        return ()
    return (share_seen(processor, *image.size),)
