"""Models that are kept from job to job, and the devices that they give up."""

import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from interp_lab.run.kept import KeptModels, accelerators, visible_card
from interp_lab.store.locks import DeviceLock

WAIT = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from interp_lab.store.locks import DeviceLock
lock = DeviceLock("card")
lock.wait()
print("got it", flush=True)
"""


class Loader:
    """Loads small networks and counts them."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, name: str) -> torch.nn.Module:
        self.loaded.append(name)
        return torch.nn.Linear(2, 2)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize(
    ("keep", "jobs", "loads"),
    [
        (1, "aaaaaa", "a"),
        (1, "aabb", "ab"),
        (1, "abab", "abab"),
        (2, "abab", "ab"),
        (0, "aa", "aa"),
    ],
)
def test_a_model_is_loaded_once_as_long_as_it_is_kept(keep: int, jobs: str, loads: str) -> None:
    kept, loader = KeptModels(), Loader()
    for name in jobs:
        kept.use({"model": name}, [], lambda n=name: loader(n), lambda m: m(torch.ones(2)), keep)
    assert "".join(loader.loaded) == loads
    assert len(kept._models) <= keep


def test_room_is_made_before_the_next_model_is_loaded() -> None:
    kept = KeptModels()
    kept.use({"model": "a"}, [], lambda: torch.nn.Linear(2, 2), lambda m: None, 1)

    def load() -> torch.nn.Module:
        assert not kept._models
        return torch.nn.Linear(2, 2)

    kept.use({"model": "b"}, [], load, lambda m: None, 1)


def test_a_model_is_loaded_again_after_an_error() -> None:
    kept, loader = KeptModels(), Loader()
    with pytest.raises(ZeroDivisionError):
        kept.use({"model": "a"}, [], lambda: loader("a"), lambda m: 1 // 0, 1)
    kept.use({"model": "a"}, [], lambda: loader("a"), lambda m: None, 1)
    assert loader.loaded == ["a", "a"]


def test_a_device_is_held_while_a_model_lies_on_it_and_given_up_when_wanted(
    tmp_path: Path,
) -> None:
    kept, loader = KeptModels(), Loader()

    def use(keep: int) -> None:
        kept.use({"model": "a"}, ["card"], lambda: loader("a"), lambda m: None, keep)

    use(1)
    use(1)
    assert kept._locks["card"].held and loader.loaded == ["a"]
    other = subprocess.run(
        [sys.executable, "-c", WAIT, str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert other.stdout == "got it\n"
    assert not kept._locks["card"].held and not kept._models
    use(1)
    assert loader.loaded == ["a", "a"] and kept._locks["card"].held
    use(0)
    assert not kept._locks["card"].held and loader.loaded == ["a", "a"]


def test_a_device_is_released_when_its_last_model_made_room(tmp_path: Path) -> None:
    kept, loader = KeptModels(), Loader()
    for name in ("a", "b"):
        kept.use({"model": name}, [f"card {name}"], lambda n=name: loader(n), lambda m: None, 1)
    assert not kept._locks["card a"].held and kept._locks["card b"].held
    kept._locks["card b"].release()
    deadline = time.monotonic() + 5
    while kept._watcher is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept._watcher is None


def test_the_cpu_has_no_lock_and_cards_are_named_as_the_host_names_them() -> None:
    assert accelerators(torch.device("cpu")) == []
    assert visible_card(1, {}) == "1"
    assert visible_card(0, {"CUDA_VISIBLE_DEVICES": "3, 1"}) == "3"
    assert visible_card(1, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}) == "GPU-b"


class SlowLock(DeviceLock):
    """Leaves time between a device and the next, in which others take theirs."""

    def wait(self) -> None:
        super().wait()
        time.sleep(0.2)


def _work_on(folder: str, names: list[str], rounds: int) -> None:
    """Work on devices again and again, each marked by a file that nobody else may have made."""
    tempfile.tempdir = folder
    kept = KeptModels(SlowLock)
    marks = [Path(folder) / f"{name}.mark" for name in names]

    def work(model: object) -> None:
        for mark in marks:
            mark.touch(exist_ok=False)
        time.sleep(0.01)
        for mark in marks:
            mark.unlink()

    for number in range(rounds):
        kept.use({"model": number}, names, object, work, keep=number % 2)
    with open(Path(folder) / "done", "a") as file:
        file.write(",".join(names) + "\n")


def test_models_over_several_devices_never_share_one_and_never_wait_for_ever(
    tmp_path: Path,
) -> None:
    """In the order in which they are named, each would hold what another waits for."""
    wanted = [["card a", "card b"], ["card b", "card c"], ["card c", "card a"], ["card b"]]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work_on, args=(str(tmp_path), n, 2)) for n in wanted]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    stuck = [worker for worker in workers if worker.is_alive()]
    for worker in stuck:
        worker.kill()
    assert not stuck and [w.exitcode for w in workers] == [0] * 4
    done = (tmp_path / "done").read_text().splitlines()
    assert sorted(done) == sorted(",".join(names) for names in wanted)


def test_the_locks_of_all_devices_of_a_model_are_held_while_it_is_kept() -> None:
    kept = KeptModels()
    names = ["card b", "card a"]
    kept.use({"model": "a"}, names, object, lambda model: None, 1)
    assert all(kept._locks[name].held for name in names)
    # Another model on one of them alone: the first goes, and so does the other card.
    kept.use({"model": "b"}, ["card a"], object, lambda model: None, 1)
    assert kept._locks["card a"].held and not kept._locks["card b"].held
