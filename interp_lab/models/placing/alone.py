"""A network in which every position sees only itself, and what a module of it is called with.

With its attention out of the way, what a token depends on is what it is made of: its patch of the
picture, its stretch of the sound. The trained weights stay, and so does everything else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from interp_lab.libraries import huggingface

HALVES = (torch.float16, torch.bfloat16)


class _ReachedError(Exception):
    """Ends a forward where what was asked for is known."""


def attend_alone(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
    scaling: float | None = None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """Return what attention gives where every position sees only itself: (batch, query, head, d).

    Attention to another sequence stays as it is.
    """
    groups = query.shape[1] // value.shape[1]
    value = value.repeat_interleave(groups, 1)
    own = query.shape[-2] == value.shape[-2]
    if own and not huggingface.says_cross_attention(module):
        return value.transpose(1, 2).contiguous(), None
    key = key.repeat_interleave(groups, 1)
    out = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


@contextmanager
def positionwise(module: nn.Module) -> Iterator[None]:
    """Let every position of a network see only itself inside the block.

    Attention that looks its function up in transformers' registry gives its values; what other
    attention writes is set to zero, which leaves the residual stream.

    Args:
        module: a tower, or a model whose towers are to be so.
    """
    configs = {id(c): c for c in _configs(module)}
    with ExitStack() as stack:
        for config in configs.values():
            before = huggingface.implementation_of(config)
            huggingface.set_implementation(config, "sdpa")
            stack.callback(huggingface.set_implementation, config, before)
        stack.enter_context(huggingface.overlay("sdpa", attend_alone))
        for attention in _deaf(module):
            stack.callback(attention.register_forward_hook(_nothing).remove)
        yield


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


def is_attention(module: nn.Module) -> bool:
    """Return whether a module is attention by its class's name, or by how it calls it."""
    return "Attention" in type(module).__name__ or huggingface.calls_interface(type(module))


def _configs(module: nn.Module) -> Iterator[Any]:
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and huggingface.implementation_of(config) is not None:
            yield config


def _deaf(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost attention modules that do not look their function up in the registry."""
    hears = {
        name
        for name, part in module.named_modules()
        if is_attention(part) and huggingface.calls_interface(type(part))
    }
    taken: list[str] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in taken)
        if not is_attention(part) or inside or name in hears:
            continue
        if not any(other.startswith(f"{name}.") for other in hears):
            taken.append(name)
            yield part


def _nothing(_: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)
