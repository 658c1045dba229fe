"""Carrying out interventions inside an attention call.

Only what an intervention touches is computed anew: the query rows whose scores change, and the
heads that are zeroed. All other rows keep the fused kernel's output bit for bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp_lab.capture.blocks import as_index, row_output
from interp_lab.capture.frames import Extent, RowColumns, members
from interp_lab.capture.masks import Call, Term
from interp_lab.capture.plans import AttentionChange, BlockAttention, ZeroHeads
from interp_lab.capture.towers import Site
from interp_lab.errors import ConfigError


def check(interventions: Sequence[AttentionChange], sites: Sequence[Site]) -> None:
    """Raise ConfigError if an intervention names a layer that its tower does not have."""
    for change in interventions:
        known = {s.layer for s in sites if s.tower == change.tower}
        named = change.heads if isinstance(change, ZeroHeads) else change.layers or ()
        missing = sorted(set(named) - known)
        if missing:
            raise ConfigError(
                f"{type(change).__name__}: the {change.tower} tower has no layer {missing[0]}; it "
                f"has {min(known)} to {max(known)}"
            )


def concerning(
    site: Site, interventions: Sequence[AttentionChange]
) -> tuple[tuple[BlockAttention, ...], tuple[int, ...]]:
    """Return the score interventions of one layer, and the heads that it zeroes."""
    here = [i for i in interventions if i.tower == site.tower]
    scores = tuple(
        i
        for i in here
        if isinstance(i, BlockAttention) and (i.layers is None or site.layer in i.layers)
    )
    zeroed = {h for i in here if isinstance(i, ZeroHeads) for h in i.heads.get(site.layer, ())}
    return scores, tuple(sorted(zeroed))


def score_terms(
    changes: Sequence[BlockAttention], row: RowColumns, extent: Extent, call: Call
) -> tuple[Term, ...]:
    """Return the interventions in the call's own indices; those that miss it are left out.

    Raises:
        ConfigError: if a head does not exist.
    """
    device, n_heads = call.query.device, call.query.shape[1]
    result = []
    for change in changes:
        check_heads(change.heads, n_heads, type(change).__name__)
        columns = [
            None if tokens is None else [row.column(t) for t in tokens]
            for tokens in (change.queries, change.keys)
        ]
        queries = members(columns[0], extent.start, extent.queries, device)
        keys = members(columns[1], extent.key_start, extent.keys, device)
        if queries.any() and keys.any():
            result.append(Term(change.log_factor, queries, keys, change.heads))
    return tuple(result)


def apply_terms(
    call: Call, value: Tensor, output: Tensor, lse: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the output (batch, query, head, dim) and lse with the changed rows computed anew.

    Raises:
        ConfigError: if a query is left without any key to attend to.
    """
    output = output.clone()
    lse = None if lse is None else lse.clone()
    for row, terms in call.terms.items():
        touched = torch.stack([t.queries for t in terms]).any(0).nonzero().flatten().tolist()
        index = as_index(touched, call.query.device)
        fresh, fresh_lse = row_output(call, row, value[row], index)
        if bool((fresh_lse == -torch.inf).any()):
            raise ConfigError(
                f"interventions on row {row} leave a query without any key to attend to; block "
                "fewer keys"
            )
        where = torch.tensor(touched, device=output.device)
        output[row, where] = fresh.to(output.dtype)
        if lse is not None:
            lse[row, :, where] = fresh_lse
    return output, lse


def zero_heads(output: Tensor, heads: dict[int, tuple[int, ...]]) -> Tensor:
    """Return the output (batch, query, head, dim) with the given heads of each row set to 0.

    Raises:
        ConfigError: if a head does not exist.
    """
    output = output.clone()
    for row, chosen in heads.items():
        check_heads(chosen, output.shape[2], "ZeroHeads")
        output[row, :, list(chosen)] = 0
    return output


def check_heads(heads: Sequence[int] | None, count: int, where: str) -> None:
    """Raise ConfigError if a head index is not below `count`."""
    if heads and heads[-1] >= count:
        raise ConfigError(f"{where}: head {heads[-1]} is named; the layer has {count} heads")
