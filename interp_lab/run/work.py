"""A job's work: claim a share, measure what is left of it, merge if it was the last.

The wing with torch is imported where a model is needed, which is not the case when all samples are
finished.
"""

import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from interp_lab.config.nodes import build, node_name, plain
from interp_lab.datasets.prints import SamplePrints
from interp_lab.errors import (
    ConfigError,
    InterpLabError,
    StoppedByUserError,
    StoreError,
    UnsupportedModelError,
)
from interp_lab.identity.weights import weights_identity
from interp_lab.run.going_on import (
    check_failed_share,
    check_identity,
    count,
    keep_digests,
    known_digests,
    listed,
    say_which_run,
)
from interp_lab.run.left import Left, Remaining, pool_of, work_of_share
from interp_lab.run.merging import conclude
from interp_lab.run.progress import Progress
from interp_lab.run.sweep.pool import Fixed
from interp_lab.run.sweep.record import SweepJob
from interp_lab.run.sweep.sharding import Share, share_of
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.provenance import now
from interp_lab.store.rundir import Claim, RunDirectory

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
    """Measure what is left of this job's share and nobody else does; merge, if all is finished.

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
    pool = pool_of(cfg, share, command)
    pid = job.command if job else None
    claim = Claim(share.index, share.count, cfg.batch_size, command, pid, pool)
    with place.claimed(claim) as lock:
        with place.held():
            say_which_run(cfg, place)
        remaining = Remaining(cfg, place, SamplePrints(dataset, known_digests(place)), dataset)
        left = remaining.of_share(share, command)
        work = work_of_share(remaining, share, left, pool)
        measured = failed = 0
        if left.any and work.anything():
            with work.given_back():
                measured, failed = measure(cfg, remaining, work, left, job)
        elif left.any or work.over():
            check_device(cfg)
        with place.held():
            lock.release()
            last = finish(remaining, share, work, command, in_sweep=job is not None)
            keep_digests(place, remaining.prints.digests)
    return Done(place, last, measured, failed)


def check_device(cfg: DictConfig) -> None:
    """Refuse a device that is not there, also for a job that has nothing to measure on it."""
    from interp_lab.models.base import resolve_device

    resolve_device(cfg.device)


def device_of(cfg: DictConfig) -> Any:
    """Return the torch device of a job: with a device_map the first that the model's parts lie on.

    What is computed before the model is there runs on it too, and so on no card of another job.
    """
    from interp_lab.models.base import resolve_device
    from interp_lab.models.devices import Placement

    node = plain(cfg.model)
    keys = ("device_map", "max_memory", "offload_folder")
    placement = Placement(*(node.get(key) for key in keys))
    placement.check_there()
    return placement.entrance(resolve_device(cfg.device))


def measure(
    cfg: DictConfig, remaining: Remaining, work: Fixed, left: Left, job: SweepJob | None
) -> tuple[int, int]:
    """Measure what is left with the model; return how many were measured, and how many failed."""
    from interp_lab.doctor.first import prove_capture
    from interp_lab.models.loading import load_on, make_current
    from interp_lab.run.fit import check_fit
    from interp_lab.run.kept import KEPT, accelerators

    check_fit(cfg, remaining.dataset)
    node = plain(cfg.model)
    device = device_of(cfg)

    def load() -> Any:
        prove_capture(cfg, device)
        log.info("loading %s on %s", node_name(cfg, "model"), device)
        model = load_on(
            device,
            node_name(cfg, "model"),
            lambda: built_model(cfg, device),
        )
        check_identity(cfg, remaining.place)
        return model

    def measured(model: Any) -> tuple[int, int]:
        # A kept model may have waited while another device was current.
        make_current(device)
        return measure_with(cfg, remaining, work, left, job, model)

    kept_by = {"model": node, "weights": weights_identity(node)}
    return KEPT.use(
        kept_by | {"device": str(device), "seed": cfg.seed},
        accelerators(device, node.get("device_map"), node.get("max_memory")),
        load,
        measured,
        models_to_keep(cfg, job),
    )


def built_model(cfg: DictConfig, device: Any) -> Any:
    """Return the model that the configuration names, loaded.

    Raises:
        UnsupportedModelError: for whatever code of others raises while it is made of its files.
    """
    from interp_lab.models.files import cause_of, is_out_of_memory

    try:
        return build(cfg, "model", device=device, seed=cfg.seed)
    except InterpLabError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"model={node_name(cfg, 'model')}: its files were read, but no model of its YAML's "
            f"family can be made of them ({cause_of(error)}); HYDRA_FULL_ERROR=1 shows where"
        ) from error


def models_to_keep(cfg: DictConfig, job: SweepJob | None) -> int:
    """Return how many models this process keeps for its next jobs."""
    if cfg.keep_models is not None:
        return cfg.keep_models
    return 1 if job else 0


def _notes(cfg: DictConfig, notes: list[str]) -> list[str]:
    """Return what a reader of the numbers must know, and log it."""
    from interp_lab.zoo import note_on

    for note in notes:
        log.warning(note)
    if cfg.model.get("init") == "random":
        return notes
    foreign = note_on(cfg.model.get("checkpoint"), str(cfg.dataset.get("name", "")))
    if foreign is None:
        return notes
    # The first command of everybody has it; the figures say it in red.
    log.info(foreign)
    return [*notes, foreign]


def measure_with(
    cfg: DictConfig,
    remaining: Remaining,
    work: Fixed,
    left: Left,
    job: SweepJob | None,
    model: Any,
) -> tuple[int, int]:
    """Measure and write parts as long as there is work; return how many, and how many failed."""
    from interp_lab.doctor.versions import untested
    from interp_lab.models.devices import places_of
    from interp_lab.models.loading import inputs_dtype
    from interp_lab.run.measure import Measurement
    from interp_lab.run.selfcheck import SelfCheck

    started = now()
    analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
    study = analysis.for_model(model)
    notes = _notes(cfg, [*untested(), *model.notes, *study.notes])
    settings = plain(cfg.capture)
    check = SelfCheck(model, settings["live_check"], settings["verify"])

    def about() -> dict[str, str]:
        return {
            "notes": json.dumps(notes),
            "device": ", ".join(places_of(model.module, model.device)),
            "dtype": str(inputs_dtype(model.module)).removeprefix("torch."),
            "capture": json.dumps(measurement.paths),
            "checks": json.dumps(check.found),
            "started": started,
        }

    output = cfg.output
    place, parts = remaining.place, output.part_size
    writer = PartWriter(place.parts, study.fields, parts, output.part_seconds, about)
    with Progress(len(left.todo), position=job.number if job else 0) as progress:
        work.report_to(progress.expect)
        measurement = Measurement(
            model,
            remaining.dataset,
            study,
            writer,
            progress,
            cfg.batch_size,
            cfg.max_failed_share,
            check,
            settings["method"],
            settings["interventions"],
            cfg.seed,
            job.stopped if job else lambda: False,
            remaining.prints,
            lambda: left.failed + remaining.failed,
        )
        if not measurement.run_all(work):
            raise StoppedByUserError(
                f"stopped with {progress.done} of {progress.total} samples finished; "
                "the same command goes on"
            )
    return progress.done - measurement.failed, measurement.failed


def finish(remaining: Remaining, share: Share, work: Fixed, command: str, in_sweep: bool) -> bool:
    """Merge if this was the last job; return whether the result is this job's to draw.

    The directory is held, and the job has let go of its share.
    """
    cfg, place, ids = remaining.cfg, remaining.place, remaining.ids
    # A sample that failed before counts as finished, so it takes a note that it was tried again.
    waits = cfg.retry_failed and in_sweep and share.count > 1
    if waits:
        place.note_retried(command, share.index)
    workers = place.workers()
    if workers:
        log.info("share finished; %d jobs are at work, the last one merges", len(workers))
        return False
    standing = remaining.of_all()
    missing = [name for name in ids if name not in standing.done]
    own = {ids[i] for i in work.own_places(remaining.places(share))}
    changed = [name for name in missing if name in own]
    if changed:
        raise StoreError(
            f"{place.path}: {count(len(changed))} changed, or lost all numbers, while the others "
            f"were measured ({listed(changed)}); run the same command again, which measures them "
            "again"
        )
    if missing or (waits and not work.complete(place.retried(command), share.count)):
        log.info(
            "share finished; the last job merges (%d samples of other shares left)", len(missing)
        )
        return False
    check_failed_share(cfg.max_failed_share, standing, len(standing.done), place.path)
    merged = bool(list_parts(place.parts)) or not place.result_counts() or bool(standing.gone)
    if merged:
        conclude(cfg, place, remaining.dataset, standing, command)
    else:
        place.clear_parts()
    work.close()
    # Nothing was left to do, for none of the jobs: one of them draws.
    alone = share.count == 1 or (share.index == 0 and place.merged_by() != command)
    return merged or alone
