"""Tiny untrained Qwen-VL parts for tests: the real classes, a processor made of parts.

Its tokenizer has one token a byte, so that letters of other scripts are several tokens.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from interp_lab.datasets.base import Sample
from interp_lab.models.qwen_vl import QwenVL

CPU = torch.device("cpu")

SPECIAL = (
    "<|pad|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>"
).split()
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATCH = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}


def save_processor(folder: Path, min_pixels: int = 256, max_pixels: int = 4096) -> str:
    """Save a processor with a byte tokenizer and cells of 8 pixels; return its folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[1:],
    )
    fast.image_token, fast.video_token = "<|image_pad|>", "<|video_pad|>"
    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **PATCH),
        tokenizer=fast,
        video_processor=Qwen2VLVideoProcessor(size=size, **PATCH),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return str(folder)


def architecture(kind: str = "qwen2_5_vl", **text: Any) -> dict[str, Any]:
    """The configuration's values of a tiny model that fits `save_processor`."""
    vision = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    own = {
        "qwen2_5_vl": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "out_hidden_size": 48,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        "qwen2_vl": {"embed_dim": 16, "hidden_size": 48, "mlp_ratio": 2},
    }
    return {
        "model_type": kind,
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "text_config": {
            "vocab_size": 263,
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 2, 2],
                "rope_theta": 10000.0,
            },
        }
        | text,
        "vision_config": vision | own[kind],
    }


def model(tmp_path: Path, kind: str = "qwen2_5_vl", **options) -> QwenVL:
    options = {"max_new_tokens": 6, "dtype": "float32", **options}
    return QwenVL(
        "no/checkpoint",
        CPU,
        init="random",
        architecture=architecture(kind),
        processor=save_processor(tmp_path / "processor"),
        **options,
    )


def sample(name: str, *sizes: tuple[int, int], text: str = "where?") -> Sample:
    rng = np.random.default_rng(len(sizes))
    images = tuple(
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    )
    parts = (*(("image", i) for i in range(len(images))), ("text", text))
    return Sample(name, parts, images)
