"""Jobs that take what others have not begun: claims, chunks, and whole jobs in lockstep."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import StoreError
from interp_lab.run.measure import Measurement
from interp_lab.run.sweep.chunks import Chunk, cut, next_of_others, sizes
from interp_lab.run.sweep.pool import Pool
from interp_lab.run.sweep.record import SweepJob, swept_jobs
from interp_lab.run.sweep.sharding import Share
from interp_lab.run.work import Done, work_on
from interp_lab.store.claims import Claims
from interp_lab.store.results import open_results
from interp_lab.store.rundir import ALL, Claim, RunDirectory


@given(batches=st.integers(0, 3000))
def test_chunks_get_smaller_and_hold_every_batch_once(batches: int) -> None:
    found = sizes(batches)
    assert sum(found) == batches
    assert all(size >= 1 for size in found) and found == sorted(found, reverse=True)
    # No chunk is more than a small part of what was left when it was cut off.
    left = [batches - sum(found[:i]) for i in range(len(found))]
    assert all(size <= max(1, left[i] / 8) for i, size in enumerate(found))


@given(n=st.integers(0, 400), count=st.integers(1, 7), size=st.integers(1, 9))
def test_a_chunk_is_whole_batches_of_the_data_sets_order(n: int, count: int, size: int) -> None:
    whole = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
    found = [
        list(batch)
        for share in range(count)
        for chunk in cut(share, Share(0, count).batches(n, size, share))
        for batch in chunk.batches
    ]
    assert sorted(found) == whole


def test_the_share_with_most_left_is_taken_from_in_its_order() -> None:
    chunks = {s: cut(s, [[i] for i in range(n)]) for s, n in ((0, 3), (1, 5), (2, 5))}
    assert next_of_others(chunks) == Chunk(1, 0, ([0],))
    chunks[1] = chunks[1][1:]
    assert next_of_others(chunks) == Chunk(2, 0, ([0],))
    assert next_of_others({0: [], 1: []}) is None


HOLD = """
import sys, time
from pathlib import Path
from interp_lab.store.claims import Claims
assert Claims(Path(sys.argv[1])).take("a") is not None
print("held", flush=True)
time.sleep(600)
"""


def killed_with(folder: Path) -> None:
    """Let a process take the piece `a`, and kill it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert Claims(folder).take("a") is None
    holder.kill()
    holder.wait()


def test_what_a_killed_process_held_is_free_but_not_for_ever(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "chunks")
    assert claims.prepare()
    killed_with(claims.folder)
    taken = claims.take("a")
    assert taken is not None and taken.before == 1
    # One that is asked to stop has not died of it.
    claims.give_back(taken, blameless=True)
    # An error is taken for the sample's, too; three ends in it are too many.
    taken = claims.take("a")
    assert taken is not None and taken.before == 2
    claims.give_back(taken, blameless=False)
    killed_with(claims.folder)
    assert claims.take("a") is None and claims.given_up == {"a"}


def test_a_finished_piece_is_nobodys_again(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "chunks"), Claims(tmp_path / "chunks")
    assert one.prepare() and other.prepare()
    a, b = one.take("a"), one.take("b")
    assert a is not None and b is not None and other.take("a") is None
    assert other.listing().begun == {"a", "b"} and not other.listing().done
    one.finish(a)
    assert other.take("a") is None
    assert other.listing().begun == {"b"} and other.listing().done == {"a"}
    one.finish(b)
    assert not other.over()
    one.close()
    assert other.over() and not one.folder.exists()


def test_a_piece_costs_seven_file_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, counted = Claims(tmp_path / "chunks"), []
    claims.prepare()

    def count(module: Any, name: str) -> None:
        call = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: counted.append(name) or call(*a, **k))

    for name in ("open", "pread", "pwrite", "rename", "close", "listdir", "fstat", "stat"):
        count(os, name)
    count(fcntl, "flock")
    taken = claims.take("a")
    assert taken is not None
    claims.finish(taken)
    assert sorted(counted) == ["close", "flock", "open", "pread", "pwrite", "rename", "stat"]


def test_separate_commands_say_it_all_or_none(tmp_path: Path) -> None:
    place = RunDirectory(tmp_path)
    with (
        place.claimed(Claim(0, 2, 8, "mine")),
        pytest.raises(StoreError, match="works here"),
        place.claimed(Claim(1, 2, 8, "yours", pool=ALL)),
    ):
        pass
    mine, yours = Claim(0, 2, 8, "mine", pool=ALL), Claim(1, 2, 8, "yours", pool=ALL)
    with place.claimed(mine), place.claimed(yours):
        pass


class Lockstep:
    """Lets jobs in threads measure in the order of a clock that only their batches move.

    Args:
        costs: what a batch costs each job, by its number.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        self.costs = costs
        self.measured: dict[int, list[int]] = {job: [] for job in range(len(costs))}
        self._times: dict[int, float] = dict.fromkeys(range(len(costs)), 0.0)
        self._now = 0.0
        self._turn = threading.Condition()
        self.arrived = threading.Event()

    def wait(self, job: int, places: Sequence[int]) -> None:
        """Wait until it is this job's turn to measure a batch."""
        self.arrived.set()
        with self._turn:
            self._times.setdefault(job, self._now)
            assert self._turn.wait_for(lambda: self._first() == job, timeout=120)
            self._now = self._times[job]
            self._times[job] += self.costs[job]
            self.measured[job] += places
            self._turn.notify_all()

    def leave(self, job: int) -> None:
        """Let the others not wait for a job that waits for them, or has ended."""
        with self._turn:
            self._times.pop(job, None)
            self._turn.notify_all()

    def _first(self) -> int:
        return min(self._times, key=lambda job: (self._times[job], job))


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def lockstep(
    pictures: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Lockstep, list[Any]]]]:
    """Run the two jobs of a sweep over 48 pictures, whole, in threads of this process."""
    job_of = threading.local()

    def run(
        costs: Sequence[float], more: Sequence[str] = (), fails: tuple[int, int] | None = None
    ) -> tuple[Lockstep, list[Any]]:
        clock = Lockstep(costs)
        measure, wait = Measurement._measure, Pool.more

        def measured(self: Any, batch: Any) -> None:
            clock.wait(job_of.number, [place for place, _ in batch])
            if fails and fails == (job_of.number, len(clock.measured[job_of.number])):
                raise StoreError("the disk of this job is full")
            measure(self, batch)

        def waited(self: Pool, stop: Callable[[], bool]) -> bool:
            clock.leave(job_of.number)
            return wait(self, stop)

        monkeypatch.setattr(Measurement, "_measure", measured)
        monkeypatch.setattr(Pool, "more", waited)
        typed = quick(tmp_path, "device=cpu,cpu", *more)
        OmegaConf.save(
            {"hydra": {"overrides": {"task": typed}, "sweeper": {}}}, tmp_path / "multirun.yaml"
        )
        cfg = configuration(*quick(tmp_path, "device=cpu", *more))
        done: list[Any] = [None, None]

        def work(number: int) -> None:
            job_of.number = number
            folder = tmp_path / ".jobs" / "id"
            job = SweepJob(folder, number, swept_jobs(folder).jobs[number], "sweep")
            try:
                done[number] = work_on(cfg.copy(), job)
            except Exception as error:
                done[number] = error
            finally:
                clock.arrived.set()
                clock.leave(number)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        threads[0].start()
        # The second begins when the first is ready: Python's parser is not made for two threads.
        assert clock.arrived.wait(timeout=120)
        threads[1].start()
        [thread.join() for thread in threads]
        monkeypatch.setattr(Measurement, "_measure", measure)
        return clock, done

    pictures(48)
    yield run


def quick(tmp_path: Path, *more: str) -> list[str]:
    return [
        *("dataset=images", f"dataset.path={tmp_path}/pictures", f"output.root={tmp_path}/o"),
        *("capture.verify=off", "capture.live_check=false", "output.part_size=12", "batch_size=2"),
        *("output.exports=false", *more),
    ]


def contents(path: Path) -> dict[str, object]:
    """Every dataset of a file, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def of_one_job(tmp_path: Path) -> dict[str, object]:
    done = work_on(configuration(*quick(tmp_path, f"output.root={tmp_path}/one")), None)
    return contents(done.place.results)


def test_a_job_of_half_the_speed_measures_a_third(
    lockstep: Callable[..., tuple[Lockstep, list[Any]]], tmp_path: Path
) -> None:
    clock, done = lockstep([1.0, 2.0])
    assert all(isinstance(d, Done) for d in done), done
    assert [d.last for d in done].count(True) == 1, "one merges"
    assert sorted(clock.measured[0] + clock.measured[1]) == list(range(48)), "each once"
    # 32 and 16 would be the ideal.
    assert 0.9 * 32 <= len(clock.measured[0]) <= 1.1 * 32
    assert [d.measured for d in done] == [len(clock.measured[j]) for j in range(2)]
    [last] = [d for d in done if d.last]
    assert contents(last.place.results) == of_one_job(tmp_path)
    assert not list(last.place.path.rglob("*.part.h5"))
    with open_results(last.place.results) as results:
        assert results.attributes["n_missing"] == 0


def test_what_a_failed_job_has_left_is_measured_by_the_other(
    lockstep: Callable[..., tuple[Lockstep, list[Any]]], tmp_path: Path
) -> None:
    clock, done = lockstep([1.0, 1.0], fails=(1, 10))
    assert isinstance(done[0], Done) and done[0].last
    assert isinstance(done[1], StoreError)
    assert set(clock.measured[0]) | set(clock.measured[1]) == set(range(48))
    # What it had not written at the time of its death is measured again, and no more.
    assert len(set(clock.measured[0]) & set(clock.measured[1])) <= 12
    assert contents(done[0].place.results) == of_one_job(tmp_path)


def test_shares_stay_fixed_where_that_is_asked_for(
    lockstep: Callable[..., tuple[Lockstep, list[Any]]],
) -> None:
    clock, _ = lockstep([1.0, 5.0], more=["shard.steal=false"])
    assert [len(clock.measured[j]) for j in range(2)] == [24, 24]


def test_without_locks_shares_stay_fixed_and_that_is_said(
    pictures: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("interp_lab.store.claims.fcntl", _Without(flock))
    pictures(6)
    hand = ["shard.index=0", "shard.count=2", "shard.steal=true"]
    done = work_on(configuration(*quick(tmp_path, *hand)), None)
    assert not done.last and done.measured == 4
    assert "has no file locks that end with a process" in caplog.text


class _Without:
    """`fcntl` with a `flock` of our own."""

    LOCK_EX, LOCK_NB, LOCK_SH = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_SH

    def __init__(self, flock: Callable[..., None]) -> None:
        self.flock = flock


def test_a_separate_command_that_says_so_measures_what_nobody_has_begun(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures(6)
    hand = ["shard.index=0", "shard.count=2"]
    done = work_on(configuration(*quick(tmp_path, *hand)), None)
    assert not done.last and done.measured == 4
    done = work_on(configuration(*quick(tmp_path, *hand, "shard.steal=true")), None)
    assert done.last and done.measured == 2
    assert contents(done.place.results) == of_one_job(tmp_path)
