"""The typed schema of the root and its small sections, which OmegaConf enforces.

What a type leaves open stands beside the key: the bounds of a number, the words that a text may
be, whether it may be empty. `problem_of` holds a value against that, so that a key's default and
its limits are one line.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING

from interp_lab.errors import did_you_mean
from interp_lab.libraries.hydra_inside import open_node

# What NumPy and torch take as a seed on every machine, with room for a place in the data set.
LARGEST_SEED = 2**32 - 1
# More than any machine holds; a count beyond it is a slip of the keyboard.
LARGEST_COUNT = 2**31 - 1
EMPTY = "is empty; leave the key out, or give a value"
LONGEST_WAIT = 86_400.0  # seconds: a day


def number(default: Any, low: float, high: float) -> Any:
    """Return a key whose value is a finite number from `low` to `high`."""
    return field(default=default, metadata={"low": low, "high": high})


def text(default: Any) -> Any:
    """Return a key whose value is a text that is not empty."""
    return field(default=default, metadata={"text": True})


def word(default: str, *others: str) -> Any:
    """Return a key whose value is one of a few words."""
    return field(default=default, metadata={"words": (default, *others)})


class Mode(Enum):
    """What a command does: measure, plan it, merge, compute numbers, draw, list or look around."""

    run = "run"
    plan = "plan"
    merge = "merge"
    compute = "compute"
    render = "render"
    summary = "summary"
    doctor = "doctor"
    models = "models"


@dataclass
class Output:
    """Where results go and how they are written."""

    root: str = text("outputs")
    dir: str = text("${run_dir:}")
    part_size: int = number(64, 1, LARGEST_COUNT)
    part_seconds: float = number(30.0, 0, LONGEST_WAIT)
    exports: bool = True


@dataclass
class Capture:
    """How attention is watched, and what is checked while it is."""

    method: str = word("auto", "eager")
    verify: str = word("first", "all", "off")
    live_check: bool = True
    interventions: list[Any] = field(default_factory=list)


@dataclass
class Shard:
    """Which samples a job measures: those at `index::count` in units of a batch.

    By default the jobs of a sweep that differ in the key `axis` alone share the samples. A job that
    has finished its share goes on (`steal`) with what nobody has begun of the others'.
    """

    axis: str | None = text("device")
    index: int | None = number(None, 0, LARGEST_COUNT)
    count: int | None = number(None, 1, LARGEST_COUNT)
    steal: bool | None = None


@dataclass
class Doctor:
    """How `mode=doctor` prints: as a table, or as JSON for a bug report (`--json`)."""

    json: bool = False


@dataclass
class Config:
    """The root of every configuration."""

    task_name: str = text(MISSING)
    mode: Mode = Mode.run
    device: Any = None
    seed: int = number(0, 0, LARGEST_SEED)
    batch_size: int = number(8, 1, LARGEST_COUNT)
    resume: bool = True
    retry_failed: bool = False
    keep_models: int | None = number(None, 0, LARGEST_COUNT)
    results: str | None = text(None)
    max_failed_share: float = number(0.2, 0.0, 1.0)
    model: Any = field(default_factory=open_node)
    dataset: Any = field(default_factory=open_node)
    analysis: Any = field(default_factory=open_node)
    numbers: Any = field(default_factory=open_node)
    visualization: Any = field(default_factory=open_node)
    # Its keys are those of the YAML files: a task names what its samples can be chosen by.
    select: dict[str, Any] = field(default_factory=dict)
    allow_targets: list[str] = field(default_factory=list)
    importers: dict[str, str] = field(default_factory=dict)
    capture: Capture = field(default_factory=Capture)
    output: Output = field(default_factory=Output)
    shard: Shard = field(default_factory=Shard)
    doctor: Doctor = field(default_factory=Doctor)


def limits(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield every key of the schema with dots, its type (of a section: the class), its limits."""
    hints = get_type_hints(schema)
    for one in fields(schema):
        kind = hints[one.name]
        if isinstance(kind, UnionType):
            kind = next(a for a in get_args(kind) if a is not type(None))
        yield f"{prefix}{one.name}", kind, one.metadata
        if isinstance(kind, type) and is_dataclass(kind):
            yield from limits(kind, f"{prefix}{one.name}.")


@lru_cache(maxsize=1)
def keys_of_schema() -> Mapping[str, Any]:
    """Return every key of the schema -> its type."""
    return {key: kind for key, kind, _ in limits()}


@lru_cache(maxsize=1)
def limits_of_schema() -> Mapping[str, Mapping[str, Any]]:
    """Return every key of the schema -> its limits; none is an empty mapping."""
    return {key: about for key, _, about in limits()}


def bounds_of(about: Mapping[str, Any]) -> str:
    """Return what to give for a number with these limits."""
    kind = "a number" if isinstance(about["high"], float) else "a whole number"
    return f"give {kind} from {about['low']:g} to {about['high']:.15g}"


def problem_of(value: Any, about: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value and what to give, or None.

    Args:
        value: of the type that the schema asks for; None is always well where the type allows it.
        about: the key's limits, as `limits` yields them.
    """
    if value is None:
        return None
    if "low" in about and not (math.isfinite(value) and about["low"] <= value <= about["high"]):
        return bounds_of(about)
    if about.get("text") and not value.strip():
        return EMPTY
    if "words" in about and value not in about["words"]:
        return f"give one of {', '.join(about['words'])}.{did_you_mean(value, about['words'])}"
    return None
