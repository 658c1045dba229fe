"""The original tool's two functions for trained models that know nothing of tracking.

There a new fusion was made and weights copied into it where they fitted. Here hooks are put on the
model as it is, so nothing is copied, left out or guessed; see `tracking`.
"""

from pathlib import Path
from typing import Literal

from torch import nn

from interp_lab.errors import UnsupportedModelError
from interp_lab.studies.avigate.tracking import load_traced, track_gates

GatingType = Literal["global", "clipwise", "elementwise"]
FUSION = "avigate_fusion"
GATES = {
    "attention": "fusion_layers.*.gating_function.mlp_mha",
    "ffn": "fusion_layers.*.gating_function.mlp_ffn",
}


def load_legacy_model_with_gate_tracking(
    model_path: str | Path,
    gating_type: GatingType | None = None,
    device: int | str | None = None,
) -> nn.Module:
    """Return a trained checkpoint's network; `model.avigate_fusion` has the tracker's methods.

    Args:
        model_path: the checkpoint.
        gating_type: where the checkpoint does not say it; a disagreement is an error.
        device: null or `auto` = best available.

    Raises:
        InterpLabError: what `mode=doctor model=qd_detr_avigate model.checkpoint=...` says too.
    """
    place = None if device == "auto" else device
    return load_traced(model_path, device=place, install=True, gating_type=gating_type).module


def adapt_legacy_model(model: nn.Module, gating_type: GatingType | None = None) -> nn.Module:
    """Put the tracker's methods on `model.avigate_fusion` of a network of one's own; return it.

    Args:
        model: with a module `avigate_fusion`, whose gates are `fusion_layers.*.gating_function`.
        gating_type: checked against the gates' width: elementwise has one for each channel.

    Raises:
        UnsupportedModelError: if there is no such module, or its gates are of another type.
        ConfigError: if it has tracking methods of its own.
    """
    fusion = getattr(model, FUSION, None)
    if not isinstance(fusion, nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__name__}: has no module {FUSION}; name its gates yourself: "
            'track_gates(module, {"attention": "path.of.its.gates.*"}, "tanh", install=True)'
        )
    tracker = track_gates(fusion, GATES, "tanh")
    gate = fusion.get_submodule(tracker.paths["attention"][0])
    width = [m.out_features for m in gate.modules() if isinstance(m, nn.Linear)][-1:]
    if gating_type and width and (width[0] > 1) != (gating_type == "elementwise"):
        kind = "elementwise" if width[0] > 1 else "global or clipwise"
        raise UnsupportedModelError(
            f"gating_type={gating_type}: the gates of {type(fusion).__name__} are those of {kind}; "
            "a gating type is trained, it cannot be chosen afterwards"
        )
    tracker.install()
    return model
