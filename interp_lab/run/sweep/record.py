"""A sweep's own folder: which jobs it has, what became of each, and whether to stop.

Hydra shows one error of a sweep and joblib stops a sweep whose worker dies. So a job of a sweep
never raises: it writes what became of it into the sweep's folder, where the command reads it.
"""

import itertools
import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from interp_lab.errors import StoreError
from interp_lab.libraries.hydra_inside import (
    job_number,
    parsed,
    recorded_settings,
    sweep_folder,
    sweep_record,
    swept_overrides,
    typed_overrides,
)
from interp_lab.libraries.joblib_inside import let_workers_end

log = logging.getLogger(__name__)
JOBS = ".jobs"
SWEEP = "sweep.json"
# The folder of the sweep that this process has started.
_started: list[Path] = []


class Record(Callback):
    """Gives a sweep its folder and identity before the first job; Hydra calls it.

    As many jobs work at a time as there are devices for. The first Ctrl-C or SIGTERM then only asks
    the jobs to end.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder; workers of an earlier sweep of the same place have another."""
        above = sweep_folder(config.hydra) / JOBS
        who = {"id": uuid.uuid4().hex[:12], "pid": os.getpid(), "host": socket.gethostname()}
        folder = above / who["id"]
        folder.mkdir(parents=True)
        (above / SWEEP).write_text(json.dumps(who))
        _started.append(folder)
        limit_processes(config.hydra)
        if config.hydra.runtime.choices.get("hydra/launcher") == "joblib":
            let_workers_end(lambda processes: at_work(folder, processes))
        if threading.current_thread() is threading.main_thread():
            for number in _POLITE:
                signal.signal(number, _stop)


@dataclass
class Outcome:
    """What became of a job: `running`, `done`, `failures`, `stopped` or `error`.

    Args:
        number: of the job in its sweep.
        overrides: what it was given; in the end, what not all jobs were given.
        state: one of the words above; what stays `running` died without a word.
        line: the error, as one line.
        results: the result, if this job has one to show.
        figures: how many were drawn.
        pid, host: where it ran.
    """

    number: int
    overrides: list[str]
    state: str = "running"
    line: str = ""
    results: str | None = None
    figures: int = 0
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def write(self, folder: Path) -> None:
        """Write it into the sweep's folder, whole or not at all."""
        path = folder / f"{self.number:06d}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, path)


@dataclass(frozen=True)
class SweepJob:
    """A job as part of its sweep.

    Args:
        folder: where the jobs' outcomes lie.
        number: of the job.
        overrides: what it was given.
        sweep: identity of the sweep.
        command: pid of the command that started this process, if it should end with it.
    """

    folder: Path
    number: int
    overrides: tuple[str, ...]
    sweep: str
    command: int | None = None

    def orphaned(self) -> bool:
        """Return whether the command that started this process has died."""
        return self.command is not None and os.getppid() != self.command

    def stopped(self) -> bool:
        """Return whether the sweep was stopped, or nobody is left to tell its result."""
        return self.orphaned() or (self.folder / "stop").exists()

    def stop_all(self) -> None:
        """Stop the sweep: no further job begins, and those at work end after their batch."""
        (self.folder / "stop").touch()


def job_of(config: Any) -> SweepJob:
    """Return the job that a composed configuration of Hydra's own (`HydraConfig`) describes.

    Raises:
        StoreError: if the sweep left no record of itself.
    """
    above = sweep_folder(config) / JOBS
    try:
        who = json.loads((above / SWEEP).read_text())
    except OSError as error:
        raise StoreError(
            f"{above / SWEEP}: not there; the jobs of a sweep need its folder "
            "(hydra.sweep.dir) on a disk that all of them see"
        ) from error
    # A process of joblib's ends with its command; a job of a cluster lives by itself.
    bound = multiprocessing.current_process().name.startswith("LokyProcess")
    return SweepJob(
        above / who["id"],
        job_number(config),
        tuple(typed_overrides(config)),
        who["id"],
        who["pid"] if bound else None,
    )


@dataclass(frozen=True)
class SweptJobs:
    """All jobs of a sweep, as Hydra's basic sweeper numbers them.

    Args:
        keys: the keys that were given, in order.
        jobs: for each job, its override of each key.
    """

    keys: tuple[str, ...]
    jobs: tuple[tuple[str, ...], ...]


def record_of(folder: Path) -> Path:
    """Return Hydra's record of the sweep with this folder for its jobs."""
    return sweep_record(folder.parent.parent)


def swept_jobs(folder: Path) -> SweptJobs:
    """Return the jobs of the sweep with this folder, by Hydra's record of it."""
    return jobs_of(recorded_settings(record_of(folder)))


def jobs_of(settings: Any) -> SweptJobs:
    """Return the jobs that the sweeper makes of Hydra's own settings."""
    lists: dict[str, tuple[str, list[str]]] = {}
    for override in parsed(swept_overrides(settings)):
        key = override.marked_key
        lists[key] = (override.key, [f"{key}={value}" for value in override.values])
    return SweptJobs(
        tuple(name for name, _ in lists.values()),
        tuple(itertools.product(*(values for _, values in lists.values()))),
    )


def at_once(swept: SweptJobs) -> int:
    """Return how many jobs of a sweep can work at the same time.

    An accelerator takes one; the CPU one for each time that it stands in the sweep's devices. Jobs
    whose device is not swept are all on one.
    """
    if "device" not in swept.keys:
        return 1
    place = swept.keys.index("device")
    rest = (*swept.jobs[0][:place], *swept.jobs[0][place + 1 :])
    group = [j[place] for j in swept.jobs if (*j[:place], *j[place + 1 :]) == rest]
    # Hydra writes `cuda\\:1` for what was typed without quotes.
    values = [override.partition("=")[2].replace("\\", "") for override in group]
    names = [value.strip("'\" ").lower() for value in values]
    cards = {_CARD.sub(r"\1", name) or "0" for name in names if name != "cpu"}
    return min(len(swept.jobs), len(cards) + names.count("cpu"))


# `cuda`, `cuda:1` and `1` as numbers of a card.
_CARD = re.compile(r"^cuda:?(\d*)$")


def limit_processes(hydra: Any) -> None:
    """Let joblib start as many processes as can work at once, unless the user said how many.

    By itself it starts one for each core, each with torch and in the end a model in memory.
    """
    said = any(o.lstrip("+").startswith("hydra.launcher.n_jobs=") for o in hydra.overrides.hydra)
    # A launcher that the user wrote has the number that it says.
    if said or hydra.runtime.choices.get("hydra/launcher") != "joblib":
        return
    swept = jobs_of(hydra)
    count = at_once(swept)
    with read_write(hydra):
        hydra.launcher.n_jobs = count
    if 1 < count < len(swept.jobs) and at_once(SweptJobs(swept.keys, swept.jobs[:count])) < count:
        log.warning(
            "device is not the last key of this sweep: its jobs wait for one device while "
            "the others idle; give device=... after the other keys"
        )


def at_work(folder: Path, processes: Collection[int]) -> bool:
    """Return whether one of these processes of this machine works on a job of a sweep."""
    for path in folder.glob("[0-9]*.json"):
        try:
            told = json.loads(path.read_text())
        except OSError:  # the folder was deleted; who asks is joblib's own thread
            continue
        if told["state"] == "running" and told["pid"] in processes:
            return True
    return False


def started(forget: bool = False) -> Path | None:
    """Return the folder of the sweep that this process started last, if it did."""
    folder = _started[-1] if _started else None
    if forget:
        _started.clear()
    return folder


@contextmanager
def interruptible() -> Iterator[None]:
    """Put the signal handlers back that a sweep's command replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_POLITE = (signal.SIGINT, signal.SIGTERM)


def _stop(number: int, frame: object) -> None:
    """Let the jobs at work end after their batch and no further one begin; twice: at once."""
    if not _started or (_started[-1] / "stop").exists():
        raise KeyboardInterrupt
    (_started[-1] / "stop").touch()
    log.warning("stopping after the batches at hand; Ctrl-C again to stop at once")


def outcomes(folder: Path) -> list[Outcome]:
    """Return what became of every job of a sweep; one that never began is `waiting`."""
    found = {}
    for path in folder.glob("[0-9]*.json"):
        outcome = Outcome(**json.loads(path.read_text()))
        found[outcome.number] = outcome
    jobs = swept_jobs(folder).jobs if record_of(folder).is_file() else ()
    waiting = (Outcome(n, list(job), "waiting", pid=0, host="") for n, job in enumerate(jobs))
    for outcome in waiting:
        found.setdefault(outcome.number, outcome)
    shared = set.intersection(*(set(o.overrides) for o in found.values())) if found else set()
    for outcome in found.values():
        outcome.overrides = [o for o in outcome.overrides if o not in shared]
    return [found[number] for number in sorted(found)]
