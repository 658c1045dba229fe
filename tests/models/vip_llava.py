"""A new variant of a vision-language model, as a contributor writes it: only what differs."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import VipLlavaForConditionalGeneration

from interp_lab.datasets.base import Sample
from interp_lab.models.family import LanguageFamily
from interp_lab.models.tokenmaps import Span, image_blocks, token_map
from interp_lab.tokens import TokenMap


class VipLlava(LanguageFamily):
    """A ViP-LLaVA model: LLaVA whose projector reads several layers of the tower."""

    title = "ViP-LLaVA"
    networks = (VipLlavaForConditionalGeneration,)
    dtype = "float16"
    max_new_tokens = 32

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; an image is the tower's patch grid without its CLS token."""
        config = self.module.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        blocks = image_blocks([(side, side)] * len(sample.images))
        return token_map(self.tokenizer, prompt, ids, spans, {config.image_token_id: blocks})
