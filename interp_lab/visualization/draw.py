"""All figures of a run: which, where they lie, by how many processes, and what failed.

The configuration names a draw function for each figure; it returns a `Figure` or a `Film`, and
saving happens here. A figure that fails costs neither the others nor the numbers.
"""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from tqdm import tqdm

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import InterpLabError, did_you_mean
from interp_lab.store.checksum import Stamp, stamp_of, trust
from interp_lab.store.opening import look_at
from interp_lab.store.orphans import end_with
from interp_lab.store.results import Results, open_results
from interp_lab.visualization.base import FigureError, NothingToDrawError, Style, save
from interp_lab.visualization.figure_files import apart, figure_path, with_format
from interp_lab.visualization.figure_nodes import (
    GIVEN,
    MIN_SAMPLES,
    OWN_KEYS,
    check_figures,
    formats_of,
    plain,
    resolve,
)
from interp_lab.visualization.film import Film, save_film
from interp_lab.visualization.select import SampleLayer, chosen_samples, groups, layers, restyled

log = logging.getLogger(__name__)

JOBS_A_TASK = 8
# One sample, one layer of it, a group of samples, or the run.
Subject: TypeAlias = str | SampleLayer | tuple[str, ...] | None


@dataclass(frozen=True)
class Job:
    """One figure to draw: its name in the configuration, its place, and the samples it shows."""

    figure: str
    target: str
    options: Mapping[str, Any]
    path: Path
    format: str
    subject: Subject


@dataclass
class Report:
    """What became of some jobs: files, log lines, absent fields and errors, to tell once."""

    paths: list[Path] = field(default_factory=list)
    messages: list[tuple[int, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def draw_all(
    results_path: str | Path,
    figures: Mapping[str, Mapping[str, Any]],
    style: Style,
    folder: str | Path,
    select: Mapping[str, Any] | None = None,
    allow_targets: Sequence[str] = (),
) -> list[Path]:
    """Draw and save the figures of a result.

    With one sample its figures lie at the top of the folder and figures of the run are left out,
    but those that say `min_samples: 1`; with several every sample has a folder of its own.

    Args:
        results_path: a results.h5 or run directory.
        figures: name -> node with `_target_`, `file` (a name without suffix; with names of
            Category fields in braces it is the place below `folder`), `per` (sample, layer,
            group or run), `by` (of a group), `enabled`, `min_samples` (of a run, 2 if not given),
            `format` (the style's, if not given), and the draw function's own options.
        style: how, how many, and by how many processes.
        folder: where they go.
        select: which samples get figures of their own, and which layer and head they show; see
            `chosen_samples` and `restyled`. Figures of the run are over all samples as ever.
        allow_targets: packages beside this one whose draw functions may be imported.

    Returns:
        The files, in the order of samples and figures.

    Raises:
        ConfigError: see `check_figures`, `chosen_samples` and `restyled`.
        StoreError: if there is no result.
        FigureError: at the end, if some figures could not be drawn; they are counted.
    """
    enabled = {name: node for name, node in figures.items() if node.get("enabled", True)}
    check_figures(enabled, allow_targets)
    style = restyled(style, select)
    with open_results(results_path) as results:
        chosen = chosen_samples(results, select)
        jobs = _jobs(results, enabled, style, Path(folder), chosen)
        path = results.path
    reports = _in_processes(path, jobs, style) if style.workers else _here(path, jobs, style)
    drawn = {path for report in reports for path in report.paths}
    messages = [message for report in reports for message in report.messages]
    # A font that lacks a letter, or a field that is absent, says so in every figure: tell it once.
    for level, message in dict.fromkeys(messages):
        log.log(level, message)
    failed = [line for report in reports for line in report.failed]
    if failed:
        raise FigureError(
            f"{len(failed)} of {len(jobs)} figures could not be drawn; the first: {failed[0]}"
        )
    return [job.path for job in jobs if job.path in drawn]


def _jobs(
    results: Results,
    figures: Mapping[str, Mapping[str, Any]],
    style: Style,
    folder: Path,
    chosen: Sequence[str],
) -> list[Job]:
    limit = len(chosen) if style.max_samples < 0 else style.max_samples
    of = {per: {n: f for n, f in figures.items() if f["per"] == per} for per in GIVEN}
    subjects: list[tuple[str, Subject]] = []
    for sample in chosen[:limit]:
        subjects += [(name, sample) for name in of["sample"]]
        if of["layer"]:
            each = layers(results, style, sample)
            subjects += [(name, one) for one in each for name in of["layer"]]
    for name, node in of["group"].items():
        subjects += [(name, group) for group in groups(results, node["by"], chosen, limit)]
    # The run itself comes last; without any measured sample it has nothing to show.
    n_samples = len(results) + len(results.failures) if len(results) else 0
    subjects += [
        (n, None)
        for n, f in of["run"].items()
        if 0 < n_samples >= f.get("min_samples", MIN_SAMPLES)
    ]
    wanted = [(n, s, kind) for n, s in subjects for kind in formats_of(figures[n], style.format)]
    samples = [_sample_of(subject) for _, subject, _ in wanted]
    kinds = [kind for _, _, kind in wanted]
    bare = [
        figure_path(folder, results, figures[name]["file"], sample, getattr(one, "layer", None))
        for (name, one, _), sample in zip(wanted, samples, strict=True)
    ]
    paths = apart([with_format(*pair) for pair in zip(bare, kinds, strict=True)], samples)
    return [
        Job(name, str(figures[name]["_target_"]), _options(figures[name]), path, kind, subject)
        for (name, subject, kind), path in zip(wanted, paths, strict=True)
    ]


def _sample_of(subject: Subject) -> str | None:
    """Return the sample that a figure's place is named after; None = the run."""
    if isinstance(subject, SampleLayer):
        return subject.sample
    return subject[0] if isinstance(subject, tuple) else subject


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in node.items() if key not in OWN_KEYS}


def _here(path: Path, jobs: Sequence[Job], style: Style) -> list[Report]:
    return [draw_jobs(path, tqdm(jobs, "figures", disable=None), style)]


def _in_processes(path: Path, jobs: Sequence[Job], style: Style) -> list[Report]:
    if multiprocessing.current_process().daemon:
        # A daemon (a worker of multiprocessing.Pool) may not have children of its own.
        return _here(path, jobs, style)
    share = max(1, min(JOBS_A_TASK, len(jobs) // style.workers))
    tasks = [jobs[start : start + share] for start in range(0, len(jobs), share)]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(style.workers, len(tasks)) or 1,
        mp_context=context,
        initializer=_begin_worker,
        initargs=(os.getpid(), stamp_of(path), look_at(path)),
    )
    try:
        with _clean_start():
            sizes: dict[Future[Report], int] = {
                pool.submit(draw_jobs, path, task, style): len(task) for task in tasks
            }
        with tqdm(total=len(jobs), desc="figures", disable=None) as bar:
            for future in as_completed(sizes):
                bar.update(sizes[future])
        return [future.result() for future in sizes]
    except BrokenProcessPool as error:
        raise FigureError(
            "a drawing process died (out of memory?): lower visualization.dpi or figsize, or set "
            "visualization.workers=0; the numbers are safe in results.h5"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker(parent: int, stamp: Stamp, has_checksum: bool) -> None:
    end_with(parent)
    # An interrupt is for the process that was asked to draw; it ends these in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The file was checked there; a large one takes seconds.
    trust(stamp, has_checksum)
    # What was imported stays; the collector need not look through it after every figure.
    gc.freeze()


@contextmanager
def _clean_start() -> Iterator[None]:
    """Start processes that know nothing of how this one was started.

    A spawned process runs the main script once more, to find functions defined there. Ours are in
    this module; a script without a `__name__` guard would start its study again in every worker,
    and a notebook or standard input has no file to run. It also takes over this process's default
    start method, which inside a joblib worker is one that a plain process does not know.
    """
    main, method = sys.modules["__main__"], multiprocessing.get_start_method(allow_none=True)
    sys.modules["__main__"] = types.ModuleType("__main__")
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        multiprocessing.set_start_method(method, force=True)


class _Collector(logging.Handler):
    """Keeps log lines, so that a worker's reach the log of the process that started it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.levelno, record.getMessage()))


def draw_jobs(path: Path, jobs: Iterable[Job], style: Style) -> Report:
    """Draw some figures of the result at `path`; never raises for a figure that fails."""
    report = Report()
    collector = _Collector()
    logger = logging.getLogger("interp_lab.visualization")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        with open_results(path) as results:
            for job in jobs:
                _draw(results, job, style, report)
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
    report.messages = collector.messages + report.messages
    return report


def _draw(results: Results, job: Job, style: Style, report: Report) -> None:
    where = f"figure {job.figure}" + _named(job.subject)
    subject: tuple[Any, ...] = () if job.subject is None else (job.subject,)
    if isinstance(job.subject, SampleLayer):
        subject = (job.subject.sample, job.subject.layer)
    try:
        function = resolve(job.target, f"visualization.figures.{job.figure}._target_")
        figure = function(results, style, *subject, **job.options)
        about = {"title": where, "description": f"results: {results.path}"}
        if isinstance(figure, Film):
            report.paths.append(save_film(figure, job.path, job.format, about))
        else:
            report.paths.append(save(figure, job.path, style, about))
    except NothingToDrawError as error:
        report.messages.append(_left_out(job, error))
    except Exception as error:  # whatever a draw function does wrong, the others go on
        known = isinstance(error, InterpLabError)
        line = f"{where}: {error if known else f'{type(error).__name__}: {error}'}"
        report.failed.append(line)
        report.messages.append((logging.ERROR, line))
        report.messages.append((logging.DEBUG, traceback.format_exc()))


def _left_out(job: Job, error: NothingToDrawError) -> tuple[int, str]:
    """Return level and line for a figure with nothing to show.

    That a result lacks a field is a reason, and information. Only a name that a figure's node gives
    and no figure of the package knows can be a slip of the keyboard.
    """
    line = f"figure {job.figure} is left out: {error}"
    given = _texts(list(job.options.values()))
    if error.absent and error.absent in given - known_texts():
        return logging.WARNING, f"{line}.{did_you_mean(error.absent, error.held)}"
    return logging.INFO, line


@lru_cache(maxsize=1)
def known_texts() -> frozenset[str]:
    """Return every text that an option of the package's own figures has."""
    nodes = [
        yaml.safe_load(path.read_text(encoding="utf-8")).get("figures") or {}
        for path in sorted((conf_dir() / "visualization").glob("*.yaml"))
    ]
    return frozenset(_texts(nodes))


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        value = list(value.values())
    return {text for one in value for text in _texts(one)} if isinstance(value, list) else set()


def _named(subject: Subject) -> str:
    if isinstance(subject, SampleLayer):
        return f" of sample {subject.sample!r}, layer {subject.layer}"
    if isinstance(subject, tuple):
        return f" of {len(subject)} samples, the first {subject[0]!r}"
    return "" if subject is None else f" of sample {subject!r}"
