"""Where a model keeps its towers: language, vision, audio, encoder, decoder, cross, or any path.

A tower is found by what the model's configuration says of itself. What it cannot tell is an error
that lists the choices, never a guess.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from interp_lab.capture.sites import Site, attending, sites_of, stack_of
from interp_lab.errors import ConfigError, UnsupportedModelError, did_you_mean
from interp_lab.libraries import huggingface

MODALITIES = ("language", "vision", "audio")
NAMES = (*MODALITIES, "encoder", "decoder", "cross")

_OMNI = {
    # Before transformers 5.23 the thinker itself holds its towers and `model` is the text model;
    # since then `model` holds all three, so it is asked for last.
    "language": ("model.language_model", "language_model", "model"),
    "vision": ("model.visual", "visual"),
    "audio": ("model.audio_tower", "audio_tower"),
}
# model_type -> tower -> dotted paths, for models whose layout their configuration does not tell.
TOWERS: dict[str, dict[str, tuple[str, ...]]] = {
    "qwen2_5_omni_thinker": _OMNI,
    "qwen2_5_omni": {t: tuple(f"thinker.{p}" for p in ps) for t, ps in _OMNI.items()},
}
# How sub-configurations of a modality are called: `vision_config`, `image_encoder_config`.
_SUB_CONFIG = {
    "language": re.compile(r"^(text|language|llm)"),
    "vision": re.compile(r"vision|image|visual"),
    "audio": re.compile(r"audio|speech"),
}
# What a model's first input is called.
_MAIN_INPUT = {
    "pixel_values": "vision",
    "pixel_values_videos": "vision",
    "flattened_patches": "vision",
    "input_features": "audio",
    "input_values": "audio",
}


def tower_path(model: nn.Module, tower: str) -> str:
    """Return the dotted path of a tower inside `model` ("" is the model itself).

    Args:
        model: a transformers model, or a module around one.
        tower: one of `NAMES`, or a dotted path, with or without `:` and an attention's name; of a
            path the path is returned.

    Raises:
        ConfigError: if the model has no such tower or path; names those that it has.
        UnsupportedModelError: if several modules may be meant; lists them.
    """
    if tower not in NAMES or _is_only_a_path(model, tower):
        return _path_of(model, tower.partition(":")[0], tower)
    path, inner = _innermost(model)
    if inner is not model:
        below = tower_path(inner, tower)
        return ".".join(p for p in (path, below) if p)
    return _named(model, tower)


def find_sites(model: nn.Module, tower: str) -> tuple[Site, ...]:
    """Return the attention layers of a tower in order.

    Raises:
        ConfigError, UnsupportedModelError: as `tower_path`; if there is no attention layer, or more
            than one stack of them.
    """
    path = tower_path(model, tower)
    kind = tower.partition(":")[2] or None
    cross = tower == "cross"
    found = attending(model, path)
    stack = stack_of(found, kind, cross, path if tower not in NAMES else tower)
    decoder = _ids_of_decoder(model)
    decodes = bool(decoder) and all(id(a.module) in decoder for a in stack)
    text = _is_text(model, tower, stack[0].path if cross else path)
    return sites_of(stack, tower, None if kind else cross, text, decodes)


def main_modality(model: nn.Module) -> str:
    """Return what a model reads first: language, vision or audio."""
    main = str(getattr(model, "main_input_name", ""))
    # A part of a model may inherit the name of what the whole reads, but not the input.
    return _MAIN_INPUT.get(main, "language") if main in huggingface.inputs_of(model) else "language"


def self_attention_beside(model: nn.Module, sites: tuple[Site, ...]) -> list[Site]:
    """Return the self attention of the layers that hold some cross attention; [] if there is none.

    Its calls tell where the queries of the cross attention stand.
    """
    holder = re.split(r"\.\d+(?:\.|$)", sites[0].path)[0]
    if model.get_submodule(holder) is sites[0].module:
        return []
    stacks = [a for a in attending(model, holder) if a.registered and not a.cross]
    decodes = sites[0].mask_of == "keys"
    return list(sites_of(stacks, sites[0].tower, False, sites[0].padded, decodes))


def _is_text(model: nn.Module, tower: str, path: str) -> bool | None:
    """Return whether a tower's tokens are a text's; None where the model does not say."""
    if tower == "vision":
        return False
    places = ("language", "encoder", "decoder")
    named = tower in places and not _is_only_a_path(model, tower)
    if named or any(_lies_in(model, path, place) for place in places):
        return True
    # What lies outside the text of a model that has some is none: towers of pictures and sound,
    # and what reads them for the text.
    if any(_lies_in(model, path, modality) for modality in ("vision", "audio")):
        return False
    if path and _reads_text(model, path):
        return True
    composite = path and any(_answers(_innermost(model)[1], place) for place in places)
    return False if composite else None


def _reads_text(model: nn.Module, path: str) -> bool:
    """Return whether a path lies in a model of its own that is given tokens and nothing else."""
    parts = path.split(".")
    above = [model.get_submodule(".".join(parts[:n])) for n in range(len(parts), 0, -1)]
    reader = next((m for m in above if huggingface.is_model(m)), None)
    if reader is None:
        return False
    inputs = huggingface.inputs_of(reader)
    # A Q-Former reads queries beside the tokens.
    return "input_ids" in inputs and inputs.isdisjoint({"query_embeds", *_MAIN_INPUT})


def _lies_in(model: nn.Module, path: str, tower: str) -> bool:
    """Return whether a path lies in a tower of one of `NAMES`."""
    if _is_only_a_path(model, tower):
        return False
    try:
        root = tower_path(model, tower)
    except (ConfigError, UnsupportedModelError):
        return False
    return f"{path}.".startswith(f"{root}." if root else "")


def _ids_of_decoder(model: nn.Module) -> set[int]:
    """Return the ids of the modules in a decoder, also in that of a part (RAG's generator)."""
    pairs = [huggingface.encoder_and_decoder(m) for m in model.modules() if huggingface.is_model(m)]
    return {id(m) for pair in pairs if pair is not None for m in pair[1].modules()}


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


def _is_only_a_path(model: nn.Module, tower: str) -> bool:
    """Return whether a name such as `encoder` is a sub-module of a model without such a part."""
    there = isinstance(getattr(model, tower, None), nn.Module)
    return there and not _answers(_innermost(model)[1], tower)


def _path_of(model: nn.Module, path: str, tower: str) -> str:
    modules = dict(model.named_modules())
    if path not in modules:
        raise ConfigError(
            f"tower {tower!r}: {type(model).__name__} has no such sub-module."
            f"{did_you_mean(path, [*NAMES, *modules])}"
        )
    return path


def _innermost(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the transformers model that a wrapper holds, with its path; else the model itself."""
    if huggingface.is_model(model):
        return "", model
    held = _outermost({n: m for n, m in model.named_modules() if huggingface.is_model(m)})
    if len(held) == 1:
        return next(iter(held.items()))
    return "", model


def _named(model: nn.Module, tower: str) -> str:
    known = TOWERS.get(_model_type(model))
    if known is not None:
        modules = dict(model.named_modules())
        path = next((p for p in known.get(tower, ()) if p in modules), None)
    elif tower in MODALITIES:
        path = _by_configuration(model, tower)
    else:
        path = _by_part(model, tower)
    if path is None:
        raise ConfigError(_has_no_such(model, tower))
    return path


def _by_configuration(model: nn.Module, modality: str) -> str | None:
    """Return the path of the module that one of the sub-configurations of a modality describes."""
    config: Any = getattr(model, "config", None)
    if huggingface.encoder_and_decoder(model):
        return None
    parts = list(huggingface.sub_configurations(config))
    kinds = {type(c) for name, c in parts if _SUB_CONFIG[modality].search(name)}
    own = [name for name, _ in parts if any(p.search(name) for p in _SUB_CONFIG.values())]
    if not own:
        return "" if main_modality(model) == modality else None
    modules = {
        name: module
        for name, module in model.named_modules()
        if name and type(getattr(module, "config", None)) in kinds
    }
    models = {n: m for n, m in modules.items() if huggingface.is_model(m)}
    found = list(_outermost(models or modules))
    if len(found) > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} has {len(found)} modules that {modality} may mean "
            f"({', '.join(found[:6])}); name one of these paths as `tower`"
        )
    return found[0] if found else None


def _by_part(model: nn.Module, tower: str) -> str | None:
    """Return the path of an encoder or decoder; of cross attention, where to look for it."""
    parts = huggingface.encoder_and_decoder(model)
    if parts is None:
        return "" if tower == "cross" else None
    wanted = parts[0] if tower == "encoder" else parts[1]
    return next((name for name, module in model.named_modules() if module is wanted), None)


def _has_no_such(model: nn.Module, tower: str) -> str:
    has = [name for name in towers_of(model) if name != tower]
    either = f"it has {', '.join(has)}; or" if has else "please"
    children = ", ".join(n for n, _ in model.named_children())
    return (
        f"{type(model).__name__} ({_model_type(model)}) has no {tower} tower; {either} name the "
        f"path of a sub-module ({children}, or deeper) as `tower`"
    )


def _answers(model: nn.Module, name: str) -> bool:
    if name == "cross":
        return any(a.cross for a in attending(model, ""))
    try:
        known = TOWERS.get(_model_type(model))
        if known is not None:
            return name in known
        find = _by_configuration if name in MODALITIES else _by_part
        return find(model, name) is not None
    except UnsupportedModelError:
        return False


def _outermost(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the modules that lie within no other of them."""
    return {
        name: module
        for name, module in modules.items()
        if not any(name.startswith(f"{other}.") for other in modules if other != name)
    }


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def towers_of(model: nn.Module) -> Iterator[str]:
    """Yield the names that the model answers to."""
    yield from (name for name in NAMES if _answers(model, name))
