"""A run directory: who may work in it at once, what begins anew, and what a dead process leaves."""

import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from interp_lab.errors import StoreError
from interp_lab.store.places import safe_name
from interp_lab.store.rundir import Claim, RunDirectory

HOLD = """
import sys, time
from interp_lab.store.rundir import Claim, RunDirectory
claim = Claim(int(sys.argv[2]), int(sys.argv[3]), 8, "theirs", int(sys.argv[4]) or None)
with RunDirectory(sys.argv[1]).claimed(claim):
    print("held", flush=True)
    time.sleep(float(sys.argv[5]))
"""


def holder(
    place: Path, index: int = 0, count: int = 1, pid: int = 0, seconds: float = 60
) -> "subprocess.Popen[str]":
    """Start a process that works on a share for so many seconds; return when it does."""
    arguments = [str(place), str(index), str(count), str(pid), str(seconds)]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def claim(index: int = 0, count: int = 1, command: str = "mine", batch_size: int = 8) -> Claim:
    return Claim(index, count, batch_size, command)


def test_a_second_worker_is_told_who_works_there_and_a_dead_one_does_not(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with (
        pytest.raises(StoreError, match=f"process {process.pid} on "),
        RunDirectory(tmp_path).claimed(claim()),
    ):
        pass
    process.kill()
    process.wait()
    with RunDirectory(tmp_path).claimed(claim()):
        pass


def test_only_other_shares_of_the_same_division_are_worked_on_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path, 0, 2)
    place = RunDirectory(tmp_path)
    with place.claimed(claim(1, 2)), place.held():
        assert sorted(w["index"] for w in place.workers()) == [0, 1]
    for clash in (claim(0, 2), claim(1, 3), claim(), claim(1, 2, batch_size=4)):
        with pytest.raises(StoreError, match="samples 1 of 2"), place.claimed(clash):
            pass
    process.kill()
    process.wait()


def test_jobs_of_one_sweep_wait_for_each_other(tmp_path: Path) -> None:
    process = holder(tmp_path, seconds=1.0)
    with RunDirectory(tmp_path).claimed(claim(command="theirs")):
        process.wait(timeout=10)
        assert process.returncode == 0


def test_a_worker_whose_command_has_died_is_waited_for(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    process = holder(tmp_path, pid=dead.pid, seconds=1.0)
    began = time.monotonic()
    with RunDirectory(tmp_path).claimed(claim()):
        assert time.monotonic() - began > 0.5
    process.wait()


def result(place: RunDirectory, **attributes: object) -> None:
    place.path.mkdir(exist_ok=True)
    with h5py.File(place.results, "w") as file:
        for key, value in {"complete": True, "n_missing": 0, **attributes}.items():
            file.attrs[key] = value


def part(place: RunDirectory, name: str) -> Path:
    place.parts.mkdir(exist_ok=True)
    path = place.parts / f"{name}.part.h5"
    path.touch()
    return path


def test_beginning_anew_happens_once_a_command_and_keeps_the_old_result(tmp_path: Path) -> None:
    place = RunDirectory(tmp_path / "run")
    result(place)
    old = part(place, "old")
    assert place.sources() == [old, place.results]
    assert place.begin_anew("sweep")
    assert place.sources() == [] and place.results.exists()
    new = part(place, "new")
    # The second job of the sweep, and a later command that goes on.
    assert not place.begin_anew("sweep")
    assert place.sources() == [new] and place.generation() == "sweep"
    # Killed between the new result and the end of its parts: the result counts.
    result(place, generation="sweep")
    assert place.sources() == [new, place.results]
    place.clear_parts()
    # A job of the same sweep that comes after the merge.
    assert not place.begin_anew("sweep")
    assert place.sources() == [place.results]


def test_nothing_begins_anew_below_a_worker(tmp_path: Path) -> None:
    process = holder(tmp_path, 0, 2)
    place = RunDirectory(tmp_path)
    kept = part(place, "kept")
    with place.claimed(claim(1, 2)), place.held(), pytest.raises(StoreError, match="resume=false"):
        place.begin_anew("mine")
    assert kept.exists()
    process.kill()
    process.wait()


def test_what_killed_processes_left_is_swept_up_when_nobody_works(tmp_path: Path) -> None:
    place = RunDirectory(tmp_path)
    place.parts.mkdir()
    half = [place.parts / ".00000000-abc.123.tmp", place.path / ".results.h5.123.tmp"]
    for path in half:
        path.touch()
    with place.claimed(claim(0, 2)):
        assert not any(path.exists() for path in half)
        half[0].touch()
        with place.claimed(claim(1, 2)):
            assert half[0].exists()


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot write there"),
        RunDirectory(tmp_path / "file" / "run").claimed(claim()),
    ):
        pass


def test_sample_ids_become_file_names_that_differ() -> None:
    ids = ["cat.jpg", "나비", "a/b.png", "a_b.png", "..", "../../x", "", "x" * 300]
    names = [safe_name(sample_id) for sample_id in ids]
    assert names[:2] == ids[:2]
    assert len(set(names)) == len(ids)
    assert all(name and "/" not in name and not name.startswith(".") for name in names)
    assert max(map(len, names)) < 200
