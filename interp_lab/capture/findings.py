"""What a check of captured numbers finds: differences, and the bounds that rounding explains."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.plans import AttentionPlan, Reducer
from interp_lab.capture.reference_rows import SCORE_ROUNDING

# Of a pattern's values, beside the scores' rounding: fp32 results and sums of them. A kernel in
# half precision may give a log-sum-exp off by 5.5e-5 whatever the scores (torch's on the CPU).
VALUE_ROUNDING, HALF_ROUNDING = 2e-6, 1e-4
_AXES = {"head": 0, "query": 1, "key": 2}


@dataclass(frozen=True)
class Finding:
    """What a check of one plan found, over rows, layers and steps.

    Args:
        difference: largest absolute difference (relative above 1) of a captured number; for an
            index, of the pattern there from the pattern at the right one, so that ties are none.
        bound: what fp32 arithmetic on these queries and keys explains.
        output: largest difference of the kernel's output from the pattern times the values, in
            units of the largest value.
        output_bound: what the model's dtype explains.
        layers: how many of the plan's layers were checked.
    """

    difference: float
    bound: float
    output: float
    output_bound: float
    layers: int

    @property
    def holds(self) -> bool:
        """Whether both differences are within their bounds."""
        return self.difference <= self.bound and self.output <= self.output_bound


@dataclass
class Worked:
    """A plan's numbers of one row, layer and step, as far as they have been worked out."""

    state: Any = None
    blocks: list[Tensor] = field(default_factory=list)
    size: float = 0.0
    half: bool = False
    output: float = 0.0
    output_bound: float = 0.0


def compare(reduce: Reducer, mine: Worked, theirs: Tensor, n_layers: int) -> Finding:
    """Return what holds of a captured number, given the same number by other means.

    One of another shape, which has other queries or keys, is infinitely far off.
    """
    want = reduce.finish(mine.state)
    theirs = theirs.to(want.device)
    rounding = HALF_ROUNDING if mine.half else VALUE_ROUNDING
    bound = rounding + SCORE_ROUNDING * mine.size
    if theirs.shape != want.shape:
        return Finding(math.inf, bound, mine.output, mine.output_bound, n_layers)
    if mine.blocks:
        block = torch.cat(mine.blocks, dim=1)
        axis = _AXES[getattr(reduce, "over", "key")]
        want, theirs = (_looked_up(block, index, axis) for index in (want, theirs))
    gap = (theirs.double() - want).abs() / want.abs().clamp(min=1.0)
    gap[want.isnan() & theirs.isnan()] = 0.0
    difference = float(torch.nan_to_num(gap, nan=math.inf).max())
    return Finding(difference, bound, mine.output, mine.output_bound, n_layers)


def gives_index(plan: AttentionPlan) -> bool:
    """Return whether a plan's reducer returns where something is, not how large it is."""
    return plan.reduce.name == "argmax" or getattr(plan.reduce, "give", None) == "index"


def _looked_up(block: Tensor, index: Tensor, axis: int) -> Tensor:
    """Return the pattern at indices along an axis, which the index may lack."""
    full = index if index.dim() == block.dim() else index.unsqueeze(axis)
    return block.gather(axis, full.long())


def worse(first: Finding, second: Finding) -> Finding:
    """Return the finding with the larger difference in relation to its bound, and output's."""
    by_value = max((first, second), key=lambda f: f.difference / f.bound)
    by_output = max((first, second), key=lambda f: f.output / max(f.output_bound, 1e-30))
    return Finding(
        by_value.difference,
        by_value.bound,
        by_output.output,
        by_output.output_bound,
        by_value.layers,
    )
