"""What is left to measure of a run: read from what is finished, never counted."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from interp_lab.datasets.prints import SamplePrints
from interp_lab.identity.files import hash_of
from interp_lab.run.going_on import Standing, check_failed_share, say_failed_before, standing_of
from interp_lab.run.sweep.chunks import cut
from interp_lab.run.sweep.pool import Fixed, Pool
from interp_lab.run.sweep.sharding import Share, order_of
from interp_lab.store.parts import Stored, stored_samples
from interp_lab.store.rundir import ALL, RunDirectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """What a job finds to do.

    Args:
        todo: places of this share's samples to measure.
        any: whether any share has some.
        failed: samples of this share that failed before and are not tried again.
    """

    todo: list[int]
    any: bool
    failed: int


class Remaining:
    """Reads what is left of a run's samples.

    Args:
        cfg: the configuration.
        place: the run's directory.
        prints: of the data set's samples.
        dataset: of the samples.

    Attributes:
        failed: samples of other shares that failed before and are not tried again, of those that
            were asked for.
    """

    def __init__(
        self, cfg: DictConfig, place: RunDirectory, prints: SamplePrints, dataset: Any
    ) -> None:
        self.cfg, self.place, self.prints, self.dataset = cfg, place, prints, dataset
        self.ids = list(dataset.ids())
        self.order = order_of(dataset, cfg.batch_size)
        self.failed = 0
        self._stored: dict[str, list[Stored]] = {}

    def of_share(self, share: Share, command: str) -> Left:
        """Return which of this share's samples are to be measured, and what is finished of it."""
        cfg, ids = self.cfg, self.ids
        with self.place.held():
            if not cfg.resume and self.place.begin_anew(command):
                log.info("resume=false: beginning anew; an old result stays until the new is whole")
            stored = self._stored = stored_samples(self.place.whole_sources(move=True))
        mine = self.places(share)
        standing = standing_of(cfg, stored, ids, self.prints, mine)
        standing.say()
        done = standing.done
        todo = self._todo(mine, standing)
        if share.count > 1:
            log.info("%s: %d of %d, %d to do", share, len(mine), len(ids), len(todo))
        elif done:
            measured = sum(done.values())
            log.info("%d of %d samples were measured before; going on", measured, len(ids))
        say_failed_before(standing, cfg.retry_failed)
        if not cfg.retry_failed:
            check_failed_share(cfg.max_failed_share, standing, len(ids), self.place.path)
        failed = {n for n, held in stored.items() if not any(one.measured for one in held)}
        others = (n not in stored or (cfg.retry_failed and n in failed) for n in ids)
        return Left(todo, bool(todo) or any(others), self._kept_failures(mine, todo, standing))

    def of(self, places: Sequence[int], anew: bool) -> list[int]:
        """Return which samples at these places are to be measured.

        Args:
            places: of another share, or that another job has begun.
            anew: look at the disk again.
        """
        if anew:
            with self.place.held():
                self._stored = stored_samples(self.place.whole_sources(move=True))
        standing = standing_of(self.cfg, self._stored, self.ids, self.prints, places)
        todo = self._todo(places, standing)
        self.failed += self._kept_failures(places, todo, standing)
        return todo

    def places(self, share: Share) -> list[int]:
        """Return the places of a share's samples, in the order of its batches."""
        return share.places(len(self.ids), self.cfg.batch_size, self.order)

    def of_all(self) -> Standing:
        """Return what is finished of all samples; the directory is held."""
        stored = stored_samples(self.place.whole_sources(move=True))
        return standing_of(self.cfg, stored, self.ids, self.prints, range(len(self.ids)))

    def _todo(self, places: Sequence[int], standing: Standing) -> list[int]:
        done, ids, again = standing.done, self.ids, self.cfg.retry_failed
        return [i for i in places if ids[i] not in done or (again and not done[ids[i]])]

    def _kept_failures(self, places: Sequence[int], todo: Sequence[int], standing: Standing) -> int:
        again = set(todo)
        return [standing.done[self.ids[i]] for i in places if i not in again].count(False)


def pool_of(cfg: DictConfig, share: Share, command: str) -> str:
    """Return which workers take from each other with a job of this share; empty for none."""
    if set(share.among) <= {share.index}:
        return ""
    return ALL if cfg.shard.steal else command


def work_of_share(remaining: Remaining, share: Share, left: Left, pool: str) -> Fixed:
    """Return the work of a job: its share, with what it may take of the others'."""
    n, size, order = len(remaining.ids), remaining.cfg.batch_size, remaining.order
    todo = set(left.todo)
    own = [[i for i in batch if i in todo] for batch in share.batches(n, size, order=order)]
    fixed = Fixed([batch for batch in own if batch])
    if not pool:
        return fixed
    # Who has another idea of the samples has other chunks, too.
    division = hash_of(str(share.count), str(size), *remaining.ids, *map(str, order or ()))[:16]
    claims = remaining.place.chunks(pool, division)
    if not claims.prepare():
        log.warning(
            "%s: this disk has no file locks that end with a process, so each job measures its "
            "own share and no more",
            remaining.place.path,
        )
        return fixed
    chunks = {i: cut(i, share.batches(n, size, i, order)) for i in {*share.among, share.index}}
    return Pool(claims, chunks, share.index, left.todo, remaining.of)
