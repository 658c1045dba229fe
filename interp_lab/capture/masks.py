"""What one attention call adds to its scores or hides, for any block of it.

The attention implementations of transformers are told about masks in different ways (a 4D tensor,
a causal flag, a window, segment lengths, a mask function). `Call` holds one call with all of this
under one meaning, and `terms` gives the part that belongs to a block, never more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.errors import UnsupportedModelError

Index = slice | Tensor

# Arguments that change which keys count in a way that is not known here.
_UNKNOWN = ("cache", "indices", "block_indices")


@dataclass(frozen=True)
class Term:
    """One intervention on the scores of one batch row, in the call's own indices.

    Args:
        log_factor: added to the scores; -inf hides them.
        queries: bool (query,), which rows it concerns.
        keys: bool (key,), which columns.
        heads: bool (head,), which heads; None for all.
        touched: the places of `queries`, known without asking a device.
        columns: the places of `keys`.
        source: the intervention.
    """

    log_factor: float
    queries: Tensor
    keys: Tensor
    heads: Tensor | None
    touched: Sequence[int]
    columns: Sequence[int]
    source: object


@dataclass
class Call:
    """One call of an attention function, with every argument that shapes the pattern.

    Args:
        query: (batch, head, query, dim).
        key: (batch, kv_head, key, dim).
        scaling: factor on q.k.
        mask: 4D tensor (bool: True is visible; float: added), a flex BlockMask, or None.
        causal: key j is visible to query i only if j <= i + shift.
        shift: see `causal`.
        window: key j is visible only if j > i + shift - window; None for no window.
        segments: (query,) segment number of each token of a packed sequence, or None.
        padding: bool (batch, key), False for padding, or None; where the mask is no 4D tensor.
        softcap: scores become softcap * tanh(scores / softcap); None for no cap.
        sinks: (head,) extra logits that take part in the softmax, or None.
        position_bias: 4D tensor added to the scores, or None.
        terms: per batch row, the interventions on the scores.
    """

    query: Tensor
    key: Tensor
    scaling: float
    mask: Any = None
    causal: bool = False
    shift: int = 0
    window: int | None = None
    segments: Tensor | None = None
    padding: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    position_bias: Tensor | None = None
    terms: dict[int, tuple[Term, ...]] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Query heads per key head."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def plain(self) -> bool:
        """Whether a fused kernel's lse is that of `scaling * q.k + mask` over the keys."""
        return self.softcap is None and self.sinks is None


def read_call(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Any,
    kwargs: dict[str, Any],
) -> Call:
    """Return the call as the named implementation understands its arguments.

    Raises:
        UnsupportedModelError: if an argument changes the pattern in a way that is not known.
    """
    for name in _UNKNOWN:
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(
                f"{type(module).__name__} passes {name!r} to its attention, which capture cannot "
                "follow; use capture.method=eager"
            )
    scaling, sinks = kwargs.get("scaling"), kwargs.get("s_aux")
    sinks = kwargs.get("sinks") if sinks is None else sinks
    if sinks is not None and sinks.numel() != query.shape[1]:
        raise UnsupportedModelError(
            f"{type(module).__name__} gives its attention {sinks.numel()} sinks for "
            f"{query.shape[1]} heads, one for each query, which capture cannot follow; use "
            "capture.method=eager"
        )
    call = Call(
        query=query,
        key=key,
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        mask=mask,
        softcap=kwargs.get("softcap"),
        sinks=sinks,
        position_bias=kwargs.get("position_bias"),
    )
    n_queries, n_keys = query.shape[2], key.shape[2]
    flag = kwargs.get("is_causal")
    flag = getattr(module, "is_causal", True) if flag is None else flag
    if implementation == "sdpa":
        # As in torch: the causal flag counts from the upper left and only where there is no mask.
        call.causal = bool(flag) and mask is None and n_queries > 1
    elif "flash" in implementation:
        call.causal, call.shift = bool(flag) and n_queries > 1, n_keys - n_queries
        call.window = kwargs.get("sliding_window")
        _read_flash(call, module, kwargs)
    return call


def _read_flash(call: Call, module: nn.Module, kwargs: dict[str, Any]) -> None:
    """Turn flash attention's 2D padding mask and cumulative lengths into Call's terms."""
    if call.mask is not None:
        call.padding, call.mask = call.mask[:, -call.key.shape[2] :].bool(), None
    ends = kwargs.get("cu_seq_lens_q")
    if ends is not None:
        places = torch.arange(call.query.shape[2], device=call.query.device)
        call.segments = torch.bucketize(places, ends.to(places.device), right=True)
        return
    positions = kwargs.get("position_ids")
    if positions is None or call.padding is not None or call.query.shape[0] > 1:
        return
    if positions.shape[-1] < 2:  # a decode step: the device need not be asked
        return
    if bool((positions[..., 1:] - positions[..., :-1] != 1).any()):
        raise UnsupportedModelError(
            f"{type(module).__name__} packs several sequences into one row under flash attention; "
            "load the model with attn_implementation=sdpa"
        )


def as_places(index: Index, device: torch.device) -> Tensor:
    """Return an index as a tensor of its places."""
    if isinstance(index, slice):
        return torch.arange(index.start, index.stop, device=device)
    return index


def length(index: Index) -> int:
    """Return how many places an index has."""
    return index.stop - index.start if isinstance(index, slice) else len(index)


def take(tensor: Tensor, index: Index, dim: int) -> Tensor:
    """Return the part of `tensor` at `index` along `dim`: a view for a slice, else a copy."""
    if isinstance(index, slice):
        return tensor.narrow(dim, index.start, index.stop - index.start)
    return tensor.index_select(dim, index)


def terms(
    call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Return what is added to a block's scores and what is hidden in it.

    Args:
        call: the attention call.
        row: the batch row.
        queries: the block's query rows, in the call's indices.
        keys: the block's key columns, in the call's indices.
        heads: the block's heads; None for all.

    Returns:
        An fp32 tensor to add, or None, and a bool tensor that is True where the score becomes
        -inf, or None; both broadcast to (head, query, key).
    """
    adds: list[Tensor] = []
    hides: list[Tensor] = []
    for tensor in (call.mask, call.position_bias):
        if isinstance(tensor, Tensor):
            part = _part(tensor, row, queries, keys, heads)
            if part.dtype == torch.bool:
                hides.append(~part)
            else:
                adds.append(part.float())
    hides += _hidden_by_position(call, row, queries, keys)
    for term in call.terms.get(row, ()):
        _add_term(term, queries, keys, heads, adds, hides)
    add = torch.stack(torch.broadcast_tensors(*adds)).sum(0) if len(adds) > 1 else None
    hide = None
    for part in hides:
        hide = part if hide is None else hide | part
    return (adds[0] if len(adds) == 1 else add), hide


def additive_mask(call: Call, row: int, queries: Index, dtype: torch.dtype) -> Tensor:
    """Return what eager attention adds to some query rows, (1, 1 or head, query, key).

    Hidden places get the lowest finite number, as transformers' eager masks do.
    """
    add, hide = terms(call, row, queries, slice(0, call.key.shape[2]))
    n_queries = length(queries)
    mask = torch.zeros(1, n_queries, call.key.shape[2], dtype=dtype, device=call.key.device)
    if add is not None:
        mask = mask + add.to(dtype)
    if hide is not None:
        mask = mask.masked_fill(hide, torch.finfo(dtype).min)
    return mask[None]


def _part(tensor: Tensor, row: int, queries: Index, keys: Index, heads: Tensor | None) -> Tensor:
    """Return the block of a 4D tensor whose batch, head and query axes may be 1."""
    part = tensor[row if tensor.shape[0] > 1 else 0]
    if heads is not None and part.shape[0] > 1:
        part = part.index_select(0, heads)
    if part.shape[1] > 1:
        part = take(part, queries, 1)
    return take(part, keys, 2)


def _hidden_by_position(call: Call, row: int, queries: Index, keys: Index) -> list[Tensor]:
    """Return what causality, a window, packing, padding or a mask function hides."""
    device = call.query.device
    hides = []
    if call.causal and length(keys) and not _all_before(queries, keys, call.shift):
        q, k = (
            as_places(queries, device)[:, None] + call.shift,
            as_places(keys, device)[None, :],
        )
        hides.append((k > q)[None])
    if call.window is not None:
        q, k = (
            as_places(queries, device)[:, None] + call.shift,
            as_places(keys, device)[None, :],
        )
        hides.append((k <= q - call.window)[None])
    if call.segments is not None:
        q, k = take(call.segments, queries, 0)[:, None], take(call.segments, keys, 0)[None, :]
        hides.append((q != k)[None])
    if call.padding is not None:
        hides.append(~take(call.padding[row], keys, 0)[None, None, :])
    mask_mod = getattr(call.mask, "mask_mod", None)
    if mask_mod is not None:
        at = torch.tensor(row, device=device), torch.zeros((), dtype=torch.long, device=device)
        q, k = as_places(queries, device)[:, None], as_places(keys, device)[None, :]
        hides.append(~mask_mod(*at, q, k)[None])
    return hides


def _all_before(queries: Index, keys: Index, shift: int) -> bool:
    """Return whether every key of the block is known to be visible to all its queries.

    An index that lies on a device is not asked: a mask costs less than to wait for it.
    """
    if not isinstance(queries, slice) or not isinstance(keys, slice):
        return False
    return keys.stop - 1 <= queries.start + shift


def _add_term(
    term: Term,
    queries: Index,
    keys: Index,
    heads: Tensor | None,
    adds: list[Tensor],
    hides: list[Tensor],
) -> None:
    """Append one intervention's part of the block, if it has any."""
    where = take(term.queries, queries, 0)[:, None] & take(term.keys, keys, 0)[None, :]
    where = where[None]
    if term.heads is not None:
        chosen = term.heads if heads is None else term.heads.index_select(0, heads)
        where = where & chosen[:, None, None]
    if term.log_factor == float("-inf"):
        hides.append(where)
    else:
        adds.append(where.float() * term.log_factor)
