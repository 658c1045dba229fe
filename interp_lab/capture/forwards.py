"""Following a model's forwards: padding, cache and packed sequences, for each watched tower.

Where a call's queries stand is read at the attention module itself, from the cache that it is given
(found by its type): every version and wrapper of transformers hands it over there, before the call
adds to it. What the model is called with further out serves only to find the padding. Where the
queries of cross attention stand, the self attention of the same forward tells.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from interp_lab.capture.frames import Extent, Frame
from interp_lab.capture.padding import Masks, Rows, masks_of, read_mask, rows_seen
from interp_lab.capture.reruns import first_run
from interp_lab.capture.sites import Site, holders_of
from interp_lab.capture.towers import self_attention_beside
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.libraries.huggingface import (
    cache_room,
    find_cache,
    is_cross_attention,
    reads_for_a_decoder,
    seen_columns,
)


@dataclass
class Start:
    """What an attention module was last called with.

    Args:
        column: where its first query stands.
        room: how its cache makes room: "grows", "slides", "fixed" or "unknown"; None without one.
        cross: whether its keys come from elsewhere than its queries.
        problem: why its call cannot be placed; None if it can.
        calls: how often it has called its attention function since.
    """

    column: int
    room: str | None
    cross: bool
    problem: str | None = None
    calls: int = 0


@dataclass(frozen=True)
class CallShape:
    """The size of an attention call: batch, queries and keys."""

    batch: int
    queries: int
    keys: int


class Forwards:
    """Knows, during each forward, which columns an attention call covers.

    Args:
        sites: the watched towers' attention layers.
        n_rows: number of batch rows that are watched.
        attention_mask: the prompt's 2D mask (of an encoder-decoder the encoder's), or None to read
            it from the model's call.
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
        # What each module on the way to a tower that is being called was given, outermost first.
        self._masks: list[Masks] = []
        self._outer_calls = 0
        self._on_new_sequence = on_new_sequence
        self._starts: dict[int, Start] = {}
        self.frames = {s.tower: Frame() for s in sites}
        # Tower -> how often a module that holds its layers was called.
        self._entries = dict.fromkeys(self.frames, 0)
        self.serial = 0

    @property
    def _width(self) -> int:
        return self._given_mask[0].width if self._given_mask else 0

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Hook the attention modules, and what lies between the model and them for the padding."""
        holders: dict[str, list[str]] = {}
        for tower in self.frames:
            sites = [s for s in self._sites if s.tower == tower]
            for path in holders_of(sites):
                holders.setdefault(path, []).append(tower)
        for path, towers in holders.items():
            module = model.get_submodule(path)
            enter = self._enter(towers, reads_for_a_decoder(module))
            yield module.register_forward_pre_hook(first_run(enter), with_kwargs=True)
            yield module.register_forward_hook(first_run(self._leave), always_call=True)
        crossing = {s.tower for s in self._sites if s.cross}
        for tower in crossing:
            sites = tuple(s for s in self._sites if s.tower == tower)
            for site in self_attention_beside(model, sites):
                yield self._hook(site)
        for site in self._sites:
            yield self._hook(site)

    def _hook(self, site: Site) -> Any:
        hook = first_run(self._call_hook(site))
        return site.module.register_forward_pre_hook(hook, with_kwargs=True)

    def _enter(self, towers: Sequence[str], for_decoder: bool) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            outermost = not self._masks
            self._outer_calls += outermost
            for tower in towers:
                self._entries[tower] += 1
            outer = Masks() if outermost else self._masks[-1]
            masks = masks_of(module, args, kwargs, outer, for_decoder)
            self._masks.append(masks)
            if outermost and masks == Masks() and self._n_rows > 1 and not self._given_mask:
                _refuse_other_masks(kwargs)

        return enter

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        # The list is empty here if `_enter` itself refused the call.
        if self._masks:
            self._masks.pop()

    def _call_hook(self, site: Site) -> Callable[..., None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            cache = find_cache(args, kwargs)
            layer = getattr(module, "layer_idx", None)
            layer = site.layer if layer is None else layer
            cross = is_cross_attention(module, args, kwargs)
            seen = 0 if cache is None else seen_columns(cache, layer)
            column = seen or 0
            frame, problem = self._frame_of(site, column, cross)
            if seen is None:
                problem = f"its cache counts no tokens for layer {layer}"
            frame.begun.add(id(module))
            if cross or column == 0:
                # Cross attention keeps no count of its queries, nor does a layer that attends to
                # the keys that an earlier layer put into the cache.
                column = frame.past
            elif column != frame.past and problem is None:
                problem = (
                    f"its cache holds {column} columns where other layers' hold {frame.past}, so "
                    "where its queries stand is not known"
                )
            room = None if cache is None else cache_room(cache, layer)
            self._starts[id(module)] = Start(column, room, cross, problem)
            states = kwargs.get("hidden_states", args[0] if args else None)
            if not site.padded and isinstance(states, Tensor) and states.dim() == 2:
                # No batch axis: the whole batch is packed, and may come in several calls.
                frame.lengths[site.layer] = states.shape[0]
                frame.done[site.layer] = 0

        return begin

    def _frame_of(self, site: Site, column: int, cross: bool) -> tuple[Frame, str | None]:
        """Return the frame of the forward that a call belongs to; it may be the first of a new.

        Beside it, why the call cannot be placed.
        """
        tower, module = site.tower, site.module
        frame, entries = self.frames[tower], self._entries[site.tower]
        if frame.outer_call == self._outer_calls and id(module) not in frame.begun:
            return frame, None
        if self._masks and frame.entries == entries and frame.outer_call == self._outer_calls:
            return frame, (
                f"{type(module).__name__} is called more than once in one forward (shared "
                "weights), so which layer a pattern is of is not known"
            )
        problem = None
        if column == 0 or cross:
            self._on_new_sequence(tower)
        elif frame.end is not None and column != frame.end:
            problem = (
                f"its cache held {frame.end} columns and now holds {column}: it was shortened or "
                "filled elsewhere, as prompt lookup and assisted generation do; generate one token "
                "at a time"
            )
        self.serial += 1
        rows = self._rows_now(site, column) if site.padded else None
        past = 0 if cross else column
        first = self.frames[tower].begun == set()
        frame = Frame(past, rows, outer_call=self._outer_calls, entries=entries, first=first)
        self.frames[tower] = frame
        return frame, problem

    def _rows_now(self, site: Site, past: int) -> Rows | None:
        """Return the batch rows' columns; a decode step's mask only adds its own column."""
        if self._given_mask and site.mask_of == "queries":
            return self._given_mask
        before, masks = self.frames[site.tower].rows, self._masks[-1] if self._masks else Masks()
        mask = masks.of(site.mask_of)
        if mask is None or (past and before and mask.shape[1] == past + 1):
            return before if past else None
        return read_mask(mask)

    def extents(self, site: Site, shape: CallShape, mask: Any) -> tuple[Extent, ...]:
        """Return the columns that a call covers, one extent a tile, and count them as done."""
        frame, start = self.frames[site.tower], self._starts.get(id(site.module))
        if start is None:
            raise UnsupportedModelError(
                f"{site.path}: its attention ran without the module being called, so where its "
                "queries stand is not known; name another sub-module as `tower`"
            )
        start.calls += 1
        column = start.column
        if site.cross:
            frame.end = column + shape.queries
            self._read_keys(frame, site, shape, mask)
            return (Extent(column, shape.queries, shape.keys, crossed=True),)
        whole, n = frame.lengths.get(site.layer), shape.queries
        if whole is not None:
            done = frame.done.get(site.layer, 0)
            frame.done[site.layer] = done + n
            return (Extent(column + done, n, shape.keys, whole=whole),)
        if self._are_tiles(site, shape):
            whole = shape.batch * n
            tiles = range(shape.batch)
            return tuple(Extent(t * n, n, shape.keys, tile=t, whole=whole) for t in tiles)
        frame.end = column + n
        self._fit_rows(frame, site, start, shape, mask)
        return (Extent(column, n, shape.keys),)

    def _are_tiles(self, site: Site, shape: CallShape) -> bool:
        """Return whether a call's batch axis holds the tiles or windows of one row's picture."""
        several = shape.batch > 1 and self._n_rows == 1 and shape.keys == shape.queries
        return several and not site.padded

    def _fit_rows(
        self, frame: Frame, site: Site, start: Start, shape: CallShape, mask: Any
    ) -> None:
        """Let padding that counts another axis (sound before it is made shorter) give way.

        The call's own mask then tells which of its keys are tokens.
        """
        if frame.rows is None or frame.past:
            return
        width, own = frame.rows[0].width, start.room is None and _looks_both_ways(site)
        if own and width != shape.queries:
            frame.rows = rows_seen(mask, shape.keys)
        elif width < shape.queries and (frame.first or frame.rows is not self._given_mask):
            start.problem = (
                f"reads {shape.queries} places where the attention mask counts {width}, so which "
                "of them are tokens is not known; name another tower"
            )

    def _read_keys(self, frame: Frame, site: Site, shape: CallShape, mask: Any) -> None:
        """Find the padding of the sequence that cross attention looks at, once a forward."""
        if frame.key_rows is not None:
            return
        given = self._masks[-1].keys if self._masks else None
        if self._given_mask and site.mask_of == "keys" and self._width == shape.keys:
            frame.key_rows = self._given_mask
        elif given is not None and given.shape == (shape.batch, shape.keys):
            frame.key_rows = read_mask(given)
        else:
            frame.key_rows = rows_seen(mask, shape.keys)

    def check(self, site: Site, shape: CallShape, extent: Extent) -> None:
        """Refuse a watched call that cannot be placed.

        Raises:
            UnsupportedModelError: says what is in the way.
            ConfigError: if it has another batch size than the plans.
        """
        start = self._starts[id(site.module)]
        frame, whole = self.frames[site.tower], self.frames[site.tower].lengths.get(site.layer)
        problem = start.problem or _unplaced(site, start, shape, extent)
        if start.calls > 1 and whole is None:
            problem = (
                f"{type(site.module).__name__} calls its attention function {start.calls} times in "
                "one call, so there is no one pattern of the layer"
            )
        if whole is not None and frame.done.get(site.layer, 0) > whole:
            problem = f"its calls have more queries than its sequence of {whole}"
        if problem is not None:
            raise UnsupportedModelError(f"{site.path} (tower {site.tower}): {problem}")
        if extent.tile is None and shape.batch != self._n_rows:
            raise ConfigError(
                f"plans or interventions are for {self._n_rows} batch rows, but {site.path} was "
                f"called with a batch of {shape.batch}; of tiles or windows watch one row at a "
                "time (batch_size=1)"
            )

    def is_decode(self, site: Site, extent: Extent) -> bool:
        """Return whether a call is a decode step: one query after others, or after the prompt."""
        if extent.whole is not None:
            return False
        if self._given_mask is not None and site.padded and site.mask_of == "queries":
            return extent.start >= self._width
        return extent.queries == 1 and extent.start > 0


def _unplaced(site: Site, start: Start, shape: CallShape, extent: Extent) -> str | None:
    """Return why the keys of a call are not the columns up to its queries; None if they are."""
    if start.cross != site.cross:
        if start.cross:
            return (
                "is cross attention, whose keys are no tokens of its own sequence; watch it as "
                "`tower=cross`, or by a path with `:` and its name"
            )
        return "is named as cross attention, but its keys are those of its own sequence"
    if site.cross or shape.keys == extent.end - (0 if start.room else extent.start):
        return None
    if start.room is None:
        return (
            f"was called with {shape.queries} queries and {shape.keys} keys but no cache, so which "
            "token a key belongs to is not known; name another tower"
        )
    more = shape.keys > extent.end
    if (more and start.room == "grows") or (not more and start.room in ("grows", "fixed")):
        return (
            f"was called with {shape.keys} keys where its cache has {extent.end} columns, so "
            "which token a key belongs to is not known"
        )
    return None


def _looks_both_ways(site: Site) -> bool:
    return getattr(site.module, "is_causal", None) is False


def _refuse_other_masks(kwargs: Any) -> None:
    mask = kwargs.get("attention_mask")
    if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
        raise ConfigError(
            "the model is called with an attention mask that is not 2D; give "
            "watch_attention the 2D attention_mask of the prompt"
        )
