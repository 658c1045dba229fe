"""Following a model's forwards: padding, cache and packed sequences, for each watched tower."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from interp_lab.capture.frames import Extent, Frame, RowColumns
from interp_lab.capture.towers import Site, tower_path
from interp_lab.errors import ConfigError


class Forwards:
    """Knows, during each forward, which columns an attention call covers.

    Args:
        sites: the watched towers' attention layers.
        n_rows: number of batch rows that are watched.
        attention_mask: the prompt's 2D mask, or None to read it from the model's call.
        on_new_sequence: called with a tower's name before its first forward without a cache.

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
        self._call_mask: Tensor | None = None
        self._on_new_sequence = on_new_sequence
        self.frames = {s.tower: Frame(rows=self._given_mask) for s in sites}
        self.serial = 0

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Hook the model and its towers, to know the padding and the cache of each forward."""

        def outer(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._call_mask = self._mask_of(module, args, kwargs)

        yield model.register_forward_pre_hook(outer, with_kwargs=True)
        for tower in self.frames:
            root = model.get_submodule(tower_path(model, tower))
            padded = tower == "language" or root is model
            padded |= "past_key_values" in inspect.signature(root.forward).parameters
            hook = self._tower_hook(tower, padded)
            yield root.register_forward_pre_hook(hook, with_kwargs=True)
            for site in self._sites:
                if site.tower == tower != "language":
                    yield site.module.register_forward_pre_hook(
                        self._length_hook(site), with_kwargs=True
                    )

    def _tower_hook(self, tower: str, padded: bool) -> Callable[..., None]:
        def start(module: nn.Module, args: Any, kwargs: Any) -> None:
            length = getattr(
                _bind(module, args, kwargs).get("past_key_values"), "get_seq_length", None
            )
            past = 0 if length is None else int(length())
            if past == 0:
                self._on_new_sequence(tower)
            self.serial += 1
            rows = None
            if padded:
                rows = self._given_mask or self._rows_now(tower, past)
            self.frames[tower] = Frame(past=past, rows=rows)

        return start

    def _rows_now(self, tower: str, past: int) -> tuple[RowColumns, ...] | None:
        """Return the batch rows' columns; a decode step's mask only adds its own column."""
        before, mask = self.frames[tower].rows, self._call_mask
        if mask is None or (past and before and mask.shape[1] == past + 1):
            return before if past else None
        return read_mask(mask)

    def _length_hook(self, site: Site) -> Callable[..., None]:
        def start(module: nn.Module, args: Any, kwargs: Any) -> None:
            states = kwargs.get("hidden_states", args[0] if args else None)
            if isinstance(states, Tensor) and states.dim() == 2:
                # No batch axis: the whole batch is packed, and may come in several calls.
                self.frames[site.tower].length = states.shape[0]
                self.frames[site.tower].done[site.layer] = 0

        return start

    def _mask_of(self, module: nn.Module, args: Any, kwargs: Any) -> Tensor | None:
        """Return the 2D padding mask that the model is called with, or None."""
        if self._given_mask is not None:
            return None
        mask = _bind(module, args, kwargs).get("attention_mask")
        if isinstance(mask, Tensor) and mask.dim() == 2:
            return mask
        if mask is not None and self._n_rows > 1:
            raise ConfigError(
                "the model is called with an attention mask that is not 2D; give "
                "watch_attention the 2D attention_mask of the prompt"
            )
        return None

    def extent(self, site: Site, query: Tensor, key: Tensor) -> Extent:
        """Return the columns that this call covers, and count them as done."""
        frame = self.frames[site.tower]
        start = frame.past
        if frame.length is not None:
            start += frame.done.get(site.layer, 0)
            frame.done[site.layer] = frame.done.get(site.layer, 0) + query.shape[2]
        return Extent(start, query.shape[2], key.shape[2])

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


def _bind(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return a forward's arguments by name."""
    if not args:
        return kwargs
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**bound.pop("kwargs", {}), **bound}
