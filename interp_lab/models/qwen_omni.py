"""Qwen2.5-Omni, the part that listens and thinks: audio and text in, text out.

Only the thinker is loaded; the talker, which speaks, has no part in what the model attends to.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.qwen_vl import MergedPatches
from interp_lab.models.tokenmaps import Span, omni_map
from interp_lab.tokens import TokenMap

# What a whole Omni checkpoint holds beside the thinker.
SPEAKING_SIDE = ("talker", "token2wav")


class QwenOmni(MergedPatches, LanguageFamily):
    """The thinker of a Qwen2.5-Omni model on a device.

    Its options are those of `LanguageFamily`; `architecture` holds the thinker config's values.
    """

    networks = (Qwen2_5OmniThinkerForConditionalGeneration,)
    other_parts = SPEAKING_SIDE
    reads = ("text", "image", "audio")
    # The audio tower's own tokens, before they are averaged in pairs: two mel frames of 10 ms.
    encoder_seconds: ClassVar[float] = 0.02
    dtype = "bfloat16"
    max_new_tokens = 8

    @classmethod
    def of_values(cls, config_class: Any, values: Mapping[str, Any]) -> Any:
        """Return the thinker's configuration."""
        return thinker_config(values)

    def part(self, kind: str, value: Any) -> dict[str, Any]:
        """Return a part as Omni's template reads it, which looks for the kind among the keys."""
        return {"type": "text", "text": value} if kind == "text" else {"type": kind, kind: kind}

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, its system prompt included.

        Raises:
            SampleError: if a clip is not at the rate that the model hears, or is longer than what
                its extractor keeps.
        """
        extractor = self.processor.feature_extractor
        rate, longest = extractor.sampling_rate, extractor.n_samples
        for wave, found in sample.audio:
            if len(wave) > longest:
                raise SampleError(
                    f"{sample.id}: {len(wave) / rate:.4g} s of audio, the model hears at most "
                    f"{longest / rate:.4g} s: cut the file"
                )
            if found != rate:
                raise SampleError(f"{sample.id}: audio of {found} Hz, the model hears {rate} Hz")
        return super().render(sample)

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; a clip's tokens are 40 ms each, an image's its merged patches by rows."""
        grids = batch.get("image_grid_thw", [])[first : first + len(sample.images)]
        frames = [self._mel_frames(wave) for wave, _ in sample.audio]
        return omni_map(self.tokenizer, prompt, ids, spans, self.module.config, grids, frames)

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
