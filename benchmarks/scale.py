"""What a study of 100,000 samples costs: a simulated pool of devices, and a real run of a trivial
model.

    PYTHONPATH=. python benchmarks/scale.py simulate     # makespans of 8, 64 and 256 workers
    PYTHONPATH=.:benchmarks python benchmarks/scale.py run     # one worker, end to end

The pool is simulated in time only. Who measures what is decided by `interp_lab.run.sweep.sharding`,
as in a real sweep; with --parts the finished samples also go through the real store, into real
parts, and are merged. A device that dies keeps what it has written as parts, and the same command
is given again for the devices that are left, until nothing is left to do.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil

from interp_lab.fields import Scalar
from interp_lab.run.sweep.sharding import Share
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, finished_samples, list_parts
from interp_lab.store.results import open_results

ROOT = Path(__file__).parent.parent
NUMBER = Scalar("number", "the sample's place", dtype="int64")


@dataclass(frozen=True)
class Pool:
    """What the simulated devices are like.

    Args:
        cost: seconds a sample, on average.
        spread: standard deviation of the logarithm of a sample's cost.
        unequal: standard deviation of the logarithm of a device's slowness.
        halved: share of the devices that are half as fast.
        start: seconds from a job's start to its first sample: imports, loading weights.
        failures: deaths a device and hour; a dead device does not come back.
        batch_size, part_size, part_seconds: as in the configuration.
        seed: of costs, slowness and deaths.
    """

    cost: float = 0.35
    spread: float = 0.3
    unequal: float = 0.0
    halved: float = 0.0
    start: float = 60.0
    failures: float = 0.0
    batch_size: int = 8
    part_size: int = 64
    part_seconds: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation.

    Args:
        makespan: seconds from the first command to the last sample.
        ideal: one start, then all devices work until all is done, and none dies.
        bound: the same with this pool's deaths: no way of sharing could be faster.
        rounds: how often the command was given.
        died: devices that did.
        again: samples that were measured more than once.
    """

    makespan: float
    ideal: float
    bound: float
    rounds: int
    died: int
    again: int


Keep = Callable[[int, Sequence[int]], None]


def simulate(n: int, workers: int, pool: Pool, keep: Keep | None = None) -> Outcome:
    """Return how long the pool takes for `n` samples.

    Args:
        n: samples.
        workers: devices at the start.
        pool: what they are like.
        keep: is called with a device and the places of each part that it writes.

    Raises:
        RuntimeError: if every device has died.
    """
    costs, slowness, deaths = draws(n, workers, pool)
    done = np.zeros(n, dtype=bool)
    times_measured = np.zeros(n, dtype=np.int64)
    alive, now, rounds = list(range(workers)), 0.0, 0
    while not done.all():
        if not alive:
            raise RuntimeError(f"all {workers} devices died")
        rounds += 1
        ends = []
        before = done.copy()
        for index, device in enumerate(alive):
            places = Share(index, len(alive)).places(n, pool.batch_size)
            todo = np.array([i for i in places if not before[i]], dtype=np.int64)
            measured, written, end = _work(
                todo, costs * slowness[device], pool, deaths[device] - now
            )
            times_measured[measured] += 1
            for part in written:
                done[part] = True
                if keep is not None:
                    keep(device, part.tolist())
            ends.append(now + end)
        now = max(ends)
        alive = [device for device in alive if deaths[device] > now]
    work = float(costs.sum())
    ideal = soonest(work, slowness, np.full(workers, np.inf), pool.start)
    bound = soonest(work, slowness, deaths, pool.start)
    return Outcome(now, ideal, bound, rounds, workers - len(alive), int((times_measured > 1).sum()))


def draws(n: int, workers: int, pool: Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the seconds of every sample, and slowness and time of death of every device."""
    rng = np.random.default_rng(pool.seed)
    costs = pool.cost * rng.lognormal(-(pool.spread**2) / 2, pool.spread, n)
    slowness = rng.lognormal(0.0, pool.unequal, workers)
    slowness[: round(pool.halved * workers)] *= 2
    deaths = (
        rng.exponential(3600.0 / pool.failures, workers)
        if pool.failures
        else np.full(workers, np.inf)
    )
    return costs, slowness, deaths


def soonest(work: float, slowness: np.ndarray, deaths: np.ndarray, start: float) -> float:
    """Return when the devices together can have done `work` seconds of work, cut up at will."""
    low, high = start, start + work * float(slowness.max())
    for _ in range(60):
        middle = (low + high) / 2
        able = (np.clip(np.minimum(deaths, middle) - start, 0, None) / slowness).sum()
        low, high = (low, middle) if able >= work else (middle, high)
    return high


def _work(
    todo: np.ndarray, costs: np.ndarray, pool: Pool, life: float
) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Return what one job measures, the parts that it writes, and when it ends.

    Args:
        todo: its places, in order.
        costs: seconds of every sample of the data set on this device.
        pool: says when a part is written, by the rule of `PartWriter`.
        life: seconds until the device dies.
    """
    if not len(todo):
        return todo, [], 0.0
    finished_at = pool.start + np.cumsum(costs[todo])
    # Samples of a batch are finished together; a batch is as long as it was loaded.
    last_of_batch = (
        np.minimum((np.arange(len(todo)) // pool.batch_size + 1) * pool.batch_size, len(todo)) - 1
    )
    finished_at = finished_at[last_of_batch]
    end = min(float(finished_at[-1]), life)
    measured = todo[finished_at <= life]
    parts, first = [], 0
    for place in range(len(measured)):
        full = place - first + 1 >= pool.part_size
        late = finished_at[place] - finished_at[first] >= pool.part_seconds
        if full or late:
            parts.append(measured[first : place + 1])
            first = place + 1
    # What is left over is written at the end, which a device that dies does not reach.
    if first < len(measured) and finished_at[-1] <= life:
        parts.append(measured[first:])
    return measured, parts, end


class RealParts:
    """Takes the simulated devices' samples as parts of the real store, and merges them.

    Args:
        folder: an empty folder.
        n: samples.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self.folder = folder
        self.ids = [f"number-{i:07d}" for i in range(n)]
        self._writers: dict[int, PartWriter] = {}

    def keep(self, device: int, places: Sequence[int]) -> None:
        """Write a part."""
        writer = self._writers.setdefault(
            device, PartWriter(self.folder / "parts", [NUMBER], size=10**9, seconds=1e9)
        )
        for place in places:
            writer.add(place, self.ids[place], {"number": place})
        writer.flush()

    def check(self) -> dict[str, float]:
        """Merge, and check that every sample is there once; return CPU seconds and sizes.

        Raises:
            AssertionError: if one is missing, stands twice or has another's value.
        """
        sources = list_parts(self.folder / "parts")
        began = time.process_time()
        done = finished_samples(sources)
        assert all(done.get(name) for name in self.ids)
        listed = time.process_time()
        final = self.folder / "results.h5"
        merge(sources, self.ids, final, {}, lambda results: ())
        merged = time.process_time()
        with open_results(final) as results:
            assert results.sample_ids == self.ids
            numbers = np.concatenate([b["number"] for b in results.stream(["number"], 4096)])
        assert (numbers == np.arange(len(self.ids))).all()
        return {
            "parts": len(sources),
            "finished_samples_cpu_s": listed - began,
            "merge_cpu_s": merged - listed,
            "MiB": final.stat().st_size / 2**20,
        }


def run(n: int, folder: Path, part_size: int, batch_size: int) -> dict[str, float]:
    """Run the trivial study end to end in a process of its own; return what it took.

    RSS is read from outside, when the parts on disk say how far the run is.
    """
    places = [f"output.root={folder}/outputs", f"hydra.run.dir={folder}/hydra"]
    study = [sys.executable, "-m", "interp_lab", f"--config-dir={ROOT}/benchmarks/studies"]
    options = [f"dataset.n={n}", f"batch_size={batch_size}", f"output.part_size={part_size}"]
    marks = {m: 0.0 for m in (n // 10, n // 2, n)}
    before, began, peak = cpu_of_children(), time.perf_counter(), 0
    with open(folder / "log", "w") as log:
        job = subprocess.Popen(
            [*study, "task=synthetic", *options, *places],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        watched = psutil.Process(job.pid)
        while job.poll() is None:
            try:
                rss = watched.memory_info().rss
            except psutil.NoSuchProcess:
                break
            peak = max(peak, rss)
            done = part_size * len(list(folder.glob("outputs/*/*/parts/*.part.h5")))
            for mark in marks:
                if not marks[mark] and done >= mark:
                    marks[mark] = rss / 2**20
            time.sleep(0.2)
        out = job.communicate()[0]
    if job.returncode:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    found = {
        "seconds": time.perf_counter() - began,
        "cpu_s": cpu_of_children() - before,
        "peak_MiB": peak / 2**20,
    }
    found |= {f"MiB_at_{mark}": rss for mark, rss in marks.items()}
    return found | look(Path(out.strip().splitlines()[-1].removeprefix("results: ")), n)


def look(path: Path, n: int) -> dict[str, float]:
    """Return size, open time and summary time of a result; check every number of it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from synthetic_study import scores_of

    began = time.perf_counter()
    results = open_results(path)
    opened = time.perf_counter() - began
    with results:
        assert len(results) == n
        start = 0
        for block in results.stream(["number", "scores"], 4096):
            expected = np.arange(start, start + len(block["number"]))
            assert (block["number"] == expected).all()
            assert (block["scores"] == scores_of(expected)).all()
            start += len(expected)
    before, began = cpu_of_children(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "interp_lab", "mode=summary", f"results={path}"],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return {
        "file_MiB": path.stat().st_size / 2**20,
        "open_s": opened,
        "summary_s": time.perf_counter() - began,
        "summary_cpu_s": cpu_of_children() - before,
    }


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report_simulation(n: int, sizes: Sequence[int], parts: bool) -> None:
    """Print a row of the table for each size and kind of pool."""
    kinds = {
        "equal devices": Pool(),
        "10 % unequal": Pool(unequal=0.1),
        "a death in 20 device hours": Pool(failures=0.05),
        "a death in 2 device hours": Pool(failures=0.5),
    }
    columns = (
        "pool",
        "workers",
        "ideal h",
        "bound h",
        "makespan h",
        "of the ideal",
        "of the bound",
        "died",
        "commands",
        "measured twice",
    )
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    # The store does the same for every kind of pool, so the one with the most deaths will do.
    chosen = kinds if not parts else {k: p for k, p in kinds.items() if p.failures > 0.1}
    for name, pool in chosen.items():
        for workers in sizes:
            with tempfile.TemporaryDirectory() as folder:
                store = RealParts(Path(folder), n) if parts else None
                try:
                    o = simulate(n, workers, pool, store.keep if store else None)
                except RuntimeError as error:
                    print(f"| {name} | {workers} | {error} |", flush=True)
                    continue
                print(
                    f"| {name} | {workers} | {o.ideal / 3600:.3f} | {o.bound / 3600:.3f} "
                    f"| {o.makespan / 3600:.3f} | {o.makespan / o.ideal:.2f} "
                    f"| {o.makespan / o.bound:.2f} | {o.died} | {o.rounds} | {o.again} |",
                    flush=True,
                )
                if store:
                    print(f"    {json.dumps(store.check())}", flush=True)


def main() -> None:
    """Do what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["simulate", "run"])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--workers", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--parts", action="store_true", help="write and merge real parts as well")
    parser.add_argument("--folder", type=Path, help="keep the result of `run` here")
    parser.add_argument("--part-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"h5py {h5py.__version__}"
    )
    if args.what == "simulate":
        began = time.process_time()
        report_simulation(args.samples, args.workers, args.parts)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{time.process_time() - began:.0f} s of CPU, peak {peak:.0f} MiB")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in run(args.samples, folder, args.part_size, args.batch_size).items():
            print(f"{re.sub('_', ' ', name):<22} {value:.2f}")


if __name__ == "__main__":
    main()
