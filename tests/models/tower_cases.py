"""Tiny vision towers of real classes with random weights, and pictures whose cells differ."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from interp_lab.models.vision_tower import VisionTower

SIDE, PATCH = 32, 8
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": PATCH,
}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
CLIP_PROCESSOR = {"image_processor_type": "CLIPImageProcessor", **CROPPED}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
QWEN_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 4,
    "merge_size": 2,
    "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
}
LLAVA = {
    "model_type": "llava",
    "text_config": TEXT | {"model_type": "llama"},
    "vision_config": SMALL | {"model_type": "clip_vision_model", "image_size": SIDE},
    "image_token_index": 4,
}
# name -> (architecture, processor, class tokens, registers)
TOWERS: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "clip": (
        SMALL | {"model_type": "clip_vision_model", "image_size": SIDE},
        CLIP_PROCESSOR,
        1,
        0,
    ),
    "siglip2": (
        SMALL | {"model_type": "siglip2_vision_model", "num_patches": 16},
        {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16},
        0,
        0,
    ),
    "vit": (
        SMALL | {"model_type": "vit", "image_size": SIDE},
        {"image_processor_type": "ViTImageProcessor", **SQUARE},
        1,
        0,
    ),
    "dinov2": (
        SMALL | {"model_type": "dinov2", "image_size": SIDE},
        {"image_processor_type": "BitImageProcessor", **CROPPED},
        1,
        0,
    ),
    "dinov2_with_registers": (
        SMALL
        | {"model_type": "dinov2_with_registers", "image_size": SIDE, "num_register_tokens": 4},
        {"image_processor_type": "BitImageProcessor", **CROPPED},
        1,
        4,
    ),
    "dinov3": (
        SMALL | {"model_type": "dinov3_vit", "image_size": SIDE, "num_register_tokens": 3},
        {"image_processor_type": "DINOv3ViTImageProcessor", **SQUARE},
        1,
        3,
    ),
    "whole_clip": (
        {
            "model_type": "clip",
            "vision_config": SMALL | {"image_size": SIDE},
            "text_config": TEXT,
            "projection_dim": 16,
        },
        CLIP_PROCESSOR,
        1,
        0,
    ),
    "llava": (LLAVA, CLIP_PROCESSOR, 1, 0),
    "qwen2_5_vl": (
        {
            "model_type": "qwen2_5_vl",
            "text_config": TEXT | {"rope_parameters": MROPE},
            "vision_config": {
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 32,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "window_size": 16,
                "fullatt_block_indexes": [2],
            },
        },
        QWEN_PROCESSOR,
        0,
        0,
    ),
    "qwen3_vl": (
        {
            "model_type": "qwen3_vl",
            "text_config": TEXT | {"rope_parameters": MROPE, "head_dim": 16},
            "vision_config": {
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 32,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
        },
        QWEN_PROCESSOR,
        0,
        0,
    ),
}

# Towers of other shapes: CLS behind the cells, one row of tokens for all pictures, parts of a text.
MORE: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "llama4": (
        {
            "model_type": "llama4",
            "text_config": TEXT
            | {"head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 32},
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": PATCH,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "pixel_shuffle_ratio": 0.5,
            },
        },
        {"image_processor_type": "Llama4ImageProcessor", "max_patches": 1, **SQUARE},
        1,
        0,
    ),
    "pixtral": (
        SMALL | {"model_type": "pixtral", "image_size": 64},
        {
            "image_processor_type": "PixtralImageProcessor",
            "size": {"longest_edge": 64},
            "patch_size": {"height": PATCH, "width": PATCH},
        },
        0,
        0,
    ),
    "idefics3": (
        {
            "model_type": "idefics3",
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": SMALL | {"image_size": SIDE},
            "scale_factor": 2,
            "image_token_id": 5,
        },
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "size": {"longest_edge": SIDE},
            "max_image_size": {"longest_edge": SIDE},
            "do_image_splitting": False,
        },
        0,
        0,
    ),
    "glm4v": (
        {
            "model_type": "glm4v",
            "text_config": TEXT | {"rope_parameters": MROPE},
            "vision_config": {
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 32,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "image_size": SIDE,
            },
        },
        QWEN_PROCESSOR | {"image_processor_type": "Glm4vImageProcessor"},
        0,
        0,
    ),
}


def tower(name: str, **changes: Any) -> VisionTower:
    """A tower of `TOWERS`; attention that does something, so that tests of it can fail."""
    architecture, processor, _, _ = (TOWERS | MORE)[name]
    torch.manual_seed(0)
    return VisionTower(
        "none",
        torch.device("cpu"),
        init="random",
        architecture=architecture | changes,
        processor=processor,
    )


def told_apart(rows: int, cols: int, cell: int = 8, seed: int = 0) -> Image.Image:
    """A picture of flat cells, no two of one colour."""
    colours = np.random.default_rng(seed).permutation(rows * cols) * (255 // (rows * cols))
    grid = np.stack([colours, 255 - colours, colours // 2 + 60], -1).reshape(rows, cols, 3)
    return Image.fromarray(np.kron(grid, np.ones((cell, cell, 1))).astype(np.uint8))
