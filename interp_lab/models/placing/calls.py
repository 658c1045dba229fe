"""What a module of a network is called with, and a network that computes in float32 for a while."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

HALVES = (torch.float16, torch.bfloat16)


class _ReachedError(Exception):
    """Ends a forward where what was asked for is known."""


@contextmanager
def full_precision(model: Any) -> Iterator[None]:
    """Let what a model has outside its decoder compute in float32 inside the block.

    In half precision a small change of the input may be rounded off. The weights themselves are
    put back afterwards, and embeddings are handed on in float32.
    """
    decoder = {id(part) for part in model.get_decoder().parameters()}
    own = [p for p in (*model.parameters(), *model.buffers()) if id(p) not in decoder]
    halves = [(p, p.data) for p in own if p.dtype in HALVES and not p.is_meta]
    words = model.get_input_embeddings()
    handle = words.register_forward_hook(lambda _, __, output: output.float())
    try:
        for weight, data in halves:
            weight.data = data.float()
        yield
    finally:
        handle.remove()
        for weight, data in halves:
            weight.data = data


def inputs_of(module: nn.Module, run: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that a module is called with first while `run` runs, and stop it there.

    Raises:
        LookupError: if it is not called.
    """
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append((args, kwargs))
        raise _ReachedError

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    except _ReachedError:
        pass
    finally:
        handle.remove()
    if not kept:
        raise LookupError(f"{type(module).__name__} was not called")
    return kept[0]


def first_tensor(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return what a module's call is about: its first states, by place or by keyword.

    Raises:
        LookupError: if no argument is one.
    """
    for value in (*args, kwargs.get("hidden_states"), *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1:
            return value
    raise LookupError("called without hidden states")
