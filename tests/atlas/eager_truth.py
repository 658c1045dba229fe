"""What a model attends to, worked out without the product: its own eager functions, recorded.

Every configuration is set to eager and the eager function of every model file is wrapped. Modules
that have their attention in their own forward are read at the softmax that they call. Where what
they return is not by what their values are weighed (or the fused kernel weighs them otherwise),
the weights are what the attention puts out when the values are the identity matrix.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FIELD = "_attn_implementation_internal"
SOFTMAX = {torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax}


@dataclass(frozen=True)
class Blocked:
    """A block of one module's first call and first row, taken out before its softmax."""

    module: nn.Module
    queries: slice
    key: int


@dataclass
class Truth:
    """What one run attended to.

    Args:
        patterns: by a module's identity, over its calls, (batch, head, query, key).
        by_function: modules that called an attention function, and so go through the interface.
        called: modules with attention in their class's name that ran.
        output: what the run returned.
    """

    patterns: dict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    by_function: set[int] = field(default_factory=set)
    called: set[int] = field(default_factory=set)
    output: Any = None


def implementations(model: nn.Module) -> dict[int, tuple[Any, Any]]:
    """Return every configuration in a model, by identity, with the attention that it names."""
    configs = [c for m in model.modules() if (c := getattr(m, "config", None)) is not None]
    return {id(c): (c, getattr(c, FIELD)) for c in configs if hasattr(c, FIELD)}


@contextmanager
def all_eager(model: nn.Module) -> Iterator[None]:
    """Set every configuration to eager inside the block."""
    before = implementations(model)
    try:
        for config, _ in before.values():
            setattr(config, FIELD, "eager")
        yield
    finally:
        for config, name in before.values():
            setattr(config, FIELD, name)


@contextmanager
def recorded(model: nn.Module, blocked: Blocked | None = None) -> Iterator[Truth]:
    """Record every eager pattern of a model that runs inside the block."""
    truth = Truth()
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(all_eager(model))
        _replace_eager(stack, lambda own: _wrapped(own, truth, blocked))
        stack.enter_context(_Softmaxes(model, truth, stack))
        yield truth


def _wrapped(eager: Any, truth: Truth, blocked: Blocked | None) -> Any:
    def record(module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        if blocked is not None and module is blocked.module and not truth.patterns[id(module)]:
            # The mask follows the values, by place or by name.
            if len(args) > 1:
                args = (args[0], _with_block(args[1], blocked, query, key), *args[2:])
            else:
                mask = kwargs.get("attention_mask")
                kwargs["attention_mask"] = _with_block(mask, blocked, query, key)
        truth.by_function.add(id(module))
        out = eager(module, query, key, *args, **kwargs)
        truth.patterns[id(module)].append(out[1].detach().clone())
        return out

    return record


def _with_block(mask: Any, blocked: Blocked, query: Tensor, key: Tensor) -> Tensor:
    """Return a call's additive mask with the block at the lowest number."""
    rows, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        mask = torch.zeros(rows, 1, queries, keys, dtype=query.dtype)
    full = mask.expand(rows, mask.shape[1], queries, keys).clone()
    if full.dtype == torch.bool:
        # Eager functions add their mask, and a boolean one would add 1.
        lowest = torch.finfo(query.dtype).min
        full = torch.zeros_like(full, dtype=query.dtype).masked_fill_(~full, lowest)
    full[0, :, blocked.queries, blocked.key] = torch.finfo(full.dtype).min
    return full


class _Softmaxes(TorchFunctionMode):
    """Reads the softmax of attention modules that call no eager function.

    What such a module computes belongs to the innermost module with attention in its class's name.
    """

    def __init__(self, model: nn.Module, truth: Truth, stack: ExitStack) -> None:
        super().__init__()
        self._truth, self._open = truth, []
        for module in model.modules():
            if "Attention" in type(module).__name__:
                enter = module.register_forward_pre_hook(lambda m, _: self._open.append((m, [])))
                leave = module.register_forward_hook(self._leave, always_call=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._open:
            return
        _, seen = self._open.pop()
        self._truth.called.add(id(module))
        if id(module) not in self._truth.by_function and seen:
            given = _flat(output)
            # Of several in one call the pattern is the one that the module hands out.
            handed = [next((g for g in given if _same(s, g)), None) for s in seen]
            chosen = [g.detach().clone() for g in handed if g is not None]
            self._truth.patterns[id(module)] += chosen or _by_heads(module, seen)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in SOFTMAX and self._open and isinstance(out, Tensor) and out.dim() in (3, 4):
            self._open[-1][1].append(out.detach().clone())
        return out


def _flat(output: Any) -> list[Any]:
    if isinstance(output, tuple | list):
        return [part for given in output for part in _flat(given)]
    return [output]


def _same(first: Tensor, second: Any) -> bool:
    """Return whether a softmax is a pattern; its rows and heads may lie on one axis."""
    if not isinstance(second, Tensor) or second.dim() != 4 or second.numel() != first.numel():
        return False
    if second.shape[-2:] != first.shape[-2:]:
        return False
    return bool(torch.allclose(first.reshape(second.shape), second))


def _by_heads(module: nn.Module, seen: list[Tensor]) -> list[Tensor]:
    """Return what may be patterns, (batch, head, query, key), if the module hands none out."""
    whole = [s for s in seen if s.dim() == 4]
    heads = getattr(module, "num_heads", None)
    if whole or len(seen) > 1 or not isinstance(heads, int) or seen[0].shape[0] % heads:
        return whole
    return [seen[0].unflatten(0, (-1, heads))]


@contextmanager
def weights_recorded(model: nn.Module) -> Iterator[Truth]:
    """Record by what the attention that runs weighs its values: its output for the identity.

    Attention that a module computes by itself is read at its softmax, as in `recorded`.
    """
    truth = Truth()
    names = {name for _, name in implementations(model).values()} - {None, "eager"}
    with ExitStack() as stack, torch.no_grad():
        for name in names:
            own = ALL_ATTENTION_FUNCTIONS[name]
            ALL_ATTENTION_FUNCTIONS[name] = _probing(own, truth)
            stack.callback(ALL_ATTENTION_FUNCTIONS.__delitem__, name)
        _replace_eager(stack, lambda own: _probing(own, truth))
        stack.enter_context(_Softmaxes(model, truth, stack))
        yield truth


def _replace_eager(stack: ExitStack, wrap: Callable[[Any], Any]) -> None:
    """Wrap the eager functions of every model file until the stack is left."""
    for name, file in list(sys.modules.items()):
        if file is None or not name.startswith("transformers.models."):
            continue
        for called, own in list(vars(file).items()):
            # A file with two kinds of attention has two: `vision_eager_attention_forward`.
            if called.endswith("eager_attention_forward"):
                vars(file)[called] = wrap(own)
                stack.callback(vars(file).__setitem__, called, own)


def _probing(fused: Any, truth: Truth) -> Any:
    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        truth.by_function.add(id(module))
        identity = torch.eye(key.shape[2], dtype=value.dtype).expand(*value.shape[:2], -1, -1)
        seen = fused(module, query, key, identity, *args, **kwargs)[0]
        truth.patterns[id(module)].append(seen.transpose(1, 2).clone())
        return fused(module, query, key, value, *args, **kwargs)

    return record


def run(model: nn.Module, caller: nn.Module, inputs: Any, blocked: Blocked | None = None) -> Truth:
    """Call a module (the model or a part of it) with every attention eager; return the truth."""
    with recorded(model, blocked) as truth:
        truth.output = caller(**inputs)
    return truth


def numbers(output: Any) -> list[Tensor]:
    """Return every tensor of numbers in an output, in order; caches are left out."""
    if isinstance(output, Tensor):
        return [output.float()] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [t for k, v in output.items() if "past" not in str(k) for t in numbers(v)]
    if isinstance(output, list | tuple):
        return [t for v in output for t in numbers(v)]
    return []


def distance(first: Any, second: Any) -> float:
    """Return the largest difference of two outputs, in parts of each tensor's largest number."""
    ours, theirs = numbers(first), numbers(second)
    # Eager attention may give patterns that the fused one leaves out.
    worst = 0.0
    for a, b in zip(ours, theirs, strict=False):
        if a.shape != b.shape:
            return float("inf")
        a, b = torch.nan_to_num(a, neginf=0, posinf=0), torch.nan_to_num(b, neginf=0, posinf=0)
        scale = max(1e-6, float(b.abs().max())) if b.numel() else 1.0
        worst = max(worst, float((a - b).abs().max()) / scale if a.numel() else 0.0)
    return worst
