"""Carrying out interventions inside an attention call.

Only what an intervention touches is computed anew: the query rows whose scores change, and the
heads that are zeroed. All other rows keep the fused kernel's output bit for bit. Where that is, the
host knows; an accelerator is asked for nothing until the watch has ended.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.blocks import as_index, row_output
from interp_lab.capture.frames import Extent, Frame, RowColumns, members
from interp_lab.capture.masks import Call, Index, Term, take
from interp_lab.capture.plans import AttentionChange, BlockAttention, ZeroHeads
from interp_lab.capture.sites import Site
from interp_lab.errors import ConfigError

# Interventions in the indices of a call that are kept; a forward needs one each a row.
MOST_KNOWN = 1024


def check(interventions: Sequence[AttentionChange], sites: Sequence[Site]) -> None:
    """Raise ConfigError if an intervention names a layer that its tower does not have."""
    for change in interventions:
        known = {s.layer for s in sites if s.tower == change.tower}
        named = change.heads if isinstance(change, ZeroHeads) else change.layers or ()
        empty = [n for n in ("queries", "keys", "layers", "heads") if _is_empty(change, n)]
        if empty:
            raise ConfigError(
                f"{type(change).__name__}: its {empty[0]} are empty, so it would change nothing; "
                "name some, or leave the intervention out"
            )
        missing = sorted(set(named) - known)
        if missing:
            raise ConfigError(
                f"{type(change).__name__}: the {change.tower} tower has no layer {missing[0]}; it "
                f"has {min(known)} to {max(known)}"
            )


def _is_empty(change: AttentionChange, name: str) -> bool:
    values = getattr(change, name, None)
    if isinstance(change, ZeroHeads) and values:
        return not all(values.values())
    return values is not None and not len(values)


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


class ScoreChanges:
    """Carries out the interventions on scores of one watch.

    Where one falls in a call is known on the host. It is worked out once a forward and shared by
    the layers, so that no layer waits for its device; `check` alone asks, at the end.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}
        self._keyless: dict[tuple[torch.device, int], Tensor] = {}

    def terms(
        self,
        changes: Sequence[BlockAttention],
        frame: Frame,
        row: int,
        extent: Extent,
        call: Call,
    ) -> tuple[Term, ...]:
        """Return the interventions in the call's own indices; those that miss it are left out.

        Raises:
            ConfigError: if a head does not exist.
        """
        shape = extent, call.query.shape[1], call.query.device
        rows = frame.columns(row), frame.columns_of_keys(row, extent)
        found = [
            self._once(("term", *shape), (change, *rows), lambda c=change: _term(c, *rows, *shape))
            for change in changes
        ]
        return tuple(term for term in found if term is not None)

    def apply(
        self, call: Call, value: Tensor, output: Tensor, lse: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output (batch, query, head, dim) and lse with the changed rows computed anew.

        A query without any key to attend to gets the output 0, and `check` raises. The changed rows
        have gradients of their own; the kernel's, which they replace, get none.
        """
        output = output.clone()
        lse = None if lse is None else lse.clone()
        for row, terms in call.terms.items():
            device = output.device
            index = self._once((device,), terms, lambda t=terms, d=device: _touched(t, d))
            fresh, fresh_lse = row_output(call, row, value[row], index)
            keyless = fresh_lse == -torch.inf
            fresh = fresh.masked_fill(keyless.transpose(0, 1)[:, :, None], 0)
            _put(output[row], index, fresh.to(output.dtype), 0)
            if lse is not None:
                _put(lse[row], index, fresh_lse, 1)
            self._note(row, keyless.any())
        return output, lse

    def check(self) -> None:
        """Raise ConfigError if a query was left without any key to attend to."""
        for (_, row), keyless in self._keyless.items():
            if bool(keyless):
                raise ConfigError(
                    f"interventions on row {row} leave a query without any key to attend to; "
                    "block fewer keys"
                )

    def _note(self, row: int, keyless: Tensor) -> None:
        where = keyless.device, row
        before = self._keyless.get(where)
        self._keyless[where] = keyless if before is None else before | keyless

    def _once(self, key: tuple[Any, ...], of: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return what `make` makes of some objects; kept for the layers that follow.

        The objects are kept too, so that none of them has the identity of an earlier one.
        """
        whole = (*key, torch.is_inference_mode_enabled(), *map(id, of))
        if whole not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[whole] = make(), of
        return self._known[whole][0]


def _term(
    change: BlockAttention,
    row: RowColumns,
    key_row: RowColumns,
    extent: Extent,
    n_heads: int,
    device: torch.device,
) -> Term | None:
    """Return one intervention in the indices of a call, or None if it misses the call."""
    check_heads(change.heads, n_heads, type(change).__name__)
    # Padding attends to nothing and is nobody's token: no intervention concerns its rows.
    queries = row.before(extent.end) if change.queries is None else _columns(change.queries, row)
    keys = range(extent.key_start, extent.key_start + extent.keys)
    keys = keys if change.keys is None else _columns(change.keys, key_row)
    across = members(queries, extent.start, extent.queries, device)
    down = members(keys, extent.key_start, extent.keys, device)
    if not across.places or not down.places:
        return None
    heads = None if change.heads is None else members(change.heads, 0, n_heads, device).mask
    places = across.places, down.places
    return Term(change.log_factor, across.mask, down.mask, heads, *places, change)


def _columns(tokens: Sequence[int], row: RowColumns) -> Sequence[int]:
    return row.columns(tokens) if tokens else ()


def _touched(terms: Sequence[Term], device: torch.device) -> Index:
    """Return the query places that any of the terms concerns."""
    first, *others = terms
    places = first.touched
    if others:
        places = sorted(set(places).union(*(term.touched for term in others)))
    return as_index(places, device)


def _put(target: Tensor, index: Index, values: Tensor, dim: int) -> None:
    """Write values at an index of one axis, in place."""
    if isinstance(index, slice):
        take(target, index, dim).copy_(values)
    else:
        target.index_copy_(dim, index, values)


def zero_heads(output: Tensor, heads: dict[int, tuple[int, ...]]) -> Tensor:
    """Return the output (batch, query, head, dim) with the given heads of each row set to 0.

    Raises:
        ConfigError: if a head does not exist.
    """
    output = output.clone()
    for row, chosen in heads.items():
        check_heads(chosen, output.shape[2], "ZeroHeads")
        # One at a time: a list of heads would be copied to the device, which waits for it.
        for head in chosen:
            output[row, :, head] = 0
    return output


def check_heads(heads: Sequence[int] | None, count: int, where: str) -> None:
    """Raise ConfigError if a head index is not below `count`."""
    if heads and heads[-1] >= count:
        raise ConfigError(f"{where}: head {heads[-1]} is named; the layer has {count} heads")
