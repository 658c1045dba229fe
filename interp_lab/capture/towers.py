"""Where a model keeps its attention: towers by model type, and the layers inside a tower.

Differences between models are data: one line of `TOWERS` per model type. What the table does not
know and cannot be told apart is an error that lists the choices, never a guess.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from interp_lab.errors import ConfigError, UnsupportedModelError, did_you_mean
from interp_lab.libraries import huggingface

_LLAVA = {
    "language": ("model.language_model", "language_model"),
    "vision": ("model.vision_tower", "vision_tower"),
}
_QWEN_VL = {
    "language": ("model.language_model", "language_model"),
    "vision": ("model.visual", "visual"),
}
_OMNI = {
    # Before transformers 5.23 the thinker itself holds its towers and `model` is the text model;
    # since then `model` holds all three, so it is asked for last.
    "language": (*_QWEN_VL["language"], "model"),
    "vision": _QWEN_VL["vision"],
    "audio": ("model.audio_tower", "audio_tower"),
}
_PAIR = {"language": ("text_model",), "vision": ("vision_model",)}

# model_type -> tower -> dotted paths, for the class with a head and for the one without.
TOWERS: dict[str, dict[str, tuple[str, ...]]] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
    "gemma3": _LLAVA,
    "mistral3": _LLAVA,
    "paligemma": _LLAVA,
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": _QWEN_VL,
    "qwen2_5_omni_thinker": _OMNI,
    "qwen2_5_omni": {t: tuple(f"thinker.{p}" for p in ps) for t, ps in _OMNI.items()},
    "qwen2_audio": {
        "language": ("model.language_model", "language_model"),
        "audio": ("model.audio_tower", "audio_tower"),
    },
    "clip": _PAIR,
    "siglip": _PAIR,
    "siglip2": _PAIR,
}

# Types that are one tower: which name the whole model answers to. All other types without
# sub-configurations are language models.
SINGLE = {
    "clip_vision_model": "vision",
    "siglip_vision_model": "vision",
    "vit": "vision",
    "dinov2": "vision",
}


@dataclass(frozen=True)
class Site:
    """One attention layer of a tower."""

    module: nn.Module
    tower: str
    layer: int
    path: str


def tower_path(model: nn.Module, tower: str) -> str:
    """Return the dotted path of a tower inside `model` ("" is the model itself).

    Args:
        model: a transformers model.
        tower: "language", "vision", "audio", or a dotted path, which is returned as it is.

    Raises:
        ConfigError: if the model has no such tower or path.
        UnsupportedModelError: if the model is composite and not in `TOWERS`.
    """
    modules = dict(model.named_modules())
    if tower not in ("language", "vision", "audio"):
        if tower not in modules:
            raise ConfigError(
                f"tower {tower!r}: {type(model).__name__} has no such sub-module."
                f"{did_you_mean(tower, modules)}"
            )
        return tower
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", "")
    if model_type in TOWERS:
        for path in TOWERS[model_type].get(tower, ()):
            if path in modules:
                return path
        raise ConfigError(f"{type(model).__name__} ({model_type}) has no {tower} tower")
    if getattr(config, "sub_configs", None):
        raise UnsupportedModelError(
            f"towers of {type(model).__name__} ({model_type}) are not known; name one of "
            f"{', '.join(n for n, _ in model.named_children())} (or deeper) as `tower`"
        )
    if SINGLE.get(model_type, "language") != tower:
        raise ConfigError(f"{type(model).__name__} ({model_type}) has no {tower} tower")
    return ""


def find_sites(model: nn.Module, tower: str) -> tuple[Site, ...]:
    """Return the attention layers of a tower in order.

    The layer index is the module's own `layer_idx` where it has one, else its number in the tower.

    Raises:
        UnsupportedModelError: if the tower has no attention layer, or several with one index (an
            encoder-decoder: name its encoder or decoder as tower).
    """
    path = tower_path(model, tower)
    root = model.get_submodule(path)
    found = [
        (name, module)
        for name, module in root.named_modules()
        if _is_attention(module) and not any(_is_attention(m) for m in list(module.modules())[1:])
    ]
    indices: list[Any] = [getattr(m, "layer_idx", None) for _, m in found]
    if not found:
        raise UnsupportedModelError(
            f"no attention layer below {path or type(model).__name__!r} (tower {tower!r}); "
            "name another sub-module as `tower`"
        )
    if any(i is None for i in indices):
        indices = list(range(len(found)))
    if len(set(indices)) != len(indices):
        raise UnsupportedModelError(
            f"several attention layers of {path or type(model).__name__!r} share an index; name "
            "the sub-module that holds one stack as `tower`"
        )
    sites = [
        Site(m, tower, i, f"{path}.{n}".strip("."))
        for (n, m), i in zip(found, indices, strict=True)
    ]
    return tuple(sorted(sites, key=lambda s: s.layer))


def implementation(site: Site) -> str:
    """Return the name of the attention implementation that a layer uses now.

    Raises:
        UnsupportedModelError: if none is set.
    """
    config: Any = getattr(site.module, "config", None)
    name = huggingface.implementation_of(config)
    if name is None:
        raise UnsupportedModelError(
            f"{site.path}: no attention implementation is set; load the model with "
            "attn_implementation=sdpa"
        )
    return name


def uses_interface(module: nn.Module) -> bool:
    """Return whether a module's attention goes through transformers' interface."""
    return huggingface.calls_interface(type(module))


def eager_function(module: nn.Module) -> Callable[..., Any]:
    """Return the eager attention function of the file that defines the module's class.

    Raises:
        UnsupportedModelError: if that file has none.
    """
    function = huggingface.eager_function(type(module))
    if function is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has no eager_attention_forward; load the model with "
            "attn_implementation=sdpa"
        )
    return function


def _is_attention(module: nn.Module) -> bool:
    return "Attention" in type(module).__name__
