"""Qwen2-VL and Qwen2.5-VL: pictures of any shape, each a grid of merged patches in the prompt.

A picture is scaled to a multiple of the merged patch and never cropped, so its cells cover it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.language import LanguageModel, chat_prompt, chat_spans
from interp_lab.models.loading import RANDOM_NOTE, load_module, random_module, without_memory
from interp_lab.models.tokenmaps import Span, qwen_vl_map
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap

# model_type of a configuration -> its configuration class and network.
FAMILIES: dict[str, tuple[Any, Any]] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
}


class QwenVL(LanguageModel):
    """A Qwen2-VL or Qwen2.5-VL model on a device; which of them, its configuration says.

    Args:
        checkpoint, revision, dtype, init, trust_remote_code, architecture: see `Weights`; a folder
            of fine-tuned weights loads like a hub id. `architecture` holds the configuration's
            values with its `model_type`. With `init: random`, `processor` is the checkpoint or
            folder that the processor comes from.
        min_pixels, max_pixels: bounds of a picture's area after scaling; null = the checkpoint's.
        device_map: accelerate's placement over several devices, such as `auto`; null = `device`.
        attn_implementation: sdpa, flash_attention_2 or eager.
        max_new_tokens, temperature: see `LanguageModel`.
        device: where the model goes without a device_map.
        seed: of random weights, and of sampling.
    """

    def __init__(
        self,
        checkpoint: str,
        device: torch.device,
        revision: str | None = None,
        dtype: str = "bfloat16",
        init: str = "pretrained",
        trust_remote_code: bool = False,
        architecture: dict[str, Any] | None = None,
        processor: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        device_map: str | dict[str, Any] | None = None,
        attn_implementation: str = "sdpa",
        max_new_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        weights = Weights(checkpoint, revision, dtype, init, trust_remote_code, architecture or {})
        notes: list[str] = []
        if init == "random":
            notes.append(RANDOM_NOTE)
            config_class, network = _family(weights.needed_architecture(), checkpoint)
            config = config_class(**weights.architecture)
            module = random_module(network, config, weights, attn_implementation, seed).to(device)
            source = Weights(processor or checkpoint)
        else:
            config = weights.load(AutoConfig.from_pretrained, "configuration")
            _, network = _family(config.to_dict(), checkpoint)
            module = load_module(network, weights, device, device_map, attn_implementation)
            source = weights
        handler = source.load(AutoProcessor.from_pretrained, "processor")
        _bound(handler.image_processor, min_pixels, max_pixels)
        place = module.device if device_map else device
        super().__init__(module, handler, place, max_new_tokens, temperature, notes, seed)

    @staticmethod
    def skeleton(weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model that a YAML describes, without memory for its weights."""
        if weights.init == "random":
            config_class, network = _family(weights.needed_architecture(), weights.checkpoint)
            return without_memory(network, config_class(**weights.architecture), weights)
        config = weights.load(AutoConfig.from_pretrained, "configuration")
        return without_memory(_family(config.to_dict(), weights.checkpoint)[1], config, weights)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, its system prompt included.

        Raises:
            SampleError: if the sample holds anything but text and images.
        """
        kinds = {kind for kind, _ in sample.parts}
        if kinds - {"text", "image"}:
            raise SampleError(f"{sample.id}: Qwen-VL takes text and images, got {sorted(kinds)}")
        content = [
            {"type": "text", "text": value} if kind == "text" else {"type": "image"}
            for kind, value in sample.parts
        ]
        prompt = chat_prompt(self.processor, content)
        return prompt, chat_spans(prompt, sample)

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; an image's tokens are its merged patches, row by row."""
        grids = batch.get("image_grid_thw", [])[first : first + len(sample.images)]
        return qwen_vl_map(self.tokenizer, prompt, ids, spans, self.module.config, grids)

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return the pictures as they are: their cells cover them whole."""
        return tuple(np.asarray(image.convert("RGB")) for image in sample.images)


def _family(values: Mapping[str, Any], checkpoint: str) -> tuple[Any, Any]:
    kind = values.get("model_type")
    if kind not in FAMILIES:
        raise UnsupportedModelError(
            f"model.checkpoint={checkpoint}: its model_type is {kind!r}; this model's YAML is for "
            f"{' and '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def _bound(handler: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set the bounds of a picture's area, where they are given."""
    low = handler.size["shortest_edge"] if min_pixels is None else min_pixels
    high = handler.size["longest_edge"] if max_pixels is None else max_pixels
    if not 0 < low <= high:
        raise ConfigError(
            f"model.min_pixels={low}, model.max_pixels={high}: give 0 < min_pixels <= max_pixels"
        )
    handler.size = {"shortest_edge": low, "longest_edge": high}
