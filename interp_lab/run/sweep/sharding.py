"""Which samples a job measures: the jobs of a sweep that differ in the device alone share them.

A share is made of whole batches of the data set, dealt out like cards. So it is known
before any job begins, and a batch holds the same samples however many jobs there are: to the last
bit, the numbers are those of one job. A job begins with its own share; what nobody has begun of
the others' is for whoever has finished his own (`pool`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import run_dir
from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.libraries.hydra_inside import parsed
from interp_lab.run.sweep.record import SweepJob, SweptJobs, record_of, swept_jobs

# Batches of the data set's order within which samples are sorted by their length.
BATCHES_TO_SORT = 32


@dataclass(frozen=True)
class Share:
    """A share of the samples; by default all of them.

    Args:
        index: of the share, from 0 on.
        count: shares that there are.
        why: where this follows from, for the log.
        among: the shares of which this job takes what nobody has begun; none: only its own.
    """

    index: int = 0
    count: int = 1
    why: str = ""
    among: tuple[int, ...] = ()

    def places(self, n: int, batch_size: int, order: Sequence[int] | None = None) -> list[int]:
        """Return the places of this share's samples among `n`, in the order of its batches."""
        return [i for batch in self.batches(n, batch_size, order=order) for i in batch]

    def batches(
        self,
        n: int,
        batch_size: int,
        index: int | None = None,
        order: Sequence[int] | None = None,
    ) -> list[Sequence[int]]:
        """Return the places of the samples of this share, or of another of its kind, by batch.

        Args:
            n: samples of the data set.
            batch_size: samples a batch.
            index: of the share; None for this one.
            order: the samples in the order in which they are put into batches; None for the data
                set's.
        """
        own = self.index if index is None else index
        step = batch_size * self.count
        spans = [range(i, min(i + batch_size, n)) for i in range(own * batch_size, n, step)]
        return [span if order is None else [order[i] for i in span] for span in spans]

    def __str__(self) -> str:
        return f"samples {self.index + 1} of {self.count} ({self.why})"


def order_of(dataset: Any, batch_size: int) -> list[int] | None:
    """Return the samples in the order in which they are put into batches; None for the data set's.

    Where the data set says how long its samples are, neighbours of like length share a batch, so
    that little is padded. They are sorted within stretches of some batches: what is measured first
    stays what stands first. It follows from the data set and the batch size, not from the jobs.
    """
    lengths = dataset.lengths() if callable(getattr(dataset, "lengths", None)) else None
    if lengths is None or batch_size == 1:
        return None
    known = list(lengths)
    order: list[int] = []
    for start in range(0, len(known), batch_size * BATCHES_TO_SORT):
        end = min(start + batch_size * BATCHES_TO_SORT, len(known))
        order += sorted(range(start, end), key=lambda i: (known[i], i))
    return order


def share_of(cfg: DictConfig, job: SweepJob | None) -> Share:
    """Return the share of a job.

    Args:
        cfg: the job's configuration.
        job: its place in a sweep; None outside of one.

    Raises:
        ConfigError: if `shard` contradicts itself, or its axis changes the numbers.
    """
    shard = cfg.shard
    if shard.index is not None or shard.count is not None:
        share = _by_hand(shard.index, shard.count)
        return replace(share, among=_taking(cfg, job, share))
    if shard.axis is None:
        return Share()
    _check_axis(cfg)
    if job is None:
        return Share()
    swept = swept_jobs(job.folder)
    if shard.axis not in swept.keys:
        return Share()
    return _among_siblings(cfg, job, swept)


def _taking(cfg: DictConfig, job: SweepJob | None, share: Share) -> tuple[int, ...]:
    """Return the shares of which a job with a share by hand takes what nobody has begun."""
    if cfg.shard.steal is False:
        return ()
    every = range(share.count) if cfg.shard.steal else [i for _, i in siblings_by_hand(job)]
    return tuple(sorted({i for i in every if i < share.count}))


def siblings_by_hand(job: SweepJob | None) -> list[tuple[int, int]]:
    """Return number and `shard.index` of the jobs of a sweep that differ in that key alone.

    Empty without a sweep, if it does not sweep `shard.index`, or if its record does not tell of
    this job.
    """
    if job is None or not record_of(job.folder).is_file():
        return []
    swept = swept_jobs(job.folder)
    known = job.number < len(swept.jobs) and swept.jobs[job.number] == job.overrides
    if not known or "shard.index" not in swept.keys:
        return []
    place = swept.keys.index("shard.index")
    rest = [(*o[:place], *o[place + 1 :]) for o in swept.jobs]
    siblings = [n for n, other in enumerate(rest) if other == rest[job.number]]
    return [(n, int(swept.jobs[n][place].partition("=")[2])) for n in siblings]


def _by_hand(index: int | None, count: int | None) -> Share:
    if index is None or count is None:
        given, other = ("count", "index") if index is None else ("index", "count")
        raise ConfigError(f"shard.{given} is given without shard.{other}: give both or neither")
    if count < 1 or not 0 <= index < count:
        raise ConfigError(f"shard.index={index}: give 0 to shard.count - 1, which is {count - 1}")
    return Share(index, count, f"shard.index {index} of {count}")


def _check_axis(cfg: DictConfig) -> None:
    axis = cfg.shard.axis
    missing = object()
    value = OmegaConf.select(cfg, axis, default=missing)
    if value is missing:
        raise ConfigError(f"shard.axis={axis}: no such key.{did_you_mean(axis, map(str, cfg))}")
    if isinstance(value, DictConfig):
        raise ConfigError(f"shard.axis={axis}: {_CHANGES}")


_CHANGES = (
    "jobs that differ in it do not measure the same numbers, so they cannot share the samples; "
    "use a key such as device"
)


def _among_siblings(cfg: DictConfig, job: SweepJob, swept: SweptJobs) -> Share:
    place = swept.keys.index(cfg.shard.axis)
    if job.number >= len(swept.jobs) or swept.jobs[job.number] != job.overrides:
        raise ConfigError(
            f"shard.axis={cfg.shard.axis}: job {job.number} of this sweep is not the one that "
            f"{record_of(job.folder)} tells of; give shard.index and "
            "shard.count, or shard.axis=null"
        )

    def rest(overrides: tuple[str, ...]) -> tuple[str, ...]:
        return overrides[:place] + overrides[place + 1 :]

    # A value may stand twice, so a job is known by its number, not by its value.
    siblings = [n for n, o in enumerate(swept.jobs) if rest(o) == rest(job.overrides)]
    overrides = parsed([swept.jobs[n][place] for n in siblings])
    here = run_dir(cfg)
    for override in overrides:
        other = cfg.copy()
        OmegaConf.update(other, cfg.shard.axis, override.value)
        if run_dir(other) != here:
            raise ConfigError(f"shard.axis={cfg.shard.axis}: {_CHANGES}")
    values = [override.values[0] for override in overrides]
    index = siblings.index(job.number)
    if len(siblings) == 1:
        return Share()
    why = f"{cfg.shard.axis} {values[index]} of {','.join(values)}"
    every = range(len(siblings)) if cfg.shard.steal is not False else ()
    return Share(index, len(siblings), why, tuple(every))
