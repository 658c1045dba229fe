"""A network whose towers are local for a while: every position of them sees itself only.

What a token is made of can be read off a network only where attention does not carry it elsewhere.
Inside the block self-attention outside the decoder returns its values unmixed; residuals, MLPs,
merges, pooling and projectors stay, and so does attention that reads another sequence (resamplers).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from interp_lab.errors import UnsupportedModelError
from interp_lab.libraries import huggingface
from interp_lab.models.placing.calls import inputs_of

NAME = "interp_lab_position_wise"
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def position_wise(module: Any, spared: nn.Module | None = None) -> Iterator[None]:
    """Make a network local inside the block; afterwards it is as before, come what may.

    What looks its attention up in the registry gets another function there; what other modules
    called attention write is zero, which leaves the residual.

    Args:
        module: a tower, or a model whose towers are to be local; no other thread may run it
            meanwhile.
        spared: a part of it whose attention stays as it is, such as the decoder.
    """
    own = {id(m) for m in spared.modules()} if spared is not None else set()
    outside = [m for m in module.modules() if id(m) not in own]
    calls = _Calls()
    kept = {id(c) for m in (spared.modules() if spared is not None else ()) for c in _config_of(m)}
    configs = {id(c): c for m in outside for c in _config_of(m) if id(c) not in kept}
    before = [(c, huggingface.implementation_of(c)) for c in configs.values()]
    handles = [h for m in outside if is_attention(m) for h in calls.watch(m)]
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


def is_attention(module: nn.Module) -> bool:
    """Return whether a module is attention by its class's name, or by how it calls it."""
    return "Attention" in type(module).__name__ or huggingface.calls_interface(type(module))


def _config_of(module: nn.Module) -> list[Any]:
    """Return a module's configuration, if it says how attention is computed."""
    config = getattr(module, "config", None)
    return [] if config is None or huggingface.implementation_of(config) is None else [config]


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
    try:
        _, called = inputs_of(module.get_decoder(), lambda: module(**inputs))
    except LookupError:
        called = {}
    states = called.get("inputs_embeds")
    if states is None:
        raise UnsupportedModelError(
            f"{type(module).__name__}: its decoder is not given embeddings of a picture's patches "
            "(pictures enter by cross-attention, or as tokens of a vocabulary), so image tokens "
            "cannot be placed; take a model that puts patches of the picture into its prompt"
        )
    return states[0]
