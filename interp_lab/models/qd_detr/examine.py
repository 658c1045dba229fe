"""What a checkpoint of QD-DETR is, and whether its gates can be traced: told without a run.

Every statement is one of the loading itself (`checkpoint`), made here one after the other, so that
a checkpoint that cannot be traced is told all that is wrong with it, not the first thing alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from interp_lab.errors import InterpLabError
from interp_lab.models.qd_detr.checkpoint import (
    Checkpoint,
    architecture_of,
    assumptions,
    load_strictly,
    missing_of,
    read_checkpoint,
    sizes_of,
    untrained_encoder,
)
from interp_lab.models.qd_detr.network import Architecture, QdDetrNetwork

# Name, state (ok, note, warning, failure) and one line.
Line = tuple[str, str, str]
VARIANT = r"fusion\.fusion_layers\.\d+\.gating_function\."
PAPER = r"fusion\.fusion_layers\.\d+\.attn_gate\."
QD_DETR = r"transformer\.(t2v_encoder|encoder|decoder)\."
OWN = "a network of your own needs a YAML with interp_lab.models.own.OwnModule that names its gates"
COUNTS = {
    "fusion_layers": "fusion layers",
    "enc_layers": "encoder layers",
    "dec_layers": "decoder layers",
    "num_queries": "queries",
    "hidden_dim": "wide",
}
# What is taken for what a checkpoint does not say, while the rest of it is looked at.
SUPPOSED = {"gating_type": "global", "nheads": 8, "fusion_n_heads": 8, "activation": "relu"}
EXAMPLES = {"gating_type": "model.gating_type=global (or clipwise: the shapes are the same)"}


def examine(values: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what is found, in the order of loading.

    Args:
        values: of the model's node: checkpoint, gating_type, architecture, gates, init.
    """
    if values.get("init") == "random":
        yield "weights", "note", "model.init=random: no checkpoint is read"
        return
    try:
        found = read_checkpoint(str(values["checkpoint"]))
    except InterpLabError as error:
        yield "file", "failure", str(error)
        return
    yield "file", "ok", _file(found)
    network = _network(found)
    yield network
    if network[1] == "failure":
        return
    yield "layers", "ok", _layers(found)
    yield _gating(found, values.get("gating_type"))
    yield "options", "ok" if found.options else "note", _options(found)
    yield from _loaded(found, values)


def _file(found: Checkpoint) -> str:
    n_numbers = sum(tensor.numel() for tensor in found.weights.values())
    of = "" if found.epoch is None else f" of epoch {found.epoch}"
    kind = f"training checkpoint{of}, with its options" if found.options else f"weights alone{of}"
    return f"{kind}: {len(found.weights)} tensors, {n_numbers:,} numbers"


def _network(found: Checkpoint) -> Line:
    def holds(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in found.weights)

    if holds(VARIANT):
        return "network", "ok", "QD-DETR with gated audio (AVIGATEFusionCustom): two gates a layer"
    if holds(PAPER):
        return "network", "ok", "QD-DETR with the gated fusion of the AVIGATE paper"
    first = ", ".join(list(found.weights)[:3])
    if holds(QD_DETR):
        text = "QD-DETR without gated audio: no fusion.fusion_layers, so there is no gate to trace"
        return "network", "failure", f"{text}; take a checkpoint that was trained with it"
    return "network", "failure", f"no QD-DETR: its tensors begin {first}; {OWN}"


def _layers(found: Checkpoint) -> str:
    sizes = sizes_of(found.weights)
    counted = [f"{sizes[name]} {words}" for name, words in COUNTS.items() if name in sizes]
    widths = [
        f"{kind} {sizes[name]}"
        for kind, name in (("text", "t_feat_dim"), ("video", "v_feat_dim"), ("audio", "a_feat_dim"))
        if name in sizes
    ]
    return f"{', '.join(counted)}; reads features of {', '.join(widths)} columns"


def _gating(found: Checkpoint, given: str | None) -> Line:
    said, shape = found.options.get("gating_type"), sizes_of(found.weights).get("gating_type")
    for value, why in (
        (said, "its options say so"),
        (shape, "its shapes say so"),
        (given, "as given; global and clipwise have the same shapes, so it is not checked"),
    ):
        if value:
            return "gating type", "ok", f"{value}: {why}"
    return "gating type", "warning", "global or clipwise: the checkpoint does not say which"


def _options(found: Checkpoint) -> str:
    names = Architecture.names()
    said = [f"{k}={v}" for k, v in sorted(found.options.items()) if k in names and v is not None]
    if not said:
        return "the checkpoint says nothing of how it was trained"
    return ", ".join(said)


def _loaded(found: Checkpoint, values: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what is to be given, whether the weights fill the network, and where its gates are."""
    gating_type, wanted = values.get("gating_type"), dict(values.get("architecture") or {})
    missing = missing_of(found, gating_type, wanted)
    if missing:
        yield "to be given", "failure", _to_give(missing)
    supposed = {name: SUPPOSED[name] for name in missing if name != "gating_type"}
    gating = gating_type or (SUPPOSED["gating_type"] if "gating_type" in missing else None)
    try:
        network = QdDetrNetwork(architecture_of(found, gating, wanted | supposed))
        load_strictly(network, found.weights, found.where)
    except InterpLabError as error:
        yield "weights", "failure", str(error)
        return
    yield "weights", "ok", "fill the network exactly, and all are finite"
    yield _gates(network, values.get("gates") or {})
    for note in assumptions(found, wanted):
        yield "assumed", "note", note
    if untrained_encoder(network):
        yield (
            "video encoder",
            "warning",
            "was never trained; a fork leaves it out, and predicts else",
        )


def _to_give(missing: Sequence[str]) -> str:
    gating = [EXAMPLES[name] for name in missing if name in EXAMPLES]
    others = ", ".join(f"{name}: {SUPPOSED[name]}" for name in missing if name not in EXAMPLES)
    architecture = [f"'model.architecture={{{others}}}'"] if others else []
    what = ", ".join(missing)
    return (
        f"{what}: not in the checkpoint, and no shape tells; give what it was trained with, such "
        f"as {' '.join([*architecture, *gating])}"
    )


def _gates(network: nn.Module, gates: Mapping[str, Any]) -> Line:
    names = [name for name, _ in network.named_modules()]
    counts, without = [], []
    for kind, hooks in gates.items():
        patterns = [hooks["hookpoints"]] if isinstance(hooks["hookpoints"], str) else None
        patterns = patterns or list(hooks["hookpoints"])
        n = sum(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names)
        counts.append(f"{n} of {kind}")
        without += [] if n else [f"{kind} ({', '.join(patterns)})"]
    if without or not counts:
        return (
            "gates",
            "failure",
            f"no module is named {', '.join(without) or 'in model.gates'}: the fusion of the paper "
            "is model=qd_detr_avigate_paper, the other one model=qd_detr_avigate",
        )
    return "gates", "ok", f"can be traced: {', '.join(counts)}"
