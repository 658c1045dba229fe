"""tiny_clip's definition: a real CLIPModel and its processor, small enough to ship.

0.4 million parameters; 64x64 pixels in patches of 8, so 64 patches and a CLS token. Everything is
built from parts: no download, and a vocabulary of the eighteen words that captions need.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from interp_lab.zoo.scenes import COLOURS, SCENE_SIZE, SHAPES, SIZES

PATCH = 8
SPECIAL_WORDS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)
WORDS = (*SPECIAL_WORDS, "a", "and", *SIZES, *COLOURS, *SHAPES)
MAX_WORDS = 24


def build_processor() -> CLIPProcessor:
    """A word-level tokenizer of the captions' words, and CLIP's image steps for 64x64 pixels."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", BOS_ID), ("[EOS]", EOS_ID)]
    )
    return CLIPProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": SCENE_SIZE},
            crop_size={"height": SCENE_SIZE, "width": SCENE_SIZE},
        ),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            bos_token="[BOS]",
            eos_token="[EOS]",
            model_max_length=MAX_WORDS,
        ),
    )


def build_model(seed: int) -> CLIPModel:
    """The architecture with random weights: where training starts, and the untrained control."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_WORDS,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SCENE_SIZE,
        "patch_size": PATCH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def to_pixels(images: NDArray[np.uint8], processor: CLIPProcessor) -> Tensor:
    """Images (n, 64, 64, 3) as normalised pixel values (n, 3, 64, 64); they need no resizing."""
    steps = processor.image_processor
    mean, std = torch.tensor(steps.image_mean), torch.tensor(steps.image_std)
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def to_tokens(captions: Sequence[str], processor: CLIPProcessor) -> dict[str, Tensor]:
    """Captions as padded input_ids and attention_mask, each (n, words)."""
    return dict(processor.tokenizer(list(captions), padding=True, return_tensors="pt"))


def load(folder: Path) -> tuple[CLIPModel, CLIPProcessor]:
    """A saved model in float32, ready to evaluate, and its processor."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, CLIPProcessor.from_pretrained(folder)
