"""Watching attention: exact blocks of the pattern while the model runs its own fused kernel.

transformers calls attention functions by name out of a registry. For the time of a `with` block
the names that the watched layers use lead to a function that runs the very same kernel, hands its
output on untouched, and reduces the planned blocks beside it. The model, its configuration and its
masks are not changed, so it computes what it always computes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from interp_lab.capture.eager import (
    EagerHooks,
    EagerObserver,
    EagerRowsObserver,
    eager_configuration,
)
from interp_lab.capture.fused import FusedObserver
from interp_lab.capture.observer import Observer
from interp_lab.capture.plans import AttentionChange, AttentionPlan, ZeroHeads
from interp_lab.capture.reference import Reference
from interp_lab.capture.sites import Site, attending
from interp_lab.capture.tally import Captured
from interp_lab.capture.towers import find_sites, implementation, tower_path
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.libraries.huggingface import overlay, registered

Method = Literal["fused", "eager", "eager_rows"]


class Watched:
    """What a `watch_attention` block saw; complete when the block has ended.

    Attributes:
        interventions: what was changed, per batch row, as plain values.
        method: which attention was run, see `watch_attention`.
    """

    def __init__(self, observer: Observer, method: Method) -> None:
        self._observer = observer
        self.method = method
        self.interventions = observer.described_interventions
        self._results: tuple[dict[str, Captured], ...] | None = None

    @property
    def results(self) -> tuple[dict[str, Captured], ...]:
        """Per batch row, plan name -> `Captured`.

        Raises:
            ConfigError: while the block is open, or if it ended with an exception.
        """
        if self._results is None:
            raise ConfigError("capture results are read after the `with` block has ended")
        return self._results

    def collect(self) -> None:
        """Finish all plans; called once when the block ends without an exception."""
        self._results = self._observer.results()

    def describe(self) -> dict[str, Any]:
        """Return how the numbers were made, to be stored with them."""
        rows = self.results
        return {
            "method": self.method,
            "paths": sorted({p for r in rows for c in r.values() for p in c.paths}),
            "kernels": sorted({k for r in rows for c in r.values() for k in c.kernels}),
            "interventions": self.interventions,
            "notes": list(self._observer.notes),
        }


@contextmanager
def watch_attention(
    module: nn.Module,
    plans: Sequence[Mapping[str, AttentionPlan]],
    interventions: Sequence[Sequence[AttentionChange]] = (),
    *,
    method: Method = "fused",
    attention_mask: Tensor | None = None,
    lse: bool = True,
    reference: Reference | None = None,
) -> Iterator[Watched]:
    """Watch a model's attention while it runs inside the block.

    Captured numbers carry no gradients. The model's own do: watched, as without a watch, bit for
    bit; changed, those of the changed attention. Backward under gradient checkpointing must run
    inside the block if anything is changed; in train mode, attention must have no dropout.

    Args:
        module: the model that is called inside the block (or that `generate` is called on).
        plans: per batch row, what to watch. Token indices leave padding out.
        interventions: per batch row, what to change; empty for nothing.
        method: "fused" watches any attention implementation that goes through transformers'
            AttentionInterface; "eager" uses the model's own eager attention, one layer's pattern
            at a time, and works on models that do not; "eager_rows" (for checks) runs the fused
            kernel and the model's own eager function on the planned query rows.
        attention_mask: the prompt's 2D mask (batch, token). Without it the mask is taken from the
            model's call; it is needed when the call has none or a 4D one and rows are padded. It
            also tells the prompt's length, so that a prompt fed in parts counts as one.
        lse: False makes full score rows even where the kernel gives its log-sum-exp.
        reference: works the same numbers out by other means, from the same calls; of the method
            "fused" alone.

    Yields:
        `Watched`, whose `results` can be read after the block.

    Raises:
        UnsupportedModelError: if the model's attention cannot be watched by this method.
        ConfigError: if a plan or an intervention does not fit the model or its input.
    """
    concerned = _concerned(plans, interventions)
    sites = tuple(s for tower in concerned for s in find_sites(module, tower))
    _check_method(module, sites, concerned, method, any(interventions))
    observer = _observer(method, lse, reference, sites, plans, interventions, attention_mask)
    observer.unknown = _not_known_to_attend(module, concerned)
    watched = Watched(observer, method)
    with ExitStack() as stack:
        # From here on everything that is switched or hooked is undone, whatever happens.
        if method == "eager":
            stack.enter_context(eager_configuration(module, [s.module for s in sites]))
        for handle in observer.forwards.hooks(module):
            stack.callback(handle.remove)
        for name in sorted({implementation(s) for s in sites if s.registered}):
            attend = partial(observer.attend, name, registered(name))
            stack.enter_context(overlay(name, attend))
        hooked = [s for s in sites if not s.registered]
        if isinstance(observer, EagerObserver):
            stack.enter_context(EagerHooks(hooked, observer))
        yield watched
    watched.collect()


def _observer(
    method: Method,
    lse: bool,
    reference: Reference | None,
    sites: Sequence[Site],
    plans: Sequence[Mapping[str, AttentionPlan]],
    interventions: Sequence[Sequence[AttentionChange]],
    mask: Tensor | None,
) -> Observer:
    if method == "fused":
        return FusedObserver(sites, plans, interventions, mask, lse, reference)
    kind = EagerObserver if method == "eager" else EagerRowsObserver
    return kind(sites, plans, interventions, mask)


Concerned = Mapping[str, tuple[int, ...] | None]


def _concerned(
    plans: Sequence[Mapping[str, AttentionPlan]],
    interventions: Sequence[Sequence[AttentionChange]],
) -> Concerned:
    """Return each tower that is named with its layers; None for all."""
    named = [(p.tower, p.layers) for row in plans for p in row.values()]
    for change in (c for row in interventions for c in row):
        layers = tuple(change.heads) if isinstance(change, ZeroHeads) else change.layers
        named.append((change.tower, layers))
    concerned: dict[str, tuple[int, ...] | None] = {}
    for tower, layers in named:
        before = concerned.get(tower, ())
        concerned[tower] = None if layers is None or before is None else (*before, *layers)
    return concerned


def _not_known_to_attend(module: nn.Module, concerned: Concerned) -> set[int]:
    """Return the ids of the modules within the watched towers that should call no attention."""
    paths = {tower_path(module, tower) for tower in concerned}
    known = {id(a.module) for path in paths for a in attending(module, path)}
    inside = {id(m) for path in paths for m in module.get_submodule(path).modules()}
    return inside - known


def _check_method(
    module: nn.Module,
    sites: Sequence[Site],
    concerned: Concerned,
    method: Method,
    intervening: bool,
) -> None:
    """Refuse what would give wrong numbers."""
    if method not in ("fused", "eager", "eager_rows"):
        raise ConfigError(f"capture method {method!r} is not known; use fused or eager")
    bypass = []
    for site in sites:
        layers = concerned[site.tower]
        if not site.registered and (layers is None or site.layer in layers):
            bypass.append(site)
    if bypass and method != "eager":
        others = [s.layer for s in sites if s.registered and s.tower == bypass[0].tower]
        either = f"name layers {others} alone, or " if others else ""
        raise UnsupportedModelError(
            f"{type(module).__name__}: {type(bypass[0].module).__name__} (layer "
            f"{bypass[0].layer}) does not go through transformers' AttentionInterface, so its "
            f"fused attention cannot be watched; {either}use capture.method=eager if it returns a "
            "pattern (slower, one layer's whole pattern in memory)"
        )
    if intervening and method != "fused":
        raise UnsupportedModelError(
            f"{type(module).__name__}: interventions need method fused; with "
            "capture.method=eager the model can only be watched"
        )
