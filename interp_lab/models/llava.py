"""LLaVA 1.5: a CLIP tower whose patches stand in the prompt of a Llama model.

Checkpoints of the transformers layout and of the original release load alike, strictly.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError
from interp_lab.models.base import as_picture
from interp_lab.models.language import LanguageModel
from interp_lab.models.llava_original import (
    is_original,
    llava_architecture,
    mapped_weights,
    original_config,
    read_tensors,
)
from interp_lab.models.loading import (
    RANDOM_NOTE,
    load_module,
    placement,
    random_module,
    without_memory,
)
from interp_lab.models.tokenmaps import Span, llava_map, locate
from interp_lab.models.weights import Weights, refuse_partial
from interp_lab.tokens import TokenMap

# The input format that LLaVA v1.5 was trained on (its conversation template vicuna_v1).
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Llava(LanguageModel):
    """A LLaVA 1.5 model on a device.

    Args:
        checkpoint, revision, dtype, init, trust_remote_code, architecture: see `Weights`;
            `architecture` holds LlavaConfig's values. With `init: random`, `processor` is the
            checkpoint or folder that the processor comes from (its files are small).
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
        dtype: str = "float16",
        init: str = "pretrained",
        trust_remote_code: bool = False,
        architecture: dict[str, Any] | None = None,
        processor: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        attn_implementation: str = "sdpa",
        max_new_tokens: int = 16,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        weights = Weights(checkpoint, revision, dtype, init, trust_remote_code, architecture or {})
        notes: list[str] = []
        if init == "random":
            notes.append(RANDOM_NOTE)
            config = LlavaConfig(**weights.needed_architecture())
            network = LlavaForConditionalGeneration
            module = random_module(network, config, weights, attn_implementation, seed).to(device)
            handler = Weights(processor or checkpoint).load(
                AutoProcessor.from_pretrained, "processor"
            )
        elif _original_folder(weights) is not None:
            module, handler = _original(weights, device, device_map, attn_implementation)
        else:
            network = LlavaForConditionalGeneration
            module = load_module(network, weights, device, device_map, attn_implementation)
            handler = weights.load(AutoProcessor.from_pretrained, "processor")
        place = module.device if device_map else device
        super().__init__(module, handler, place, max_new_tokens, temperature, notes, seed)

    @staticmethod
    def skeleton(weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model that a YAML describes, without memory for its weights."""
        if weights.init == "random":
            config = LlavaConfig(**weights.needed_architecture())
        else:
            config = llava_config(weights)
        return without_memory(LlavaForConditionalGeneration, config, weights)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt in the format that the sample's `conv_mode` names.

        `vicuna_v1` is LLaVA v1.5's own training format; `chat_template` is the checkpoint's.

        Raises:
            SampleError: if the sample holds anything but text and at most one image.
        """
        kinds = [kind for kind, _ in sample.parts]
        if set(kinds) - {"text", "image"} or kinds.count("image") > 1:
            raise SampleError(f"{sample.id}: LLaVA 1.5 takes text and one image, got {kinds}")
        text = "\n".join(value for kind, value in sample.parts if kind == "text")
        image = "image" in kinds
        if sample.facts.get("conv_mode", "chat_template") == "vicuna_v1":
            placeholder = f"{self.processor.image_token}\n" if image else ""
            prompt = f"{VICUNA_SYSTEM} USER: {placeholder}{text} ASSISTANT:"
        else:
            content = [{"type": "image"}] * image + [{"type": "text", "text": text}]
            turns = [{"role": "user", "content": content}]
            prompt = self.processor.apply_chat_template(turns, add_generation_prompt=True)
        spans = locate(prompt, [(text, "user", None)])
        options = _option_spans(prompt, spans[0], sample.facts.get("options", {}))
        after = Span(spans[0].end, len(prompt), "assistant")
        before = Span(0, spans[0].start, "system")
        return prompt, [*options, *spans, before, after]

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

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return the crop that the tower saw: the processor cuts off what is not square."""
        handler = self.processor.image_processor
        own = batch["pixel_values"][first : first + len(sample.images)] if sample.images else ()
        return tuple(as_picture(p, handler.image_mean, handler.image_std) for p in own)


def _option_spans(prompt: str, question: Span, options: dict[str, str]) -> list[Span]:
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


def _original_folder(weights: Weights) -> Path | None:
    """Return the folder of a checkpoint of the original release, or None if it is not one."""
    place = weights.location()
    if not (Path(place) / "config.json").is_file():
        if not place.startswith("liuhaotian/"):
            return None
        from huggingface_hub import snapshot_download

        place = weights.load(lambda repo, revision, **_: snapshot_download(repo, revision=revision),
                             "original release")  # fmt: skip
    folder = Path(place)
    return folder if is_original(original_config(folder)) else None


def llava_config(weights: Weights) -> Any:
    """Return the configuration of a checkpoint of either layout; no weights are fetched."""
    place = weights.location()
    folder = Path(place)
    if place.startswith("liuhaotian/") and not folder.exists():
        from huggingface_hub import hf_hub_download

        folder = Path(weights.load(
            lambda repo, revision, **_: hf_hub_download(repo, "config.json", revision=revision),
            "configuration",
        )).parent  # fmt: skip
    if (folder / "config.json").is_file() and is_original(original_config(folder)):
        values = original_config(folder)
        tower = Weights(str(values["mm_vision_tower"]))
        vision = tower.load(AutoConfig.from_pretrained, "vision tower's configuration")
        vision = getattr(vision, "vision_config", vision)
        return LlavaConfig(**llava_architecture(values, vision.to_dict()))
    return weights.load(AutoConfig.from_pretrained, "configuration")


def _original(
    weights: Weights,
    device: torch.device,
    device_map: str | dict[str, Any] | None,
    attn_implementation: str,
) -> tuple[Any, Any]:
    """Load the original layout; its vision tower may be a checkpoint of its own."""
    folder = _original_folder(weights)
    assert folder is not None
    config = original_config(folder)
    tensors = read_tensors(folder)
    tower = Weights(str(config["mm_vision_tower"]), dtype=weights.dtype)
    vision = tower.load(CLIPVisionModel.from_pretrained, "vision tower", dtype=tower.torch_dtype)
    if not any("vision_tower" in name for name in tensors):
        prefix = "model.vision_tower.vision_tower."
        tensors |= {f"{prefix}{name}": value for name, value in vision.state_dict().items()}
    values = llava_architecture(config, vision.config.to_dict())
    with torch.device("meta"):
        expected = LlavaForConditionalGeneration(LlavaConfig(**values)).state_dict()
    network: Any = LlavaForConditionalGeneration
    module, info = weights.load(
        lambda _, revision, trust_remote_code, **given: network.from_pretrained(None, **given),
        "weights",
        config=LlavaConfig(**values),
        state_dict=mapped_weights(tensors, expected),
        dtype=weights.torch_dtype,
        attn_implementation=attn_implementation,
        output_loading_info=True,
        device_map=placement(device, device_map),
    )
    refuse_partial(info, weights.checkpoint)
    module = module if device_map else module.to(device)
    return module, _original_processor(folder, tower, values)


def _original_processor(folder: Path, tower: Weights, values: dict[str, Any]) -> LlavaProcessor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    found = tokenizer.convert_tokens_to_ids("<image>")
    if found != values["image_token_index"]:
        raise ConfigError(
            f"model.checkpoint={folder}: its tokenizer puts <image> at {found}, "
            f"the weights need {values['image_token_index']}"
        )
    return LlavaProcessor(
        image_processor=tower.load(CLIPImageProcessor.from_pretrained, "image processor"),
        tokenizer=tokenizer,
        patch_size=values["vision_config"]["patch_size"],
        vision_feature_select_strategy=values["vision_feature_select_strategy"],
        num_additional_image_tokens=1,
    )
