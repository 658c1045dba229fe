"""A network whose towers are local for a while: every position of them sees itself only.

What a token is made of can be read off a network only where attention does not carry it elsewhere.
Inside the block self-attention outside the decoder returns its values unmixed; residuals, MLPs,
merges, pooling and projectors stay, and so does attention that reads another sequence (resamplers).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from interp_lab.errors import UnsupportedModelError
from interp_lab.libraries import huggingface

NAME = "interp_lab_position_wise"
AttentionMaskInterface.register(NAME, sdpa_mask)


class _EnoughError(Exception):
    """Ends a forward once the decoder's input is known."""


@contextmanager
def position_wise(module: Any) -> Iterator[None]:
    """Make a model's towers local inside the block; afterwards it is as before, come what may.

    A tower that looks its attention up in the registry gets another function there; what other
    modules called attention write is zero, which leaves the residual.

    Args:
        module: a transformers model; no other thread may run it meanwhile.
    """
    decoder = {id(m) for m in module.get_decoder().modules()}
    outside = [m for m in module.modules() if id(m) not in decoder]
    calls = _Calls()
    spared = {id(m.config) for m in module.get_decoder().modules() if hasattr(m, "config")}
    configs = {id(m.config): m.config for m in outside if huggingface.is_model(m)}
    before = [(c, huggingface.implementation_of(c)) for i, c in configs.items() if i not in spared]
    attending = [m for m in outside if "Attention" in type(m).__name__]
    handles = [h for m in attending for h in calls.watch(m)]
    try:
        with huggingface.overlay(NAME, calls.attend):
            for config, _ in before:
                huggingface.set_implementation(config, NAME)
            yield
    finally:
        for handle in handles:
            handle.remove()
        for config, name in before:
            huggingface.set_implementation(config, name)


class _Calls:
    """The attention function of the block, and who called it.

    An attention module within whose call the function never ran does not look it up: its own
    arithmetic has mixed the positions, and what it wrote is set to zero.
    """

    def __init__(self) -> None:
        self._count = 0
        self._entered: list[int] = []
        self._cross: set[int] = set()

    def watch(self, module: nn.Module) -> list[Any]:
        """Return the handles of the hooks on an attention module."""
        return [
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave),
        ]

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Return each position's own value; what another sequence holds is attended to as ever."""
        self._count += 1
        groups = query.shape[1] // value.shape[1]
        value = value.repeat_interleave(groups, 1)
        own = query.shape[-2] == key.shape[-2] and id(module) not in self._cross
        if own and not huggingface.says_cross_attention(module):
            return value.transpose(1, 2).contiguous(), None
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return mixed.transpose(1, 2).contiguous(), None

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._entered.append(self._count)
        if huggingface.is_cross_attention(module, args, kwargs):
            self._cross.add(id(module))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._count != self._entered.pop():
            return None
        self._count += 1  # the module around this one need not be zeroed too
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)


def decoder_inputs(module: Any, inputs: dict[str, Any]) -> Tensor:
    """Return what the decoder's first layer gets of one row, (position, width); it does not run.

    Raises:
        UnsupportedModelError: if the model does not hand its decoder embeddings.
    """
    kept: list[Any] = []

    def keep(decoder: nn.Module, args: Any, kwargs: Any) -> None:
        kept.append(kwargs.get("inputs_embeds"))
        raise _EnoughError

    handle = module.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
    try:
        module(**inputs)
    except _EnoughError:
        pass
    finally:
        handle.remove()
    if not kept or kept[0] is None:
        raise UnsupportedModelError(
            f"{type(module).__name__}: its decoder is not given embeddings of a picture's patches "
            "(pictures enter by cross-attention, or as tokens of a vocabulary), so image tokens "
            "cannot be placed; take a model that puts patches of the picture into its prompt"
        )
    return kept[0][0]


Process = Callable[[Any], dict[str, Any]]
