"""PEFT adapters: what fine-tuning changed, put on the weights that it was trained on.

An adapter is loaded strictly: one that does not fill the places that its configuration names, or
that was trained on other weights, would give wrong numbers without a word.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from interp_lab.errors import ConfigError, MissingInputError, UnsupportedModelError
from interp_lab.identity.checkpoints import folder_of
from interp_lab.identity.weights import checkpoint_identity, local_place
from interp_lab.models.files import ADAPTER, cause_of, is_out_of_memory, problem_of
from interp_lab.models.hub import hub_line

NAME = "default"
# Kinds that add tokens or change how attention is computed: a token map would not fit the input.
NOT_ON_WEIGHTS = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"),
    *("CARTRIDGE", "ADAPTION_PROMPT", "XLORA", "POLY"),
)


def adapter_settings(place: Path, where: str) -> dict[str, Any]:
    """Return a folder's adapter_config.json.

    Raises:
        MissingInputError: if it has none, or its files are damaged.
        UnsupportedModelError: for a kind that does not change weights.
    """
    path = place / ADAPTER
    if not path.is_file():
        raise MissingInputError(f"{where}: has no {ADAPTER}; give the folder of a PEFT adapter")
    for file in (path, *sorted(place.glob("adapter_model.*"))):
        problem = problem_of(file, parse=True)
        if problem:
            raise MissingInputError(f"{where}: {problem}")
    read = json.loads(path.read_text(encoding="utf-8-sig"))
    found: dict[str, Any] = dict(read) if isinstance(read, Mapping) else {}
    kind = str(found.get("peft_type") or "")
    if not kind:
        raise MissingInputError(f"{where}: {ADAPTER} names no peft_type; copy it again")
    if kind in NOT_ON_WEIGHTS:
        raise UnsupportedModelError(
            f"{where}: is of the kind {kind}, which changes the input or the attention and not "
            "the weights, so that tokens are no longer what the prompt says; take an adapter of "
            "weights, such as LoRA"
        )
    return found


def check_base(settings: Mapping[str, Any], checkpoint: str, where: str) -> None:
    """Refuse an adapter that was trained on other weights than those it is put on.

    Two ids of the hub are compared by name, two folders by the content of their files; one of each
    cannot be compared, which `base_note` says.

    Raises:
        UnsupportedModelError: names both.
    """
    base = str(settings.get("base_model_name_or_path") or "")
    own, other = local_place(checkpoint), local_place(base) if base else None
    if not base or _is(base, checkpoint, own):
        return
    if own is None and other is None:
        differ = base.lower() != checkpoint.lower()
    elif own is not None and other is not None and own.exists() and other.exists():
        differ = _weights(own) != _weights(other)
    else:
        differ = False
    if differ:
        raise UnsupportedModelError(
            f"{where}: was trained on {base}, and model.checkpoint={checkpoint} is another model; "
            f"give model.checkpoint={base}, or, if the weights are the same, write its name into "
            f"base_model_name_or_path of {ADAPTER}"
        )


def _is(base: str, checkpoint: str, own: Path | None) -> bool:
    folder = Path(base).expanduser()
    return base == checkpoint or (own is not None and folder.exists() and folder.samefile(own))


def _weights(place: Path) -> Any:
    """Return the content of a folder's weights: settings beside them may differ."""
    files = checkpoint_identity(str(place)).get("files", {})
    kinds = (".safetensors", ".bin")
    return {k: v for k, v in files.items() if k.endswith(kinds) and "adapter" not in k}


def base_note(settings: Mapping[str, Any], checkpoint: str, adapter: str, merged: bool) -> str:
    """Return what a reader of the numbers must know of the adapter."""
    base = str(settings.get("base_model_name_or_path") or "an unnamed model")
    own, other = local_place(checkpoint), local_place(base)
    known = (own is None) == (other is None) and (other is None or other.exists())
    unsure = "" if known else "; that these are the same weights was checked by shapes alone"
    how = "merged into the weights" if merged else "beside the weights"
    return (
        f"ADAPTER {adapter} ({settings.get('peft_type')}, {how}): trained on {base}, put on "
        f"{checkpoint}{unsure}"
    )


def add_adapter(module: Any, place: Path, merge: bool, where: str) -> Any:
    """Return the network with an adapter on it, strictly loaded, merged into its weights or not.

    Args:
        module: the network, its weights loaded.
        place: folder of the adapter.
        merge: add what it changes to the weights, once; else it is computed beside them.
        where: how messages begin.

    Raises:
        ConfigError: if peft is not installed, or weights that are packed would be merged.
        UnsupportedModelError: if it does not fit the network exactly.
    """
    if find_spec("peft") is None:
        raise ConfigError(f"{where}: needs the package peft: pip install peft")
    if merge and getattr(module, "hf_quantizer", None) is not None:
        raise ConfigError(
            f"{where}: cannot be merged into quantised weights without rounding it too; give "
            "model.merge_adapter=false"
        )
    try:
        info = module.load_adapter(str(place), adapter_name=NAME)
    except Exception as error:  # peft raises whatever it likes for an adapter that does not fit
        if is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{where}: does not fit this model; was it trained on it? Cause: {cause_of(error)}"
        ) from error
    _refuse_partial(info, where)
    return merged(module) if merge else module


def _refuse_partial(info: Any, where: str) -> None:
    found = info.to_dict()
    errors = getattr(info, "error_msgs", None) or ()
    for problem, key in (
        ("lacks", "missing_keys"),
        ("has weights that the model has no place for:", "unexpected_keys"),
        ("has misshapen", "mismatched_keys"),
    ):
        keys = sorted(map(str, found.get(key) or ()))
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UnsupportedModelError(
                f"{where}: {problem} {', '.join(keys[:3])}{more}; was it trained on this model?"
            )
    if errors:
        raise UnsupportedModelError(f"{where}: {' '.join(str(errors[0]).split())[:200]}")


def merged(module: Any) -> Any:
    """Return the network with its adapter's changes added to the weights, and no adapter left."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds: Any = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    while True:
        found = next(((n, m) for n, m in module.named_modules() if isinstance(m, kinds)), None)
        if found is None:
            break
        path, layer = found
        if any(p.is_meta for p in layer.parameters()):
            raise ConfigError(
                "model.merge_adapter=true: the adapter changes weights that wait on the CPU or the "
                "disk; give model.merge_adapter=false, or a model.device_map without them"
            )
        parent = module.get_submodule(path.rpartition(".")[0])
        setattr(parent, path.rpartition(".")[2], _merged_layer(layer))
    module._hf_peft_config_loaded = False
    if hasattr(module, "peft_config"):
        del module.peft_config
    return module


def _merged_layer(layer: Any) -> torch.nn.Module:
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return layer.unload_and_optionally_merge_module(
            merge=True, safe_merge=True, adapter_names=None
        )
    layer.merge(safe_merge=True)
    return layer.get_base_layer()


def adapter_of(weights: Any) -> tuple[str, Path] | None:
    """Return name and folder of the adapter that belongs on weights; None if none does.

    It is the one that `model.adapter` names, or one that lies beside the weights.

    Args:
        weights: a `Weights`.

    Raises:
        ConfigError: if there are two.
        MissingInputError: if it is not there, or the hub does not give it.
    """
    beside = _beside(weights)
    if weights.adapter is None:
        return None if beside is None else (weights.checkpoint, beside)
    if beside is not None and beside != local_place(weights.adapter):
        raise ConfigError(
            f"model.adapter={weights.adapter}: model.checkpoint={weights.checkpoint} has one "
            f"beside its weights already; move its {ADAPTER} away if that one is not meant"
        )
    place = local_place(weights.adapter)
    if place is None:
        return weights.adapter, _fetched(weights.adapter, weights.adapter_revision)
    if not place.is_dir():
        raise MissingInputError(f"model.adapter={weights.adapter}: no such folder")
    return weights.adapter, place


def _beside(weights: Any) -> Path | None:
    """Return the folder of a checkpoint with an adapter beside its weights; None without one."""
    if local_place(weights.checkpoint) is None and not _has_adapter(weights):
        return None
    folder = folder_of(weights.checkpoint, weights.revision)
    return folder if folder is not None and (folder / ADAPTER).is_file() else None


def _has_adapter(weights: Any) -> bool:
    """Return whether a hub id has an adapter beside its weights, which is then fetched."""
    from transformers.utils.hub import cached_file

    found = cached_file(
        weights.checkpoint,
        ADAPTER,
        revision=weights.commit() or weights.revision or "main",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if found is None:
        return False
    _fetched(weights.checkpoint, weights.revision)
    return True


def _fetched(name: str, revision: str | None) -> Path:
    """Return the folder of an adapter of the hub, its files fetched if they were not."""
    from huggingface_hub import snapshot_download

    try:
        patterns = [ADAPTER, "adapter_model.*"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client: any type at all
        raise MissingInputError(
            hub_line("model.adapter", name, revision, "adapter", error)
        ) from error
