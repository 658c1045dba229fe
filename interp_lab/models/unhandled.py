"""Keys of a checkpoint's configuration that change numbers and that nothing here computes.

A transformers configuration keeps every key of config.json, also those that its class does not
declare, and the network then computes as if they were not there. Such a key is refused when its
value changes numbers. A key that the class declares is computed by the network; a key that a family
itself takes care of stands in its `handled`.
"""

import inspect
from collections.abc import Container, Iterator, Mapping
from typing import Any

from interp_lab.errors import UnsupportedModelError

# Key -> values with which the numbers are those of a network that does not know the key.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    # How the original LLaVA code makes pixels and prompts, and picks features of the tower.
    "image_aspect_ratio": (None, "square"),
    "mm_use_im_start_end": (None, False),
    "mm_use_im_patch_token": (None, False),
    "mm_patch_merge_type": (None, "flat"),
    "mm_resampler_type": (None,),
    "mm_projector_type": (None,),
    "mm_vision_select_layer": (None,),
    "mm_vision_select_feature": (None,),
    "s2": (None, False),
    # How attention looks, and what scales or bounds its scores and the logits.
    "sliding_window": (None,),
    "alibi": (None, False),
    "clip_qkv": (None,),
    "qk_norm": (None, False),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "partial_rotary_factor": (None, 1),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None, 1),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "scale_emb": (None, 1),
}
# Kinds of rotary positions that transformers' networks compute; `mrope` is default in sections.
ROPE_KINDS = (
    "default",
    "mrope",
    "linear",
    "dynamic",
    "yarn",
    "longrope",
    "llama3",
    "proportional",
    "axial",
)
ROPE = ("rope_parameters", "rope_scaling")
# Qwen's vision towers have always turned rows and columns by this base. Releases of transformers
# that write it down (`axial`) are read by earlier ones, which compute the same and declare nothing.
AXIAL_BASE = 10000
INSTEAD = "take a checkpoint without it"
# A value of `handled` that stands for all values.
ANY = object()


def refuse_unhandled(config: Any, where: str, handled: Mapping[str, Any] | None = None) -> None:
    """Refuse a configuration with a key that changes numbers and is not computed.

    Args:
        config: a transformers configuration; the ones within it are looked at too.
        where: what it is of, for the message (`model.checkpoint=x/y`).
        handled: keys that the family takes care of -> the values it does, or `ANY`.

    Raises:
        UnsupportedModelError: names the first such key and its value.
    """
    for name, part in _parts(config, ""):
        declared = _declared(part)
        for key, value in vars(part).items():
            if key in ROPE:
                _refuse_rope(value, f"{name}{key}", where, key in declared)
            elif key in declared or _idle(vars(part), key):
                continue
            elif _unhandled(key, value, handled or {}, NEUTRAL):
                raise UnsupportedModelError(_line(f"{name}{key}", value, where))


def refuse_unhandled_values(
    values: Mapping[str, Any],
    where: str,
    handled: Mapping[str, Any],
    neutral: Mapping[str, tuple[Any, ...]],
    instead: str = INSTEAD,
) -> None:
    """Refuse a config.json that no transformers class reads; arguments as in `refuse_unhandled`.

    Args:
        values: the config.json.
        neutral: more keys that nothing computes -> values that change no number.
        instead: what to do, for the message.
    """
    for key, value in values.items():
        if not _idle(values, key) and _unhandled(key, value, handled, NEUTRAL | dict(neutral)):
            raise UnsupportedModelError(_line(key, value, where, instead))


def _parts(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Give a configuration and those within it, each with the dotted path before its keys."""
    yield name, config
    for key, value in vars(config).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _parts(value, f"{name}{key}.")


def _declared(config: Any) -> Container[str]:
    """Return the keys that a configuration's class declares, by the names it keeps them under."""
    kind = type(config)
    keys = {
        key
        for base in kind.__mro__
        if "__init__" in vars(base)
        for key in inspect.signature(base.__init__).parameters
    }
    renamed = getattr(kind, "attribute_map", {})
    return keys | {renamed[key] for key in keys if key in renamed}


def _idle(values: Mapping[str, Any], key: str) -> bool:
    """Return whether another key switches this one off."""
    return key == "sliding_window" and values.get("use_sliding_window") is False


def _unhandled(
    key: str,
    value: Any,
    handled: Mapping[str, Any],
    neutral: Mapping[str, tuple[Any, ...]],
) -> bool:
    if key not in neutral or value in neutral[key]:
        return False
    return not (key in handled and (handled[key] is ANY or value in handled[key]))


def _refuse_rope(value: Any, path: str, where: str, declared: bool) -> None:
    """Refuse a kind of rotary positions that the network does not compute."""
    if not isinstance(value, Mapping):
        return
    kinds = [value, *(v for v in value.values() if isinstance(v, Mapping))]
    for parameters in kinds:
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind == "axial" and parameters.get("rope_theta") == AXIAL_BASE:
            continue
        if kind not in (ROPE_KINDS if declared else ("default",)):
            raise UnsupportedModelError(_line(path, dict(parameters), where))


def _line(path: str, value: Any, where: str, instead: str = INSTEAD) -> str:
    shown = repr(value) if len(repr(value)) <= 120 else f"{repr(value)[:120]}..."
    return (
        f"{where}: its configuration has {path}={shown}, which changes the numbers and is not "
        f"computed here; {instead}"
    )
