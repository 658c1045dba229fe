"""What is assumed of transformers' inside: how attention is called, and what a cache is.

The names of arguments are not among it: `past_key_values` became `cache` in 5.24, so a cache is
found by its type.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache as remember
from typing import Any, cast, get_args

from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp_lab.errors import UnsupportedModelError

# The field behind a configuration's `_attn_implementation`; writing that reaches every sub-config.
_FIELD = "_attn_implementation_internal"


def registered(name: str) -> Callable[..., Any] | None:
    """Return the function of a name; None for `eager`, which each model file has for itself."""
    return ALL_ATTENTION_FUNCTIONS.get(name)


@contextmanager
def overlay(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let a name of the registry lead to `function` inside the block.

    Setting an item writes `_local_mapping`, which hides the entry that the library registered and
    is looked up first; deleting it uncovers that entry again.
    """
    registry = ALL_ATTENTION_FUNCTIONS
    overlaid = name in registry._local_mapping
    before = registry.get(name)
    registry[name] = function
    try:
        yield
    finally:
        if overlaid:
            registry[name] = before
        else:
            del registry[name]


@contextmanager
def flex_results() -> Iterator[list[Any]]:
    """Collect what flex attention's kernel returns inside the block: (output, lse or what has it).

    The registered function rounds the lse to the values' dtype before it hands it on, so it is
    taken one call further in, where `compile_friendly_flex_attention` is looked up by name.
    """
    from transformers.integrations import flex_attention as file

    original = file.compile_friendly_flex_attention
    seen: list[Any] = []

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    file.compile_friendly_flex_attention = keep
    try:
        yield seen
    finally:
        file.compile_friendly_flex_attention = original


def implementation_of(config: Any) -> str | None:
    """Return the name under which a configuration's layers look up their attention function."""
    return getattr(config, "_attn_implementation", None)


def set_implementation(config: Any, name: str | None) -> None:
    """Write that name into one configuration alone, by its internal field.

    Raises:
        UnsupportedModelError: if this version of transformers keeps the name elsewhere.
    """
    if not hasattr(config, _FIELD):
        raise UnsupportedModelError(
            f"{type(config).__name__} has no {_FIELD}, so its attention cannot be set to {name}; "
            "install a transformers of the tested range (README)"
        )
    setattr(config, _FIELD, name)


def calls_interface(cls: type) -> bool:
    """Return whether a class is of a file that imports the registry, and so calls through it."""
    return any("ALL_ATTENTION_FUNCTIONS" in vars(file) for file in _files(cls))


def eager_function(cls: type) -> Callable[..., Any] | None:
    """Return `eager_attention_forward` of the file that defines a class or one it inherits."""
    found = (getattr(file, "eager_attention_forward", None) for file in _files(cls))
    return next((function for function in found if function is not None), None)


def find_cache(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Cache | None:
    """Return the cache of keys and values among a call's arguments, found by its type.

    Of an encoder-decoder's pair it is the one of the self attention.

    Raises:
        UnsupportedModelError: if there are two different ones.
    """
    values: Iterable[Any] = (*args, *kwargs.values())
    found = {id(c): c for c in map(_of_self_attention, values) if c is not None}
    if len(found) > 1:
        raise UnsupportedModelError(
            f"an attention layer is called with {len(found)} caches "
            f"({', '.join(type(c).__name__ for c in found.values())}); which one holds its keys "
            "is not known"
        )
    return next(iter(found.values()), None)


def seen_columns(cache: Cache, layer_idx: int) -> int:
    """Return how many tokens a layer has put into a cache, windows' dropped ones included.

    Before the layer's call that is where its first query stands. Layers that the cache has not
    yet met have none.
    """
    return int(cache.get_seq_length(layer_idx))


def takes_cache(module: nn.Module) -> bool:
    """Return whether a parameter of the module's forward is annotated with a type of cache."""
    return _takes_cache(type(module))


def _of_self_attention(value: Any) -> Cache | None:
    if isinstance(value, EncoderDecoderCache):
        return cast(Cache, value.self_attention_cache)
    return value if isinstance(value, Cache) else None


def _files(cls: type) -> Iterator[Any]:
    """Yield the modules that define a class and those it inherits, nearest first."""
    for base in cls.__mro__:
        file = sys.modules.get(base.__module__)
        if file is not None:
            yield file


@remember
def _takes_cache(cls: type) -> bool:
    parameters = inspect.signature(getattr(cls, "forward")).parameters.values()  # noqa: B009
    return any(_is_cache(p.annotation) for p in parameters)


def _is_cache(annotation: Any) -> bool:
    """Return whether an annotation, which may be a text or a union, names a type of cache."""
    if isinstance(annotation, str):
        return re.search(r"\b\w*Cache\b", annotation) is not None
    text = getattr(annotation, "__forward_arg__", None)
    if text is not None:
        return _is_cache(text)
    if isinstance(annotation, type) and issubclass(annotation, Cache):
        return True
    return any(_is_cache(part) for part in get_args(annotation))


def is_cross_attention(module: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Return whether an attention call's keys are another sequence than its queries.

    Layers of cross attention are called with the other sequence's states, or say so themselves.
    """
    named = ("key_value_states", "encoder_hidden_states")
    if any(kwargs.get(name) is not None for name in named):
        return True
    return getattr(module, "is_cross_attention", False) is True


def arguments(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the arguments of a module's call by name, as its forward names them.

    A wrapper that names none of its own has none for those given by place.
    """
    if not args:
        return kwargs
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**bound.pop("kwargs", {}), **bound}
