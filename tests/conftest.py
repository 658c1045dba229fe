"""What all tests share: no network, one thread, pictures on disk, the command line in-process."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from result_writer import write_result as write_result

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep capture's proofs in a folder of this session, for its subprocesses too."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["INTERP_LAB_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def short_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a command sets for its process, which here is that of all tests."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


@dataclass(frozen=True)
class Said:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Said]:
    """Run the command line in this process, with outputs below the test's folder."""
    from interp_lab.cli.command import run

    def call(*arguments: str) -> Said:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        places = [f"output.root={tmp_path}/outputs", f"hydra.sweep.dir={tmp_path}/multirun"]
        code = run([*arguments, *places])
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of small random pictures, some of them broken, and return it."""

    def write(good: int, bad: int = 0, seed: int = 0) -> Path:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(seed)
        for i in range(good):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"good_{i:04d}.png")
        for i in range(bad):
            (folder / f"bad_{i:04d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
        return folder

    return write
