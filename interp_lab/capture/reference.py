"""The same numbers by other means: float64 arithmetic on the very queries and keys of each call.

What is captured must be exact for the queries and keys that the model computed, in every dtype. So
a `Reference` stands beside the capture, sees the same attention calls, and works out the planned
blocks by itself: full rows, float64, nothing taken from a kernel. It shares no code with what it
checks. Where a call stands in its sequence it finds by content: a key enters a cache once and comes
back bit for bit. That it understood mask and scale is checked on the kernel's own output, which its
pattern, times the values, must give again.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from interp_lab.capture.findings import VALUE_ROUNDING, Finding, Worked, compare, gives_index, worse
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reference_rows import ReferenceCall
from interp_lab.capture.sites import Site
from interp_lab.capture.tally import Captured

# Products that one plan's check may cost; beyond it fewer layers are checked.
BUDGET = {"cpu": 2**36, "other": 2**40}
# Numbers of a block that is kept to look indices up in.
LARGEST_BLOCK = 2**24


@dataclass
class _Offsets:
    """Where one call stands: the columns of its first query and of its first key."""

    start: int
    first_key: int


@dataclass
class _Past:
    """What is known of one attention layer: its keys by column, and how often it began anew.

    Of cross attention the keys are always the same while one sequence is written; the queries are
    counted. `prompt` is how many queries the first call of the sequence had.
    """

    keys: Tensor | None = None
    sequences: int = 0
    queries: int = 0
    prompt: int = 0


@dataclass
class Reference:
    """Works planned numbers out in float64 while the capture watches the same calls.

    Args:
        plans: per batch row, plan name -> plan, as given to `watch_attention`.
        attention_mask: the prompt's 2D mask, or None where nothing is padded.

    Attributes:
        unverified: why nothing can be said of a plan; by plan name.
    """

    plans: Sequence[Mapping[str, AttentionPlan]]
    attention_mask: Tensor | None
    unverified: dict[str, str] = field(default_factory=dict)
    _past: dict[int, _Past] = field(default_factory=dict)
    _open: dict[tuple[str, int, int, int], Worked] = field(default_factory=dict)
    # (plan, row) -> how many steps the model made that count for it.
    _steps: dict[tuple[str, int], int] = field(default_factory=dict)
    _layers: dict[str, frozenset[int]] = field(default_factory=dict)
    _tower_layers: dict[str, list[int]] = field(default_factory=dict)
    _parts: list[ReferenceCall] = field(default_factory=list)
    _given_up: bool = False
    _device: str = "cpu"

    def begin(self, sites: Sequence[Site]) -> None:
        """Say which layers each tower has, before any call."""
        for site in sites:
            self._tower_layers.setdefault(site.tower, []).append(site.layer)

    def see(
        self,
        site: Site,
        implementation: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        kwargs: Mapping[str, Any],
        output: Tensor,
    ) -> None:
        """Take one attention call, after the kernel has run; without memory, give up and say so."""
        if self._given_up:
            return
        self._device = query.device.type
        call = ReferenceCall(site, implementation, query, key, value, mask, kwargs, output)
        self._guarded(lambda: self._take(call))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with torch.no_grad(), torch.autocast(self._device, enabled=False):
                work()
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
            self._give_up("memory")

    def findings(self, results: Sequence[Mapping[str, Captured]]) -> dict[str, Finding]:
        """Compare what was captured; one finding a plan that was worked out.

        A plan with more or fewer steps than the model made is infinitely far off.
        """
        self._guarded(self._take_parts)
        worst: dict[str, Finding] = {}
        for (name, row, layer, step), mine in self._open.items():
            if self._given_up or name in self.unverified:
                continue
            captured, n_layers = results[row][name], len(self._layers[name])
            if len(captured.steps) != self._steps[name, row]:
                found = Finding(math.inf, VALUE_ROUNDING, mine.output, mine.output_bound, n_layers)
            else:
                theirs = captured.steps[step][captured.layers.index(layer)]
                found = compare(self.plans[row][name].reduce, mine, theirs, n_layers)
            worst[name] = found if name not in worst else worse(worst[name], found)
        for name in (n for row in self.plans for n in row):
            if name not in worst:
                self.unverified.setdefault(name, "no call of it was seen")
        return worst

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self._open.clear()
        self._past.clear()
        self.unverified |= {name: why for row in self.plans for name in row}

    def _take(self, call: ReferenceCall) -> None:
        # A packed sequence may come in several calls, one right after the other.
        if self._parts and self._parts[0].site != call.site:
            self._take_parts()
        if not call.written and not call.site.cross:
            self._parts.append(call)
            return
        offsets = self._find_crossed(call) if call.site.cross else self._find(call)
        past, end = self._past[id(call.site.module)], offsets.start + call.query.shape[2]
        mask = self._mask_of_queries(call)
        if mask is not None:
            end = max(end, mask.shape[1])
        self._take_plans(call, offsets, end, past.sequences - 1)

    def _take_parts(self) -> None:
        """Take the calls of one packed sequence, which together have all of its tokens."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        past = self._past.setdefault(id(parts[0].site.module), _Past())
        parts = [tile for call in parts for tile in call.tiles(len(self.plans))]
        start, end = 0, sum(call.query.shape[2] for call in parts)
        for call in parts:
            self._take_plans(call, _Offsets(start, start), end, past.sequences)
            start += call.query.shape[2]
        past.sequences += 1

    def _take_plans(self, call: ReferenceCall, offsets: _Offsets, end: int, sequence: int) -> None:
        for row, plans in enumerate(self.plans):
            for name, plan in plans.items():
                if plan.tower != call.site.tower:
                    continue
                if plan.layers is not None and call.site.layer not in plan.layers:
                    continue
                if sequence and plan.when != "prefill":
                    self.unverified[name] = "several sequences"
                step, columns = self._queries(plan, row, call, offsets, end)
                if not columns:
                    continue
                counted = self._steps.get((name, row), 0)
                self._steps[name, row] = max(counted, step + sequence + 1)
                # Of many steps the first ones are checked, and then ever fewer.
                thinned = step & (step - 1) if step > 0 else 0
                if not thinned and self._chosen(name, plan, call, len(columns)):
                    at = (name, row, call.site.layer, step + sequence)
                    self._work_out(at, plan, columns, call, offsets, end)

    def _find(self, call: ReferenceCall) -> _Offsets:
        """Return where a call stands: the keys that are known tell what was read before."""
        past = self._past.setdefault(id(call.site.module), _Past())
        now, n = call.key[0, 0].detach(), call.query.shape[2]
        offsets = _Offsets(0, 0)
        if past.keys is not None:
            before, others = past.keys, len(now) - n
            if others >= len(before) and torch.equal(now[: len(before)], before):
                offsets = _Offsets(len(before), 0)
            elif 0 < others < len(before) and torch.equal(now[:others], before[-others:]):
                offsets = _Offsets(len(before), len(before) - others)
        if offsets.start == 0:
            past.sequences, past.prompt = past.sequences + 1, n
        fresh = now[offsets.start - offsets.first_key :][:n]
        kept = [] if offsets.start == 0 or past.keys is None else [past.keys]
        past.keys = torch.cat([*kept, fresh])
        return offsets

    def _find_crossed(self, call: ReferenceCall) -> _Offsets:
        """Return where a call of cross attention stands: after those with the very same keys."""
        past, now = self._past.setdefault(id(call.site.module), _Past()), call.key.detach()
        if past.keys is None or not torch.equal(past.keys, now):
            past.keys, past.queries, past.prompt = now, 0, call.query.shape[2]
            past.sequences += 1
        offsets = _Offsets(past.queries, 0)
        past.queries += call.query.shape[2]
        return offsets

    def _columns(self, row: int, call: ReferenceCall, end: int) -> list[int]:
        """Return the columns below `end` that hold a token of the row, by token."""
        given = self._mask_of_queries(call)
        if given is None:
            return list(range(end))
        mask = given[row]
        columns = mask.nonzero().flatten().tolist() + list(range(len(mask), end))
        return [c for c in columns if c < end]

    def _columns_of_keys(self, row: int, call: ReferenceCall, end: int) -> list[int]:
        if not call.site.cross:
            return self._columns(row, call, end)
        n_keys, mask = call.key.shape[2], self.attention_mask
        if mask is None or call.site.mask_of != "keys" or mask.shape[1] != n_keys:
            return list(range(n_keys))
        return [int(c) for c in mask[row].nonzero().flatten()]

    def _mask_of_queries(self, call: ReferenceCall) -> Tensor | None:
        """Return the 2D mask that counts the call's queries; None where there is none.

        A sequence that is no longer counted as the mask counts it (sound that was made shorter) has
        none.
        """
        mask = self.attention_mask
        if mask is None or call.site.mask_of != "queries":
            return None
        grows = bool(getattr(call.site.module, "is_causal", True))
        return mask if grows or mask.shape[1] == call.query.shape[2] else None

    def _queries(
        self, plan: AttentionPlan, row: int, call: ReferenceCall, offsets: _Offsets, end: int
    ) -> tuple[int, list[int]]:
        """Return the step that a call counts for, and the columns of the plan's queries in it."""
        n, mask = call.query.shape[2], self._mask_of_queries(call)
        past = self._past.get(id(call.site.module))
        # Without a mask the sequence's first call has the prompt.
        width = mask.shape[1] if mask is not None else past.prompt if past else 0
        decode = call.written and offsets.start >= (width if width else 1)
        step = offsets.start - width + (plan.when == "all") if decode else 0
        if plan.when not in ("all", "decode" if decode else "prefill"):
            return step, []
        columns = self._columns(row, call, end if not call.written else max(width, end))
        if plan.queries == "last":
            columns = columns[-1:]
        elif plan.queries is not None:
            columns = [columns[t] for t in plan.queries if t < len(columns)]
        return step, [c for c in columns if offsets.start <= c < offsets.start + n]

    def _chosen(self, name: str, plan: AttentionPlan, call: ReferenceCall, n_queries: int) -> bool:
        """Return whether a layer is among those that are checked; all are, if they cost little."""
        if name not in self._layers:
            cost = len(self.plans) * n_queries * call.key.shape[2] * call.query[0, :, 0].numel()
            block = n_queries * call.key.shape[2] * call.query.shape[1]
            budget = BUDGET["cpu" if call.query.device.type == "cpu" else "other"]
            if cost > budget or (gives_index(plan) and block > LARGEST_BLOCK):
                self.unverified[name] = "size"
            layers = plan.layers or self._tower_layers[plan.tower]
            count = min(len(layers), max(1, budget // max(1, cost)))
            spaced = [round(i * (len(layers) - 1) / max(1, count - 1)) for i in range(count)]
            self._layers[name] = frozenset(layers[i] for i in spaced)
        return name not in self.unverified and call.site.layer in self._layers[name]

    def _work_out(
        self,
        at: tuple[str, int, int, int],
        plan: AttentionPlan,
        columns: Sequence[int],
        call: ReferenceCall,
        offsets: _Offsets,
        end: int,
    ) -> None:
        """Add a call's part of a plan's numbers to what is open of them."""
        held, row = self._open.setdefault(at, Worked()), at[1]
        tokens = self._columns_of_keys(row, call, end)
        keys = tokens if plan.keys is None else [tokens[t] for t in plan.keys if t < len(tokens)]
        n_keys = len(tokens) if plan.keys is None else len(plan.keys)
        for log_rows, size, off, bound in call.rows(row, [c - offsets.start for c in columns]):
            block = log_rows.new_full((*log_rows.shape[:2], n_keys), -math.inf)
            there = [(i, k - offsets.first_key) for i, k in enumerate(keys)]
            there = [(i, k) for i, k in there if 0 <= k < log_rows.shape[2]]
            block[:, :, [i for i, _ in there]] = log_rows[:, :, [k for _, k in there]]
            block = block if plan.heads is None else block[list(plan.heads)]
            if gives_index(plan):
                held.blocks.append(block.exp())
            # A reducer may use its block up.
            part = plan.reduce.partial(block if plan.reduce.in_log_space else block.exp())
            held.state = part if held.state is None else plan.reduce.combine(held.state, part)
            held.size, held.output = max(held.size, size), max(held.output, off)
            held.output_bound = bound
            held.half = call.query.dtype != torch.float32
