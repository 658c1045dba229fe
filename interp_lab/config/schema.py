"""The typed schema of the root and its small sections, which OmegaConf enforces."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from interp_lab.libraries.hydra_inside import open_node


class Mode(Enum):
    """What a command does: measure, plan it, merge, compute numbers, draw, list, look around."""

    run = "run"
    plan = "plan"
    merge = "merge"
    compute = "compute"
    render = "render"
    summary = "summary"
    doctor = "doctor"


@dataclass
class Output:
    """Where results go and how they are written."""

    root: str = "outputs"
    dir: str = "${run_dir:}"
    part_size: int = 64
    part_seconds: float = 30.0
    exports: bool = True


@dataclass
class Capture:
    """How attention is watched, and what is checked while it is."""

    method: str = "auto"
    verify: str = "first"
    live_check: bool = True
    interventions: list[Any] = field(default_factory=list)


@dataclass
class Shard:
    """Which samples a job measures: those at `index::count` in units of a batch.

    By default the jobs of a sweep that differ in the key `axis` alone share the samples.
    """

    axis: str | None = "device"
    index: int | None = None
    count: int | None = None


@dataclass
class Doctor:
    """How `mode=doctor` prints: as a table, or as JSON for a bug report (`--json`)."""

    json: bool = False


@dataclass
class Config:
    """The root of every configuration."""

    task_name: str = MISSING
    mode: Mode = Mode.run
    device: Any = None
    seed: int = 0
    batch_size: int = 8
    resume: bool = True
    retry_failed: bool = False
    keep_models: int | None = None
    results: str | None = None
    max_failed_share: float = 0.2
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
