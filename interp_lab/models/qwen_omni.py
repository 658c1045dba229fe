"""Qwen2.5-Omni, the part that listens and thinks: audio and text in, text out.

Only the thinker is loaded; the talker, which speaks, has no part in what the model attends to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.language import LanguageModel, chat_prompt, chat_spans
from interp_lab.models.loading import RANDOM_NOTE, load_module, random_module, without_memory
from interp_lab.models.tokenmaps import Span, omni_map
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap

# What a whole Omni checkpoint holds beside the thinker.
SPEAKING_SIDE = ("talker", "token2wav")


class QwenOmni(LanguageModel):
    """The thinker of a Qwen2.5-Omni model on a device.

    Args:
        checkpoint, revision, dtype, init, trust_remote_code, architecture: see `Weights`;
            `architecture` holds the thinker config's values. With `init: random`, `processor` is
            the checkpoint or folder that the processor comes from.
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
        device_map: str | dict[str, Any] | None = None,
        attn_implementation: str = "sdpa",
        max_new_tokens: int = 8,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        weights = Weights(checkpoint, revision, dtype, init, trust_remote_code, architecture or {})
        network = Qwen2_5OmniThinkerForConditionalGeneration
        notes: list[str] = []
        if init == "random":
            notes.append(RANDOM_NOTE)
            config = thinker_config(weights.needed_architecture())
            module = random_module(network, config, weights, attn_implementation, seed).to(device)
            source = Weights(processor or checkpoint)
        else:
            module = load_module(
                network, weights, device, device_map, attn_implementation, SPEAKING_SIDE
            )
            source = weights
        handler = source.load(AutoProcessor.from_pretrained, "processor")
        place = module.device if device_map else device
        super().__init__(module, handler, place, max_new_tokens, temperature, notes, seed)

    @staticmethod
    def skeleton(weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the thinker that a YAML describes, without memory for its weights."""
        if weights.init == "random":
            config = thinker_config(weights.needed_architecture())
        else:
            whole = weights.load(AutoConfig.from_pretrained, "configuration")
            config = getattr(whole, "thinker_config", whole)
        return without_memory(Qwen2_5OmniThinkerForConditionalGeneration, config, weights)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, its system prompt included.

        Raises:
            SampleError: if a clip is not at the rate that the model hears.
        """
        rate = self.processor.feature_extractor.sampling_rate
        for _, found in sample.audio:
            if found != rate:
                raise SampleError(f"{sample.id}: audio of {found} Hz, the model hears {rate} Hz")
        content = [
            {"type": "text", "text": value} if kind == "text" else {"type": kind, kind: kind}
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
        """Return the map; a clip's tokens are 40 ms each."""
        if sample.images:
            raise UnsupportedModelError("QwenOmni: images are not read by any study yet")
        frames = [self._mel_frames(wave) for wave, _ in sample.audio]
        return omni_map(self.tokenizer, prompt, ids, spans, self.module.config, mel_frames=frames)

    def spectrogram(self, batch: Mapping[str, Any], row: int) -> np.ndarray | None:
        """Return log mel features (mel, frame) of the row's clip, 10 ms a frame."""
        features = batch.get("input_features")
        # Clips are in the order of the rows; a batch in which some rows have none is not traced.
        if features is None or len(features) != len(batch["input_ids"]):
            return None
        heard = batch["feature_attention_mask"][row].bool()
        return features[row][:, heard].float().numpy()

    def _mel_frames(self, wave: Any) -> int:
        """Return the frames of a clip that the extractor marks as heard."""
        return min(len(wave), self.processor.feature_extractor.n_samples) // int(
            self.processor.feature_extractor.hop_length
        )


def thinker_config(values: Mapping[str, Any]) -> Qwen2_5OmniThinkerConfig:
    """Return the thinker's config; two token ids that its class does not know are set after it."""
    known = dict(values)
    extra = {
        k: known.pop(k) for k in ("vision_start_token_id", "vision_end_token_id") if k in known
    }
    config = Qwen2_5OmniThinkerConfig(**known)
    for name, value in extra.items():
        setattr(config, name, value)
    return config
