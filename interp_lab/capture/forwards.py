"""Following a model's forwards: padding, cache and packed sequences, for each watched tower.

Where a call's queries stand is read at the attention module itself, from the cache that it is given
(found by its type): every version and wrapper of transformers hands it over there, before the call
adds to it. What the model is called with further out serves only to find the padding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interp_lab.capture.frames import Extent, Frame, RowColumns
from interp_lab.capture.reruns import first_run
from interp_lab.capture.towers import Site, tower_path
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.libraries.huggingface import (
    arguments,
    find_cache,
    is_cross_attention,
    seen_columns,
    takes_cache,
)


@dataclass(frozen=True)
class Start:
    """What an attention module was last called with.

    Args:
        column: columns in its cache before the call; 0 without a cache.
        cached: whether it was given a cache.
        cross: whether its keys come from elsewhere than its queries.
    """

    column: int
    cached: bool
    cross: bool


class Forwards:
    """Knows, during each forward, which columns an attention call covers.

    Args:
        sites: the watched towers' attention layers.
        n_rows: number of batch rows that are watched.
        attention_mask: the prompt's 2D mask, or None to read it from the model's call.
        on_new_sequence: called with a tower's name before its first call without a past.

    Attributes:
        frames: tower -> what is known about its forward.
        serial: how many forwards of any tower have begun.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        n_rows: int,
        attention_mask: Tensor | None,
        on_new_sequence: Callable[[str], None],
    ) -> None:
        self._sites, self._n_rows = sites, n_rows
        self._given_mask = None if attention_mask is None else read_mask(attention_mask)
        # The 2D mask of each module on the way to a tower that is being called, outermost first.
        self._masks: list[Tensor | None] = []
        self._outer_calls = 0
        self._on_new_sequence = on_new_sequence
        self._starts: dict[int, Start] = {}
        self.frames = {s.tower: Frame(rows=self._given_mask) for s in sites}
        self.serial = 0

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Hook the attention modules, and what lies between the model and them for the padding."""
        roots = {tower: tower_path(model, tower) for tower in self.frames}
        stacks = [[s.path for s in self._sites if s.tower == tower] for tower in self.frames]
        for path in dict.fromkeys(p for paths in stacks for p in _above(paths)):
            module = model.get_submodule(path)
            yield module.register_forward_pre_hook(first_run(self._enter), with_kwargs=True)
            yield module.register_forward_hook(first_run(self._leave), always_call=True)
        for site in self._sites:
            padded = site.tower == "language" or roots[site.tower] == ""
            hook = self._call_hook(site, padded or takes_cache(site.module))
            yield site.module.register_forward_pre_hook(first_run(hook), with_kwargs=True)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        outermost = not self._masks
        self._outer_calls += outermost
        mask = arguments(module, args, kwargs).get("attention_mask")
        if isinstance(mask, Tensor) and mask.dim() == 2:
            self._masks.append(mask)
            return
        if outermost and mask is not None and self._n_rows > 1 and self._given_mask is None:
            raise ConfigError(
                "the model is called with an attention mask that is not 2D; give "
                "watch_attention the 2D attention_mask of the prompt"
            )
        self._masks.append(None if outermost else self._masks[-1])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        # The list is empty here if `_enter` itself refused the call.
        if self._masks:
            self._masks.pop()

    def _call_hook(self, site: Site, padded: bool) -> Callable[..., None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            cache = find_cache(args, kwargs)
            layer = getattr(module, "layer_idx", None)
            column = 0
            if cache is not None:
                column = seen_columns(cache, site.layer if layer is None else layer)
            cross = is_cross_attention(module, kwargs)
            self._starts[id(module)] = Start(column, cache is not None, cross)
            frame = self._frame_of(site, column, padded)
            frame.begun.add(id(module))
            states = kwargs.get("hidden_states", args[0] if args else None)
            if not padded and isinstance(states, Tensor) and states.dim() == 2:
                # No batch axis: the whole batch is packed, and may come in several calls.
                frame.length = states.shape[0]
                frame.done[site.layer] = 0

        return begin

    def _frame_of(self, site: Site, column: int, padded: bool) -> Frame:
        """Return the frame of the forward that a call belongs to; it may be the first of a new."""
        frame = self.frames[site.tower]
        if frame.outer_call == self._outer_calls and id(site.module) not in frame.begun:
            return frame
        if column == 0:
            self._on_new_sequence(site.tower)
        self.serial += 1
        rows = (self._given_mask or self._rows_now(site.tower, column)) if padded else None
        frame = Frame(past=column, rows=rows, outer_call=self._outer_calls)
        self.frames[site.tower] = frame
        return frame

    def _rows_now(self, tower: str, past: int) -> tuple[RowColumns, ...] | None:
        """Return the batch rows' columns; a decode step's mask only adds its own column."""
        before, mask = self.frames[tower].rows, self._masks[-1] if self._masks else None
        if mask is None or (past and before and mask.shape[1] == past + 1):
            return before if past else None
        return read_mask(mask)

    def extent(self, site: Site, query: Tensor, key: Tensor) -> Extent:
        """Return the columns that this call covers, and count them as done."""
        frame, start = self.frames[site.tower], self._starts.get(id(site.module))
        if start is None:
            raise UnsupportedModelError(
                f"{site.path}: its attention ran without the module being called, so where its "
                "queries stand is not known; name another sub-module as `tower`"
            )
        column = start.column
        if frame.length is not None:
            column += frame.done.get(site.layer, 0)
            frame.done[site.layer] = frame.done.get(site.layer, 0) + query.shape[2]
        return Extent(column, query.shape[2], key.shape[2])

    def check_keys(self, site: Site, extent: Extent) -> None:
        """Refuse a call whose keys are not the columns up to its queries.

        Raises:
            UnsupportedModelError: for cross attention, and for keys that no known cache holds.
        """
        start = self._starts[id(site.module)]
        if start.cross:
            raise UnsupportedModelError(
                f"{site.path}: is cross attention, whose keys are no tokens of its own sequence; "
                "name layers of self attention"
            )
        if not start.cached and extent.keys != extent.queries:
            raise UnsupportedModelError(
                f"{site.path}: was called with {extent.queries} queries and {extent.keys} keys "
                "but no cache, so which token a key belongs to is not known; name another tower"
            )

    def is_decode(self, site: Site, extent: Extent) -> bool:
        """Return whether a call is a decode step: one query after others, or after the prompt."""
        if self.frames[site.tower].length is not None:
            return False
        if self._given_mask is not None:
            return extent.start >= self._given_mask[0].width
        return extent.queries == 1 and extent.start > 0


def read_mask(mask: Tensor) -> tuple[RowColumns, ...]:
    """Return the columns of each batch row from a 2D mask (1 for a token, 0 for padding).

    Raises:
        ConfigError: if a row has no token.
    """
    rows = mask.bool().tolist()
    if not all(any(row) for row in rows):
        raise ConfigError("attention_mask has a row without any token")
    return tuple(RowColumns(row) for row in rows)


def _above(paths: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the modules that hold all of the given ones, the model itself ("") first.

    Whatever of them is called may have been given the padding.
    """
    split = [path.split(".") for path in paths]
    for count in range(min(map(len, split))):
        if any(parts[:count] != split[0][:count] for parts in split):
            return
        yield ".".join(split[0][:count])
