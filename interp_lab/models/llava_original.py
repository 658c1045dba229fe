"""The checkpoint layout of the original LLaVA v1.5 release, as weights of the transformers class.

The two hold the same tensors under other names. The names are mapped one to one; a name that fits
no rule, or a tensor that is left over or missing, is an error.
"""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_llava import LlavaImageProcessor

from interp_lab.errors import ConfigError, MissingInputError, UnsupportedModelError
from interp_lab.models.files import reading
from interp_lab.models.loading import load_module
from interp_lab.models.unhandled import ANY, refuse_unhandled_values
from interp_lab.models.weights import Weights

# Original name -> name in LlavaForConditionalGeneration; the first rule that fits counts.
RULES: tuple[tuple[str, str], ...] = (
    (r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(?=embed_tokens\.|layers\.|norm\.)", "model.language_model."),
    (r"^lm_head\.", "lm_head."),
)
# Buffers that older files hold and that are computed now.
COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")

# Keys of config.json that `llava_architecture` hands on -> values that it can.
HANDLED = {
    "mm_vision_select_layer": ANY,
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_projector_type": ("mlp2x_gelu",),
    "image_aspect_ratio": ("pad",),
}
# Keys of the language model that it does not hand on -> what LlamaConfig has in their place.
LEFT_OUT = {"hidden_act": (None, "silu"), "rope_theta": (None, 10000), "rope_scaling": (None,)}
LEFT_OUT |= {
    "rope_parameters": (None,),
    "head_dim": (None,),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "tie_word_embeddings": (None, False),
    "use_mm_proj": (None, True),
}
INSTEAD = (
    "take the checkpoint in transformers' layout (llava-hf/llava-1.5-7b-hf), whose processor says "
    "how its pixels are made"
)


def is_original(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is of the original release (it names its projector)."""
    return "mm_projector_type" in config or str(config.get("model_type")) == "llava_llama"


def mapped_name(name: str) -> str:
    """Return the name that a tensor of the original has in the transformers class.

    Raises:
        UnsupportedModelError: if no rule fits.
    """
    for pattern, replacement in RULES:
        mapped, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return mapped
    raise UnsupportedModelError(f"original LLaVA checkpoint: unknown tensor {name!r}")


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read every weight file of a folder, safetensors or PyTorch's own (weights only, no pickle).

    Raises:
        MissingInputError: if there is no weight file.
    """
    safetensors = sorted(folder.glob("*.safetensors"))
    binaries = sorted(folder.glob("pytorch_model*.bin")) + sorted(folder.glob("mm_projector.bin"))
    tensors: dict[str, torch.Tensor] = {}
    for path in safetensors or binaries:
        with reading(path, f"model.checkpoint={folder}", "weights"):
            if path.suffix == ".safetensors":
                tensors |= load_file(path)
            else:
                tensors |= torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not tensors:
        raise MissingInputError(f"model.checkpoint={folder}: holds no weight file")
    return tensors


def mapped_weights(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the original's tensors under the names and in the shapes that the class expects.

    Args:
        tensors: the original's, by name.
        expected: the class's own state dict. Its vocabulary may have rows more than the original's
            (`<image>` and padding to a round number); these are filled with the mean of the rows
            there are, which no input and no answer uses.

    Raises:
        UnsupportedModelError: lists names that are missing, left over, or misshapen.
    """
    mapped: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not name.endswith(COMPUTED):
            mapped[mapped_name(name)] = tensor
    missing = sorted(set(expected) - set(mapped))
    extra = sorted(set(mapped) - set(expected))
    for problem, names in (("lacks", missing), ("has left over", extra)):
        if names:
            raise UnsupportedModelError(
                f"original LLaVA checkpoint {problem} {len(names)} tensors: {', '.join(names[:5])}"
            )
    for name, wanted in expected.items():
        tensor = mapped[name]
        rows = wanted.shape[0] - tensor.shape[0] if tensor.shape != wanted.shape else 0
        is_vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        if rows and is_vocabulary and 0 < rows <= 128 and tensor.shape[1:] == wanted.shape[1:]:
            filling = tensor.float().mean(0, keepdim=True).to(tensor.dtype).expand(rows, -1)
            mapped[name] = torch.cat([tensor, filling])
        elif tensor.shape != wanted.shape:
            raise UnsupportedModelError(
                f"original LLaVA checkpoint: {name} has shape {tuple(tensor.shape)}, "
                f"the architecture {tuple(wanted.shape)}"
            )
    return mapped


def original_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json.

    Raises:
        MissingInputError: if it is damaged.
    """
    with reading(folder, f"model.checkpoint={folder}", "configuration"):
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    raise AssertionError  # the block returns or raises


def llava_architecture(config: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """Return LlavaConfig's values for an original config.

    Args:
        config: the original's config.json, with the language model's sizes at its top.
        vision: the vision tower's config values.
    """
    text_keys = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "bos_token_id",
        "eos_token_id",
    )
    text = {key: config[key] for key in text_keys if key in config}
    # One row for <image>, and the rest of a multiple of 64 that fast kernels like.
    image_token = text["vocab_size"]
    text["vocab_size"] = (image_token // 64 + 1) * 64
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    patch_only = config.get("mm_vision_select_feature", "patch") == "patch"
    return {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {"model_type": "clip_vision_model", **vision},
        "image_token_index": image_token,
        "image_seq_length": patches + (0 if patch_only else 1),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default" if patch_only else "full",
    }


def original_folder(weights: Weights) -> Path | None:
    """Return the folder of a checkpoint of the original release, or None if it is not one."""
    place = weights.location()
    if not (Path(place) / "config.json").is_file():
        if not place.startswith("liuhaotian/"):
            return None
        from huggingface_hub import snapshot_download

        place = weights.load(
            lambda repo, revision, **_: snapshot_download(repo, revision=revision),
            "original release",
        )
    folder = Path(place)
    return folder if is_original(original_config(folder)) else None


def original_configuration(weights: Weights) -> LlavaConfig | None:
    """Return the configuration of the original release, or None if it is another's.

    Of a hub id only config.json is fetched.

    Raises:
        UnsupportedModelError: if it says what is not computed here.
    """
    place = weights.location()
    folder = Path(place)
    if place.startswith("liuhaotian/") and not folder.exists():
        from huggingface_hub import hf_hub_download

        folder = Path(
            weights.load(
                lambda repo, revision, **_: hf_hub_download(repo, "config.json", revision=revision),
                "configuration",
            )
        ).parent
    if not (folder / "config.json").is_file() or not is_original(original_config(folder)):
        return None
    values = original_config(folder)
    where = f"model.checkpoint={weights.checkpoint}"
    refuse_unhandled_values(values, where, HANDLED, LEFT_OUT, INSTEAD)
    vision = _tower(values).load(AutoConfig.from_pretrained, "vision tower's configuration")
    vision = getattr(vision, "vision_config", vision)
    return LlavaConfig(**llava_architecture(values, vision.to_dict()))


def _tower(values: Mapping[str, Any], dtype: str = "float32") -> Weights:
    return Weights(str(values["mm_vision_tower"]), dtype=dtype)


def load_original(
    weights: Weights,
    config: LlavaConfig,
    device: torch.device,
    attn_implementation: str,
) -> Any:
    """Return the network with the original's weights; its tower may be a checkpoint of its own.

    Args:
        weights: of the original release.
        config: as `original_configuration` gives it.
        device, attn_implementation: as in `loading.load_module`.
    """
    folder = original_folder(weights)
    assert folder is not None
    tensors = read_tensors(folder)
    if not any("vision_tower" in name for name in tensors):
        if original_config(folder).get("unfreeze_mm_vision_tower"):
            raise UnsupportedModelError(
                f"model.checkpoint={weights.checkpoint}: its vision tower was trained "
                "(unfreeze_mm_vision_tower), and its files do not hold it; copy all of them"
            )
        tower = _tower(original_config(folder), weights.dtype)
        vision = tower.load(
            CLIPVisionModel.from_pretrained, "vision tower", dtype=tower.torch_dtype
        )
        prefix = "model.vision_tower.vision_tower."
        tensors |= {f"{prefix}{name}": value for name, value in vision.state_dict().items()}
    with torch.device("meta"):
        expected = LlavaForConditionalGeneration(deepcopy(config)).state_dict()
    return load_module(
        _OfTensors,
        weights,
        device,
        attn_implementation,
        config=config,
        state_dict=mapped_weights(tensors, expected),
    )


class _OfTensors:
    """The network's class as a loader of tensors that are in memory already, and of no place."""

    config_class = LlavaConfig

    @staticmethod
    def from_pretrained(_place: str, revision: str, trust_remote_code: bool, **given: Any) -> Any:
        return LlavaForConditionalGeneration.from_pretrained(None, **given)


def original_processor(folder: Path, config: LlavaConfig) -> LlavaProcessor:
    """Return the processor of the original release: its tokenizer with `<image>`, the tower's own.

    Args:
        folder: of the release.
        config: of the network.

    Raises:
        ConfigError: if the tokenizer puts `<image>` elsewhere than the weights need it.
    """
    with reading(folder, f"model.checkpoint={folder}", "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    found = tokenizer.convert_tokens_to_ids("<image>")
    if found != config.image_token_id:
        raise ConfigError(
            f"model.checkpoint={folder}: its tokenizer puts <image> at {found}, "
            f"the weights need {config.image_token_id}"
        )
    tower = _tower(original_config(folder))
    vision: Any = config.vision_config
    return LlavaProcessor(
        image_processor=image_processor(tower, original_config(folder)),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
    )


def image_processor(tower: Weights, values: Mapping[str, Any]) -> Any:
    """Return the tower's image processor, made to do with a picture what the release did.

    With `image_aspect_ratio: pad` it filled a picture up to a square with the mean colour, so that
    nothing of it was cropped; otherwise the shorter side fits and the middle is taken.

    Args:
        tower: the checkpoint of the tower.
        values: the release's config.json.
    """
    if values.get("image_aspect_ratio") == "pad":
        return tower.load(LlavaImageProcessor.from_pretrained, "image processor", do_pad=True)
    return tower.load(CLIPImageProcessor.from_pretrained, "image processor")
