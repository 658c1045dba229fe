"""Weights go straight to their device, a job touches its own, and what fails is one line."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from interp_lab.errors import ConfigError, DeviceError
from interp_lab.models import loading
from interp_lab.models.weights import Weights
from interp_lab.run import kept

CPU, CARD = torch.device("cpu"), torch.device("cuda:1")
NOTHING = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


class Recorded:
    """Stands in for a transformers class: notes what it is asked for."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.moved: list[torch.device] = []

    def from_pretrained(self, place: str, **given: Any) -> tuple[Any, dict[str, Any]]:
        self.given = given
        return self, NOTHING

    def to(self, device: torch.device) -> "Recorded":
        self.moved.append(device)
        return self


@pytest.mark.parametrize(
    ("device", "device_map", "expected"),
    [
        (CPU, None, None),
        (CARD, None, {"": CARD}),
        (torch.device("mps"), None, {"": torch.device("mps")}),
        (CARD, "auto", "auto"),
        (CPU, "cpu", "cpu"),
    ],
)
def test_weights_are_placed_while_they_are_read(
    device: torch.device,
    device_map: Any,
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Recorded()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    weights = Weights(str(tmp_path), device_map=device_map)
    loading.load_module(network, weights, device, "sdpa")
    assert network.given.get("device_map") == expected
    # What accelerate has spread must not be moved.
    assert network.moved == ([device] if expected is None else [])


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Any, str]:
    config = tf.Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    torch.manual_seed(0)
    module = tf.Qwen2ForCausalLM(config)
    module.save_pretrained(tmp_path / "qwen")
    return module, str(tmp_path / "qwen")


@pytest.mark.parametrize("device_map", [None, {"": "cpu"}])
def test_placed_weights_and_buffers_are_the_saved_ones_to_the_last_bit(
    checkpoint: tuple[Any, str], device_map: Any
) -> None:
    saved, folder = checkpoint
    weights = Weights(folder, device_map=device_map)
    module = loading.load_module(tf.Qwen2ForCausalLM, weights, CPU, "sdpa")
    for kind in ("named_parameters", "named_buffers"):
        want, got = (dict(getattr(m, kind)()) for m in (saved, module))
        assert want.keys() == got.keys()
        assert all(torch.equal(want[name], got[name]) for name in want)


@pytest.mark.parametrize("random", [False, True])
def test_an_attention_package_that_is_not_there_is_one_line(
    checkpoint: tuple[Any, str], random: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, folder = checkpoint

    def refuse(*_: Any, **__: Any) -> Any:
        raise ImportError("FlashAttention2 cannot be used: flash_attn is not installed.\nSee x.")

    where = "_from_config" if random else "from_pretrained"
    monkeypatch.setattr(tf.Qwen2ForCausalLM, where, refuse)
    network, weights = tf.Qwen2ForCausalLM, Weights(folder)
    with pytest.raises(
        ConfigError, match=r"model.attn_implementation=flash_attention_2: .*sdpa"
    ) as e:
        if random:
            loading.random_module(network, saved.config, weights, "flash_attention_2", 0)
        else:
            loading.load_module(network, weights, CPU, "flash_attention_2")
    assert "flash_attn is not installed" in str(e.value) and "\n" not in str(e.value)


def test_any_package_that_a_checkpoint_needs_is_one_line(tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ImportError("AutoProcessor requires the PIL library but it was not found\nmore")

    with pytest.raises(ConfigError, match=r"^model.checkpoint=.*the processor needs.*PIL") as error:
        Weights(str(tmp_path)).load(refuse, "processor")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_no_memory_for_a_model_is_one_line(problem: Exception, tmp_path: Path) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise problem

    with pytest.raises(DeviceError, match=r"^model=big: .*GiB free now.*model.dtype") as error:
        loading.load_on(CPU, "big", lambda: Weights(str(tmp_path)).load(load, "weights"))
    assert "\n" not in str(error.value)
    # The exception would hold what was loaded of the model.
    assert error.value.__cause__ is None and error.value.__context__ is None


def test_another_error_while_loading_stays_what_it_is() -> None:
    def load() -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        loading.load_on(CPU, "x", load)


def test_the_command_says_in_one_line_that_a_model_does_not_fit(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("interp_lab.models.clip.load_module", refuse)
    said = command("device=cpu")
    assert said.code == 1 and "Traceback" not in said.err
    [line] = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: model=tiny_clip: does not fit in the memory of this machine")


def test_the_jobs_own_card_is_made_current(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert loading.load_on(CARD, "x", lambda: len(current)) == 1
    loading.make_current(CPU)
    assert current == [CARD]


def test_random_numbers_of_other_cards_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[list[torch.device]] = []
    real = torch.random.fork_rng

    def fork(devices: list[torch.device]) -> Any:
        forked.append(devices)
        return real(devices=[])

    cards = [torch.Generator() for _ in range(3)]
    before = [card.initial_seed() for card in cards]
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    monkeypatch.setattr(torch.cuda, "default_generators", cards)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with loading.seeded(7, CARD):
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert forked == [[CARD]]
    assert [c.initial_seed() for c in cards] == [before[0], 7, before[2]]
    with loading.seeded(7, CPU):
        assert torch.equal(torch.rand(3), drawn)
    assert forked[1] == []
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize(
    ("device", "device_map", "max_memory", "cards"),
    [
        ("cuda:1", None, None, [1]),
        ("cuda:1", "auto", None, [0, 1, 2, 3]),
        ("cuda:1", "auto", {"0": "9GiB", 2: "9GiB", "cpu": "9GiB"}, [0, 2]),
        ("cpu", "balanced", None, [0, 1, 2, 3]),
        ("cpu", "sequential", {"cpu": "9GiB"}, []),
        ("cuda:0", "cuda:2", None, [2]),
        ("cuda:0", {"layers.0": 3, "layers.1": "cuda:1", "lm_head": "cpu"}, None, [1, 3]),
        ("cuda:0", {"": "disk"}, None, []),
        ("cpu", {"": "cpu"}, None, []),
    ],
)
def test_a_job_locks_the_cards_that_its_model_lies_on(
    device: str,
    device_map: Any,
    max_memory: Any,
    cards: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept, "_cuda_name", lambda number: f"card {number}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = kept.accelerators(torch.device(device), device_map, max_memory)
    assert found == [f"card {n}" for n in cards]
