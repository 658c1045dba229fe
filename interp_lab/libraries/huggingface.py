"""What is taken for granted about the inside of transformers."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp_lab.errors import UnsupportedModelError

AttentionFunction = Callable[..., Any]


def registered(name: str) -> AttentionFunction | None:
    """Return the attention function of a name; None for eager, which each model file has itself."""
    return ALL_ATTENTION_FUNCTIONS.get(name)


@contextmanager
def overlay(name: str, function: AttentionFunction) -> Iterator[None]:
    """Let a name of the registry lead to another function inside the block.

    The registry's entry for this process is overlaid rather than a new name registered: models
    choose masks and code paths by the name, and these must stay as they are.
    """
    registry = ALL_ATTENTION_FUNCTIONS
    overlaid = name in registry._local_mapping
    original = registry.get(name)
    registry[name] = function
    try:
        yield
    finally:
        if overlaid:
            registry[name] = original
        else:
            del registry[name]


def implementation_of(config: Any) -> str | None:
    """Return the name of the attention implementation that a configuration chooses now."""
    return getattr(config, "_attn_implementation", None)


@contextmanager
def implementation_set(configs: list[Any], name: str) -> Iterator[None]:
    """Let configurations choose another implementation inside the block.

    Only the internal field is written: the public setter would reach every sub-configuration.
    """
    before = [(config, config._attn_implementation_internal) for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, old in before:
            config._attn_implementation_internal = old


def calls_interface(cls: type) -> bool:
    """Return whether a module's class is from a file that uses the registry."""
    files = (sys.modules.get(base.__module__) for base in cls.__mro__)
    return any("ALL_ATTENTION_FUNCTIONS" in vars(file) for file in files if file is not None)


def eager_function(cls: type) -> AttentionFunction:
    """Return the eager attention function of the file that defines a module's class.

    Raises:
        UnsupportedModelError: if that file has none.
    """
    for base in cls.__mro__:
        function = getattr(sys.modules.get(base.__module__), "eager_attention_forward", None)
        if function is not None:
            return function
    raise UnsupportedModelError(
        f"{cls.__name__} has no eager_attention_forward; load the model with "
        "attn_implementation=sdpa"
    )


def find_cache(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any | None:
    """Return the key cache among a module's arguments, found by its type; None without one.

    The argument's name differs between versions (`past_key_values`, `cache`) and between models.

    Raises:
        UnsupportedModelError: if there are two.
    """
    found: list[Any] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, EncoderDecoderCache):
            value = value.self_attention_cache
        if isinstance(value, Cache) and not any(value is other for other in found):
            found.append(value)
    if len(found) > 1:
        raise UnsupportedModelError(
            "an attention layer is given two caches, so where its queries stand is not known"
        )
    return found[0] if found else None


def seen_columns(cache: Any, layer: int) -> int:
    """Return how many columns a cache's layer has seen before the call that is beginning."""
    return int(cache.get_seq_length(layer))


def takes_cache(module: nn.Module) -> bool:
    """Return whether a module can be given a cache, as the layers of every text decoder can."""
    parameters = inspect.signature(module.forward).parameters.values()
    return any("Cache" in str(parameter.annotation) for parameter in parameters)


def is_cross_attention(module: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Return whether an attention call's keys are another sequence than its queries."""
    named = ("key_value_states", "encoder_hidden_states")
    if any(kwargs.get(name) is not None for name in named):
        return True
    return getattr(module, "is_cross_attention", False) is True


def arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a forward's arguments by name."""
    if not args:
        return kwargs
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**bound.pop("kwargs", {}), **bound}
