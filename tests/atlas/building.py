"""Building a tiny random model of a class, with attention that is peaked enough to prove something.

The first divisor by which a model of the class can be built and run is taken; 8 does for nine of
ten. Random weights give nearly uniform attention, beneath which a wrong scale or a lost cap would
pass unseen, so the weights around it are drawn wider.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from model_types import Chosen
from shrinking import shrink
from torch import nn
from transformers import PreTrainedModel

# Divisor of the widths, and whether layers are cut.
LADDER = ((8, True), (4, True), (16, True), (2, True), (1, True), (8, False), (16, False))
MOST_PARAMETERS = 150_000_000
# Times 1 / sqrt(width): scores then differ by several units within a row.
SPREAD = 1.5
# What a configuration cannot be made without.
NEEDED: dict[str, dict[str, Any]] = {
    # Without the token's id the placeholders of a picture cannot be found in the text.
    "blip-2": {"image_token_index": 60},
    "instructblip": {"image_token_index": 60},
    "instructblipvideo": {"video_token_index": 60},
    # By default it has no attention at all.
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    # The defaults of its vision tower do not fit each other.
    "llama4": {"vision_config": {"hidden_size": 1408}},
    "llama4_vision_model": {"hidden_size": 1408},
    "chameleon": {"vocabulary_map": {"<image>": 60}},
    "autoformer": {"prediction_length": 4},
    "informer": {"prediction_length": 4},
    "time_series_transformer": {"prediction_length": 4},
}


@dataclass(frozen=True)
class Built:
    """A tiny model in evaluation mode, fp32, and what its widths were divided by."""

    model: PreTrainedModel
    divisor: int


def builds(chosen: Chosen, complaints: list[str]) -> Iterator[Built]:
    """Yield tiny models of a class, one a step of the ladder that can be built.

    Args:
        chosen: the type and its class.
        complaints: is given one line for each step that cannot.
    """
    for divisor, depth in LADDER:
        try:
            # Without memory first: what is no vocabulary by name may still be huge.
            with torch.device("meta"):
                skeleton = _made(chosen, divisor, depth)
            count = sum(p.numel() for p in skeleton.parameters())
            if count > MOST_PARAMETERS:
                complaints.append(f"{count // 10**6} million parameters at 1/{divisor}")
                continue
            torch.manual_seed(0)
            yield Built(_made(chosen, divisor, depth).float().eval(), divisor)
        except Exception as error:  # whatever a class raises is why it is not in the table
            complaints.append(one_line(error))


def one_line(error: BaseException) -> str:
    """Return an error as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"


def sharpen(modules: list[nn.Module]) -> None:
    """Draw the weight matrices of attention modules wider, always the same ones."""
    generator = torch.Generator().manual_seed(1)
    done: set[int] = set()
    with torch.no_grad():
        for parameter in (p for module in modules for p in module.parameters()):
            if parameter.dim() == 2 and parameter.numel() and id(parameter) not in done:
                done.add(id(parameter))
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn * SPREAD / parameter.shape[1] ** 0.5)


def _made(chosen: Chosen, divisor: int, depth: bool) -> PreTrainedModel:
    config = shrink(chosen.config(**NEEDED.get(chosen.model_type, {})), divisor, depth)
    return chosen.model._from_config(config)
