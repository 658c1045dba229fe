"""A processor that takes sound in whole chats only (Voxtral's), as one that takes text and sound.

Its own tokenizer writes the chat and reads the sound from files; here both are given apart. Clips
are padded to whole windows, and the model has as many audio tokens for each window.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch


class WindowedProcessor:
    """Puts texts and clips together from the parts of such a processor.

    Args:
        processor: has `tokenizer`, `feature_extractor` and `audio_kwargs`.
    """

    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer
        self.feature_extractor = processor.feature_extractor
        self._options = dict(processor.audio_kwargs)
        self._window: int = self._options.pop("max_source_positions")
        self._mark, self._each = "", 0

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's."""
        return self.tokenizer.chat_template

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the tokenizer's chat template makes of a conversation."""
        return self.tokenizer.apply_chat_template(*args, **kwargs)

    def window(self) -> torch.Tensor:
        """Return the features (1, mel, frame) of one silent window."""
        rate = self.feature_extractor.sampling_rate
        return self._features(np.zeros(rate, np.float32), rate)

    def fill(self, audio_id: int, each: int) -> None:
        """Say which token stands for sound, and how many of them one window has."""
        self._mark, self._each = self.tokenizer.convert_ids_to_tokens(audio_id), each

    def __call__(
        self,
        text: Sequence[str],
        audio: Sequence[np.ndarray] = (),
        text_kwargs: Mapping[str, Any] = MappingProxyType({}),
        return_tensors: str = "pt",
        sampling_rate: int | None = None,
    ) -> dict[str, Any]:
        """Return ids and masks of texts, and the features (window, mel, frame) of their clips.

        Args:
            text: one placeholder for each clip, in their order.
            audio: waves.
            text_kwargs, return_tensors: as processors take them.
            sampling_rate: of the waves; None for the extractor's own.
        """
        parts = [self._features(wave, sampling_rate) for wave in audio]
        left = iter(parts)
        texts = [self._filled(prompt, left) for prompt in text]
        batch = dict(self.tokenizer(texts, return_tensors=return_tensors, **text_kwargs))
        return batch | ({"input_features": torch.cat(parts)} if parts else {})

    def _features(self, wave: np.ndarray, rate: int | None) -> torch.Tensor:
        options = self._options | ({"sampling_rate": rate} if rate else {})
        found = self.feature_extractor(wave, **options)["input_features"][0]
        return found.unflatten(-1, (-1, self._window)).transpose(0, 1)

    def _filled(self, prompt: str, parts: Iterator[torch.Tensor]) -> str:
        pieces = prompt.split(self._mark) if self._mark else [prompt]
        filled = [self._mark * (self._each * len(next(parts))) + piece for piece in pieces[1:]]
        return pieces[0] + "".join(filled)
