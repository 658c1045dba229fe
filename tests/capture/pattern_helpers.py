"""What the capture tests share: an independent pattern, and differences."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep


def keep_all(tower: str = "language", **options: Any) -> AttentionPlan:
    return AttentionPlan(None, None, Keep(), tower=tower, **options)


def eager_patterns(model: PreTrainedModel, inputs: dict[str, Any], **options: Any) -> Tensor:
    """Return transformers' own output_attentions under eager, (layer, batch, head, query, key)."""
    before = model.config._attn_implementation
    # The setter refuses models that bypass the interface (Falcon), whose `output_attentions` under
    # sdpa adds a bool mask to the scores: a wrong pattern. The configuration is set directly.
    model.config._attn_implementation = "eager"
    try:
        output = model(**inputs, output_attentions=True, **options)
        return torch.stack(list(output.attentions))
    finally:
        model.config._attn_implementation = before


def gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape, (first.shape, second.shape)
    return float((first.float() - second.float()).abs().max())


def logits(output: Any) -> Tensor:
    return output.logits if hasattr(output, "logits") else output.logits_per_image


def left_pad(row: dict[str, Tensor], by: int) -> dict[str, Tensor]:
    """Return a batch of one with `by` padding tokens on the left."""
    pad = torch.zeros(1, by, dtype=torch.long)
    return {k: torch.cat((pad, v), 1) for k, v in row.items()}
