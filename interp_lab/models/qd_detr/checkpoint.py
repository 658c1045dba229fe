"""A QD-DETR from a checkpoint: read without running code, and loaded whole or not at all.

A training checkpoint is `{"model", "optimizer", "lr_scheduler", "epoch", "opt"}`, its `opt` an
`argparse.Namespace`; that is the one class a file may bring. A shipped model is a folder of
`model.safetensors` and `config.json`.
"""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from interp_lab.datasets.base import existing_path
from interp_lab.errors import MissingInputError, UnsupportedModelError
from interp_lab.models.files import first_line, is_out_of_memory, problem_of, reading
from interp_lab.models.qd_detr.network import Architecture, QdDetrNetwork
from interp_lab.models.weights import ZOO, Weights

PARALLEL_PREFIX = "module."
# How many keys of a kind a message names.
NAMED_KEYS = 8
TIME_COLUMNS = 2
# What changes predictions and no shape tells: heads are asked for, since forks differ in them.
ASKED = ("nheads", "fusion_n_heads")
# The rest has one published value, which is taken and noted. The published code knows no other
# value of `pre_norm` that works, so options that leave it out say enough.
NOTED = ("use_txt_pos", "span_loss_type", "max_v_l")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        weights: key -> tensor, without the prefix of parallel training.
        options: what it says of how it was trained; empty if it says nothing.
        where: how messages name it.
        epoch: of the training, if it is a training checkpoint that says so.
    """

    weights: dict[str, Tensor]
    options: dict[str, Any]
    where: str
    epoch: int | None = None


def read_checkpoint(checkpoint: str) -> Checkpoint:
    """Read a training checkpoint, a file of weights alone, or a folder as the zoo has them.

    Raises:
        MissingInputError: if it is not there, or cut off or damaged.
        UnsupportedModelError: if it asks for code to be run, or holds no weights.
    """
    where = f"model.checkpoint={checkpoint}"
    if checkpoint.startswith(ZOO):
        path = Path(Weights(checkpoint).location())
    else:
        path = existing_path("model.checkpoint", checkpoint)
    options: Any = {}
    if path.is_dir():
        loaded: Any = load_safetensors(path / "model.safetensors", where)
        options = _json(path / "config.json", where)
    elif path.suffix == ".safetensors":
        loaded = load_safetensors(path, where)
    else:
        loaded = load_plain(path, where)
    if isinstance(loaded, Mapping) and "opt" in loaded:
        options = loaded["opt"]
    weights = weights_of(loaded, where)
    options = vars(options) if isinstance(options, argparse.Namespace) else dict(options)
    epoch = loaded.get("epoch") if weights is not loaded and isinstance(loaded, Mapping) else None
    return Checkpoint(weights, options, where, epoch if isinstance(epoch, int) else None)


def load_plain(path: Path, where: str) -> Any:
    """Load what `torch.save` wrote, tensors and plain values only, and an argparse.Namespace.

    Raises:
        UnsupportedModelError: if another class is in the file.
        MissingInputError: if it is cut off or damaged.
    """
    if problem := problem_of(path):
        raise MissingInputError(f"{where}: {problem}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)|class (\S+)", str(error))
        if named is None:
            raise MissingInputError(f"{where}: no checkpoint, or damaged or cut off") from error
        raise UnsupportedModelError(
            f"{where}: brings the class {named[1] or named[2]}, whose code would run while "
            "loading; save it again with tensors and plain values only"
        ) from error
    except Exception as error:  # third-party code: any type at all
        if is_out_of_memory(error):
            raise
        first = first_line(error)[:120] or type(error).__name__
        raise MissingInputError(
            f"{where}: cut off or damaged, or no file of torch.save; copy it again ({first})"
        ) from error


def weights_of(loaded: Any, where: str) -> dict[str, Tensor]:
    """Return the weights in what a file held: its `model` or `state_dict`, or all of it.

    Raises:
        UnsupportedModelError: if there are none.
    """
    found = loaded
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            found = loaded[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise UnsupportedModelError(f"{where}: holds {type(found).__name__}, no weights")
    strange = [k for k, v in found.items() if not isinstance(v, Tensor)]
    if strange:
        raise UnsupportedModelError(f"{where}: {strange[0]!r} is no tensor; where are the weights?")
    if all(k.startswith(PARALLEL_PREFIX) for k in found):
        return {k.removeprefix(PARALLEL_PREFIX): v for k, v in found.items()}
    return dict(found)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Give a module its weights, all of them.

    Raises:
        UnsupportedModelError: if keys are missing, unknown or of another shape, or values are not
            finite; lists them.
    """
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in weights.items()}
    both = [k for k in expected if k in given]
    problems = {
        "missing": [k for k in expected if k not in given],
        "unknown": [k for k in given if k not in expected],
        "of another shape": [
            f"{k} {given[k]} for {expected[k]}" for k in both if given[k] != expected[k]
        ],
        "not finite": [k for k in both if not weights[k].isfinite().all()],
    }
    said = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys]
    if said:
        raise UnsupportedModelError(f"{where}: weights do not fit the network; {'; '.join(said)}")
    module.load_state_dict(dict(weights), strict=True)


def architecture_of(
    checkpoint: Checkpoint, gating_type: str | None, wanted: Mapping[str, Any]
) -> Architecture:
    """Return what the network is, out of the checkpoint's options, its shapes, and the YAML.

    Options win over shapes, so that a key of a wrong shape is found out. The YAML may say what the
    checkpoint does not, and must not say something else.

    Raises:
        UnsupportedModelError: if they disagree, or the gating type, the heads or the activation are
            known from nowhere.
    """
    where = checkpoint.where
    names = Architecture.names()
    shapes = sizes_of(checkpoint.weights)
    known = shapes | {k: v for k, v in checkpoint.options.items() if k in names and v is not None}
    for name in ("v_feat_dim", "a_feat_dim"):
        # Options are written before the two columns of time are counted.
        if shapes.get(name) == known.get(name, 0) + TIME_COLUMNS:
            known[name] = shapes[name]
    asked = {k: v for k, v in wanted.items() if v is not None}
    if gating_type is not None:
        asked["gating_type"] = gating_type
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise UnsupportedModelError(f"model.architecture: no {', '.join(unknown)} in a QD-DETR")
    differing = [
        f"{k} is {known[k]}, the YAML says {v}" for k, v in asked.items() if known.get(k, v) != v
    ]
    if differing:
        raise UnsupportedModelError(
            f"{where}: {'; '.join(differing)}; set it to null or leave it out of the YAML"
        )
    merged = asked | known
    missing = missing_of(checkpoint, gating_type, wanted)
    if "gating_type" in missing:
        raise UnsupportedModelError(
            f"{where}: does not say its gating type, and global and clipwise have the same shapes; "
            "give model.gating_type=global or model.gating_type=clipwise"
        )
    _check_gating(checkpoint, merged["gating_type"])
    if missing:
        given = {"nheads": "8", "fusion_n_heads": "8", "activation": "relu"}
        example = ", ".join(f"{name}: {given[name]}" for name in missing)
        raise UnsupportedModelError(
            f"{where}: does not say {', '.join(missing)}, and its shapes do not tell; give what "
            f"it was trained with, such as 'model.architecture={{{example}}}'"
        )
    return Architecture.of(merged, where)


def missing_of(
    checkpoint: Checkpoint, gating_type: str | None, wanted: Mapping[str, Any]
) -> list[str]:
    """Return what is known from nowhere and must be given; arguments as in `architecture_of`."""
    said = {k for k, v in {**checkpoint.options, **wanted}.items() if v is not None}
    said |= set(sizes_of(checkpoint.weights)) | ({"gating_type"} if gating_type else set())
    said |= {"activation"} if _has_prelu(checkpoint.weights) else set()
    return [name for name in ("gating_type", *ASKED, "activation") if name not in said]


def assumptions(checkpoint: Checkpoint, wanted: Mapping[str, Any]) -> list[str]:
    """Return a note on what neither checkpoint nor YAML says and has been taken as published."""
    said = {k for k, v in {**checkpoint.options, **wanted}.items() if v is not None}
    names = NOTED if checkpoint.options else (*NOTED, "pre_norm")
    defaults = {f.name: f.default for f in fields(Architecture)}
    taken = ", ".join(f"{name}: {defaults[name]}" for name in names if name not in said)
    if not taken:
        return []
    return [
        f"{checkpoint.where}: not said by the checkpoint and taken as published: {taken}; if it "
        "was trained otherwise, give it in model.architecture"
    ]


def load_network(
    checkpoint: Checkpoint,
    gating_type: str | None = None,
    wanted: Mapping[str, Any] | None = None,
    masked: bool = True,
) -> QdDetrNetwork:
    """Return the checkpoint's network with its weights; arguments as in `architecture_of`."""
    network = QdDetrNetwork(architecture_of(checkpoint, gating_type, wanted or {}), masked)
    load_strictly(network, checkpoint.weights, checkpoint.where)
    return network


def untrained_encoder(network: QdDetrNetwork) -> bool:
    """Return whether the video encoder's norms are as they were made: it was never trained.

    A fork of QD-DETR leaves this encoder out while training and keeps it in the checkpoint; its
    predictions are not those of the published network.
    """
    layers = network.transformer.encoder.layers
    norms = [m for layer in layers for m in layer.modules() if isinstance(m, nn.LayerNorm)]
    return all(bool((n.weight == 1).all() and (n.bias == 0).all()) for n in norms)


def _check_gating(checkpoint: Checkpoint, gating_type: str) -> None:
    weight = checkpoint.weights.get("fusion.fusion_layers.0.gating_function.mlp_mha.2.weight")
    if weight is None or weight.ndim != 2:
        return
    if (len(weight) > 1) != (gating_type == "elementwise"):
        kind = "elementwise" if len(weight) > 1 else "global or clipwise"
        raise UnsupportedModelError(
            f"{checkpoint.where}: gating_type={gating_type}, but the weights are those of {kind}"
        )


def _has_prelu(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the transformer's activation has weights: only that of PReLU does."""
    return any(name.endswith("activation.weight") for name in weights)


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes that shapes tell."""
    places = {
        "hidden_dim": ("saliency_proj1.weight", 0),
        "dim_feedforward": ("transformer.encoder.layers.0.linear1.weight", 0),
        "num_queries": ("query_embed.weight", 0),
        "max_q_l": ("txt_position_embed.position_embeddings.weight", 0),
        "t_feat_dim": ("input_txt_proj.0.LayerNorm.weight", 0),
        "v_feat_dim": ("input_vid_proj.0.LayerNorm.weight", 0),
        "a_feat_dim": ("input_aud_proj.0.LayerNorm.weight", 0),
    }
    sizes: dict[str, Any] = {
        name: weights[key].shape[axis] for name, (key, axis) in places.items() if key in weights
    }
    counted = {
        "enc_layers": r"transformer\.encoder\.layers\.(\d+)\.",
        "dec_layers": r"transformer\.decoder\.layers\.(\d+)\.",
        "n_input_proj": r"input_txt_proj\.(\d+)\.",
        "fusion_layers": r"fusion\.fusion_layers\.(\d+)\.",
    }
    for name, pattern in counted.items():
        found = {m[1] for key in weights if (m := re.match(pattern, key))}
        if found:
            sizes[name] = len(found)
    if "fusion.fusion_layers.0.attn_gate.ag_fc.weight" in weights:
        sizes["gating_type"] = "paper"
    weight = weights.get("fusion.fusion_layers.0.gating_function.mlp_mha.2.weight")
    if weight is not None and len(weight) > 1:
        sizes["gating_type"] = "elementwise"
    return sizes


def load_safetensors(path: Path, where: str) -> dict[str, Tensor]:
    """Load a safetensors file.

    Raises:
        MissingInputError: if it is missing, cut off or damaged.
    """
    if problem := problem_of(path):
        raise MissingInputError(f"{where}: {problem}")
    with reading(path, where, "weights"):
        return load_file(path)
    raise AssertionError  # the block returns or raises


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingInputError(f"{where}: cannot read {path.name} ({error})") from error


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(keys[:NAMED_KEYS]) + more
