"""The jobs of a sweep: each writes what became of it, and the command tells the user.

Hydra would show one error of many and joblib none but its own, so a job of a sweep never raises.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from interp_lab.config.complaints import explain
from interp_lab.config.folders import check_chosen
from interp_lab.config.nodes import conf_dir
from interp_lab.errors import (
    FAILED_SAMPLES,
    STOPPED,
    FinishedWithFailuresError,
    StoppedByUserError,
)
from interp_lab.libraries.hydra_inside import config_folders, output_folder
from interp_lab.run.sweep.record import Outcome, SweepJob, job_of, outcomes
from interp_lab.store.locks import alive
from interp_lab.store.orphans import end_with

log = logging.getLogger(__name__)
# Numbers of the jobs that this process works on.
_working: list[int] = []


def run_in_sweep(cfg: DictConfig, config: Any) -> None:
    """Do a job of a sweep and write what became of it.

    Args:
        cfg: the job's configuration.
        config: Hydra's own (`HydraConfig`).
    """
    job = job_of(config)
    if job.command is not None:
        end_with(job.command, lambda: bool(_working))
    _working.append(job.number)
    try:
        _run(cfg, config, job)
    finally:
        _working.remove(job.number)


def _run(cfg: DictConfig, config: Any, job: SweepJob) -> None:
    outcome = Outcome(job.number, list(job.overrides))
    outcome.write(job.folder)
    try:
        check_chosen(config)
        _do(cfg, job, outcome)
    except FinishedWithFailuresError as error:
        outcome.state, outcome.line = "failures", str(error)
    except (StoppedByUserError, KeyboardInterrupt) as error:
        if not job.orphaned():
            job.stop_all()
        outcome.state, outcome.line = "stopped", str(error) or "stopped"
    except Exception as error:
        outcome.state, outcome.line = "error", _line(error, job, config)
    outcome.write(job.folder)
    if job.orphaned():
        os._exit(STOPPED)  # else joblib's worker would wait for further jobs, its model on a device


def _do(cfg: DictConfig, job: SweepJob, outcome: Outcome) -> None:
    from interp_lab.run.study import run_study

    if job.stopped():
        raise StoppedByUserError("stopped before it began")
    done = run_study(cfg, list(job.overrides), job)
    outcome.state = "done"
    outcome.results = str(done.results) if done.results else None
    outcome.figures = len(done.figures)
    done.complain()


def _line(error: Exception, job: SweepJob, config: Any) -> str:
    """Return an error as one line; a fault of the program also goes to the job's log, whole."""
    sources = config_folders(config)
    line = explain(error, list(job.overrides), [p for p in sources if p != conf_dir()])
    if line is not None:
        log.debug("the error of this job", exc_info=error)
        return line
    log.error("a fault of the program", exc_info=error)
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (traceback in {output_folder(config)})"


def report(folder: Path, raised: BaseException | None) -> int | None:
    """Print the results and errors of a sweep's jobs; return the exit code.

    Args:
        folder: of the sweep.
        raised: what the launcher raised, if it did.

    Returns:
        None if no job began: then `raised` alone says what is wrong.
    """
    found = outcomes(folder)
    if all(o.state == "waiting" for o in found):
        return None
    for path in dict.fromkeys(o.results for o in found if o.results):
        figures = sum(o.figures for o in found if o.results == path)
        print(f"figures: {figures} in {Path(path).parent / 'figures'}") if figures else None
        print(f"results: {path}", flush=True)
    stopped = (folder / "stop").exists() or isinstance(raised, KeyboardInterrupt)
    for outcome in found:
        _explain_silence(outcome, stopped)
    errors = collapsed([o for o in found if o.state == "error"], len(found))
    failures = collapsed([o for o in found if o.state == "failures"], len(found))
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    for line in failures:
        print(f"finished with failures: {line}", file=sys.stderr)
    # joblib says of a worker that died only that it did, which the jobs themselves tell better.
    if raised is not None and not stopped and type(raised).__name__ != "TerminatedWorkerError":
        first = str(raised).strip().partition("\n")[0]
        print(f"error: the launcher: {type(raised).__name__}: {first}", file=sys.stderr)
    if stopped:
        ended = Counter(o.state for o in found)
        print(
            f"stopped: {ended['done'] + ended['failures']} of {len(found)} jobs are done; the same "
            "command goes on",
            file=sys.stderr,
        )
        return STOPPED
    if errors or raised is not None:
        return 1
    return FAILED_SAMPLES if failures else 0


def _explain_silence(outcome: Outcome, stopped: bool) -> None:
    """Make an error of a job that ended without a word, or that never began."""
    if outcome.state == "running":
        where = f"process {outcome.pid} on {outcome.host}"
        lives = alive(outcome.pid, outcome.host)
        outcome.state = "stopped" if stopped else "error"
        outcome.line = f"{where}: " + (
            "no word from it since it began; if it still works it goes on by itself"
            if lives
            else "ended without a word (killed, or out of memory); finished samples are kept, and "
            "the same command goes on"
        )
    elif outcome.state == "waiting":
        outcome.state = "stopped" if stopped else "error"
        outcome.line = "has not begun; the same command goes on"


def collapsed(outcomes: Sequence[Outcome], total: int) -> list[str]:
    """Return a line for each different complaint, with the jobs that have it.

    Lines that differ in what stands before the first colon alone (`device=0: not on this
    machine`) are one complaint about several values.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.line.partition(": ")[2] or outcome.line, []).append(outcome)
    return [_with_jobs(tail, members, total) for tail, members in groups.items()]


def _with_jobs(tail: str, members: list[Outcome], total: int) -> str:
    heads = dict.fromkeys(o.line.partition(": ")[0] for o in members if ": " in o.line)
    said = f"{', '.join(heads)}: {tail}" if heads else tail
    if total == 1:
        return said
    if len(members) == total:
        return f"{said} (all {total} jobs)"
    if len(members) > 1:
        return f"jobs {', '.join(str(o.number) for o in members)}: {said}"
    own = members[0]
    given = f" ({' '.join(own.overrides)})" if own.overrides else ""
    return f"job {own.number}{given}: {said}"
