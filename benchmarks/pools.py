"""Makespans of simulated pools whose jobs take what others have not begun, beside fixed shares.

    PYTHONPATH=.:benchmarks python benchmarks/pools.py --workers 8 64 256 --seeds 5

Time alone is simulated, event by event. Chunks and the order in which they are taken are those of
`interp_lab.run.sweep.chunks`, patience and waits those of `interp_lab.run.sweep.pool`, parts are
written by the rule of `PartWriter`; costs, speeds and deaths are those of `benchmarks/scale.py`.
"""

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scale import Outcome, Pool, draws, simulate, soonest

from interp_lab.run.sweep.chunks import Chunk, cut, next_of_others
from interp_lab.run.sweep.pool import LONGEST_WAIT, PATIENCE, SECONDS_OF_PATIENCE
from interp_lab.run.sweep.sharding import Share
from interp_lab.store.claims import MOST_DEATHS


@dataclass
class Worker:
    """A simulated job on its device.

    Args:
        share: that it begins with.
        slow: what its samples cost, by the data set's.
        dies: when, in seconds from this command's start.
    """

    share: int
    slow: float
    dies: float
    buffer: list[int] = field(default_factory=list)
    oldest: float = 0.0
    unwritten: list[Chunk] = field(default_factory=list)
    idle_since: float | None = None
    longest: float = 0.0


class Command:
    """One command of a simulated pool.

    Args:
        todo: which samples are not finished yet; what this command finishes is taken out.
        costs: seconds of each sample on a device of slowness 1.
        workers: the devices.
        pool: what they are like.
        measured: how often each sample was measured; counted up.
    """

    def __init__(
        self,
        todo: np.ndarray,
        costs: np.ndarray,
        workers: Sequence[Worker],
        pool: Pool,
        measured: np.ndarray,
    ) -> None:
        self.todo, self.costs, self.workers, self.pool = todo, costs, workers, pool
        self.measured = measured
        n, count = len(todo), len(workers)
        shares = (cut(i, Share(0, count).batches(n, pool.batch_size, i)) for i in range(count))
        self.free = dict(enumerate(shares))
        self.abandoned: list[Chunk] = []
        self.deaths: dict[str, int] = {}
        self.chunks = 0
        self.end = 0.0
        self._events: list[tuple[float, int]] = [(pool.start, i) for i in range(count)]

    def run(self) -> float:
        """Let the command end; return when it does."""
        heapq.heapify(self._events)
        while self._events:
            now, index = heapq.heappop(self._events)
            worker = self.workers[index]
            if now >= worker.dies:
                self._die(worker)
                continue
            chunk = self._claim(worker)
            if chunk is None:
                self._write(worker, now)
                self._idle(worker, index, now)
                continue
            worker.idle_since = None
            ends = self._measure(worker, chunk, now)
            worker.longest = max(worker.longest, ends - now)
            heapq.heappush(self._events, (min(ends, worker.dies), index))
        return self.end

    def _claim(self, worker: Worker) -> Chunk | None:
        own = self.free[worker.share]
        chunk = own[0] if own else next_of_others(self.free)
        if chunk is not None:
            self.free[chunk.share].remove(chunk)
        elif self.abandoned:
            chunk = self.abandoned.pop(0)
        self.chunks += chunk is not None
        return chunk

    def _idle(self, worker: Worker, index: int, now: float) -> None:
        """Look again, as long as others are at work and the job's patience lasts."""
        worker.idle_since = now if worker.idle_since is None else worker.idle_since
        patience = max(SECONDS_OF_PATIENCE, PATIENCE * worker.longest)
        others = any(w.unwritten for w in self.workers if w is not worker)
        if others and now - worker.idle_since <= patience:
            heapq.heappush(self._events, (min(now + LONGEST_WAIT, worker.dies), index))

    def _measure(self, worker: Worker, chunk: Chunk, now: float) -> float:
        worker.unwritten.append(chunk)
        for batch in chunk.batches:
            places = [i for i in batch if self.todo[i]]
            now += float(self.costs[places].sum()) * worker.slow
            if now > worker.dies:
                return now
            self.measured[places] += 1
            worker.oldest = worker.oldest if worker.buffer else now
            worker.buffer += places
            full = len(worker.buffer) >= self.pool.part_size
            if full or now - worker.oldest >= self.pool.part_seconds:
                # The chunk at hand is not finished before its last batch.
                self._write(worker, now, () if batch is chunk.batches[-1] else (chunk,))
        return now

    def _write(self, worker: Worker, now: float, unfinished: Sequence[Chunk] = ()) -> None:
        self.todo[worker.buffer] = False
        self.end = max(self.end, now) if worker.buffer else self.end
        worker.buffer, worker.unwritten = [], list(unfinished)

    def _die(self, worker: Worker) -> None:
        for chunk in worker.unwritten:
            self.deaths[chunk.name] = self.deaths.get(chunk.name, 0) + 1
            if self.deaths[chunk.name] < MOST_DEATHS:
                self.abandoned.append(chunk)
        worker.buffer, worker.unwritten = [], []


def stealing(n: int, workers: int, pool: Pool) -> tuple[Outcome, int]:
    """Return how long the pool takes for `n` samples, and how many chunks were claimed.

    Raises:
        RuntimeError: if every device has died.
    """
    costs, slowness, deaths = draws(n, workers, pool)
    todo, measured = np.ones(n, dtype=bool), np.zeros(n, dtype=np.int64)
    now, rounds, chunks = 0.0, 0, 0
    alive = list(range(workers))
    while todo.any():
        if not alive:
            raise RuntimeError(f"all {workers} devices died")
        rounds += 1
        jobs = [Worker(i, slowness[d], deaths[d] - now) for i, d in enumerate(alive)]
        command = Command(todo, costs, jobs, pool, measured)
        now += command.run()
        chunks += command.chunks
        alive = [d for d in alive if deaths[d] > now]
    work, never = float(costs.sum()), np.full(workers, np.inf)
    ideal = soonest(work, slowness, never, pool.start)
    bound = soonest(work, slowness, deaths, pool.start)
    again = int((measured > 1).sum())
    return Outcome(now, ideal, bound, rounds, workers - len(alive), again), chunks


KINDS = {
    "equal devices": {},
    "10 % unequal": {"unequal": 0.1},
    "one of 8 at half speed": {"halved": 0.125},
    "a death in 20 device hours": {"failures": 0.05},
    "a death in 2 device hours": {"failures": 0.5},
    "10 % unequal, a death in 2 device hours": {"unequal": 0.1, "failures": 0.5},
}


def report(n: int, sizes: Sequence[int], seeds: int) -> None:
    """Print a row for each size and kind of pool: time over the bound, mean and worst of seeds."""
    columns = ("pool", "workers", "fixed shares", "now", "now, the worst", "commands", "chunks")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, kind in KINDS.items():
        for workers in sizes:
            before, now = [], []
            for seed in range(seeds):
                pool = Pool(seed=seed, **kind)
                try:
                    before.append(simulate(n, workers, pool))
                    now.append(stealing(n, workers, pool))
                except RuntimeError:  # every device died, whatever is done
                    before = before[: len(now)]
            if not now:
                continue
            fixed = [o.makespan / o.bound for o in before]
            ratios = [o.makespan / o.bound for o, _ in now]
            commands = max(o.rounds for o, _ in now)
            chunks = max(c for _, c in now)
            print(
                f"| {name} | {workers} | {np.mean(fixed):.3f} | {np.mean(ratios):.3f} "
                f"| {max(ratios):.3f} | {commands} | {chunks} |",
                flush=True,
            )


def main() -> None:
    """Do what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--workers", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    began = time.process_time()
    report(args.samples, args.workers, args.seeds)
    print(f"{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
