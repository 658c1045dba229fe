"""Where a vision tower's tokens stand: shown by changing one place of a picture.

A token that changes before the first attention layer must be one whose patch meets the place.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from interp_lab.capture.towers import find_sites
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.patches import Patch, tower_patches

sys.path.insert(0, str(Path(__file__).parents[1] / "capture"))
import tiny_models as tiny
import tiny_pairs as pairs


def states_before_attention(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What the vision tower's first layer reads, (token, width), tiles one after the other."""
    seen = []
    layer = find_sites(model, "vision")[0].path.rsplit(".", 1)[0]
    keep = lambda m, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"])  # noqa: E731
    handle = model.get_submodule(layer).register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0].flatten(0, -2)


def changed_tokens(model: Any, first: dict[str, Any], second: dict[str, Any]) -> set[int]:
    before, after = (states_before_attention(model, i) for i in (first, second))
    return set((before - after).abs().sum(-1).nonzero().flatten().tolist())


def meets(patch: Patch | None, x: float, y: float) -> bool:
    inside = patch is not None and patch.left <= x < patch.right and patch.top <= y < patch.bottom
    return bool(inside)


def drawn(width: int, height: int, x: float, y: float) -> Image.Image:
    """A grey picture; at a share of its width and height one white spot."""
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    pixels[int(y * height), int(x * width)] = 255
    return Image.fromarray(pixels)


SPOTS = [(0.1, 0.05), (0.6, 0.1), (0.9, 0.95), (0.45, 0.55), (0.3, 0.8)]


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("build", [tiny.qwen2_vl, tiny.qwen2_5_vl], ids=lambda b: b.__name__)
def test_merged_blocks_and_windows(build: Any, spot: tuple[float, float]) -> None:
    model, given = tiny.make(build)
    vision = model.config.vision_config
    processor = tf.Qwen2VLImageProcessor(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        size={"shortest_edge": 16, "longest_edge": 10**6},
    )
    unit = vision.patch_size
    _, rows, cols = (int(v) for v in given["image_grid_thw"][0])
    width, height = cols * unit, rows * unit
    made = [
        {**given, **processor(drawn(width, height, *at), return_tensors="pt")}
        for at in (spot, (0.999, 0.001))
    ]
    assert made[0]["image_grid_thw"].tolist() == given["image_grid_thw"].tolist()
    patches = tower_patches(model, made[0])
    assert len(patches) == rows * cols
    want = {i for i, p in enumerate(patches) if meets(p, *spot) or meets(p, 0.999, 0.001)}
    assert changed_tokens(model, *made) == want and len(want) == 2


@pytest.mark.parametrize("spot", SPOTS)
def test_a_grid_behind_a_class_token(spot: tuple[float, float]) -> None:
    model, given = tiny.make(tiny.llava)
    processor = tf.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_normalize=False
    )
    made = [
        {**given, **processor(drawn(16, 16, *at), return_tensors="pt")}
        for at in (spot, (0.999, 0.001))
    ]
    patches = tower_patches(model, made[0])
    assert len(patches) == 17 and patches[0] is None
    want = {i for i, p in enumerate(patches) if meets(p, *spot) or meets(p, 0.999, 0.001)}
    assert changed_tokens(model, *made) == want and len(want) == 2


@pytest.mark.parametrize("spot", SPOTS)
def test_tiles_of_a_picture(spot: tuple[float, float]) -> None:
    """Each place is seen once in the whole picture and once in its tile."""
    model, given = tiny.make(pairs.llava_next)
    processor = tf.LlavaNextImageProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
    )
    other = (0.97, 0.4)
    made = [{**given, **processor(drawn(32, 32, *at), return_tensors="pt")} for at in (spot, other)]
    assert made[0]["image_sizes"].tolist() == [[32, 32]]
    patches = tower_patches(model, made[0])
    assert len(patches) == 5 * 17
    seen = changed_tokens(model, *made)
    want = {i for i, p in enumerate(patches) if meets(p, *spot) or meets(p, *other)}
    # Scaling the whole picture down blurs a spot into its neighbours; in its tile it is sharp.
    assert want <= seen
    assert {i for i in seen if i >= 17} == {i for i in want if i >= 17}


def test_an_unknown_order_is_refused() -> None:
    model, inputs = tiny.make(pairs.swin)
    with pytest.raises(UnsupportedModelError, match="class token"):
        tower_patches(model, inputs)
