"""Where in its picture each token of a vision tower stands, in the order in which the tower has it.

Towers order their tokens each in its own way: row by row behind a class token, in blocks that are
merged later, window by window, tile by tile. What is captured in a vision tower is counted in that
order; the boxes here say where in the picture that is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from interp_lab.errors import UnsupportedModelError

Size = tuple[int, int]


@dataclass(frozen=True)
class Patch:
    """The part of a picture that one token sees at first.

    Args:
        image: the picture, counted from 0 among those of the input.
        left, top, right, bottom: in shares of the picture's width and height; a padded picture's
            patches may lie beyond 0 to 1.
        tile: which tile of the picture, counted from 0; None where it is not cut into tiles.
    """

    image: int
    left: float
    top: float
    right: float
    bottom: float
    tile: int | None = None


def tower_patches(module: nn.Module, inputs: Mapping[str, Any]) -> tuple[Patch | None, ...]:
    """Return the patch of every token of the vision tower, None for class tokens, for one row.

    Args:
        module: the model.
        inputs: what the processor gave for one row.

    Raises:
        UnsupportedModelError: if the tower's order is not known.
    """
    config: Any = module.config
    vision = getattr(config, "vision_config", config)
    if inputs.get("image_grid_thw") is not None:
        grids = [tuple(int(v) for v in grid) for grid in inputs["image_grid_thw"]]
        return tuple(_packed(grids, vision))
    pixels = inputs.get("pixel_values")
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if pixels is None or not isinstance(side, int) or not isinstance(patch, int):
        raise UnsupportedModelError(
            f"{type(module).__name__}: where the tokens of its vision tower stand is not known"
        )
    before = _tokens_before(vision)
    if getattr(config, "image_grid_pinpoints", None) and pixels.dim() == 5:
        size = tuple(int(v) for v in inputs["image_sizes"][0])
        return tuple(_tiled((size[0], size[1]), config.image_grid_pinpoints, side, patch, before))
    count = side // patch
    images = len(pixels)
    return tuple(p for i in range(images) for p in (*before, *_grid(i, count, count)))


def _tokens_before(vision: Any) -> tuple[None, ...]:
    """Return a None for each token that stands before the patches.

    Raises:
        UnsupportedModelError: for a tower of which it is not known.
    """
    kind = str(getattr(vision, "model_type", ""))
    if kind.startswith("clip"):
        return (None,)
    if kind.startswith("siglip"):
        return ()
    raise UnsupportedModelError(
        f"a vision tower of type {kind!r}: whether a class token stands before its patches is not "
        "known; clip and siglip are"
    )


def _grid(image: int, rows: int, cols: int) -> Iterator[Patch]:
    """Yield the patches of a picture row by row."""
    for row in range(rows):
        for col in range(cols):
            yield Patch(image, col / cols, row / rows, (col + 1) / cols, (row + 1) / rows)


def _packed(grids: Sequence[tuple[int, ...]], vision: Any) -> Iterator[Patch]:
    """Yield the patches of Qwen2-VL's kind of tower: blocks that are merged, in windows if any.

    Qwen2.5-VL (Bai et al. 2025, section 2.1) attends in windows of `window_size` pixels in most
    layers and keeps its tokens window by window in all of them.
    """
    merge = int(vision.spatial_merge_size)
    size = getattr(vision, "window_size", None)
    per_window = None if size is None else int(size) // int(vision.patch_size) // merge
    for image, (frames, rows, cols) in enumerate(grids):
        for _ in range(frames):
            for block_row, block_col in _blocks(rows // merge, cols // merge, per_window):
                for row in range(block_row * merge, (block_row + 1) * merge):
                    for col in range(block_col * merge, (block_col + 1) * merge):
                        yield Patch(
                            image, col / cols, row / rows, (col + 1) / cols, (row + 1) / rows
                        )


def _blocks(rows: int, cols: int, per_window: int | None) -> Iterator[tuple[int, int]]:
    """Yield (row, col) of merged blocks row by row, or window by window and so within each."""
    step_rows, step_cols = (per_window, per_window) if per_window else (rows, cols)
    for top in range(0, rows, step_rows):
        for left in range(0, cols, step_cols):
            for row in range(top, min(rows, top + step_rows)):
                for col in range(left, min(cols, left + step_cols)):
                    yield row, col


def _tiled(
    size: Size, pinpoints: Sequence[Sequence[int]], side: int, patch: int, before: tuple[None, ...]
) -> Iterator[Patch | None]:
    """Yield the patches of LLaVA-NeXT's tiles: the whole picture, then the tiles row by row.

    The picture is scaled into the best of the resolutions and padded evenly around (Liu et al.
    2024, "dynamic high resolution").
    """
    height, width = size
    best_height, best_width = _best(size, pinpoints)
    scale = min(best_width / width, best_height / height)
    drawn = min(best_height, -int(-height * scale // 1)), min(best_width, -int(-width * scale // 1))
    top, left = (best_height - drawn[0]) // 2, (best_width - drawn[1]) // 2
    count = side // patch
    yield from before
    for one in _grid(0, count, count):
        yield Patch(0, one.left, one.top, one.right, one.bottom, tile=0)
    for number, (tile_row, tile_col) in enumerate(
        (r, c) for r in range(best_height // side) for c in range(best_width // side)
    ):
        yield from before
        for one in _grid(0, count, count):
            x0, x1 = ((tile_col + x) * side - left for x in (one.left, one.right))
            y0, y1 = ((tile_row + y) * side - top for y in (one.top, one.bottom))
            yield Patch(
                0, x0 / drawn[1], y0 / drawn[0], x1 / drawn[1], y1 / drawn[0], tile=number + 1
            )


def _best(size: Size, pinpoints: Sequence[Sequence[int]]) -> Size:
    """Return the (height, width) that keeps most of the picture, and of those wastes least."""

    def kept_and_wasted(point: Sequence[int]) -> tuple[int, int]:
        scale = min(point[1] / size[1], point[0] / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, -(point[0] * point[1] - kept)

    best = max(pinpoints, key=kept_and_wasted)
    return int(best[0]), int(best[1])


def box_seen(processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of what an image processor leaves, in shares of the picture.

    A picture that is padded to a square first lies in its middle; otherwise the middle is cut out.

    Args:
        processor, width, height: as of `share_seen`.
    """
    if getattr(processor, "do_pad", False):
        x, y = (max(width, height) / side for side in (width, height))
    else:
        x, y = _sides_seen(processor, width, height)
    return 0.5 - x / 2, 0.5 - y / 2, 0.5 + x / 2, 0.5 + y / 2


def share_seen(processor: Any, width: int, height: int) -> float:
    """Return the share of a picture's area that an image processor's centre crop leaves.

    Args:
        processor: an image processor of transformers: it scales the picture, by its shorter side
            or to a fixed size, and may cut the middle out.
        width, height: of the picture in pixels.
    """
    across, down = _sides_seen(processor, width, height)
    return across * down


def _sides_seen(processor: Any, width: int, height: int) -> tuple[float, float]:
    """Return the shares of width and height that a centre crop leaves."""
    if not getattr(processor, "do_center_crop", False):
        return 1.0, 1.0
    size, crop = dict(processor.size), dict(processor.crop_size)
    scaled = float(width), float(height)
    if getattr(processor, "do_resize", True):
        edge = size.get("shortest_edge")
        if edge is None:
            scaled = float(size["width"]), float(size["height"])
        else:
            scaled = edge * width / min(width, height), edge * height / min(width, height)
    return min(1.0, crop["width"] / scaled[0]), min(1.0, crop["height"] / scaled[1])
