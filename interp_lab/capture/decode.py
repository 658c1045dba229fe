"""Decode steps, observed in bulk: one matrix product over many steps instead of one each.

A decode step has one query. Reading all keys a second time for it would cost as much as half of
the step's attention. The keys stay in the cache anyway, so the queries (a few kilobytes a layer)
wait until enough have come, and their rows are computed together, exact and full.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from interp_lab.capture.frames import Extent
from interp_lab.capture.masks import Call

# Steps that may wait, and the numbers that their score rows may take (16 MiB in fp32).
MAX_STEPS = 32
MAX_NUMBERS = 2**22


@dataclass
class Waiting:
    """The decode steps of one layer whose rows have not been computed yet.

    Attributes:
        call: the newest step's call; its keys hold those of every waiting step.
        queries: one (batch, head, 1, dim) a step.
        masks: one mask, or None, a step.
        first: the column of the first waiting query.
    """

    call: Call | None = None
    queries: list[Tensor] = field(default_factory=list)
    masks: list[Tensor | None] = field(default_factory=list)
    first: int = 0

    def add(self, call: Call, extent: Extent) -> None:
        """Let one more step wait; it must follow the one before (see `follows`)."""
        if not self.queries:
            self.first = extent.start
        self.call = call
        self.queries.append(call.query.detach())
        self.masks.append(call.mask)

    def follows(self, extent: Extent) -> bool:
        """Return whether a step is the next one after those that wait."""
        return not self.queries or extent.start == self.first + len(self.queries)

    def full(self) -> bool:
        """Return whether the steps should be computed now."""
        if self.call is None:
            return False
        batch, heads = self.call.query.shape[:2]
        numbers = batch * heads * self.call.key.shape[2] * (len(self.queries) + 1)
        return len(self.queries) >= MAX_STEPS or numbers > MAX_NUMBERS

    def drain(self) -> tuple[Call, Extent]:
        """Return all waiting steps as one call with as many queries, and forget them."""
        assert self.call is not None
        count, n_keys = len(self.queries), self.call.key.shape[2]
        extent = Extent(self.first, count, n_keys)
        causal = count > 1
        call = replace(
            self.call,
            query=torch.cat(self.queries, dim=2),
            mask=_stack_masks(self.masks, n_keys),
            causal=causal,
            # The newest query sees every column that there is, the one before it one fewer.
            shift=self.first - extent.key_start,
        )
        self.call = None
        self.queries, self.masks = [], []
        return call, extent


def can_wait(call: Call, extent: Extent) -> bool:
    """Return whether a later call's keys will still hold this step's, with no terms of its own."""
    holds_all = extent.keys >= extent.end and not extent.crossed
    tensor_or_none = call.mask is None or isinstance(call.mask, Tensor)
    apart = call.position_bias is None and call.window is None and call.segments is None
    return holds_all and tensor_or_none and apart and call.padding is None and not call.terms


def _stack_masks(masks: list[Tensor | None], n_keys: int) -> Tensor | None:
    """Return the steps' masks one below the other; columns that came later are hidden."""
    present = [m for m in masks if m is not None]
    if not present:
        return None
    if len(present) != len(masks):
        raise AssertionError("some decode steps had a mask and some had none")
    rows = []
    for mask in present:
        short = n_keys - mask.shape[-1]
        fill = False if mask.dtype == torch.bool else float("-inf")
        rows.append(functional.pad(mask[..., -1:, :n_keys], (0, max(0, short)), value=fill))
    return torch.cat(rows, dim=2)
