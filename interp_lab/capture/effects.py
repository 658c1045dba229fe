"""Whether interventions did anything: one that changes no score that exists is refused.

What a call's places say is known on the host. Only where the model's mask lies on a device are
flags made, once a mask and not once a layer; they are read together when the watch has ended.
"""

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.blocks import as_index, chunk_numbers, chunks
from interp_lab.capture.frames import Extent, Frame
from interp_lab.capture.masks import Call, Index, Term, length, terms
from interp_lab.capture.plans import AttentionChange, BlockAttention, ZeroHeads
from interp_lab.capture.sites import Site
from interp_lab.errors import ConfigError

# A score to which a mask adds less than this is one that does not exist: models use the lowest
# number of their dtype, or -1e9.
LOWEST = -1e8
# Masks of one forward that are remembered (sliding, full).
MOST_MASKS = 4


@dataclass
class _Effect:
    """What became of one intervention on one batch row.

    Attributes:
        name: how an error calls it.
        row: the batch row.
        met: whether a call held some of its queries and keys.
        sure: whether a score is known to have changed.
        flags: device -> bool, whether a score has changed as far as the device knows.
        last: frame and columns of the last call that held none of them.
        looked: the terms and masks that were looked at last.
    """

    name: str
    row: int
    change: AttentionChange
    met: bool = False
    sure: bool = False
    flags: dict[torch.device, Tensor] = field(default_factory=dict)
    last: tuple[Frame, Extent] | None = None
    looked: list[Any] = field(default_factory=list)

    def concerns(self, site: Site) -> bool:
        """Return whether it is carried out in a layer."""
        layers = self.change.heads if isinstance(self.change, ZeroHeads) else self.change.layers
        return site.tower == self.change.tower and (layers is None or site.layer in layers)


class Effects:
    """Follows every intervention of one watch.

    Args:
        sites: the watched towers' attention layers.
        interventions: per batch row.
    """

    def __init__(
        self, sites: Sequence[Site], interventions: Sequence[Sequence[AttentionChange]]
    ) -> None:
        self._layers = {(s.tower, s.layer) for s in sites}
        self._called: set[tuple[str, int]] = set()
        self._rows = [
            {id(c): _Effect(_name(r, n, c), r, c) for n, c in enumerate(row)}
            for r, row in enumerate(interventions)
        ]
        self._here = {
            id(s.module): [e for row in self._rows for e in row.values() if e.concerns(s)]
            for s in sites
        }

    def called(self, site: Site) -> None:
        """Take note of a call of a layer, whether anything is changed in it or not."""
        self._called.add((site.tower, site.layer))

    def call(self, site: Site, call: Call, frame: Frame, extents: Sequence[Extent]) -> None:
        """Take note of a call in which interventions are carried out."""
        for effect in self._here[id(site.module)]:
            if not effect.met:
                effect.last = frame, extents[-1]
        several = len(self._rows) > 1
        for row, found in call.terms.items():
            for term in found:
                effect = self._rows[row if several else 0][id(term.source)]
                effect.met = True
                if not effect.sure:
                    _look(effect, call, row, term)

    def check(self) -> None:
        """Raise ConfigError if an intervention changed nothing; asks each device once."""
        flagged: dict[torch.device, list[tuple[_Effect, Tensor]]] = {}
        for effect in self._unsure():
            for device, flag in effect.flags.items():
                flagged.setdefault(device, []).append((effect, flag))
        for pairs in flagged.values():
            answers = torch.stack([flag for _, flag in pairs]).tolist()
            for (effect, _), changed in zip(pairs, answers, strict=True):
                effect.sure |= changed
        for effect in (e for row in self._rows for e in row.values()):
            why = self._problem(effect)
            if why is not None:
                raise ConfigError(f"{effect.name} changed nothing: {why}")

    def _unsure(self) -> Iterator[_Effect]:
        return (e for row in self._rows for e in row.values() if not e.sure)

    def _problem(self, effect: _Effect) -> str | None:
        """Return why an intervention did nothing; None if it did something."""
        change = effect.change
        called = sorted(layer for tower, layer in self._called if tower == change.tower)
        if not called:
            if not any(tower == change.tower for tower, _ in self._layers):
                return "its layers are watched under another name of the tower; use one name"
            return (
                f"no attention call of the {change.tower} tower was seen; run the model inside the "
                "block, with the input that this tower reads"
            )
        named = tuple(change.heads) if isinstance(change, ZeroHeads) else change.layers or ()
        missing = sorted(set(named) - set(called))
        if missing:
            return f"layer {missing[0]} was never called; name layers that the model runs"
        if isinstance(change, ZeroHeads) or effect.sure:
            return None
        where = f"layer {named[0]}" if len(named) == 1 else f"layers {called[0]} to {called[-1]}"
        return f"{_missed(effect, change)} ({where})"


def _missed(effect: _Effect, change: BlockAttention) -> str:
    """Return why a change of scores found none."""
    ends = (0, 0)
    if effect.last is not None:
        frame, extent = effect.last
        queries, keys = frame.columns(effect.row), frame.columns_of_keys(effect.row, extent)
        ends = len(queries.before(extent.end)), len(keys.before(extent.key_end))
    for axis, tokens, seen in zip(
        ("query", "key"), (change.queries, change.keys), ends, strict=True
    ):
        if not effect.met and tokens and tokens[0] >= seen:
            return f"{axis} token {tokens[0]} is named, but the model read {seen}"
    if not effect.met:
        return "no attention call held both one of its queries and one of its keys"
    hidden = "every key that it names is hidden from its queries by the model's own mask"
    if change.log_factor == -torch.inf:
        return f"{hidden} (causal, window or padding)"
    return (
        f"{hidden}, is blocked by another intervention, or is scaled like all other keys of its "
        "query, which the softmax takes out"
    )


def _look(effect: _Effect, call: Call, row: int, term: Term) -> None:
    """Find out whether a term changes a score of a call, once a mask."""
    if term.log_factor == 0:
        # Factor 1, which is asked for to change nothing.
        effect.sure = True
        return
    if call.mask is None and call.position_bias is None and _only_causal(call, row, term):
        effect.sure = _by_place(call, term)
        return
    about = [x for x in (call.mask, call.position_bias) if x is not None]
    about = [*call.terms[row], *about]
    rest = row, id(term), call.causal, call.shift, call.window
    for refs, before in effect.looked:
        if before == rest and [id(r()) for r in refs] == [id(a) for a in about]:
            return
    effect.looked = [*effect.looked[1 - MOST_MASKS :], ([weakref.ref(a) for a in about], rest)]
    found = _on_device(call, row, term)
    old = effect.flags.get(found.device)
    effect.flags[found.device] = found if old is None else old | found


def _only_causal(call: Call, row: int, term: Term) -> bool:
    """Return whether nothing but the order of tokens can hide a score from a term."""
    alone = term.log_factor == -torch.inf or len(call.terms[row]) == 1
    return alone and call.window is None and call.segments is None and call.padding is None


def _by_place(call: Call, term: Term) -> bool:
    """Return whether a term's last query, which sees most, sees one of its keys.

    A scaled row must also have a key that is not scaled, or all stays as it was.
    """
    n_keys = call.key.shape[2]
    end = min(n_keys, term.touched[-1] + call.shift + 1) if call.causal else n_keys
    if term.columns[0] >= end:
        return False
    if term.log_factor == -torch.inf or call.sinks is not None:
        return True
    return sum(column < end for column in term.columns) < end


@torch.no_grad()
def _on_device(call: Call, row: int, term: Term) -> Tensor:
    """Return whether a term changes a score that the call's masks leave, as a bool on its device.

    A scaled row must also have a visible key that is not scaled, or all stays as it was.
    """
    device = call.query.device
    blocks = term.log_factor == -torch.inf
    others = () if blocks else tuple(t for t in call.terms[row] if t.log_factor == -torch.inf)
    plain = replace(call, terms={row: others})
    n_keys = call.key.shape[2]
    keys = as_index(term.columns, device) if blocks else slice(0, n_keys)
    width = len(term.columns) if blocks else n_keys
    changed = torch.zeros((), dtype=torch.bool, device=device)
    touched = as_index(term.touched, device)
    for chunk, _ in chunks(touched, max(1, chunk_numbers(device) // (call.query.shape[1] * width))):
        visible = _visible(plain, row, chunk, keys)
        if term.heads is not None and visible.shape[0] > 1:
            visible = visible & term.heads[:, None, None]
        if blocks:
            changed = changed | visible.any()
            continue
        inside = (visible & term.keys).any(-1)
        outside = (visible & ~term.keys).any(-1) if call.sinks is None else True
        changed = changed | (inside & outside).any()
    return changed


def _visible(call: Call, row: int, queries: Index, keys: Index) -> Tensor:
    """Return where a block's scores exist, bool (1 or head, query, key)."""
    add, hide = terms(call, row, queries, keys)
    shape = 1, length(queries), length(keys)
    seen = torch.ones(shape, dtype=torch.bool, device=call.query.device)
    if add is not None:
        seen = seen & (add > _lowest(call))
    return seen if hide is None else seen & ~hide


def _lowest(call: Call) -> float:
    """Return what a mask adds at most where it hides; in half precision that is not so low."""
    dtypes = [m.dtype for m in (call.mask, call.position_bias) if isinstance(m, Tensor)]
    lows = [torch.finfo(d).min / 2 for d in dtypes if d.is_floating_point]
    return max([LOWEST, *lows])


def _name(row: int, number: int, change: AttentionChange) -> str:
    return f"intervention {number} of row {row} ({type(change).__name__})"
