"""From a row's own tokens to the places of one attention call, through padding, cache and windows.

Three ways of counting meet here. A *token* counts a batch row without padding: what plans speak of.
A *column* counts the padded sequence, prompt and generated tokens together. A *place* is an index
into the query or key axis of one call, which holds only the new queries and the keys in the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp_lab.capture.blocks import KeyPick, as_index, runs
from interp_lab.capture.masks import Index
from interp_lab.capture.plans import AttentionPlan


class RowColumns:
    """Token -> column of one batch row.

    Args:
        real: bool per column of the prompt, False for padding (left or right); None for none.
    """

    def __init__(self, real: Sequence[bool] | None = None) -> None:
        self.width = 0 if real is None else len(real)
        columns = [] if real is None else [i for i, r in enumerate(real) if r]
        # Neighbours up to the end (no padding, or all of it on the left) need no list.
        self._first = self.width - len(columns)
        whole = not columns or columns[0] == self._first
        self._columns = None if whole else columns

    def column(self, token: int) -> int:
        """Return the column of a token; tokens after the prompt follow the prompt's last column."""
        if self._columns is None:
            return self._first + token
        known = len(self._columns)
        return self._columns[token] if token < known else self.width + token - known

    def columns(self, tokens: Sequence[int]) -> Sequence[int]:
        """Return the columns of increasing tokens; a range where they are neighbours."""
        if self._columns is None and tokens[-1] - tokens[0] + 1 == len(tokens):
            return range(self.column(tokens[0]), self.column(tokens[-1]) + 1)
        return [self.column(t) for t in tokens]

    def before(self, end: int) -> Sequence[int]:
        """Return the columns below `end` that hold a token."""
        if self._columns is None:
            return range(min(self._first, end), end)
        return [c for c in self._columns if c < end] + list(range(self.width, end))


# Of every row where there is no padding.
UNPADDED = RowColumns()


@dataclass
class Frame:
    """What is known about the forward that is going on in one tower.

    Args:
        past: columns in the cache before this forward.
        rows: the batch rows' columns; None where the tower has no padding of its own.
        lengths: per layer, the columns of the whole sequence, if it may come in several calls
            (vision towers that split a packed sequence) or in tiles.
        done: per layer, the columns that earlier calls of this forward covered.
        outer_call: which call of the model it belongs to, counted from 1; 0 before any.
        entries: how often a module that holds the tower's layers had been called.
        begun: ids of the attention modules that have been called in it.
        end: one past its newest column, once a layer has attended.
        first: whether it is the first that is followed.
        key_rows: the columns of what cross attention looks at; None where nothing is padded.
    """

    past: int = 0
    rows: tuple[RowColumns, ...] | None = None
    lengths: dict[int, int] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    outer_call: int = 0
    entries: int = 0
    begun: set[int] = field(default_factory=set)
    end: int | None = None
    first: bool = False
    key_rows: tuple[RowColumns, ...] | None = None

    def columns(self, row: int) -> RowColumns:
        """Return the columns of a batch row."""
        return UNPADDED if self.rows is None else self.rows[row]

    def columns_of_keys(self, row: int, extent: "Extent") -> RowColumns:
        """Return the columns that a batch row's keys are counted in."""
        if not extent.crossed:
            return self.columns(row)
        return UNPADDED if self.key_rows is None else self.key_rows[row]

    def keys_end(self, row: int, extent: "Extent") -> int:
        """Return where "all keys" of a call stop."""
        if extent.crossed:
            return extent.keys
        return extent.whole or max(extent.end, self.columns(row).width)


@dataclass(frozen=True)
class Members:
    """Which places of one axis of a call are meant.

    Args:
        places: increasing, known without asking a device.
        mask: bool (size,), True there.
    """

    places: Sequence[int]
    mask: Tensor


@dataclass(frozen=True)
class Extent:
    """The columns that one call covers.

    Args:
        start: column of the first query.
        queries: number of queries.
        keys: number of key places; more than there are columns in a static cache, fewer where a
            sliding window has let go of the oldest.
        tile: the place on the call's batch axis of one tile of a row's picture; None where that
            axis holds the batch rows.
        crossed: whether the keys are another sequence, counted from its own first column.
        whole: columns of the whole sequence, where the call is one part of it; else None.
    """

    start: int
    queries: int
    keys: int
    tile: int | None = None
    crossed: bool = False
    whole: int | None = None

    @property
    def end(self) -> int:
        """One past the newest column."""
        return self.start + self.queries

    @property
    def key_start(self) -> int:
        """Column of the first key place."""
        return 0 if self.crossed else max(0, self.end - self.keys)

    @property
    def key_end(self) -> int:
        """One past the column of the newest key."""
        return self.keys if self.crossed else min(self.end, self.key_start + self.keys)

    @property
    def keys_seen(self) -> int:
        """One past the newest column on the axis that the keys are counted in."""
        return self.keys if self.crossed else self.end

    def call_row(self, row: int) -> int:
        """Return the place of a batch row on the call's batch axis."""
        return row if self.tile is None else self.tile


def query_columns(plan: AttentionPlan, row: RowColumns, extent: Extent) -> Sequence[int]:
    """Return the columns of the plan's queries that this call computes."""
    if plan.queries is None:
        columns = row.before(extent.end)
    elif plan.queries == "last":
        columns = row.before(extent.end)[-1:]
    else:
        columns = row.columns(plan.queries)
    if columns and extent.start <= columns[0] and columns[-1] < extent.end:
        return columns
    return [c for c in columns if extent.start <= c < extent.end]


def key_columns(plan: AttentionPlan, row: RowColumns, end: int) -> Sequence[int]:
    """Return the columns of the plan's keys; `end` is where "all keys" stop."""
    return row.before(end) if plan.keys is None else row.columns(plan.keys)


def query_places(columns: Sequence[int], extent: Extent, device: torch.device) -> list[Index]:
    """Return columns as places on the call's query axis: stretches in order."""
    return runs(_shift(columns, extent.start), device)


def key_places(columns: Sequence[int], extent: Extent, device: torch.device) -> KeyPick:
    """Return columns as places on the call's key axis; columns it does not hold are left open."""
    start, stop = extent.key_start, extent.key_end
    if columns and start <= columns[0] and columns[-1] < stop:
        return KeyPick(as_index(_shift(columns, start), device), len(columns))
    held = [(slot, c - start) for slot, c in enumerate(columns) if start <= c < stop]
    index = torch.tensor([p for _, p in held], dtype=torch.long, device=device)
    slots = torch.tensor([s for s, _ in held], dtype=torch.long, device=device)
    return KeyPick(index, len(columns), slots)


def _shift(columns: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(columns, range):
        return range(columns.start - by, columns.stop - by)
    return [c - by for c in columns]


def members(columns: Sequence[int], start: int, size: int, device: torch.device) -> Members:
    """Return which of the columns from `start` on are meant; the others are left out."""
    if isinstance(columns, range):
        inside = range(max(columns.start, start) - start, min(columns.stop, start + size) - start)
        places: Sequence[int] = inside if len(inside) else ()
    else:
        places = [c - start for c in columns if start <= c < start + size]
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    if places:
        mask[as_index(places, device)] = True
    return Members(places, mask)
