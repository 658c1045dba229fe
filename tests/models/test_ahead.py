"""The processor works in a thread beside the model: the same inputs, errors in their turn."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_language import architecture, save_processor

from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError
from interp_lab.models.base import sent
from interp_lab.models.llava import Llava
from interp_lab.run.measure import EncodesAhead

CAT = Image.open(Path(__file__).parents[2] / "interp_lab" / "zoo" / "photos" / "cat.jpg")


def sample(name: str, question: str = "What is it ?") -> Sample:
    return Sample(name, (("image", 0), ("text", question)), (CAT,))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Llava:
    return Llava(
        checkpoint="tiny",
        device=torch.device("cpu"),
        dtype="float32",
        init="random",
        max_new_tokens=3,
        architecture=architecture(),
        processor=save_processor(tmp_path_factory.mktemp("made") / "processor"),
    )


def test_what_was_encoded_ahead_is_what_would_be_encoded_now(
    tiny: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tiny, EncodesAhead)
    batch = [sample("a"), sample("b", "What is it ? A. red B. blue")]
    now = tiny.prepare(batch)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(tiny.encode_ahead, batch).result()

    def encoded(samples: Any) -> None:
        raise AssertionError("it was encoded before")

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "encoded", encoded)
        ahead = tiny.prepare(batch)
    assert set(now.inputs) == set(ahead.inputs)
    assert all(torch.equal(now.inputs[key], ahead.inputs[key]) for key in now.inputs)
    assert [s.tokens for s in now.seen] == [s.tokens for s in ahead.seen]
    # Only these very samples, and once.
    assert set(tiny.prepare(batch).inputs) == set(now.inputs)


def test_half_a_batch_is_encoded_again(tiny: Llava) -> None:
    batch = [sample("a"), sample("b", "What is it ? A. red B. blue")]
    tiny.encode_ahead(batch)
    alone = tiny.prepare(batch[:1])
    assert len(alone.seen) == 1 and alone.inputs["input_ids"].shape[0] == 1


def test_a_sample_that_does_not_fit_raises_where_it_is_measured(tiny: Llava) -> None:
    odd = [sample("odd", "What is <image> ?")]
    tiny.encode_ahead(odd)
    with pytest.raises(SampleError, match="odd: its text holds '<image>'"):
        tiny.prepare(odd)


def test_whole_numbers_keep_their_type_on_the_way() -> None:
    cpu = torch.device("cpu")
    assert sent(torch.arange(3), cpu, torch.bfloat16).dtype == torch.int64
    half = sent(torch.tensor([1.0, 1 / 3]), cpu, torch.bfloat16)
    assert torch.equal(half, torch.tensor([1.0, 1 / 3], dtype=torch.bfloat16))
