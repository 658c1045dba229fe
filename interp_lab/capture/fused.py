"""Observing beside the fused kernel: its output stays, the planned blocks are reduced, and
interventions are carried out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.capture import interventions as change
from interp_lab.capture.blocks import Workspace, log_blocks
from interp_lab.capture.decode import Waiting, can_wait
from interp_lab.capture.dropout import refuse_dropout
from interp_lab.capture.effects import Effects
from interp_lab.capture.frames import Extent, Frame
from interp_lab.capture.kernels import lse_error, lse_of, lse_rows, scores, witness_of
from interp_lab.capture.masks import Call, Term, read_call, take
from interp_lab.capture.observer import Observer
from interp_lab.capture.plans import AttentionChange, AttentionPlan
from interp_lab.capture.reference import Reference
from interp_lab.capture.reruns import AttentionReruns, Terms, Zeroed
from interp_lab.capture.sites import Site
from interp_lab.capture.tally import Captured, Tally
from interp_lab.capture.towers import eager_function, implementation
from interp_lab.libraries.torch_inside import exact_products, runs_again


class FusedObserver(Observer):
    """Runs the attention function that the model uses, and observes and changes what is planned.

    Args:
        use_lse: whether to use the kernel's lse where there is one; the others as in `Observer`.
        reference: sees every call as well, to check the numbers; None for no check.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        plans: Sequence[Mapping[str, AttentionPlan]],
        interventions: Sequence[Sequence[AttentionChange]],
        attention_mask: Tensor | None,
        use_lse: bool = True,
        reference: Reference | None = None,
    ) -> None:
        super().__init__(sites, plans, interventions, attention_mask)
        self._use_lse = use_lse
        for row in interventions:
            change.check(row, sites)
        self._changes = {
            key: {r: change.concerning(site, row) for r, row in enumerate(interventions)}
            for key, site in self.sites.items()
        }
        self._score_changes = change.ScoreChanges()
        self._effects = Effects(sites, interventions)
        self._reruns = AttentionReruns()
        self._waiting = {key: Waiting() for key in self.sites}
        self._workspace = Workspace()
        # Kernel -> whether its lse is what it should be, looked at once.
        self._trusted: dict[str, bool] = {}
        self._reference = reference
        if reference is not None:
            reference.begin(sites)

    def attend(
        self,
        name: str,
        original: Callable[..., Any] | None,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> Any:
        """Run the kernel that the model uses, and observe and change what is planned."""
        run = original or eager_function(module)
        site = self.sites.get(id(module))
        if site is None:
            self.meet(module)
            return run(module, query, key, value, attention_mask, **kwargs)
        if runs_again():
            return self._attend_again(name, run, site, query, key, value, attention_mask, kwargs)
        states = query, key, value, attention_mask
        shape, extents = self.extents_of(site, query, key, attention_mask)
        tallies = self.wanted(site, extents[0])
        changes = self._changes[id(module)]
        self._effects.called(site)
        if not tallies and not any(s or z for s, z in changes.values()):
            result = run(module, *states, **kwargs)
            self._refer(site, name, states, kwargs, result)
            return result
        self.forwards.check(site, shape, extents[0])
        if tallies or any(s for s, _ in changes.values()):
            refuse_dropout(site.path, module, name, kwargs)
        return self._attend_watched(name, run, site, states, kwargs, extents, tallies)

    def _attend_watched(
        self,
        name: str,
        run: Callable[..., Any],
        site: Site,
        states: tuple[Any, ...],
        kwargs: dict[str, Any],
        extents: Sequence[Extent],
        tallies: Sequence[Tally],
    ) -> Any:
        """Run the kernel of a call that some plan or intervention concerns."""
        query, key, value, mask = states
        extent, changes = extents[0], self._changes[id(site.module)]
        call = read_call(name, site.module, query, key, mask, kwargs)
        frame = self.forwards.frames[site.tower]
        terms = self._terms(changes, frame, extents, call)
        later = self.forwards.is_decode(site, extent) and not terms and can_wait(call, extent)
        wants_lse = tallies and not later and self._use_lse and call.plain
        witness = witness_of(name) if wants_lse else None
        with witness or nullcontext():
            output, *rest = run(site.module, *states, **kwargs)
        self._refer(site, name, states, kwargs, (output, *rest))
        kernel = name if witness is None else witness.kernel
        with torch.autocast(query.device.type, enabled=False), exact_products():
            lse = None if witness is None else lse_rows(witness.lse, call)
            lse = self._trusted_lse(call, lse, kernel, extent, frame)
            call.terms = terms
            if terms:
                output, lse = self._score_changes.apply(call, value, output, lse)
            with torch.no_grad():
                if later and tallies:
                    self._wait(site, call, extent, name)
                for part in extents if tallies and not later else ():
                    self._observe(site, call, part, tallies, lse, kernel)
        zeroed = {
            e.call_row(row): heads for e in extents for row, (_, heads) in changes.items() if heads
        }
        if any(s or z for s, z in changes.values()):
            self._effects.call(site, call, frame, extents)
            self._reruns.keep(site, query, key, terms, zeroed)
        return _with_zeroed(output, rest, terms, zeroed)

    def _attend_again(
        self,
        name: str,
        run: Callable[..., Any],
        site: Site,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        kwargs: dict[str, Any],
    ) -> Any:
        """Carry out in a call's second run, in backward, what was carried out in its first."""
        output, *rest = run(site.module, query, key, value, mask, **kwargs)
        if not any(s or z for s, z in self._changes[id(site.module)].values()):
            return output, *rest
        terms, zeroed = self._reruns.changes(site, query, key)
        if terms:
            call = read_call(name, site.module, query, key, mask, kwargs)
            call.terms = terms
            with torch.autocast(query.device.type, enabled=False), exact_products():
                output, _ = self._score_changes.apply(call, value, output, None)
        return _with_zeroed(output, rest, terms, zeroed)

    def _refer(
        self,
        site: Site,
        name: str,
        states: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
    ) -> None:
        if self._reference is not None:
            query, key, value, mask = states
            self._reference.see(site, name, query, key, value, mask, kwargs, result[0])

    def _terms(
        self, changes: Mapping[int, Any], frame: Frame, extents: Sequence[Extent], call: Call
    ) -> dict[int, tuple[Term, ...]]:
        """Return, for the rows of the call that have some, the score interventions of this call."""
        found = {
            extent.call_row(row): self._score_changes.terms(scoring, frame, row, extent, call)
            for extent in extents
            for row, (scoring, _) in changes.items()
        }
        return {row: terms for row, terms in found.items() if terms}

    def _observe(
        self,
        site: Site,
        call: Call,
        extent: Extent,
        tallies: Sequence[Tally],
        lse: Tensor | None,
        kernel: str,
    ) -> None:
        """Reduce the planned blocks of one call."""
        frame = self.forwards.frames[site.tower]
        for tally in tallies:
            queries, keys, last = self.places(tally, frame, extent, call.query.device)
            if queries is None:
                continue
            self.start(tally, site, extent)
            path = "rows" if lse is None else "lse"
            tally.note(site.layer, path, kernel, extent.keys_seen, last)
            heads = self.heads_of(tally.plan, call.query.shape[1], call.query.device)
            row = extent.call_row(tally.row)
            rows = None if lse is None else lse[row]
            for part in queries:
                for block in log_blocks(call, row, part, keys, heads, rows, self._workspace):
                    tally.check_sum(site.layer, block, whole=call.sinks is None)
                    tally.add(site.layer, block)
            if self.forwards.is_decode(site, extent):
                tally.close(site.layer)

    def _wait(self, site: Site, call: Call, extent: Extent, kernel: str) -> None:
        waiting = self._waiting[id(site.module)]
        if not waiting.follows(extent):
            self._flush(site, kernel)
        waiting.add(call, extent)
        if waiting.full():
            self._flush(site, kernel)

    def results(self) -> tuple[dict[str, Captured], ...]:
        """Return everything collected; errors as in `Observer`, and of the interventions."""
        self._score_changes.check()
        rows = super().results()
        self._effects.check()
        self._reruns.check()
        return rows

    @torch.no_grad()
    def flush(self, tower: str) -> None:
        """Compute the decode steps of a tower that still wait."""
        for key, site in self.sites.items():
            if site.tower == tower and self._waiting[key].queries:
                self._flush(site, implementation(site))

    def _flush(self, site: Site, kernel: str) -> None:
        """Compute the rows of all decode steps that wait in one layer, and reduce each step."""
        waiting = self._waiting[id(site.module)]
        if not waiting.queries:
            return
        call, extent = waiting.drain()
        everything = slice(0, extent.queries), slice(0, extent.keys)
        wanted = [t for t in self.by_site[id(site.module)] if t.wants(decode=True)]
        for row in sorted({t.row for t in wanted}):
            with exact_products():
                full = scores(call, row, *everything, None)
            full -= lse_of(call, full, None)[:, :, None]
            for tally in (t for t in wanted if t.row == row):
                self._reduce_steps(site, tally, full, extent, call, kernel)

    def _reduce_steps(
        self, site: Site, tally: Tally, full: Tensor, extent: Extent, call: Call, kernel: str
    ) -> None:
        """Reduce the log pattern (head, step, key) of waiting steps, one step at a time."""
        frame = self.forwards.frames[site.tower]
        heads = self.heads_of(tally.plan, full.shape[0], full.device)
        log_rows = full if heads is None else full[heads]
        for step in range(extent.queries):
            start = extent.start + step
            one = Extent(start, 1, start + 1)
            queries, keys, last = self.places(tally, frame, one, full.device)
            if queries is None:
                continue
            tally.close(site.layer)
            tally.note(site.layer, "rows", kernel, one.end, last)
            block = take(log_rows[:, step : step + 1], keys.index, 2).clone()
            if step + 1 == extent.queries:
                # One of the steps that waited together: they differ in nothing but their query.
                tally.check_sum(site.layer, block, whole=call.sinks is None)
            tally.add(site.layer, block)
            tally.close(site.layer)

    def _trusted_lse(
        self, call: Call, lse: Tensor | None, kernel: str, extent: Extent, frame: Frame
    ) -> Tensor | None:
        """Return a kernel's lse if it is what it should be, else None: rows are made instead.

        Each kernel is looked at once a watch, on the newest real token of the first row.
        """
        if lse is None:
            return None
        if kernel not in self._trusted:
            columns = [c for c in frame.columns(0).before(extent.end) if c >= extent.start]
            if not columns:
                return None
            error = lse_error(call, 0, columns[-1] - extent.start, lse)
            self._trusted[kernel] = error == 0
            if error:
                self.notes.append(
                    f"kernel {kernel}: its log-sum-exp is off by {error:.3g}, so full rows were "
                    "computed instead (slower, exact); report this device and torch version"
                )
        return lse if self._trusted[kernel] else None


def _with_zeroed(output: Tensor, rest: Sequence[Any], terms: Terms, zeroed: Zeroed) -> Any:
    """Return what an attention function returns, with heads of its output zeroed."""
    if zeroed:
        output = change.zero_heads(output, zeroed)
    # A pattern that an eager kernel returns is the one before the change: it is withheld.
    return (output, None) if terms or zeroed else (output, *rest)
