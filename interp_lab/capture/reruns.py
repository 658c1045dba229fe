"""Gradient checkpointing: layers that backward runs a second time.

The second forward is no step of its own, so nothing is watched in it, and whatever was changed in
the first must be changed in it too: backward has to run while the watch still lasts.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from interp_lab.capture.masks import Term
from interp_lab.capture.sites import Site
from interp_lab.errors import ConfigError
from interp_lab.libraries.torch_inside import runs_again, will_run_again

Terms = dict[int, tuple[Term, ...]]
Zeroed = dict[int, tuple[int, ...]]


def first_run(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that leaves out what gradient checkpointing runs a second time."""

    def only_first(*args: Any, **kwargs: Any) -> Any:
        return None if runs_again() else hook(*args, **kwargs)

    return only_first


class Reruns:
    """Counts what was changed in layers that backward runs again, until it did."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def changed(self, path: str) -> None:
        """Take note of a change in a module's call, in its first run or in its second."""
        if runs_again():
            self._open[path] -= 1
        elif will_run_again():
            self._open[path] += 1

    def check(self) -> None:
        """Raise ConfigError if a changed layer is yet to be run again, which it would be plain."""
        for path, count in self._open.items():
            if count > 0:
                raise ConfigError(
                    f"{path}: was changed under gradient checkpointing, which runs it again in "
                    "backward; call backward before the watch ends, or run the model under "
                    "torch.no_grad() or without gradient checkpointing"
                )


class AttentionReruns(Reruns):
    """Keeps how each attention call was changed, for its second run."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[Any, tuple[Terms, Zeroed]] = {}
        self._several: set[Any] = set()

    def keep(self, site: Site, query: Tensor, key: Tensor, terms: Terms, zeroed: Zeroed) -> None:
        """Keep what is changed in a call that backward will run again."""
        if not will_run_again():
            return
        self.changed(site.path)
        at = _place(site, query, key)
        before = self._kept.setdefault(at, (terms, zeroed))
        if _signature(before[0]) != _signature(terms):
            self._several.add(at)

    def changes(self, site: Site, query: Tensor, key: Tensor) -> tuple[Terms, Zeroed]:
        """Return what was changed in the call that now runs a second time.

        Raises:
            ConfigError: if calls of one size were changed in different ways.
        """
        self.changed(site.path)
        at = _place(site, query, key)
        if at in self._several:
            raise ConfigError(
                f"{site.path}: several forwards with other padding were run before backward under "
                "gradient checkpointing; call backward after each forward"
            )
        return self._kept.get(at, ({}, {}))


def _place(site: Site, query: Tensor, key: Tensor) -> Any:
    return id(site.module), query.shape, key.shape


def _signature(terms: Terms) -> Any:
    return {
        row: [(id(t.source), tuple(t.touched), tuple(t.columns)) for t in found]
        for row, found in terms.items()
    }
