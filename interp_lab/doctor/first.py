"""Before a model is loaded: capture proves itself, if it has not yet on this machine."""

import inspect
from typing import Any

from omegaconf import DictConfig

from interp_lab.config.nodes import plain, target_of
from interp_lab.doctor.kernels import DTYPES
from interp_lab.doctor.proof import prove_once
from interp_lab.identity.checkpoints import AUTO
from interp_lab.models.loading import check_attention
from interp_lab.models.weights import Weights


def prove_capture(cfg: DictConfig, device: Any) -> None:
    """Let capture prove itself on this machine, unless it did before; see `doctor.proof`.

    A model whose class takes no `attn_implementation` (CLIP, QD-DETR, a network of your own) has no
    attention that is watched; its hidden states and gates are read by hooks.

    Raises:
        UnsupportedModelError: if captured attention would be wrong here.
    """
    values = plain(cfg.model)
    target = target_of(values, "model")
    parameters = inspect.signature(target).parameters
    chosen = {
        key: values.get(key) or parameters[key].default
        for key in ("dtype", "attn_implementation")
        if key in parameters
    }
    if len(chosen) < 2 or not all(isinstance(value, str) for value in chosen.values()):
        return
    weights = Weights.of_node(target, values)
    check_attention(chosen["attn_implementation"], weights.trust_remote_code)
    if chosen["dtype"] == AUTO:
        weights.fetch_settings()
        chosen["dtype"] = weights.dtype_name
    # Another dtype is refused, with the names there are, when the model is made.
    if chosen["dtype"] in DTYPES:
        prove_once(device, DTYPES[chosen["dtype"]], chosen["attn_implementation"])
