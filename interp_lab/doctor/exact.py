"""The attention pattern by its definition in float64, and how far fp32 arithmetic may be from it.

Nothing of `interp_lab.capture` is used: what is checked and what it is checked with share no code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# One rounding of fp32, relative.
ROUNDING = 2.0**-24
# What the exponential of a kernel for half precision may be off by, relative.
HALF_EXP = 1e-4


@dataclass(frozen=True)
class Exact:
    """The pattern of one call and one batch row.

    Args:
        pattern: (head, query, key) in float64 on the CPU; a hidden key has 0.
        largest: the largest visible score by absolute value.
    """

    pattern: Tensor
    largest: float


def largest_difference(largest_score: float, *, half_lse: bool) -> float:
    """Return the largest difference of a pattern value from `Exact` that arithmetic explains.

    It is 1e-6 + 32 * 2**-24 * max|score|, and 1e-4 more where a kernel's lse is used and q and k
    are of half precision. The pattern is exp(score - lse): a score of size s, summed in fp32 from
    128 products, is off by some s / 2**24 (17 was the most on a CPU, at scores up to 572), and so
    is the lse. Kernels for half precision may use a faster exponential: torch's for the CPU is off
    by 5.5e-5 in bf16 and fp16 at scores of any size. So the bound is 1e-3 at the scores of a 7B
    model, where a mask off by one or another head's lse changes the pattern by 0.1 to 1.

    Args:
        largest_score: of the visible scores, by absolute value.
        half_lse: whether an lse was used that a kernel made from bf16 or fp16.
    """
    return 1e-6 + 32 * ROUNDING * largest_score + (HALF_EXP if half_lse else 0.0)


def exact_pattern(query: Tensor, key: Tensor, scaling: float, visible: Tensor) -> Exact:
    """Return softmax(scaling * q @ k.T) over the visible keys, in float64 on the CPU.

    Args:
        query: (head, query, dim) of any dtype, taken as it is.
        key: (kv_head, key, dim); query head h reads key head h // (head / kv_head).
        scaling: factor on q.k.
        visible: bool (query, key); every query sees at least one key.
    """
    q, k = (t.detach().cpu().double() for t in (query, key))
    k = k.repeat_interleave(q.shape[0] // k.shape[0], dim=0)
    scores = torch.einsum("hqd,hkd->hqk", q, k) * scaling
    hidden = ~visible.cpu()[None]
    largest = float(scores.masked_fill(hidden, 0).abs().max())
    pattern = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
    return Exact(pattern, largest)


def seen_keys(
    queries: int, keys: int, *, padding: int = 0, causal: bool = True, window: int | None = None
) -> Tensor:
    """Return which key each of the last `queries` of `keys` tokens sees, bool (query, key).

    Args:
        queries, keys: how many; the last query is the newest token.
        padding: columns at the left that nobody sees.
        causal: a token sees itself and what stands before it.
        window: a token sees the last `window` tokens only, itself included; None for all.
    """
    seen = torch.zeros(queries, keys, dtype=torch.bool)
    for row in range(queries):
        own = keys - queries + row
        first = padding if window is None else max(padding, own - window + 1)
        seen[row, first : own + 1 if causal else keys] = True
    return seen
