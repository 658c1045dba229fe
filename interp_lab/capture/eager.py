"""The fallback: the model's own eager attention, reduced layer by layer as it appears.

For models that do not go through transformers' AttentionInterface, and for checking the fused
path against an independent computation. One layer's whole pattern exists at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.capture.blocks import chunk_numbers, spread
from interp_lab.capture.dropout import refuse_dropout, refuse_own_dropout
from interp_lab.capture.frames import Extent
from interp_lab.capture.masks import additive_mask, read_call, take
from interp_lab.capture.observer import Observer
from interp_lab.capture.reruns import first_run
from interp_lab.capture.sites import Site
from interp_lab.capture.tally import Tally
from interp_lab.capture.towers import eager_function
from interp_lab.errors import UnsupportedModelError
from interp_lab.libraries.huggingface import has_sinks, implementation_of, set_implementation
from interp_lab.libraries.torch_inside import runs_again


@contextmanager
def eager_configuration(model: nn.Module, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Set attention to eager for the model and the given layers' configurations, then restore.

    Each is set by itself: transformers' own setter would reach every sub-configuration and so
    switch towers that nobody watches.
    """
    owners = [model, *layers]
    configs = {id(c): c for m in owners if (c := getattr(m, "config", None)) is not None}
    before = [(config, implementation_of(config)) for config in configs.values()]
    try:
        for config, _ in before:
            set_implementation(config, "eager")
        yield
    finally:
        for config, name in before:
            set_implementation(config, name)


class EagerObserver(Observer):
    """Takes the pattern from the model's own eager attention, one layer at a time."""

    def attend(self, name: str, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the model's own eager attention and reduce the pattern that it returns."""
        output, pattern = eager_function(module)(module, *args, **kwargs)
        site = self.sites.get(id(module))
        if site is not None and not runs_again():
            refuse_dropout(site.path, module, "eager", kwargs)
            # The module comes first everywhere; after it query, key, value and mask.
            mask = args[3] if len(args) > 3 else kwargs.get("attention_mask")
            self.take_pattern(site, pattern, mask)
        return output, pattern

    @torch.no_grad()
    def take_pattern(self, site: Site, pattern: Tensor, mask: Any = None) -> None:
        """Reduce one layer's whole pattern, (batch, head, query, key), in chunks."""
        shape, extents = self.extents_of(site, pattern, pattern.transpose(2, 3), mask)
        for extent in extents:
            for tally in self.wanted(site, extent):
                self.forwards.check(site, shape, extent)
                frame = self.forwards.frames[site.tower]
                queries, _, _ = self.places(tally, frame, extent, pattern.device)
                rows = pattern[extent.call_row(tally.row)]
                parts = [take(rows, part, 1) for part in queries or ()]
                self.take_rows(tally, site, extent, parts)

    def take_rows(self, tally: Tally, site: Site, extent: Extent, parts: Sequence[Tensor]) -> None:
        """Reduce pattern rows of one plan, (head, query, key) with all keys of the call."""
        for pattern in parts:
            frame = self.forwards.frames[site.tower]
            _, keys, last = self.places(tally, frame, extent, pattern.device)
            if pattern is parts[0]:
                self.start(tally, site, extent)
                tally.note(site.layer, "eager", "eager", extent.keys_seen, last)
            heads = self.heads_of(tally.plan, pattern.shape[0], pattern.device)
            rows = take(pattern if heads is None else pattern[heads], keys.index, 2)
            size = max(1, chunk_numbers(rows.device) // max(1, rows.shape[0] * rows.shape[2]))
            for chunk in rows.split(size, 1):
                block = chunk.float().log()
                block = block if keys.slots is None else spread(block, keys)
                tally.check_sum(site.layer, block, whole=not has_sinks(site.module))
                tally.add(site.layer, block)
        if parts and self.forwards.is_decode(site, extent):
            tally.close(site.layer)


class EagerRowsObserver(EagerObserver):
    """Runs the model's kernel, and its own eager function on the planned query rows alone."""

    def attend(self, name: str, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel; beside it, the eager function on single rows with all their keys."""
        site = self.sites.get(id(module))
        if site is not None and not runs_again():
            refuse_dropout(site.path, module, name, kwargs)
            with torch.no_grad():
                self._eager_rows(name, site, *args, **kwargs)
        return (original or eager_function(module))(module, *args, **kwargs)

    def _eager_rows(
        self,
        name: str,
        site: Site,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> None:
        _, extents = self.extents_of(site, query, key, attention_mask)
        call = read_call(name, site.module, query, key, attention_mask, kwargs)
        extra = {k: v for k, v in kwargs.items() if k != "position_bias"}
        eager = eager_function(site.module)
        frame = self.forwards.frames[site.tower]
        for extent, tally in ((e, t) for e in extents for t in self.wanted(site, e)):
            queries, _, _ = self.places(tally, frame, extent, key.device)
            at = extent.call_row(tally.row)
            row = slice(at, at + 1)
            patterns = []
            for part in queries or ():
                mask = additive_mask(call, at, part, key.dtype)
                states = take(query[row], part, 2), key[row], value[row]
                _, pattern = eager(site.module, *states, mask, **extra)
                patterns.append(pattern[0])
            self.take_rows(tally, site, extent, patterns)


class EagerHooks:
    """Context manager: forward hooks on attention layers that return their pattern."""

    def __init__(self, sites: Sequence[Site], observer: EagerObserver) -> None:
        self._sites, self._observer = sites, observer
        self._handles: list[Any] = []

    def __enter__(self) -> "EagerHooks":
        for site in self._sites:
            self._handles.append(site.module.register_forward_hook(first_run(self._hook(site))))
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, site: Site) -> Any:
        def take_pattern(module: nn.Module, args: Any, output: Any) -> None:
            refuse_own_dropout(site.path, module)
            self._observer.take_pattern(site, find_pattern(site, output))

        return take_pattern


def find_pattern(site: Site, output: Any) -> Tensor:
    """Return the pattern (batch, head, query, key) among an attention layer's outputs.

    Raises:
        UnsupportedModelError: if there is none.
    """
    parts = output if isinstance(output, tuple | list) else (output,)
    found = [p for p in parts if isinstance(p, Tensor) and p.dim() == 4]
    if len(found) != 1:
        raise UnsupportedModelError(
            f"{site.path}: {type(site.module).__name__} does not return its attention pattern, so "
            "it cannot be watched"
        )
    return found[0]
