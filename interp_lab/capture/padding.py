"""Which columns of a sequence hold tokens: 2D masks on a call's way, and 4D masks of the call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.capture.frames import RowColumns
from interp_lab.errors import ConfigError
from interp_lab.libraries.huggingface import arguments

Rows = tuple[RowColumns, ...]


@dataclass(frozen=True)
class Masks:
    """The 2D masks that a module on the way to a tower was given, or inherits.

    Args:
        encoder: of an encoder's sequence.
        decoder: of any other sequence: a decoder's, a language model's.
        keys: of the sequence that cross attention looks at.
        apart: whether encoder and decoder read sequences of their own.
    """

    encoder: Tensor | None = None
    decoder: Tensor | None = None
    keys: Tensor | None = None
    apart: bool = False

    def of(self, mask_of: str | None) -> Tensor | None:
        """Return the mask of a layer's queries, given what the prompt's mask counts of it."""
        if mask_of == "queries" and (self.apart or self.encoder is not None):
            return self.encoder
        return self.decoder


def masks_of(
    module: nn.Module, args: Any, kwargs: Mapping[str, Any], outer: Masks, for_decoder: bool
) -> Masks:
    """Return the masks that hold within a module's call, given those that hold around it.

    Args:
        module, args, kwargs: the call.
        outer: what holds around it.
        for_decoder: whether the module reads for an encoder and for a decoder.
    """
    named = arguments(module, args, kwargs)
    own = two_dimensional(named.get("attention_mask"))
    if for_decoder:
        own = outer.encoder if own is None else own
        decoder = two_dimensional(named.get("decoder_attention_mask"))
        return Masks(own, outer.decoder if decoder is None else decoder, own, apart=True)
    if named.get("encoder_hidden_states") is not None:
        keys = two_dimensional(named.get("encoder_attention_mask"))
        decoder = outer.decoder if own is None else own
        keys = outer.keys if keys is None else keys
        return Masks(outer.encoder, decoder, keys, outer.apart)
    if own is None:
        return outer
    return Masks(own, own, outer.keys, outer.apart)


def two_dimensional(mask: Any) -> Tensor | None:
    """Return a mask if it is one number a token, else None."""
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None


def read_mask(mask: Tensor) -> Rows:
    """Return the columns of each batch row from a 2D mask (1 for a token, 0 for padding).

    Raises:
        ConfigError: if a row has no token.
    """
    rows = mask.bool().tolist()
    if not all(any(row) for row in rows):
        raise ConfigError("attention_mask has a row without any token")
    return tuple(RowColumns(row) for row in rows)


def rows_seen(mask: Any, keys: int) -> Rows | None:
    """Return the columns that any query of a call may see, from its 4D mask; None without one."""
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[-1] < keys:
        return None
    part = mask[..., :keys]
    visible = part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
    rows = visible.flatten(1, 2).any(1).tolist()
    return tuple(RowColumns(row) for row in rows) if all(any(row) for row in rows) else None
