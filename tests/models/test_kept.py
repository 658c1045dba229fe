"""Models that are kept from job to job, and the devices that they give up."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from interp_lab.run.kept import KeptModels, accelerators, visible_card

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
