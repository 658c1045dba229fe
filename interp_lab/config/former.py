"""Options of the tools that this package replaces: who types an old one is told what to type now.

The names are data, in `studies/former_options.yaml`. One name may be right in one task and old in
another, so an answer follows the task: the one that was chosen, else the one that has most of the
old names that were typed.
"""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import OverrideParseException

from interp_lab.config.nodes import PACKAGE, conf_dir
from interp_lab.config.schema import keys_of_schema
from interp_lab.config.typed import as_text, groups
from interp_lab.libraries.hydra_inside import parsed

ANY, EVERY_OTHER, NOTE = "any", "*", "note"
OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w.\-/@]*=")
NUMBER = re.compile(r"-\d+(\.\d+)?$")


@dataclass(frozen=True)
class Given:
    """An option as it was given: `--num-samples` or `num_samples`, and its values."""

    shown: str
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name, in which dashes and underscores are the same."""
        return _plain(self.shown)


@dataclass(frozen=True)
class Answer:
    """What old options are here: what is typed for them, and why some have nothing to type.

    Args:
        olds: as they were given.
        tokens: what is typed for them, without what was typed anyway.
        notes: of those that nothing is typed for.
        new: the key that the first one's value belongs to; empty if nothing is typed.
    """

    olds: tuple[str, ...]
    tokens: tuple[str, ...]
    notes: tuple[str, ...]
    new: str

    def line(self) -> str:
        """Return it as one line."""
        typed = " ".join(map(shlex.quote, self.tokens))
        told = "; ".join(self.notes)
        if not self.tokens:
            return told
        old, *more = self.olds
        if more:
            first = f"{', '.join(self.olds)}: options of the original tool; type {typed}"
        else:
            groups_ = [t for t in self.tokens if t.partition("=")[0] in (*groups(), "mode")]
            beside = [t for t in groups_ if t.partition("=")[0] != self.new]
            with_ = f", with {' and '.join(beside)}" if beside else ""
            first = f"{old} is {self.new} here{with_}: type {typed}"
        return f"{first}; {told}" if told else first


def instead(
    arguments: Sequence[str], folders: Sequence[Path] = (), certain: bool = True
) -> str | None:
    """Return one line with what to type for the old options of a command line, or None.

    Args:
        arguments: as they were typed.
        folders: the user's own configs, of which one may choose the task.
        certain: whether to leave alone a key that the chosen task does not call old: it may be of
            a task or file of the user's own. Flags of another tool are never right.
    """
    chosen = task_of(arguments, folders)
    given = [g for g in typed_options(arguments) if _new_of_flag(g) or _tasks(g.name)]
    if certain:
        task = chosen or default_task()
        given = [g for g in given if g.shown.startswith("--") or _entry(g.name, task) is not None]
    given = [g for g in given if not _is_right(g, chosen)]
    if not given:
        return None
    tasks = [chosen] if chosen else _likely(given)
    lines = [_answer(given, task, arguments, bool(chosen)).line() for task in tasks]
    return f"{lines[0]} (or, in another study: {lines[1]})" if len(lines) > 1 else lines[0]


def instead_in(path: Path, task: str, certain: bool = True) -> str | None:
    """Return one line with what to write for the old options of a YAML of the user's, or None.

    Args:
        path: of a file whose keys are those of the root.
        task: the one that was chosen.
        certain: as for `instead`.
    """
    held = _read(path)
    old = [g for g in _flat(held) if _entry(g.name, task) is not None]
    if not certain:
        old = [g for g in _flat(held) if _tasks(g.name) and not _is_right(g, task)]
    if not old:
        return None
    given = [task] if task in _tasks_of(old) else _likely(old)
    answer = _answer(old, given[0], [f"task={task}"], chosen=False)
    chosen = [t for t in answer.tokens if t.partition("=")[0] in groups()]
    nested: dict[str, Any] = {}
    for token in answer.tokens:
        if token not in chosen:
            _put(nested, *token.partition("=")[::2])
    written = yaml.safe_dump(nested, default_flow_style=True, allow_unicode=True, width=10_000)
    parts = [f"write {written.strip()[1:-1]}"] if nested else []
    parts += [f"`override {'/'.join(t.split('=', 1)[:1])}: {t.split('=', 1)[1]}`" for t in chosen]
    told = "; ".join([", and among its defaults ".join(parts), *answer.notes])
    pairs = [f"{g.shown} is {new}" for g in old if (new := _new_key(g, given[0], old))]
    return f"{path}: {', '.join(pairs)} here: {told}" if pairs else f"{path}: {told}"


def task_of(arguments: Sequence[str], folders: Sequence[Path] = ()) -> str | None:
    """Return the task that was chosen: typed, or by an experiment or the file of --config-name.

    Args:
        arguments: as they were typed.
        folders: the user's own configs.
    """
    named = {a.partition("=")[0]: a.partition("=")[2] for a in arguments if "=" in a}
    flag = next((b for a, b in itertools.pairwise(arguments) if a in ("--config-name", "-cn")), "")
    files = [f"experiment/{named.get('experiment')}", named.get("--config-name", flag)]
    for file in files if "task" not in named else ():
        for folder in (conf_dir(), *folders):
            for one in _read(folder / f"{file.removesuffix('.yaml')}.yaml").get("defaults") or ():
                for group, option in one.items() if isinstance(one, dict) else ():
                    if str(group).split()[-1].lstrip("/") == "task":
                        return str(option)
    return named.get("task")


@lru_cache(maxsize=1)
def default_task() -> str:
    """Return the task of a command that names none."""
    defaults = _read(conf_dir() / "config.yaml")["defaults"]
    return str(next(d["task"] for d in defaults if isinstance(d, dict) and "task" in d))


def typed_options(arguments: Sequence[str]) -> Iterator[Given]:
    """Yield flags with what follows them, and overrides; `++key=` is meant as it stands."""
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            values = [value] if equals else []
            while not equals and waiting and _is_value(waiting[0]):
                values.append(waiting.pop(0))
            yield Given(name, tuple(values))
        elif equals and not argument.startswith(("++", "~", "-")):
            yield Given(name.lstrip("+"), (value,))


def _is_value(argument: str) -> bool:
    if argument.startswith("-"):
        return bool(NUMBER.match(argument))
    return not OVERRIDE.match(argument)


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Mapping[str, Any]]:
    """Return section -> plain name -> what is typed for it."""
    held = _read(PACKAGE / "studies" / "former_options.yaml")
    return {task: {_plain(n): e for n, e in names.items()} for task, names in held.items()}


@lru_cache(maxsize=1)
def _spelled() -> frozenset[tuple[str, str]]:
    """Return every (task, name) as the original tool spells it."""
    held = _read(PACKAGE / "studies" / "former_options.yaml")
    return frozenset((task, name) for task, names in held.items() for name in names)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _entry(name: str, task: str) -> Any:
    section = _table().get(task, {})
    return section[name] if name in section else _table()[ANY].get(name)


def _tasks(name: str) -> list[str]:
    """Return the sections that have a name as an old one."""
    return [task for task, names in _table().items() if names.get(name) is not None]


def _tasks_of(given: Sequence[Given]) -> set[str]:
    return {task for one in given for task in _tasks(one.name)}


def _is_right(given: Given, task: str | None) -> bool:
    """Return whether what was given is no old option: the task's own key, or a group's option."""
    if given.shown.startswith("--"):
        return False
    if given.name in groups():
        return True
    section = _table().get(task or default_task(), {})
    return given.name in section and section[given.name] is None


def _likely(given: Sequence[Given]) -> list[str]:
    """Return the task that has most of these names, as they are spelled; several if it is open."""
    default = default_task()
    # Typed as keys are here, they are meant for the task that runs.
    if all(not g.shown.startswith("--") and _entry(g.name, default) is not None for g in given):
        return [default]

    def weight(task: str) -> tuple[int, int]:
        known = [g for g in given if _entry(g.name, task) is not None]
        ways = {(t, g.shown.lstrip("-")) for t in (task, ANY) for g in known}
        return len(known), len(ways & _spelled())

    weights = {task: weight(task) for task in _table() if task != ANY}
    best = max(weights.values())
    if best[0] == 0 or weights.get(default) == best:
        return [default]
    return [task for task, one in weights.items() if one == best][:2]


def _new_of_flag(given: Given) -> str | None:
    """Return the override that a flag stands for whose name is a key or group here."""
    if not given.shown.startswith("--"):
        return None
    name = given.name
    if name not in keys_of_schema() and name.partition(".")[0] not in (*groups(), "select"):
        return None
    if name in groups() and not _is_option(name, given.values):
        return None
    return f"{name}={_listed(given.values) if given.values else 'true'}"


def _is_option(group: str, values: Sequence[str]) -> bool:
    return len(values) == 1 and (conf_dir() / group / f"{values[0]}.yaml").is_file()


def _answer(given: Sequence[Given], task: str, arguments: Sequence[str], chosen: bool) -> Answer:
    typed = {a.partition("=")[0] for a in arguments}
    # A result that is drawn again has its task with it.
    known = chosen or task == default_task() or "results" in typed
    tokens = [] if known else [f"task={task}"]
    notes: list[str] = []
    new = ""
    for one in given:
        found = _tokens(one, task, given)
        if isinstance(found, str):
            notes.append(f"leave {one.shown} out: {found}")
            continue
        tokens += found
        new = new or _key_of_value(found)
    # What was chosen stays; a placeholder is not for what was given.
    settled = {t for t in typed if t in groups() or t in ("results", "mode")}
    kept = [
        t
        for t in dict.fromkeys(tokens)
        if t not in arguments and t.partition("=")[0] not in settled
    ]
    kept.sort(key=lambda t: t.partition("=")[0] not in (*groups(), "mode"))
    told = [one.shown for one in given if not isinstance(_tokens(one, task, given), str)]
    return Answer(tuple(told), tuple(kept) if told else (), tuple(notes), new)


def _key_of_value(tokens: Sequence[str]) -> str:
    """Return the key that a value went to: the last one, before placeholders of other keys."""
    own = [t for t in tokens if not t.endswith(("=PATH", "=FOLDER"))] or list(tokens)
    return own[-1].partition("=")[0]


def _new_key(given: Given, task: str, all_given: Sequence[Given]) -> str:
    found = _tokens(given, task, all_given)
    return "" if isinstance(found, str) else _key_of_value(found)


def _tokens(given: Given, task: str, others: Sequence[Given]) -> list[str] | str:
    """Return what is typed for an old option, or why nothing is."""
    general = _new_of_flag(given)
    if general:
        return [general]
    entry = _entry(given.name, task)
    if entry is None:
        where = next(t for t in _tasks(given.name))
        found = _tokens(given, where, others)
        return f"it belongs to task={where}" + (
            f", where it is {' '.join(found)}" if isinstance(found, list) else ""
        )
    value = _listed(given.values)
    if isinstance(entry, dict) and NOTE not in entry:
        entry = entry.get(value.lower() if value.lower() in entry else value, entry[EVERY_OTHER])
    if isinstance(entry, dict):
        return str(entry[NOTE])
    known = {one.name: _listed(one.values) or "..." for one in others}
    switch = "true" if given.shown.startswith("--") and "numbers." in entry else "..."
    fields = {"value": value or switch, "list": value or "...", "plain": value.replace("-", "_")}
    wanted = re.findall(r"{(\w+)}", entry)
    filled = {name: fields.get(name, known.get(name, "...")) for name in wanted}
    return _of_checkpoint([readable(part.format(**filled)) for part in entry.split(" ")])


def _of_checkpoint(tokens: list[str]) -> list[str]:
    """Return what is typed for a model, by the option that has its checkpoint, if one has."""
    own = [t for t in tokens if t.startswith("model.checkpoint=")]
    option = option_with(own[0].partition("=")[2]) if own else None
    if option is None:
        return tokens
    rest = [t for t in tokens if t.partition("=")[0] not in ("model", "model.checkpoint")]
    return [f"model={option}", *rest]


def option_with(checkpoint: str) -> str | None:
    """Return the option of the group `model` that has a checkpoint, such as openai/clip-..."""
    return next((name for name, held in _checkpoints().items() if held == checkpoint), None)


@lru_cache(maxsize=1)
def _checkpoints() -> Mapping[str, str]:
    files = sorted((conf_dir() / "model").glob("*.yaml"))
    return {path.stem: str(_read(path).get("checkpoint")) for path in files}


def _listed(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"[{','.join(values)}]" if values else ""


def readable(override: str) -> str:
    """Return an override that is read as it stands: with its value in quotes, if need be."""
    try:
        parsed([override])
    except OverrideParseException:
        return as_text(override) or override
    return override


def _read(path: Path) -> dict[str, Any]:
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return held if isinstance(held, dict) else {}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[Given]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "defaults":
            said = str(value).lower() if isinstance(value, bool) else value
            yield Given(f"{prefix}{name}", ("null" if said is None else str(said),))


def _put(nested: dict[str, Any], key: str, value: str) -> None:
    *above, last = key.split(".")
    for part in above:
        nested = nested.setdefault(part, {})
    nested[last] = yaml.safe_load(value)
