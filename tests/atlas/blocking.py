"""Blocking one key: which, and what is left of a pattern by hand arithmetic."""

import torch
from torch import Tensor


def block_of(pattern: Tensor) -> tuple[slice | None, int]:
    """Return queries and the key to block: what later queries look at most, not from its own on."""
    queries, keys = pattern.shape[1:]
    own = queries == keys
    mass = [
        float(pattern[:, (k + 1 if own else 0) :, k].clamp(max=0.9).sum())
        for k in range(1, keys - 1 if own else keys)
    ]
    if not mass or max(mass) <= 0:
        return None, 0
    key = 1 + mass.index(max(mass))
    return slice(key + 1 if own else 0, queries), key


def renormalised_gap(before: Tensor, after: Tensor, queries: slice, key: int) -> float:
    """Return how far a blocked pattern is from the unblocked one with the block taken out.

    Without the key, exp(score) of the others is over what is left of the sum: p / (1 - p_key),
    also where a sink is part of that sum. Rows that had nearly all their weight on the key say
    nothing in fp32.
    """
    want = before.double().clone()
    left = 1 - want[:, queries, key]
    want[:, queries, key] = 0
    want[:, queries] /= left.clamp(min=1e-12)[..., None]
    told = torch.ones(want.shape[:2], dtype=torch.bool)
    told[:, queries] = left > 1e-2
    gap = float((want - after.double()).abs()[told].max())
    return max(gap, float(after[:, queries, key].abs().max()))
