"""What every way of observing attention shares: plans, their places in a call, and results."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from interp_lab.capture.blocks import KeyPick
from interp_lab.capture.forwards import CallShape, Forwards
from interp_lab.capture.frames import (
    Extent,
    Frame,
    key_columns,
    key_places,
    query_columns,
    query_places,
)
from interp_lab.capture.interventions import check_heads
from interp_lab.capture.masks import Index
from interp_lab.capture.plans import AttentionChange, AttentionPlan, describe
from interp_lab.capture.sites import Site
from interp_lab.capture.tally import Captured, Tally, refuse_wrong_sums
from interp_lab.errors import ConfigError, UnsupportedModelError


class Observer:
    """Sees every attention call of the watched layers; subclasses say how the pattern is made.

    Args:
        sites: the watched towers' attention layers.
        plans: per batch row, plan name -> plan.
        interventions: per batch row.
        attention_mask: the prompt's 2D mask, or None to read it from the model's call.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        plans: Sequence[Mapping[str, AttentionPlan]],
        interventions: Sequence[Sequence[AttentionChange]],
        attention_mask: Tensor | None,
    ) -> None:
        self.sites = {id(s.module): s for s in sites}
        self._n_rows = max(len(plans), len(interventions))
        if plans and interventions and len(plans) != len(interventions):
            raise ConfigError(
                f"plans are for {len(plans)} batch rows, interventions for {len(interventions)}"
            )
        self.described_interventions = [[describe(i) for i in row] for row in interventions]
        self._tallies = [
            {name: Tally(name, r, p, plan_layers(name, p, sites)) for name, p in row.items()}
            for r, row in enumerate(plans)
        ]
        self.by_site = {
            key: [t for row in self._tallies for t in row.values() if _concerns(t, site)]
            for key, site in self.sites.items()
        }
        self.forwards = Forwards(sites, self._n_rows, attention_mask, self.flush)
        self._memo: dict[Any, Any] = {}
        # Modules inside a watched tower that are not known to attend, and those that did.
        self.unknown: set[int] = set()
        self._met: dict[str, None] = {}
        # What a reader of the numbers must know of how they were made.
        self.notes: list[str] = []

    def attend(self, name: str, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the attention function `original`, registered as `name` (None: eager)."""
        raise NotImplementedError

    def wanted(self, site: Site, extent: Extent) -> list[Tally]:
        """Return the plans that a call counts for."""
        decode = self.forwards.is_decode(site, extent)
        tallies = [t for t in self.by_site[id(site.module)] if t.wants(decode)]
        for tally in tallies:
            tally.called = True
        return tallies

    def places(
        self, tally: Tally, frame: Frame, extent: Extent, device: torch.device
    ) -> tuple[list[Index] | None, KeyPick, int]:
        """Return a plan's places in a call: stretches of queries or None, keys, last key column."""
        memo = (id(tally), self.forwards.serial, extent, device)
        if memo not in self._memo:
            if len(self._memo) > 4096:
                self._memo.clear()
            queries = query_columns(tally.plan, frame.columns(tally.row), extent)
            key_row = frame.columns_of_keys(tally.row, extent)
            keys = key_columns(tally.plan, key_row, frame.keys_end(tally.row, extent))
            self._memo[memo] = (
                (query_places(queries, extent, device), key_places(keys, extent, device), keys[-1])
                if queries
                else (None, KeyPick(slice(0, 0), 0), 0)
            )
        return self._memo[memo]

    def start(self, tally: Tally, site: Site, extent: Extent) -> None:
        """End the step before, if this call begins a new one."""
        if extent.start == 0 or self.forwards.is_decode(site, extent):
            tally.close(site.layer)

    def extents_of(
        self, site: Site, query: Tensor, key: Tensor, mask: Any
    ) -> tuple[CallShape, tuple[Extent, ...]]:
        """Return a call's size, and the columns that it covers, one extent a tile."""
        shape = CallShape(query.shape[0], query.shape[2], key.shape[2])
        return shape, self.forwards.extents(site, shape, mask)

    def heads_of(self, plan: AttentionPlan, count: int, device: torch.device) -> Tensor | None:
        """Return a plan's heads as an index, or None for all."""
        if plan.heads is None:
            return None
        memo = ("heads", plan.heads, count, device)
        if memo not in self._memo:
            check_heads(plan.heads, count, "AttentionPlan.heads")
            # Once, not once a layer: what comes from pageable memory waits for the device.
            self._memo[memo] = torch.tensor(plan.heads, device=device)
        return cast(Tensor, self._memo[memo])

    def meet(self, module: nn.Module) -> None:
        """Take note of a module that attends and is none of the watched layers."""
        if id(module) in self.unknown:
            self._met[type(module).__name__] = None

    def results(self) -> tuple[dict[str, Captured], ...]:
        """Return everything collected.

        Raises:
            UnsupportedModelError: if a forward ran but a watched layer was never called.
        """
        if self._met:
            raise UnsupportedModelError(
                f"{', '.join(self._met)} attended inside a watched tower without being one of its "
                "known attention layers, so the layers cannot be counted; name another tower"
            )
        for tower in self.forwards.frames:
            self.flush(tower)
        refuse_wrong_sums([t for row in self._tallies for t in row.values()])
        rows = tuple({n: t.result() for n, t in row.items()} for row in self._tallies)
        for tally in (t for row in self._tallies for t in row.values()):
            if not rows[tally.row][tally.name].steps:
                _explain_nothing(tally)
        return rows

    def flush(self, tower: str) -> None:
        """Compute what still waits; before a new sequence begins and at the end."""


def plan_layers(name: str, plan: AttentionPlan, sites: Sequence[Site]) -> tuple[int, ...]:
    """Return the layers that a plan watches.

    Raises:
        ConfigError: if the tower does not have a layer that the plan names.
    """
    known = [s.layer for s in sites if s.tower == plan.tower]
    missing = sorted(set(plan.layers or ()) - set(known))
    if missing:
        raise ConfigError(
            f"plan {name!r}: the {plan.tower} tower has no layer {missing[0]}; it has "
            f"{min(known)} to {max(known)}"
        )
    return tuple(known) if plan.layers is None else plan.layers


def _explain_nothing(tally: Tally) -> None:
    """Raise if a plan that should have numbers has none; decode plans may lack any step."""
    plan = tally.plan
    if tally.called and isinstance(plan.queries, tuple):
        raise ConfigError(
            f"plan {tally.name!r}, row {tally.row}: {len(plan.queries)} queries are named up to "
            f"token {plan.queries[-1]}, but the model computed none of them"
        )
    if plan.when != "decode":
        raise UnsupportedModelError(
            f"plan {tally.name!r}: no attention call of the {plan.tower} tower was seen; run the "
            "model inside the block, with the input that this tower reads"
        )


def _concerns(tally: Tally, site: Site) -> bool:
    return tally.plan.tower == site.tower and site.layer in tally.layers
