"""Qwen2-VL and Qwen2.5-VL: pictures of any shape, each a grid of merged patches in the prompt.

A picture is scaled to a multiple of the merged patch and never cropped, so its cells cover it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

from interp_lab.datasets.base import Sample
from interp_lab.datasets.points import Coordinates
from interp_lab.errors import ConfigError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.tokenmaps import Span, qwen_vl_map
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap


class MergedPatches:
    """Pictures of any shape, scaled to a multiple of the merged patch and never cropped."""

    processor: Any

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return the pictures as they are: their cells cover them whole."""
        return tuple(np.asarray(image.convert("RGB")) for image in sample.images)

    def sizes(
        self, pictures: Sequence[np.ndarray], batch: Mapping[str, Any], first: int
    ) -> tuple[tuple[int, int], ...]:
        """Return the sizes after scaling: patches times the patch's pixels."""
        patch = self.processor.image_processor.patch_size
        grids = batch.get("image_grid_thw", [])[first : first + len(pictures)]
        return tuple((int(w) * patch, int(h) * patch) for _, h, w in grids)


class QwenVL(MergedPatches, LanguageFamily):
    """A Qwen2-VL or Qwen2.5-VL model on a device; which of them, its configuration says.

    Args:
        min_pixels, max_pixels: bounds of a picture's area after scaling, in pixels; null = the
            checkpoint's.

    The other options are those of `LanguageFamily`.
    """

    title = "Qwen-VL"
    networks = (Qwen2VLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)
    dtype = "bfloat16"
    max_new_tokens = 1024
    # Qwen2-VL was trained on thousandths, Qwen2.5-VL on pixels of the picture after scaling.
    writes: ClassVar[Mapping[str, Coordinates]] = {
        "qwen2_vl": "thousandths",
        "qwen2_5_vl": "pixels",
    }

    min_pixels: int | None = None
    max_pixels: int | None = None

    def handler(self, source: Weights, config: Any) -> Any:
        """Return the processor, its bounds of a picture's area set where they are given."""
        handler = super().handler(source, config)
        _bound(handler.image_processor, self.min_pixels, self.max_pixels)
        return handler

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


def _bound(handler: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    """Set the bounds of a picture's area, where they are given."""
    low = handler.size["shortest_edge"] if min_pixels is None else min_pixels
    high = handler.size["longest_edge"] if max_pixels is None else max_pixels
    if not 0 < low <= high:
        raise ConfigError(
            f"model.min_pixels={low}, model.max_pixels={high}: give 0 < min_pixels <= max_pixels"
        )
    handler.size = {"shortest_edge": low, "longest_edge": high}
