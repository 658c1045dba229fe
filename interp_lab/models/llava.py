"""LLaVA 1.5: a CLIP tower whose patches stand in the prompt of a Llama model.

Checkpoints of the transformers layout and of the original release load alike, strictly.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from transformers import LlavaForConditionalGeneration

from interp_lab.datasets.base import Sample
from interp_lab.datasets.conversations import CHAT_TEMPLATE, CONVERSATIONS
from interp_lab.datasets.points import Coordinates
from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.llava_original import (
    load_original,
    original_configuration,
    original_folder,
    original_processor,
)
from interp_lab.models.tokenmaps import Span, llava_map, locate
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap


class Llava(LanguageFamily):
    """A LLaVA 1.5 model on a device.

    Its options are those of `LanguageFamily`; `architecture` holds LlavaConfig's values.
    """

    networks = (LlavaForConditionalGeneration,)
    dtype = "float16"
    max_new_tokens = 16
    conversations = (CHAT_TEMPLATE, *CONVERSATIONS)
    # Its training data gives boxes as 0 to 1 of the picture.
    writes: ClassVar[Mapping[str, Coordinates]] = {"llava": "shares"}

    @classmethod
    def read_configuration(cls, weights: Weights) -> Any:
        """Return the configuration of a checkpoint of either layout; no weights are fetched."""
        return original_configuration(weights) or super().read_configuration(weights)

    def pretrained(self, weights: Weights, config: Any) -> Any:
        """Return the network with the weights of a checkpoint of either layout."""
        if original_folder(weights) is None:
            return super().pretrained(weights, config)
        return load_original(weights, config, self.device, self.attn_implementation)

    def handler(self, source: Weights, config: Any) -> Any:
        """Return the processor; that of the original release is put together."""
        pretrained = self.init == "pretrained"
        folder = original_folder(source) if pretrained else None
        return original_processor(folder, config) if folder else super().handler(source, config)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt in the format that the sample's `conv_mode` names.

        It is one of `datasets.conversations`, or `chat_template`, the checkpoint's own.

        Raises:
            SampleError: if the sample holds anything but text and at most one image.
            UnsupportedModelError: if the tokenizer lacks a token that the format is made of.
        """
        kinds = [kind for kind, _ in sample.parts]
        if set(kinds) - {"text", "image"} or kinds.count("image") > 1:
            raise SampleError(f"{sample.id}: LLaVA 1.5 takes text and one image, got {kinds}")
        if sample.system is not None:
            raise SampleError(
                f"{sample.id}: LLaVA's prompt formats have a system part of their own"
            )
        text = "\n".join(value for kind, value in sample.parts if kind == "text")
        image = "image" in kinds
        mode = sample.facts.get("conv_mode", CHAT_TEMPLATE)
        if mode == CHAT_TEMPLATE:
            content = [{"type": "image"}] * image + [{"type": "text", "text": text}]
            turns = [{"role": "user", "content": content}]
            prompt = self.processor.apply_chat_template(turns, add_generation_prompt=True)
            said = locate(prompt, [(text, "user", None)])[0]
        else:
            self._check_tokens(mode)
            placeholder = self.processor.image_token if image else ""
            prompt, start = CONVERSATIONS[mode].prompt(text, placeholder)
            said = Span(start, start + len(text), "user")
        options = option_spans(prompt, said, sample.facts.get("options", {}))
        after = Span(said.end, len(prompt), "assistant")
        before = Span(0, said.start, "system")
        return prompt, [*options, said, before, after]

    def _check_tokens(self, mode: str) -> None:
        known = self.tokenizer.get_vocab()
        lacking = [word for word in CONVERSATIONS[mode].tokens if word not in known]
        if lacking:
            raise UnsupportedModelError(
                f"dataset.conv_mode={mode}: is written with the tokens {', '.join(lacking)}, which "
                "this checkpoint's tokenizer does not have; give the format that it was trained "
                "with, such as dataset.conv_mode=vicuna_v1 or chat_template"
            )

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; the image span is contiguous and of the tower's patch count."""
        return llava_map(self.tokenizer, prompt, ids, spans, self.module.config)


def option_spans(prompt: str, question: Span, options: dict[str, str]) -> list[Span]:
    """Return the places of the options `A. red` or `(A) red` within the question."""
    spans = []
    start = question.start
    for letter, text in options.items():
        for written in (f"{letter}. {text}", f"({letter}) {text}"):
            at = prompt.find(written, start, question.end)
            if at >= 0:
                start = at + len(written)
                spans.append(Span(at, start, "option", letter))
                break
    return spans
