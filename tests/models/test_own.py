"""A network of the user's own: found, loaded, fed and watched by what its YAML says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_network import TwoStreams
from qd_detr_cases import network

from interp_lab.capture.checks import live_check
from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import GatePlan, SetGate
from interp_lab.datasets.base import Sample
from interp_lab.errors import (
    ConfigError,
    InterpLabError,
    MissingInputError,
    SampleError,
    UnsupportedModelError,
)
from interp_lab.models.base import GatedModel
from interp_lab.models.own import OwnModule
from interp_lab.models.qd_detr.model import PreparedMoments

CPU = torch.device("cpu")
MINE = {"_target_": "own_network.TwoStreams", "width": 5, "audio_width": 3}
INPUTS = {"frames": "video", "sound": "audio"}
GATES = {"attention": {"hookpoints": "gate", "nonlinearity": "sigmoid"}}


def sample(clips: int, **facts: Any) -> Sample:
    rng = np.random.default_rng(clips)
    video, audio = rng.normal(size=(clips, 5)), rng.normal(size=(clips, 3))
    known = {"video": video.astype(np.float32), "audio": audio.astype(np.float32)}
    return Sample(f"s{clips}", facts={**known, "duration": 2.0 * clips, **facts})


def saved(path: Path, wrapped: str | None = None) -> tuple[str, TwoStreams]:
    made = TwoStreams(5, 3)
    state = made.state_dict()
    torch.save({wrapped: state} if wrapped else state, path)
    return str(path), made


@pytest.mark.parametrize("wrapped", [None, "model", "state_dict"])
def test_a_network_is_loaded_fed_and_watched_by_its_yaml(
    tmp_path: Path, wrapped: str | None
) -> None:
    path, made = saved(tmp_path / "mine.pt", wrapped)
    model = OwnModule(MINE, CPU, path, INPUTS, GATES, ["attention"])
    assert isinstance(model, GatedModel)
    samples = [sample(4), sample(6)]
    prepared = model.prepare(samples)
    assert prepared.inputs["frames"].shape == (2, 6, 5)
    assert prepared.inputs["frames_mask"].sum(1).tolist() == [4, 6]
    hooks = model.gates["attention"]
    plan = {"attention": GatePlan(hooks.hookpoints, hooks.nonlinearity)}
    with torch.no_grad(), watch_gates(model.module, [plan, plan]) as rows:
        outputs = model.run(prepared)
    for row, one in enumerate(samples):
        video, audio = (torch.from_numpy(one.facts[n])[None] for n in ("video", "audio"))
        joint = torch.cat([made.see(video), made.hear(audio)], -1)
        gate = torch.sigmoid(made.gate(joint))[0]
        assert (rows[row]["attention"]["gate"][: len(gate)] - gate).abs().max() < 1e-6
        alone = made(video, audio, torch.ones(1, len(gate)))[0]
        assert (outputs[row] - alone).abs().max() < 1e-6
    with torch.no_grad(), watch_gates(model.module, [{}], [SetGate(("gate",), 1e-6, "sigmoid")]):
        shut = model.forward(prepared.inputs)
    without = {**prepared.inputs, "sound": torch.randn_like(prepared.inputs["sound"])}
    assert (shut - model.forward(prepared.inputs)).abs().max() > 1e-3
    with torch.no_grad(), watch_gates(model.module, [{}], [SetGate(("gate",), 1e-6, "sigmoid")]):
        assert (model.forward(without) - shut).abs().max() < 1e-4


def test_a_published_network_by_yaml_alone_gives_its_moments(tmp_path: Path) -> None:
    made = network("clipwise")
    torch.save(made.state_dict(), tmp_path / "net.pt")
    module = {"_target_": "own_network.small_qd_detr", "gating_type": "clipwise"}
    inputs = {"src_txt": "text", "src_vid": "video", "src_aud": "audio"}
    model = OwnModule(module, CPU, str(tmp_path / "net.pt"), inputs)
    rng = np.random.default_rng(0)
    shapes = {"video": (5, 10), "audio": (5, 8), "text": (3, 12)}
    facts: dict[str, Any] = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    facts |= {"query": "a b c", "clip_seconds": 2.0, "windows": np.array([[2.0, 4.0]])}
    prepared = model.prepare([sample(5, **facts)])
    (found,) = model.run(prepared)
    assert found.spans.shape == (5, 2) and found.loss is not None and len(found.saliency) == 5
    assert len(prepared.seen[0].tokens) == 8
    assert live_check(model.forward, prepared.inputs, "audio") > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"audio": np.ones((2, 3), np.float32)}, "s5: audio has 2 rows and s5: video 5"),
        ({"duration": 42.0}, "5 clips of 2 s are 10 s, the record's duration is 42 s"),
    ],
)
def test_streams_of_other_lengths_are_not_measured(changes: dict[str, Any], says: str) -> None:
    model = OwnModule(MINE, CPU, inputs=INPUTS)
    with pytest.raises(SampleError, match=says):
        model.prepare([sample(5, clip_seconds=2.0, **changes)])


def test_own_functions_prepare_and_read() -> None:
    here = "own_network"
    model = OwnModule(MINE, CPU, prepare=f"{here}.prepare_ones", read=f"{here}.sum_times_duration")
    prepared = model.prepare([sample(4, clip_seconds=2.0), sample(6, clip_seconds=2.0)])
    assert isinstance(prepared, PreparedMoments)
    with torch.no_grad():
        total = float(model.forward(prepared.inputs)[0].sum())
    assert model.run(prepared) == pytest.approx([total * 8, total * 12], rel=1e-5)
    assert "the weights are as the class makes them" in model.notes[0]


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"module": {**MINE, "_target_": "own_network.TwoStrems"}}, ConfigError, "'TwoStreams'"),
        ({"module": {**MINE, "wide": 5}}, ConfigError, "cannot be made"),
        ({"module": {"_target_": "builtins.dict"}}, ConfigError, "no torch.nn.Module"),
        ({"inputs": {"frame": "video"}}, ConfigError, "'frames'"),
        ({"gates": {"attention": {"hookpoint": "gate"}}}, ConfigError, r"model\.gates\.attention"),
        ({"gates": GATES, "audio_gates": ["atention"]}, ConfigError, "'attention'"),
        ({"checkpoint": "nowhere.pt"}, MissingInputError, r"model\.checkpoint"),
        ({"module": {**MINE, "width": 6}}, UnsupportedModelError, "1 of another shape: see.weight"),
        ({"read": "own_network.nothing"}, ConfigError, "nothing"),
    ],
)
def test_a_mistake_in_the_yaml_is_one_line(
    tmp_path: Path, values: dict[str, Any], kind: type[InterpLabError], says: str
) -> None:
    path, _ = saved(tmp_path / "mine.pt")
    arguments = {"module": MINE, "device": CPU, "checkpoint": path, **values}
    with pytest.raises(kind, match=says) as error:
        OwnModule(**arguments)
    assert "\n" not in str(error.value)


def test_a_missing_fact_names_those_there_are() -> None:
    model = OwnModule(MINE, CPU, inputs={"frames": "video"})
    with pytest.raises(SampleError, match=r"s4: no 'sound'.*video, audio"):
        model.prepare([sample(4)])


def test_a_hookpoint_that_matches_nothing_is_said() -> None:
    model = OwnModule(MINE, CPU, inputs=INPUTS, gates={"a": {"hookpoints": ["gates"]}})
    plan = {"a": GatePlan(model.gates["a"].hookpoints)}
    with (
        pytest.raises(UnsupportedModelError, match="no such module.*'gate'"),
        watch_gates(model.module, [plan]),
    ):
        pass
