"""Any model of transformers that hears: text and clips in, text out.

Nothing is written here of a family. The prompt is the checkpoint's chat template, the audio tokens
are those with the id that its configuration names, and when each of them hears is measured.
"""

import inspect
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, InterpLabError, SampleError, UnsupportedModelError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.files import first_line, is_out_of_memory
from interp_lab.models.language import chat_prompt
from interp_lab.models.loading import inputs_dtype, refuse_not_finite
from interp_lab.models.placing import sound
from interp_lab.models.placing.calls import full_precision, inputs_of
from interp_lab.models.placing.local import position_wise
from interp_lab.models.placing.sound import Heard
from interp_lab.models.tokenmaps import Span, token_map
from interp_lab.models.weights import Weights
from interp_lab.models.windowed import WindowedProcessor
from interp_lab.tokens import Token, TokenMap

# The clip by which a model is looked at when it is loaded; longer ones double it.
FIRST_SECONDS = 2.4
# Clips of one forward while it is looked at.
TOGETHER = 8
# What a whole checkpoint may hold beside the part that hears and thinks.
SPEAKING_SIDE = ("talker", "token2wav", "code2wav", "code_predictor")


class AudioLM(LanguageFamily):
    """A model that hears, on a device.

    Its options are those of `LanguageFamily`; `architecture` names its `model_type`.

    Attributes:
        audio_id: the id of its audio tokens.
    """

    title = "this model"
    reads = ("text", "audio")
    other_parts: ClassVar[tuple[str, ...]] = SPEAKING_SIDE
    dtype = "bfloat16"
    max_new_tokens = 8

    def __post_init__(self) -> None:
        """Load the model, and measure when its audio tokens hear."""
        super().__post_init__()
        refuse_not_finite(self.module, f"model.checkpoint={self.checkpoint}")
        self.name = f"model.checkpoint={self.checkpoint}"
        self.audio_id = audio_token_of(self.module.config, self.processor, self.name)
        self.rate: int = self._extractor.sampling_rate
        if isinstance(self.processor, WindowedProcessor):
            self.processor.fill(self.audio_id, self._of_window(self.processor.window()))
        self._longest_heard: tuple[int, Heard] | None = None
        self._heard: dict[tuple[int, int], Heard] = {}
        heard = self._measured(round(FIRST_SECONDS * self.rate))
        overlap = ", neighbours overlap" if heard.width > 1.2 * heard.step else ""
        self.notes.append(
            f"audio tokens: measured, one every {heard.step:.3f} s, each hears about "
            f"{heard.width:.2f} s{overlap}"
        )

    @classmethod
    def network(cls, kind: str | None, weights: Weights) -> Any:
        """Return the class of a model_type's network; of Omni models the part that thinks.

        Raises:
            UnsupportedModelError: if transformers has none of this type that hears and writes.
        """
        for mapping in (
            MODEL_FOR_MULTIMODAL_LM_MAPPING,
            MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        ):
            for config_class in mapping:
                parts: Any = config_class.sub_configs
                hears = mapping is MODEL_FOR_MULTIMODAL_LM_MAPPING or "audio_config" in parts
                if config_class.model_type == kind and hears:
                    return mapping[parts.get("thinker_config", config_class)]
        raise UnsupportedModelError(
            f"model.checkpoint={weights.checkpoint}: its model_type is {kind!r}, and the installed "
            "transformers has no model of that type that hears and writes; take another model=, or "
            "a newer transformers"
        )

    @classmethod
    def read_configuration(cls, weights: Weights) -> Any:
        """Return a checkpoint's configuration, not checked; of Omni models that of the thinker."""
        config = weights.load(AutoConfig.from_pretrained, "configuration")
        return getattr(config, "thinker_config", config)

    @classmethod
    def of_values(cls, config_class: Any, values: Mapping[str, Any]) -> Any:
        """Return the configuration of an architecture's values; ids that it lacks are set after."""
        own = {k: v for k, v in values.items() if k != "model_type"}
        declared = inspect.signature(config_class.__init__).parameters
        known = {*declared, *getattr(config_class, "attribute_map", {})}
        extra = {k: own.pop(k) for k in list(own) if k.endswith("_token_id") and k not in known}
        config = config_class(**own)
        for key, value in extra.items():
            setattr(config, key, value)
        return config

    def handler(self, source: Weights, config: Any) -> Any:
        """Return the processor; one that takes sound in chats only is given parts instead."""
        found = super().handler(source, config)
        if "audio" in inspect.signature(type(found).__call__).parameters:
            return found
        return WindowedProcessor(found)

    def part(self, kind: str, value: Any) -> dict[str, Any]:
        """Return a part as templates read it, which look for its type or for the kind as a key."""
        return {"type": "text", "text": value} if kind == "text" else {"type": kind, kind: kind}

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, its system prompt included.

        Raises:
            SampleError: if a clip is not at the rate that the model hears, or see `chat`.
        """
        for _, found in sample.audio:
            if found != self.rate:
                raise SampleError(
                    f"{sample.id}: audio of {found} Hz, the model hears {self.rate} Hz"
                )
        return super().render(sample)

    def processed(self, prompts: Sequence[str], samples: Sequence[Sample]) -> Any:
        """Return what the processor makes of prompts and their clips, one batch."""
        return self._batch(prompts, [wave for s in samples for wave, _ in s.audio])

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; when each audio token hears is measured.

        Raises:
            SampleError: if the model hears only the beginning of a clip.
        """
        waves = [wave for wave, _ in sample.audio]
        counts = [len(list(run)) for is_audio, run in groupby(i == self.audio_id for i in ids)
                  if is_audio]  # fmt: skip
        if len(counts) != len(waves):
            raise SampleError(
                f"{sample.id}: {len(counts)} runs of audio tokens for {len(waves)} clips; the "
                "prompt must hold something between two clips"
            )
        blocks = [
            audio_tokens(self.heard(len(wave), count), len(wave) / self.rate, sample.id)
            for wave, count in zip(waves, counts, strict=True)
        ]
        return token_map(self.tokenizer, prompt, ids, spans, {self.audio_id: blocks})

    def heard(self, samples: int, count: int) -> Heard:
        """Return when the tokens of a clip hear it; measured, and checked for its length.

        Args:
            samples: of the clip.
            count: its audio tokens.
        """
        longest, reference = self._longest_heard or (0, None)
        while reference is None or longest < samples:
            longest = max(round(FIRST_SECONDS * self.rate), min(2 * longest, 2 * samples))
            longest = max(longest, samples)
            reference = self._measured(longest)
        # Lengths that differ by less than a token are alike.
        key = count, int(samples / self.rate / reference.step)
        if key not in self._heard:
            args = self._listen, samples, self.rate, self.name
            self._heard[key] = sound.check(reference, *args)
        return self._heard[key]

    def spectrogram(self, batch: Mapping[str, Any], row: int) -> np.ndarray | None:
        """Return the features (mel, frame) of the row's clip, where they are a row each."""
        features, mask = batch.get("input_features"), batch.get("feature_attention_mask")
        if features is None or mask is None or len(features) != len(batch["input_ids"]):
            return None
        return features[row][:, mask[row].bool()].float().numpy()

    @property
    def _extractor(self) -> Any:
        found = getattr(self.processor, "feature_extractor", None)
        if found is None or not hasattr(found, "sampling_rate"):
            raise UnsupportedModelError(
                f"{self.name}: its processor {type(self.processor).__name__} has no feature "
                "extractor with a sampling rate, so it hears nothing here"
            )
        return found

    def _measured(self, samples: int) -> Heard:
        heard = sound.measure(self._listen, samples, self.rate, self.name)
        self._longest_heard = samples, heard
        return heard

    def _listen(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the decoder gets of the audio tokens of clips of one length.

        Raises:
            UnsupportedModelError: if the model does not run so, such as with packed weights.
        """
        try:
            return self._states(waves)
        except InterpLabError:
            raise
        except Exception as error:  # third-party code: any type at all
            if is_out_of_memory(error):
                raise
            raise UnsupportedModelError(
                f"{self.name}: when its audio tokens hear cannot be measured, for it does not run "
                f"on a clip of noise. Cause: {first_line(error)}"
            ) from error

    def _states(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        content = [self.part("audio", None), self.part("text", "x")]
        prompt = chat_prompt(self.processor, content)
        found = []
        with torch.no_grad(), position_wise(self.module), full_precision(self.module):
            for start in range(0, len(waves), TOGETHER):
                some = waves[start : start + TOGETHER]
                batch = self._batch([prompt] * len(some), some)
                inputs = {k: v.to(self.device) for k, v in batch.items() if hasattr(v, "dtype")}
                at = torch.nonzero(inputs["input_ids"][0] == self.audio_id)[:, 0]
                decoder = self.module.get_decoder()
                _, called = inputs_of(decoder, lambda own=inputs: self.module(**own))
                if called.get("inputs_embeds") is None:
                    raise UnsupportedModelError(
                        f"{self.name}: its decoder is not given embeddings, so when its audio "
                        "tokens hear cannot be measured"
                    )
                found.append(called["inputs_embeds"][:, at].float().cpu().numpy())
        return np.concatenate(found)

    def _of_window(self, features: torch.Tensor) -> int:
        """Return how many tokens the model gives for one window of features (1, mel, frame)."""
        with torch.no_grad():
            dtype = inputs_dtype(self.module)
            found = self.module.get_audio_features(features.to(self.device, dtype))
        states = getattr(found, "pooler_output", found)
        return states.reshape(-1, states.shape[-1]).shape[0]

    def _batch(self, prompts: Sequence[str], waves: Sequence[np.ndarray]) -> Any:
        sounds = {"audio": list(waves), "sampling_rate": self.rate} if waves else {}
        # Texts are padded to the longest; how clips are is the processor's own choice.
        padded = {"text_kwargs": {"padding": True}}
        return self.processor(text=list(prompts), return_tensors="pt", **padded, **sounds)


def audio_token_of(config: Any, processor: Any, name: str) -> int:
    """Return the id of a model's audio tokens.

    Args:
        config: of the model.
        processor: of the model.
        name: of it, for messages.

    Raises:
        ConfigError: if neither names one.
    """
    for owner in (config, processor):
        for key in ("audio_token_id", "audio_token_index"):
            found = getattr(owner, key, None)
            if isinstance(found, int):
                return found
    raise ConfigError(f"{name}: neither its configuration nor its processor names an audio token")


def audio_tokens(heard: Heard, seconds: float, sample: str) -> list[Token]:
    """Return the tokens of one clip; those that hear only padding have no time.

    Args:
        heard: when they hear.
        seconds: of the clip.
        sample: its id, for messages.

    Raises:
        SampleError: if the clip goes on where no token hears it.
    """
    times = heard.times()
    last = max((end for _, end in filter(None, times)), default=0.0)
    if seconds - last > max(heard.width, heard.step):
        raise SampleError(
            f"{sample}: {seconds:.4g} s of audio, the model hears the first {last:.4g} s: cut the "
            "file"
        )
    return list(map(_token, times))


def _token(seconds: tuple[float, float] | None) -> Token:
    if seconds is None:
        return Token("<padding>", "pad", "none")
    return Token("<audio>", "audio", "audio", seconds=seconds)
