"""Blocks of the attention pattern, chunk by chunk: exact from an lse, or from full score rows.

With the lse of a row, any entry of its pattern is exp(scaling * q.k + mask - lse): the block costs
its own size and no more. Without it, full rows of scores are made for a few queries at a time.
Either way a chunk is bounded and handed to the reducer in log space or as probabilities.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_lab.capture.kernels import finish_scores, lse_of, operands, scores
from interp_lab.capture.masks import Call, Index, length

# Numbers in one chunk of scores. On a CPU 4 MiB in fp32, which stays in its last-level cache; on an
# accelerator 256 MiB, as each chunk costs a few launches.
CHUNK = 2**20
ACCELERATOR_CHUNK = 2**26
# Stretches of neighbouring queries that are worth a slice each.
MAX_RUNS = 8


@dataclass(frozen=True)
class KeyPick:
    """Which key columns of a call a plan's keys are.

    Args:
        index: the columns that the call holds.
        count: number of keys in the plan.
        slots: for each column its place among the plan's keys; None if all are there, in order.
            A key that the call does not hold (left behind by a sliding window) has pattern 0.
    """

    index: Index
    count: int
    slots: Tensor | None = None


class Workspace:
    """One reused buffer per device, so that a chunk costs no new memory."""

    def __init__(self) -> None:
        self._buffers: dict[torch.device, Tensor] = {}

    def get(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return an uninitialised fp32 tensor that is valid until the next call."""
        size = math.prod(shape)
        buffer = self._buffers.get(device)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[device] = torch.empty(size, device=device)
        return buffer[:size].view(shape)


def chunk_numbers(device: torch.device) -> int:
    """Return how many numbers one chunk of scores may have on a device."""
    return CHUNK if device.type == "cpu" else ACCELERATOR_CHUNK


def as_index(values: Sequence[int], device: torch.device) -> Index:
    """Return increasing positions as a slice if they are neighbours, else as a tensor."""
    if values and values[-1] - values[0] + 1 == len(values):
        return slice(values[0], values[-1] + 1)
    return torch.tensor(values, dtype=torch.long, device=device)


def runs(values: Sequence[int], device: torch.device) -> list[Index]:
    """Return increasing positions as a few slices, or as one tensor if they are scattered.

    Slices need no copy, and often no causal mask: every key lies before the whole run.
    """
    if isinstance(values, range):
        return [slice(values.start, values.stop)]
    breaks = [i for i in range(1, len(values)) if values[i] != values[i - 1] + 1]
    if len(breaks) >= MAX_RUNS:
        return [as_index(values, device)]
    edges = [0, *breaks, len(values)]
    return [slice(values[a], values[b - 1] + 1) for a, b in itertools.pairwise(edges)]


def log_blocks(
    call: Call,
    row: int,
    queries: Index,
    keys: KeyPick,
    heads: Tensor | None,
    lse: Tensor | None,
    workspace: Workspace,
) -> Iterator[Tensor]:
    """Yield the log of the pattern, (head, query, key), for consecutive chunks of the queries.

    Args:
        call: the attention call.
        row: the batch row.
        queries: query rows in the call's indices.
        keys: the plan's keys.
        heads: which heads; None for all.
        lse: (head, query) over all heads and queries of this row, or None.
        workspace: where a chunk may live; it is overwritten by the next one.
    """
    n_heads = call.query.shape[1] if heads is None else len(heads)
    width = call.key.shape[2] if lse is None else max(1, keys.count)
    step = max(1, chunk_numbers(call.query.device) // (n_heads * width))
    if lse is None:
        blocks = (_from_rows(call, row, chunk, keys, heads) for chunk, _ in chunks(queries, step))
    else:
        lse = lse if heads is None else lse.index_select(0, heads)
        blocks = _from_lse(call, row, queries, keys, heads, lse, step, workspace)
    for block in blocks:
        yield block if keys.slots is None else spread(block, keys)


def row_output(call: Call, row: int, value: Tensor, queries: Index) -> tuple[Tensor, Tensor]:
    """Return attention output and lse of some query rows, computed in bounded chunks.

    Args:
        call: the attention call, interventions included.
        row: the batch row.
        value: (kv_head, key, dim) of this row.
        queries: query rows in the call's indices.

    Returns:
        Output (query, head, dim) in fp32, with gradients where they are enabled, and lse (head,
        query) without.
    """
    numbers = call.query.shape[1] * call.key.shape[2]
    step = max(1, chunk_numbers(call.query.device) // numbers)
    everything = slice(0, call.key.shape[2])
    outputs, lses = [], []
    for chunk, _ in chunks(queries, step):
        block = scores(call, row, chunk, everything, None)
        lse = lse_of(call, block.detach(), None)
        pattern = _weights(call, block, lse)
        n_kv = value.shape[0]
        grouped = pattern.reshape(n_kv, -1, pattern.shape[2])
        out = torch.bmm(grouped, value.float()).view(pattern.shape[0], -1, value.shape[2])
        outputs.append(out.transpose(0, 1))
        lses.append(lse)
    return torch.cat(outputs), torch.cat(lses, dim=1)


def _weights(call: Call, block: Tensor, lse: Tensor) -> Tensor:
    """Return the pattern of full score rows (head, query, key).

    Where gradients are wanted it is the softmax, which keeps no more than its result for them;
    else it is made in the memory of the scores.
    """
    if not torch.is_grad_enabled():
        return block.sub_(lse[:, :, None]).exp_()
    if call.sinks is None:
        return block.softmax(-1)
    sinks = call.sinks.to(block).reshape(-1, 1, 1).expand(*block.shape[:2], 1)
    return torch.cat((block, sinks), -1).softmax(-1)[..., :-1]


def _from_lse(
    call: Call,
    row: int,
    queries: Index,
    keys: KeyPick,
    heads: Tensor | None,
    lse: Tensor,
    step: int,
    workspace: Workspace,
) -> Iterator[Tensor]:
    """Yield scaled scores minus lse: one baddbmm a chunk, no exponential."""
    q, k = operands(call, row, queries, keys.index, heads)
    n_heads, n_kv, n_keys = q.shape[0], k.shape[0], k.shape[1]
    k = k.transpose(1, 2)
    for chunk, start in chunks(queries, step):
        size = length(chunk)
        part = q[:, start : start + size].reshape(n_kv, -1, q.shape[2])
        out = workspace.get((n_kv, n_heads // n_kv * size, n_keys), q.device)
        minus = -lse[:, chunk].reshape(n_kv, -1, 1)
        torch.baddbmm(minus, part, k, alpha=call.scaling, out=out)
        block = out.view(n_heads, size, n_keys)
        yield finish_scores(call, row, chunk, keys.index, heads, block)


def _from_rows(call: Call, row: int, chunk: Index, keys: KeyPick, heads: Tensor | None) -> Tensor:
    full = scores(call, row, chunk, slice(0, call.key.shape[2]), heads)
    lse = lse_of(call, full, heads)[:, :, None]
    if isinstance(keys.index, slice):
        return full[:, :, keys.index] - lse
    return full.index_select(2, keys.index).sub_(lse)


def spread(block: Tensor, keys: KeyPick) -> Tensor:
    """Return the block with a column for every key of the plan; absent ones are -inf."""
    full = block.new_full((*block.shape[:2], keys.count), -math.inf)
    full[:, :, keys.slots] = block
    return full


def chunks(queries: Index, step: int) -> Iterator[tuple[Index, int]]:
    """Yield (part of the queries, its start within them)."""
    size = length(queries)
    for start in range(0, size, step):
        stop = min(size, start + step)
        if isinstance(queries, slice):
            yield slice(queries.start + start, queries.start + stop), start
        else:
            yield queries[start:stop], start
