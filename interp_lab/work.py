"""A job's work: claim a share, measure what is left of it, merge if it was the last.

The wing with torch is imported where a model is needed, which is not the case when all samples are
finished.
"""

import inspect
import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from interp_lab.config import build, node_name, plain, target_of
from interp_lab.errors import ConfigError, StoppedByUserError
from interp_lab.merging import conclude
from interp_lab.progress import Progress
from interp_lab.sharding import Share, share_of
from interp_lab.store.parts import PartWriter, finished_samples, list_parts
from interp_lab.store.provenance import now
from interp_lab.store.rundir import Claim, RunDirectory
from interp_lab.sweep import SweepJob

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a job did.

    Args:
        place: the run's directory.
        last: this job made the result, or is the one to draw it.
        measured, failed: samples of this job.
    """

    place: RunDirectory
    last: bool
    measured: int
    failed: int


def command_of(job: SweepJob | None) -> str:
    """Return the identity of the sweep that a job works for, or a new one for a job by itself."""
    return job.sweep if job else uuid.uuid4().hex[:12]


def work_on(cfg: DictConfig, job: SweepJob | None) -> Done:
    """Measure what is left of this job's share; merge, if all samples are finished then.

    Raises:
        StoreError: if another process works on the same samples.
    """
    share = share_of(cfg, job)
    if share.count > 1 and job is None and not cfg.resume:
        raise ConfigError(
            "resume=false: shares of separate commands cannot know what another began anew; sweep "
            f"shard.index={','.join(map(str, range(share.count)))} in one command"
        )
    dataset = build(cfg, "dataset")
    place = RunDirectory(cfg.output.dir)
    command = command_of(job)
    claim = Claim(share.index, share.count, cfg.batch_size, command, job.command if job else None)
    failed = 0
    with place.claimed(claim) as lock:
        todo, open_shares = left_to_do(cfg, place, list(dataset.ids()), share, command)
        if todo:
            failed = measure(cfg, place, dataset, todo, job)
        elif open_shares:
            check_device(cfg)
        with place.held():
            lock.release()
            last = finish(cfg, place, dataset, share, command, in_sweep=job is not None)
    return Done(place, last, len(todo) - failed, failed)


def left_to_do(
    cfg: DictConfig, place: RunDirectory, ids: list[str], share: Share, command: str
) -> tuple[list[int], bool]:
    """Return the places of this share's samples to measure, and whether any share has some."""
    with place.held():
        if not cfg.resume and place.begin_anew(command):
            log.info("resume=false: beginning anew; an old result stays until the new is whole")
        done = finished_samples(place.sources())
    unfinished = {n for n in ids if n not in done or (cfg.retry_failed and not done[n])}
    mine = share.places(len(ids), cfg.batch_size)
    todo = [i for i in mine if ids[i] in unfinished]
    if share.count > 1:
        log.info("%s: %d of %d, %d to do", share, len(mine), len(ids), len(todo))
    elif done:
        log.info("%d of %d samples were measured before; going on", len(mine) - len(todo), len(ids))
    return todo, bool(unfinished)


def check_device(cfg: DictConfig) -> None:
    """Refuse a device that is not there, also for a job that has nothing to measure on it."""
    from interp_lab.models.base import resolve_device

    resolve_device(cfg.device)


def measure(
    cfg: DictConfig, place: RunDirectory, dataset: Any, todo: list[int], job: SweepJob | None
) -> int:
    """Measure the samples in `todo` with the model; return how many failed."""
    from interp_lab.models.base import resolve_device
    from interp_lab.models.kept import KEPT, accelerators
    from interp_lab.models.loading import load_on, make_current

    device = resolve_device(cfg.device)
    node = plain(cfg.model)

    def load() -> Any:
        prove_capture(cfg, device)
        log.info("loading %s on %s", node_name(cfg, "model"), device)
        return load_on(
            device, node_name(cfg, "model"),
            lambda: build(cfg, "model", device=device, seed=cfg.seed),
        )  # fmt: skip

    def work(model: Any) -> int:
        # A kept model may have waited while another device was current.
        make_current(device)
        return measure_with(cfg, place, dataset, todo, job, model)

    return KEPT.use(
        {"model": node, "device": str(device), "seed": cfg.seed},
        accelerators(device, node.get("device_map")),
        load,
        work,
        models_to_keep(cfg, job),
    )


def prove_capture(cfg: DictConfig, device: Any) -> None:
    """Let capture prove itself on this machine, unless it did before; see `doctor.proof`.

    A model whose class takes no `attn_implementation` (CLIP, QD-DETR, a network of your own) has no
    attention that is watched; its hidden states and gates are read by hooks.

    Raises:
        UnsupportedModelError: if captured attention would be wrong here.
    """
    values = plain(cfg.model)
    parameters = inspect.signature(target_of(values, "model")).parameters
    chosen = {
        key: values.get(key) or parameters[key].default
        for key in ("dtype", "attn_implementation")
        if key in parameters
    }
    if len(chosen) < 2 or not all(isinstance(value, str) for value in chosen.values()):
        return
    from interp_lab.doctor.kernels import DTYPES
    from interp_lab.doctor.proof import prove_once

    # Another dtype is refused, with the names there are, when the model is made.
    if chosen["dtype"] in DTYPES:
        prove_once(device, DTYPES[chosen["dtype"]], chosen["attn_implementation"])


def models_to_keep(cfg: DictConfig, job: SweepJob | None) -> int:
    """Return how many models this process keeps for its next jobs."""
    if cfg.keep_models is not None:
        return cfg.keep_models
    return 1 if job else 0


def measure_with(
    cfg: DictConfig,
    place: RunDirectory,
    dataset: Any,
    todo: list[int],
    job: SweepJob | None,
    model: Any,
) -> int:
    """Measure the samples in `todo` and write their parts; return how many failed."""
    from interp_lab.doctor.versions import untested
    from interp_lab.measure import Measurement
    from interp_lab.selfcheck import SelfCheck

    started = now()
    analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
    notes = [*untested(), *model.notes, *analysis.check(model)]
    for note in notes:
        log.warning(note)
    settings = plain(cfg.capture)
    check = SelfCheck(model, settings["live_check"], settings["verify"])

    def about() -> dict[str, str]:
        return {
            "notes": json.dumps(notes),
            "device": str(model.device),
            "capture": json.dumps(measurement.paths),
            "checks": json.dumps(check.found),
            "started": started,
        }

    output = cfg.output
    writer = PartWriter(place.parts, analysis.fields, output.part_size, output.part_seconds, about)
    with Progress(len(todo), position=job.number if job else 0) as progress:
        measurement = Measurement(
            model,
            dataset,
            analysis,
            writer,
            progress,
            cfg.batch_size,
            cfg.max_failed_share,
            check,
            settings["method"],
            settings["interventions"],
            cfg.seed,
            job.stopped if job else lambda: False,
        )
        if not measurement.run(todo):
            raise StoppedByUserError(
                f"stopped with {progress.done} of {len(todo)} samples finished; "
                "the same command goes on"
            )
    return measurement.failed


def finish(
    cfg: DictConfig,
    place: RunDirectory,
    dataset: Any,
    share: Share,
    command: str,
    in_sweep: bool,
) -> bool:
    """Merge if this was the last job; return whether the result is this job's to draw.

    The directory is held, and the job has let go of its share.
    """
    # A sample that failed before counts as finished, so it takes a note that it was tried again.
    waits = cfg.retry_failed and in_sweep and share.count > 1
    if waits:
        place.note_retried(command, share.index)
    workers = place.workers()
    if workers:
        log.info("share finished; %d jobs are at work, the last one merges", len(workers))
        return False
    done = finished_samples(place.sources())
    missing = sum(name not in done for name in dataset.ids())
    if missing or (waits and place.retried(command) < share.count):
        log.info("share finished; the last job merges (%d samples of other shares left)", missing)
        return False
    if list_parts(place.parts) or not place.result_counts():
        conclude(cfg, place, dataset, command)
        return True
    place.clear_parts()
    # Nothing was left to do, for none of the jobs: one of them draws.
    return share.count == 1 or (share.index == 0 and place.merged_by() != command)
