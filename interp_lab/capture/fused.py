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
from interp_lab.capture.frames import Extent, Frame
from interp_lab.capture.kernels import KernelWitness, check_lse, lse_of, scores
from interp_lab.capture.masks import Call, Term, read_call, take
from interp_lab.capture.observer import Observer
from interp_lab.capture.plans import AttentionChange, AttentionPlan
from interp_lab.capture.tally import Captured, Tally
from interp_lab.capture.towers import Site, eager_function, implementation


class FusedObserver(Observer):
    """Runs the attention function that the model uses, and observes and changes what is planned.

    Args:
        use_lse: whether to use the kernel's lse where there is one; the others as in `Observer`.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        plans: Sequence[Mapping[str, AttentionPlan]],
        interventions: Sequence[Sequence[AttentionChange]],
        attention_mask: Tensor | None,
        use_lse: bool = True,
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
        self._waiting = {key: Waiting() for key in self.sites}
        self._workspace = Workspace()
        self._checked: set[str] = set()

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
            return run(module, query, key, value, attention_mask, **kwargs)
        extent = self.forwards.extent(site, query, key)
        tallies = self.wanted(site, extent)
        changes = self._changes[id(module)]
        if not tallies and not any(s or z for s, z in changes.values()):
            return run(module, query, key, value, attention_mask, **kwargs)
        self.check_rows(query, site)
        call = read_call(name, module, query, key, attention_mask, kwargs)
        frame = self.forwards.frames[site.tower]
        terms = self._terms(changes, frame, extent, call)
        later = self.forwards.is_decode(site, extent) and not terms and can_wait(call, extent)
        witness = KernelWitness()
        watch_lse = tallies and not later and self._use_lse and name == "sdpa" and call.plain
        with witness if watch_lse else nullcontext():
            output, *rest = run(module, query, key, value, attention_mask, **kwargs)
        lse = witness.rows(call)
        kernel = witness.kernel if watch_lse else name
        with torch.autocast(query.device.type, enabled=False):
            self._check_kernel(call, lse, kernel, extent, frame)
            call.terms = terms
            if terms:
                output, lse = self._score_changes.apply(call, value, output, lse)
            with torch.no_grad():
                if later and tallies:
                    self._wait(site, call, extent, name)
                elif tallies:
                    self._observe(site, call, extent, tallies, lse, kernel)
        zeroed = {row: heads for row, (_, heads) in changes.items() if heads}
        if zeroed:
            output = change.zero_heads(output, zeroed)
        # A pattern that an eager kernel returns is the one before the change: it is withheld.
        return (output, None) if terms or zeroed else (output, *rest)

    def _terms(
        self, changes: Mapping[int, Any], frame: Frame, extent: Extent, call: Call
    ) -> dict[int, tuple[Term, ...]]:
        """Return, for the batch rows that have some, the score interventions of this call."""
        found = {
            row: self._score_changes.terms(scoring, frame.columns(row), extent, call)
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
            tally.note(site.layer, path, kernel, extent.end, last)
            heads = self.heads_of(tally.plan, call.query.shape[1], call.query.device)
            rows = None if lse is None else lse[tally.row]
            for part in queries:
                for block in log_blocks(call, tally.row, part, keys, heads, rows, self._workspace):
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
        return super().results()

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
            full = scores(call, row, *everything, None)
            full -= lse_of(call, full, None)[:, :, None]
            for tally in (t for t in wanted if t.row == row):
                self._reduce_steps(site, tally, full, extent, kernel)

    def _reduce_steps(
        self, site: Site, tally: Tally, full: Tensor, extent: Extent, kernel: str
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
            tally.add(site.layer, block)
            tally.close(site.layer)

    def _check_kernel(
        self, call: Call, lse: Tensor | None, kernel: str, extent: Extent, frame: Frame
    ) -> None:
        """Check a kernel's lse once per watch, on the newest real token of the first row."""
        if lse is None or kernel in self._checked:
            return
        columns = [c for c in frame.columns(0).before(extent.end) if c >= extent.start]
        if columns:
            check_lse(call, 0, columns[-1] - extent.start, lse, kernel)
            self._checked.add(kernel)
