"""The loop: memory stays flat, batches shrink when they do not fit, one bad sample fails alone."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import torch

from interp_lab.datasets.base import Sample
from interp_lab.datasets.images import ImageFiles
from interp_lab.errors import SampleError, TooManyFailuresError
from interp_lab.models.base import Prepared
from interp_lab.models.clip import ClipVision
from interp_lab.run.measure import Measurement, stop_flag
from interp_lab.run.progress import Progress
from interp_lab.store.parts import PartWriter, finished_samples, list_parts
from interp_lab.studies.clip_similarity.analysis import ClipSimilarity


class SmallMemory(ClipVision):
    """A real tower on a device that has room for two samples."""

    batches: ClassVar[list[int]]

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        self.batches.append(len(prepared.seen))
        if len(prepared.seen) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().run(prepared)


class NoMemory(ClipVision):
    """A real tower on a device that has room for nothing."""

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Watched(ImageFiles):
    """Pictures whose loading notes the memory of the process."""

    memory: dict[int, int]

    def load(self, index: int) -> Sample:
        self.memory[index] = psutil.Process().memory_info().rss
        return super().load(index)


class OddOne(ClipVision):
    """A real tower that chokes on one sample of a batch, as a processor can."""

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        if any(s.id == "good_0002.png" for s in samples):
            raise RuntimeError("the processor cannot take this one")
        return super().prepare(samples)


def measurement(
    folder: Path,
    dataset: Any,
    model: type[ClipVision] = ClipVision,
    batch_size: int = 4,
    share: float = 1.0,
) -> Measurement:
    tower = model(family="clip", checkpoint="zoo:tiny_clip", device=torch.device("cpu"))
    if isinstance(tower, SmallMemory):
        tower.batches = []
    study = ClipSimilarity().for_model(tower)
    writer = PartWriter(folder, study.fields, size=16)
    return Measurement(tower, dataset, study, writer, Progress(1), batch_size, share)


def test_memory_does_not_grow_with_the_samples(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = Watched(str(pictures(200)))
    dataset.memory = {}
    measurement(tmp_path / "parts", dataset).run(range(200))
    assert len(finished_samples(list_parts(tmp_path / "parts"))) == 200
    assert dataset.memory[199] < 1.10 * dataset.memory[50]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    work = measurement(tmp_path / "parts", ImageFiles(str(pictures(16))), SmallMemory, 8)
    assert work.run(range(16))
    assert list(finished_samples(list_parts(tmp_path / "parts")).values()) == [True] * 16
    # Found once, the size that fits is kept: nothing larger is tried again.
    assert work.model.batches == [8, 4] + [2] * 8
    assert work.batch_size == 2


def test_a_single_sample_that_does_not_fit_is_a_recorded_failure(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    measurement(tmp_path / "parts", ImageFiles(str(pictures(2))), NoMemory).run(range(2))
    assert list(finished_samples(list_parts(tmp_path / "parts")).values()) == [False, False]


def test_one_odd_sample_fails_alone(pictures: Callable[..., Path], tmp_path: Path) -> None:
    measurement(tmp_path / "parts", ImageFiles(str(pictures(5))), OddOne, 5).run(range(5))
    finished = finished_samples(list_parts(tmp_path / "parts"))
    assert [name for name, good in finished.items() if not good] == ["good_0002.png"]
    assert len(finished) == 5


def test_too_many_failures_stop_but_keep_what_is_finished(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = ImageFiles(str(pictures(5, bad=30)))
    with pytest.raises(TooManyFailuresError):
        measurement(tmp_path / "parts", dataset, share=0.5).run(range(35))
    assert list_parts(tmp_path / "parts")


def test_a_measured_batch_equals_measuring_one_by_one(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    import h5py
    import numpy as np

    dataset = ImageFiles(str(pictures(4)))
    stored = []
    for size in (1, 4):
        measurement(tmp_path / str(size), dataset, batch_size=size).run(range(4))
        with h5py.File(list_parts(tmp_path / str(size))[0]) as file:
            stored.append(file["samples/cls_similarity"][...])
    np.testing.assert_allclose(stored[0], stored[1], atol=1e-5)


class Counting(ClipVision):
    """A real tower that notes how many samples each forward had."""

    batches: ClassVar[list[int]]

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        self.batches.append(len(prepared.seen))
        return super().run(prepared)


def test_batches_are_cut_from_the_whole_data_set_and_get_into_one_part_whole(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    work = measurement(tmp_path / "parts", ImageFiles(str(pictures(12))), Counting)
    work.model.batches = []
    work.writer.size = 3
    # 0 to 3 are one batch, 4 to 7 the next: what is left of them is not mixed.
    assert work.run([1, 2, 3, 5, 6, 8, 9, 10, 11])
    assert work.model.batches == [3, 2, 4]
    parts = list_parts(tmp_path / "parts")
    assert [len(finished_samples([part])) for part in parts] == [3, 6]


def test_a_run_stops_when_it_is_asked_to(pictures: Callable[..., Path], tmp_path: Path) -> None:
    work = measurement(tmp_path / "parts", ImageFiles(str(pictures(12))))
    work.stop = lambda: len(work.writer._samples) >= 8
    assert not work.run(range(12))
    assert len(finished_samples(list_parts(tmp_path / "parts"))) == 8


def test_answers_that_are_sampled_depend_on_seed_and_place_alone(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    drawn: dict[str, list[float]] = {}

    class Sampling(ClipVision):
        def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
            drawn.setdefault(folder, []).append(torch.rand(1).item())
            return super().run(prepared)

    dataset = ImageFiles(str(pictures(8)))
    for folder, todo in (("whole", range(8)), ("rest", range(4, 8))):
        torch.rand(3)
        measurement(tmp_path / folder, dataset, Sampling).run(todo)
    assert drawn["rest"] == drawn["whole"][1:] and len(set(drawn["whole"])) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_polite_end_is_a_flag_unless_somebody_else_handles_it(number: int) -> None:
    with stop_flag() as stopped:
        signal.raise_signal(number)
        assert stopped.is_set()
    assert signal.getsignal(number) is signal.SIG_DFL
    heard: list[int] = []
    signal.signal(number, lambda n, _: heard.append(n))
    try:
        with stop_flag() as stopped:
            signal.raise_signal(number)
            assert heard == [number] and not stopped.is_set()
    finally:
        signal.signal(number, signal.SIG_DFL)


def test_ctrl_c_is_a_flag_first_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_flag() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sample_errors_keep_their_words(pictures: Callable[..., Path], tmp_path: Path) -> None:
    import h5py

    from interp_lab.store.parts import read_failures

    class Missing(ImageFiles):
        def load(self, index: int) -> Sample:
            raise SampleError("en/achoo.wav: no such file")

    measurement(tmp_path / "parts", Missing(str(pictures(1)))).run([0])
    with h5py.File(list_parts(tmp_path / "parts")[0]) as file:
        assert read_failures(file)[0].reason == "en/achoo.wav: no such file"
