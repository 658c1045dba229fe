"""A signature as a schema: values of a configuration as the types that a callable asks for.

Pydantic makes one validator of a whole signature, once a process: a command checks its nodes
twice, before the measuring and before the drawing.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args

from interp_lab.errors import ConfigError, did_you_mean

DISTINCT = "no value twice"
Value = TypeVar("Value")
# A list of choices, in which a value that stands twice is a slip of the keyboard.
Distinct = Annotated[list[Value], DISTINCT]


@lru_cache(maxsize=256)
def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or function by name, their annotations evaluated."""
    return inspect.signature(target, eval_str=True).parameters


def typed(target: Callable[..., Any], values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return values of a node as the types that the signature asks for.

    Args:
        target: a class or function.
        values: of some of its parameters, by name.
        key: the node, for errors.

    Raises:
        ConfigError: for a wrong type; names the key, the value and, where it can, the nearest word.
    """
    from pydantic import ValidationError

    annotations = {name: parameters_of(target)[name].annotation for name in values}
    for name, value in values.items():
        if _mixes(value, annotations[name]):
            raise ConfigError(f"{key}.{name}={value!r}: should be a number, not true or false")
    try:
        checked = _validator(target).validate_python(dict(values))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(_complaint(target, values, key, problem)) from error
    for name, value in checked.items():
        if DISTINCT in str(annotations[name]) and isinstance(value, list):
            twice = next((v for n, v in enumerate(value) if v in value[:n]), None)
            if twice is not None:
                raise ConfigError(f"{key}.{name}={value!r}: names {twice!r} twice")
    return checked


def _complaint(
    target: Callable[..., Any], values: Mapping[str, Any], key: str, problem: Mapping[str, Any]
) -> str:
    """Return what is wrong with a value, which may stand inside a table of an option.

    Args:
        target: the class or function.
        values: of its parameters.
        key: the node.
        problem: pydantic's first problem. Its place also names kinds of tables, which are no keys.
    """
    name, *inside = [str(part) for part in problem["loc"]]
    value: Any = values[name]
    path = f"{key}.{name}"
    known = _known_of(parameters_of(target)[name].annotation, value)
    for part in inside:
        if isinstance(value, Mapping) and part in value:
            value, path = value[part], f"{path}.{part}"
        elif isinstance(value, list) and part.isdigit() and path != f"{key}.{name}":
            value, path = value[int(part)], f"{path}.{part}"
    if inside and isinstance(value, Mapping) and problem["type"] == "missing":
        return f"{path}: lacks {inside[-1]}; give {path}.{inside[-1]} too"
    if problem["type"] == "union_tag_not_found":
        tag = str(problem["ctx"]["discriminator"]).strip("'")
        return f"{path}={value!r}: lacks {tag}; give {path}.{tag} too"
    if problem["type"] == "union_tag_invalid":
        tag = str(problem["ctx"]["discriminator"]).strip("'")
        words = str(problem["ctx"]["expected_tags"]).replace("'", "").split(", ")
        found = dict(value)[tag]
        return (
            f"{path}.{tag}={found!r}: should be {' or '.join(words)}."
            f"{did_you_mean(str(found), words)}"
        )
    if inside and problem["type"] == "extra_forbidden":
        return (
            f"{path}: no such key.{did_you_mean(inside[-1], known)} Known here: {', '.join(known)}"
        )
    near = did_you_mean(str(value), _words(problem))
    return f"{path}={value!r}: {_expected(problem, value)}.{near}"


def _known_of(annotation: Any, value: Any) -> list[str]:
    """Return the keys that a table of an option may have, of the kind that it names itself."""
    from typing_extensions import is_typeddict

    if is_typeddict(annotation):
        own = annotation.__annotations__
        said = [str(v) for v in value.values()] if isinstance(value, Mapping) else []
        return list(own) if any(f"'{word}'" in str(own) for word in said) else []
    found = [_known_of(part, value) for part in get_args(annotation)]
    return next((keys for keys in found if keys), [])


def _expected(problem: Mapping[str, Any], value: Any) -> str:
    """Return what was expected, of pydantic's first problem with a value."""
    message = str(problem["msg"])
    if problem["type"] == "missing":
        return f"has too few values ({len(value)})"
    if problem["type"] in ("dict_type", "model_attributes_type"):
        return "should be a table of keys and values, such as {key: value}"
    if problem["type"] == "string_type" and isinstance(value, int | float):
        return "should be a text: put it into quotes"
    if message.startswith("Input should be "):
        return message.replace("Input should be", "should be")
    return f"should fit its type: {message[0].lower()}{message[1:]}"


def _mixes(value: Any, annotation: Any) -> bool:
    """Return whether a value is true or false where only numbers are asked for.

    Python counts a bool as a whole number, so it would pass for 1 or 0.
    """
    held = value if isinstance(value, list) else [value]
    words = set(re.findall(r"[a-z]+", str(annotation)))
    numbers = annotation in (int, float) or bool(words & {"int", "float"})
    return numbers and "bool" not in words and any(isinstance(one, bool) for one in held)


@lru_cache(maxsize=256)
def _validator(target: Callable[..., Any]) -> Any:
    """Return pydantic's validator of a signature; it takes any part of the parameters.

    A parameter without an annotation takes everything.
    """
    from pydantic import ConfigDict, TypeAdapter, with_config
    from typing_extensions import TypedDict  # pydantic takes Python's own from 3.12 on

    fields = {
        name: Any if p.annotation is inspect.Parameter.empty else p.annotation
        for name, p in parameters_of(target).items()
    }
    # No model of pydantic's: its fields may not be called `copy` or `json`.
    schema = TypedDict("schema", fields, total=False)  # type: ignore[misc]
    # No option means anything as NaN or infinity, which pass every comparison of a bound.
    settings = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return TypeAdapter(with_config(settings)(schema))


def unknown_option(key: str, name: str, taker: str, known: list[str]) -> ConfigError:
    """Return the error of a key that a node's class or function does not take."""
    return ConfigError(
        f"{key}.{name}: {taker} takes no such option."
        f"{did_you_mean(name, known)} Known: {', '.join(known)}"
    )


def _words(problem: Mapping[str, Any]) -> list[str]:
    """Return the words out of which one was expected, from a literal error's message."""
    return (
        str(problem.get("ctx", {}).get("expected", ""))
        .replace("'", "")
        .replace(" or ", ", ")
        .split(", ")
    )
