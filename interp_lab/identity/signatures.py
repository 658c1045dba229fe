"""What a class takes and by which defaults, read from its source: without importing it.

A run's identity holds every option that changes its numbers, also those that no YAML lists, so
their defaults must be known; but importing a model's class imports torch, which drawing or listing
a run must not wait for and a laptop may not have. What cannot be read this way (a decorated class,
a default that is computed) is imported. Classes of the user's own are imported always.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from interp_lab.identity.names import KEY, OWN, PACKAGE

# Arguments that the runner gives, not the configuration.
GIVEN_BY_RUNNER = ("device", "seed", "batch_size")
# Stands for the default of a parameter that has none.
REQUIRED = inspect.Parameter.empty


class _UnreadableError(Exception):
    """The source alone does not say it."""


def with_defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's plain values with the default of every option that they leave out.

    A number that equals its default is written as the default is: 1 as 1.0. What cannot be
    imported stays as it is, which building the node says.
    """
    found = dict(node)
    for name, default in defaults_of(str(node.get(KEY, ""))).items():
        if default is REQUIRED or name in GIVEN_BY_RUNNER:
            continue
        if name not in found or _same_number(found[name], default):
            found[name] = default
    return found


def _same_number(one: Any, other: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
    return numbers and one == other


@lru_cache(maxsize=64)
def defaults_of(target: str) -> Mapping[str, Any]:
    """Return name -> default of each parameter of what a dotted path names, in order.

    A parameter without a default has `REQUIRED`; tuples come as lists, as YAML would have them.
    Empty if the target cannot be imported.
    """
    if target.startswith(OWN):
        try:
            return defaults_by_source(target)
        except _UnreadableError:
            pass
    module, _, name = target.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    except Exception:  # importing the user's code can raise anything; building the node says it
        return {}
    return {p.name: _listed(p.default) for p in parameters if p.kind not in _VARIADIC}


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def defaults_by_source(target: str) -> Mapping[str, Any]:
    """Return what `defaults_of` returns, from the source of this package alone.

    Raises:
        _UnreadableError: if the source does not say it.
    """
    found, module = _definition(*target.rpartition(".")[::2])
    if isinstance(found, ast.ClassDef):
        options = _fields(found, module)
        if options:
            return {name: default for name, default in options.items() if default is not _GONE}
        found, module = _constructor(found, module)
        return dict(list(_parameters(found, module))[1:])
    if isinstance(found, ast.FunctionDef):
        return dict(_parameters(found, module))
    raise _UnreadableError(target)


@lru_cache(maxsize=64)
def _source(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if module.startswith(OWN) and file.is_file():
            return ast.parse(Path(file).read_text(encoding="utf-8"))
    raise _UnreadableError(module)


def _definition(module: str, name: str) -> tuple[ast.AST, str]:
    """Return what a name is at the top of a module, and the module that defines it."""
    found: ast.AST | None = None
    for statement in _source(module).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _definition(statement.module, alias.name)
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            found = statement
        names = [target.id for target in _assigned(statement)]
        if name in names:
            # Assigned twice, or with others at once: what holds in the end is not read off.
            value = getattr(statement, "value", None)
            if found is not None or names != [name] or isinstance(statement, ast.AugAssign):
                raise _UnreadableError(f"{module}.{name}")
            found = value
    if found is None:
        raise _UnreadableError(f"{module}.{name}")
    return found, module


def _assigned(statement: ast.stmt) -> list[ast.Name]:
    """Return the names that a statement gives a value."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _fields(found: ast.ClassDef, module: str) -> dict[str, Any]:
    """Return the options of a class below a `dataclass_transform`; empty for any other.

    There an annotated attribute is an option, and a plain one with an option's name its default.
    """
    options: dict[str, Any] = {}
    is_root = any("dataclass_transform" in ast.dump(d) for d in found.decorator_list)
    for base in found.bases:
        if not isinstance(base, ast.Name) or is_root:
            continue
        try:
            above, place = _definition(module, base.id)
        except _UnreadableError:  # not of this package, so no family
            continue
        options |= _fields(above, place) if isinstance(above, ast.ClassDef) else {}
    if not options and not is_root:
        return {}
    last: dict[str, Any] = {}
    for statement in found.body:
        if isinstance(statement, ast.AnnAssign):
            if "ClassVar" in ast.dump(statement.annotation):
                continue
            name, value = cast(ast.Name, statement.target).id, statement.value
        elif isinstance(statement, ast.Assign) and cast(Any, statement.targets[0]).id in options:
            name, value = cast(Any, statement.targets[0]).id, statement.value
        else:
            continue
        default, keyword_only = _field_default(value, module)
        (last if keyword_only else options)[name] = default
    return options | last


# Stands for the default of an option that a subclass does not have.
_GONE = object()


def _field_default(value: ast.expr | None, module: str) -> tuple[Any, bool]:
    """Return the default that an attribute gives its option, and whether it is keyword-only."""
    if not isinstance(value, ast.Call):
        return (REQUIRED if value is None else _value(value, module)), False
    if not isinstance(value.func, ast.Name) or value.func.id != "field":
        raise _UnreadableError(f"{module}: {ast.dump(value)[:60]}")
    given = {k.arg: k.value for k in value.keywords}
    if "init" in given and not ast.literal_eval(given["init"]):
        return _GONE, False
    default = _value(given["default"], module) if "default" in given else REQUIRED
    return default, "kw_only" in given


def _constructor(found: ast.ClassDef, module: str) -> tuple[ast.FunctionDef, str]:
    """Return the `__init__` that a class has or inherits, and its module."""
    if found.decorator_list or any(k.arg == "metaclass" for k in found.keywords):
        raise _UnreadableError(f"{module}.{found.name}")
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement, module
    # With several bases the order in which Python asks them is not read off.
    if len(found.bases) != 1 or not isinstance(found.bases[0], ast.Name):
        raise _UnreadableError(f"{module}.{found.name}")
    base, above = _definition(module, found.bases[0].id)
    if not isinstance(base, ast.ClassDef):
        raise _UnreadableError(f"{module}.{found.name}")
    return _constructor(base, above)


def _parameters(function: ast.FunctionDef, module: str) -> Iterator[tuple[str, Any]]:
    """Yield name and default of each parameter, `self` too."""
    args = function.args
    if args.vararg or args.kwarg or function.decorator_list:
        raise _UnreadableError(f"{module}.{function.name}")
    plain = [*args.posonlyargs, *args.args]
    given = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    for parameter, default in [
        *zip(plain, given, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]:
        yield parameter.arg, REQUIRED if default is None else _value(default, module)


def _value(node: ast.AST, module: str) -> Any:
    """Return what a default is: a literal, or a constant of the package that is one."""
    if isinstance(node, ast.Name):
        return _value(*_definition(module, node.id))
    try:
        return _listed(ast.literal_eval(cast(ast.expr, node)))
    except ValueError as error:
        raise _UnreadableError(f"{module}: {ast.dump(node)[:60]}") from error


def _listed(value: Any) -> Any:
    """Return nested values with lists for tuples."""
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    return value
