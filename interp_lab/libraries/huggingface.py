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
from types import CodeType
from typing import Any, cast, get_args

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from interp_lab.errors import UnsupportedModelError

# What model files call the registry of attention functions.
_REGISTRY = "ALL_ATTENTION_FUNCTIONS"
# Arguments that hand an attention module the states of another sequence, and its own and its keys
# where it is called with both.
_OTHER_STATES = ("key_value_states", "encoder_hidden_states", "cross_attention_states")
_QUERIES, _KEYS = ("query", "queries", "query_states"), ("key", "keys", "key_states")
_OF_INTEREST = {*_OTHER_STATES, *_QUERIES, *_KEYS}
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


@remember
def calls_interface(cls: type) -> bool:
    """Return whether a class's own code looks its attention function up in the registry.

    It may do so by a function of its file. What all models inherit (`modeling_utils`) checks names
    in the registry, and attends to nothing.
    """
    return any(_looks_up(function) for function in _own_functions(cls))


def _own_functions(cls: type) -> Iterator[Any]:
    for base in cls.__mro__:
        if base.__module__ != PreTrainedModel.__module__:
            for name in vars(base):
                value = getattr(base, name, None)
                function = inspect.unwrap(value) if callable(value) else None
                if hasattr(function, "__code__"):
                    yield function


def _looks_up(function: Any) -> bool:
    names = set(_names(function.__code__))
    if _REGISTRY in names:
        return True
    used = (function.__globals__.get(name) for name in names)
    helpers = (f for f in used if inspect.isfunction(f) and f.__module__ == function.__module__)
    return any(_REGISTRY in _names(helper.__code__) for helper in helpers)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names that a function uses, those of functions inside it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def says_cross_attention(module: nn.Module) -> bool | None:
    """Return what a module says of itself in `is_cross_attention`; None if it says nothing."""
    value = getattr(module, "is_cross_attention", None)
    return value if isinstance(value, bool) else None


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


def seen_columns(cache: Cache, layer_idx: int) -> int | None:
    """Return how many tokens a layer has put into a cache, windows' dropped ones included.

    Before the layer's call that is where its first query stands. Layers that the cache has not
    yet met have none. None where the cache counts no tokens for the layer (a recurrent state).
    """
    try:
        return int(cache.get_seq_length(layer_idx))
    except ValueError:
        return None


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


def is_cross_attention(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an attention call's keys are another sequence than its queries.

    Layers of cross attention are called with the other sequence's states, or with keys that are not
    the tensor of the queries, or say so themselves.
    """
    if says_cross_attention(module):
        return True
    # Every layer of every step comes by here: names are looked for among what was given.
    named = arguments(module, args, kwargs)
    given = [name for name in named if name in _OF_INTEREST and named[name] is not None]
    if not given:
        return False
    if any(name in _OTHER_STATES for name in given):
        return True
    queries = next((named[n] for n in _QUERIES if isinstance(named.get(n), Tensor)), None)
    keys = next((named[n] for n in _KEYS if isinstance(named.get(n), Tensor)), None)
    return queries is not None and keys is not None and keys is not queries


def has_sinks(module: nn.Module) -> bool:
    """Return whether an attention module has extra logits in its softmax, one a head."""
    return any(isinstance(getattr(module, name, None), Tensor) for name in ("sinks", "s_aux"))


def cache_room(cache: Cache, layer_idx: int) -> str:
    """Return how a layer of a cache makes room.

    "grows" as tokens come; "slides", letting go of the oldest; "fixed", with room for more than
    there are; "fixed, slides"; "unknown".
    """
    layers = getattr(cache, "layers", None)
    if layers is None or layer_idx >= len(layers):
        return "unknown"
    layer = layers[layer_idx]
    fixed, slides = getattr(layer, "is_compileable", None), getattr(layer, "is_sliding", False)
    if fixed is None:
        return "unknown"
    ways = ["fixed"] * bool(fixed) + ["slides"] * bool(slides)
    return ", ".join(ways) or "grows"


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


def is_model(module: nn.Module) -> bool:
    """Return whether a module is a model of transformers, with a configuration of its own."""
    return isinstance(module, PreTrainedModel)


def sub_configurations(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the configurations inside a configuration, with the last part of their name."""
    for name, value in list(vars(config).items()) if config is not None else ():
        if isinstance(value, PreTrainedConfig) and not name.startswith("_"):
            yield name, value
            yield from sub_configurations(value)


def encoder_and_decoder(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Return the two parts of an encoder-decoder model; None for any other."""
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or not isinstance(model, PreTrainedModel):
        return None
    encoder, decoder = model.get_encoder(), model.get_decoder()
    return None if model in (encoder, decoder) else (encoder, decoder)


def reads_for_a_decoder(module: nn.Module) -> bool:
    """Return whether a module's call has inputs of an encoder and of a decoder."""
    return "decoder_input_ids" in inputs_of(module)


def inputs_of(module: nn.Module) -> frozenset[str]:
    """Return the names of what a module's call may be given."""
    return _parameters(type(module))


@remember
def _parameters(cls: type) -> frozenset[str]:
    return frozenset(inspect.signature(getattr(cls, "forward")).parameters)  # noqa: B009
