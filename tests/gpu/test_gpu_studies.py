"""Whole studies on a GPU: the five tasks, a model over all devices, locks, memory that runs out."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from interp_lab.datasets.images import ImageFiles
from interp_lab.models.base import Prepared
from interp_lab.models.clip import ClipVision
from interp_lab.run.kept import accelerators
from interp_lab.run.measure import Measurement
from interp_lab.run.progress import Progress
from interp_lab.store.locks import DeviceLock
from interp_lab.store.parts import PartWriter, finished_samples, list_parts
from interp_lab.store.results import open_results
from interp_lab.studies.clip_similarity.analysis import ClipSimilarity

pytestmark = pytest.mark.gpu
TASKS = ("clip_similarity", "scienceqa", "semdim", "trajectory", "avigate")
MIB = 2**20
SAMPLE = 256 * MIB
PATIENCE = 300.0
HOLD = """
import sys
from interp_lab.store.locks import DeviceLock
lock = DeviceLock(sys.argv[1])
lock.wait()
print("held", flush=True)
sys.stdin.readline()
"""


def result_path(said: object) -> Path:
    assert said.code == 0, said.err
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


@pytest.mark.parametrize("task", TASKS)
def test_a_task(task: str, command: Callable[..., object], device: torch.device) -> None:
    said = command(f"task={task}", f"device={device}", "visualization.max_samples=1")
    with open_results(result_path(said)) as results:
        assert len(results) and not results.failures
        assert results.attributes["device"].startswith(str(device))


def scores(path: Path) -> dict[str, np.ndarray]:
    with open_results(path) as results:
        return {name: np.asarray(results.read("scores", name)) for name in results.sample_ids}


def test_a_model_over_all_devices_gives_the_same_scores(
    command: Callable[..., object], device: torch.device
) -> None:
    # Where there is one device the map is trivial; with several, layers differ in rounding: 1e-5.
    study = ["task=scienceqa", f"device={device}", "dataset.max_samples=4", "resume=false"]
    alone = scores(result_path(command(*study)))
    spread = scores(result_path(command(*study, "model.device_map=auto")))
    assert alone.keys() == spread.keys()
    for name, values in alone.items():
        np.testing.assert_allclose(spread[name], values, atol=1e-5)


def test_a_device_is_one_processs_at_a_time(card: torch.device) -> None:
    [name] = accelerators(card)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        lock = DeviceLock(name)
        assert not lock.take()
        assert lock.holder()["pid"] == other.pid
        other.stdin.close()
        other.wait(PATIENCE)
        lock.wait()  # what a dead process held is free
        lock.release()


def test_two_commands_on_one_device_take_turns(card: torch.device, tmp_path: Path) -> None:
    def start(layer: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "interp_lab", f"device={card}", f"analysis.layer={layer}"]
        command += [f"output.root={tmp_path}", "visualization.max_samples=0"]
        return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env={**os.environ})

    jobs = [start(0), start(1)]
    for job in jobs:
        _, said = job.communicate(timeout=PATIENCE)
        assert job.returncode == 0, said
    assert len(list(tmp_path.rglob("results.h5"))) == 2


class Hungry(ClipVision):
    """A real tower whose forward also takes 256 MiB of the device's memory a sample."""

    batches: ClassVar[list[int]]

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        self.batches.append(len(prepared.seen))
        held = torch.empty(len(prepared.seen) * SAMPLE, dtype=torch.uint8, device=self.device)
        outputs = super().run(prepared)
        del held
        return outputs


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    card: torch.device, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    tower = Hungry(family="clip", checkpoint="zoo:tiny_clip", device=card)
    tower.batches = []
    study = ClipSimilarity().for_model(tower)
    writer = PartWriter(tmp_path / "parts", study.fields, size=16)
    work = Measurement(tower, ImageFiles(str(pictures(16))), study, writer, Progress(1), 8, 1.0)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved(card) + 3 * SAMPLE  # for two samples and the tower's own
    total = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction(room / total, card)
    try:
        assert work.run(range(16))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
    assert tower.batches == [8, 4] + [2] * 8
    assert list(finished_samples(list_parts(tmp_path / "parts")).values()) == [True] * 16
