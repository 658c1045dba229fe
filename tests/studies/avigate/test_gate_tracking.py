"""The gates of a network of one's own from Python: same numbers and files as the study's."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from gated_toy import Clips, Fusion

from interp_lab import (
    GateAnalyzer,
    adapt_legacy_model,
    load_legacy_model_with_gate_tracking,
    track_gates,
)
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.qd_detr.network import Architecture
from interp_lab.studies.avigate.gate_statistics import describe
from interp_lab.studies.avigate.tracking import GateTracker

PATTERNS = {"attention": "attention_gate.*", "ffn": ["ffn_gate.*"]}


def inputs_of(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    facts = Clips().load(index).facts
    return torch.tensor(facts["video"])[None], torch.tensor(facts["audio"])[None]


def gates_by_hand(network: Fusion, video: torch.Tensor, audio: torch.Tensor) -> list[torch.Tensor]:
    """The attention gates of each layer, written out once more."""
    found = []
    layers = zip(network.attention_gate, network.ffn_gate, network.ffn, strict=True)
    for one, other, ffn in layers:
        found.append(torch.tanh(one(torch.cat([video, audio], -1))))
        video = video + found[-1] * audio
        video = video + torch.tanh(other(torch.cat([video, audio], -1))) * ffn(video)
    return found


@pytest.fixture
def network() -> Fusion:
    return Fusion().eval()


@pytest.fixture
def tracked(network: Fusion) -> GateTracker:
    tracker = track_gates(network, PATTERNS, "tanh")
    with tracker:
        for i in range(4):
            tracker.set_current_sample_id(f"s{i}")
            network(*inputs_of(i))
    return tracker


def hooks_on(network: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_kept_gates_equal_the_arithmetic(network: Fusion, tracked: GateTracker) -> None:
    for i in range(4):
        expected = gates_by_hand(network, *inputs_of(i))
        kept = tracked.gate_history[f"s{i}"]["attention_gates"]
        for layer, gate in zip(kept, expected, strict=True):
            assert np.abs(layer - gate[0].detach().numpy()).max() < 1e-6


def test_the_rows_of_a_batch_are_samples(network: Fusion, tracked: GateTracker) -> None:
    (v0, a0), (v1, a1) = inputs_of(0), inputs_of(1)
    with tracked:
        tracked.set_current_sample_id(["x", "y"])
        network(torch.cat([v0, v1]), torch.cat([a0, a1]))
    for new, old in (("x", "s0"), ("y", "s1")):
        for kind in ("attention_gates", "ffn_gates"):
            pairs = zip(
                tracked.gate_history[new][kind], tracked.gate_history[old][kind], strict=True
            )
            assert all(np.abs(one - other).max() < 1e-6 for one, other in pairs)


def test_nothing_is_changed_and_no_hook_is_left(network: Fusion) -> None:
    before = network(*inputs_of(0))
    tracker = track_gates(network, PATTERNS, "tanh")
    tracker.enable_gate_tracking()
    tracker.set_current_sample_id("a")
    assert torch.equal(network(*inputs_of(0)), before)
    tracker.disable_gate_tracking()
    assert hooks_on(network) == 0
    network(*inputs_of(1))
    assert list(tracker.gate_history) == ["a"]


def test_a_forward_that_fails_leaves_neither_sample_nor_hook(network: Fusion) -> None:
    tracker = track_gates(network, PATTERNS, "tanh")
    video, audio = inputs_of(0)
    with tracker:
        tracker.set_current_sample_id("bad")
        with pytest.raises(RuntimeError):
            network(video, audio[..., :3])
        assert hooks_on(network) == 2  # the tracker's own two, no gate's
        tracker.set_current_sample_id("good")
        network(video, audio)
    assert list(tracker.gate_history) == ["good"]
    assert hooks_on(network) == 0


def test_what_the_user_forgot_is_said(network: Fusion, tracked: GateTracker) -> None:
    fresh = track_gates(network, PATTERNS, "tanh")
    with fresh, pytest.raises(ConfigError, match="set_current_sample_id"):
        network(*inputs_of(0))
    with tracked, pytest.raises(ConfigError, match="batch has 1 samples.*named 2"):
        tracked.set_current_sample_id(["a", "b"])
        network(*inputs_of(0))
    with pytest.raises(ConfigError, match="no sample was tracked"):
        fresh.get_gate_statistics()
    with pytest.raises(ConfigError, match="'s1'"):
        tracked.get_gate_statistics("s11")
    with pytest.raises(UnsupportedModelError, match=r"attention_gate\.0"):
        track_gates(network, {"attention": "atention_gate.*"})
    assert hooks_on(network) == 0


def test_a_gate_that_did_not_run_is_said(network: Fusion) -> None:
    network.unused = torch.nn.Linear(2, 1)
    tracker = track_gates(network, {"attention": ["attention_gate.*", "unused"]}, "tanh")
    with tracker, pytest.raises(SampleError, match="unused: it did not run"):
        tracker.set_current_sample_id("a")
        network(*inputs_of(0))


def test_statistics_are_of_one_sample_or_of_all(tracked: GateTracker) -> None:
    values = [np.stack(tracked.gate_history[f"s{i}"]["ffn_gates"])[:, :, 0] for i in range(4)]
    one = tracked.get_gate_statistics("s2")["gates"]["ffn"]
    assert one["layers"][1]["mean"] == pytest.approx(values[2][1].mean(), abs=1e-6)
    everything = tracked.get_gate_statistics()
    assert everything["n_samples"] == 4
    expected = describe(lambda: iter(values), 0.05)
    assert everything["gates"]["ffn"]["overall"]["median"] == pytest.approx(expected["median"][-1])


def test_the_summary_is_printed(tracked: GateTracker, capsys: pytest.CaptureFixture[str]) -> None:
    tracked.print_gate_summary()
    printed = capsys.readouterr().out
    mean = tracked.get_gate_statistics()["gates"]["attention"]["overall"]["mean"]
    assert "4 samples" in printed and f"{mean:+.3f}" in printed


def test_all_files_of_the_study_are_written(tracked: GateTracker, tmp_path: Path) -> None:
    report = GateAnalyzer(tracked).analyze_all_samples(tmp_path, save_raw=True, max_samples=1)
    names = {
        "ANALYSIS_REPORT.md",
        "overall_statistics.json",
        "overall_statistics.png",
        "layer_distributions.png",
        "activation_patterns.png",
        "gate_clustering.png",
        "individual_samples/s3_details.json",
        "individual_samples/gate_analysis_s0.png",
        "comparisons/gate_comparison.png",
        "raw_data/s0_layer0_att.npy",
        "raw_data/s3_layer1_ffn.npy",
        "results.h5",
    }
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names <= written
    raw = np.load(tmp_path / "raw_data/s3_layer1_ffn.npy")
    assert np.array_equal(raw, tracked.gate_history["s3"]["ffn_gates"][1])
    said = json.loads((tmp_path / "overall_statistics.json").read_text())
    own = tracked.get_gate_statistics()["gates"]
    for kind in PATTERNS:
        assert said["gates"][kind]["overall"] == pytest.approx(own[kind]["overall"], abs=1e-6)
    links = [line for line in report.read_text().splitlines() if line.startswith("![")]
    assert links
    for link in links:
        assert (tmp_path / link.partition("](")[2].rstrip(")")).is_file(), link


def test_a_tracked_result_is_drawn_again(command, tracked: GateTracker, tmp_path: Path) -> None:
    path = tracked.write_results(tmp_path / "kept" / "results.h5")
    said = command(
        "mode=render", f"results={path}", "visualization.format=svg", "visualization.workers=0"
    )
    assert said.code == 0, said.err
    assert (path.parent / "figures" / "overall_statistics.svg").is_file()


def test_single_samples_and_comparisons_are_saved(tracked: GateTracker, tmp_path: Path) -> None:
    tracked.save_gate_analysis(tmp_path / "one", "s1")
    assert {p.name for p in (tmp_path / "one").iterdir()} == {
        "s1_details.json",
        "gate_analysis_s1.png",
    }
    details = json.loads((tmp_path / "one/s1_details.json").read_text())
    kept = tracked.gate_history["s1"]["attention_gates"][0]
    assert details["gates"]["attention"][0]["by_clip"] == pytest.approx(kept[:, 0].tolist())
    path = tracked.compare_samples_gates(["s2", "s0"], tmp_path / "two")
    assert path == tmp_path / "two/gate_comparison.png" and path.is_file()
    with pytest.raises(ConfigError, match="at least 2"):
        tracked.compare_samples_gates(["s2"], tmp_path)


class Detector(torch.nn.Module):
    """A user's model, its fusion where scripts of the original tool look for it."""

    def __init__(self) -> None:
        super().__init__()
        self.avigate_fusion = Fusion().eval()

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.avigate_fusion(*batch)


def state_of(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def test_scripts_of_the_original_tool_run_on_the_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Detector()
    before, outputs = state_of(model), [model(inputs_of(i)) for i in range(3)]
    tracker = track_gates(model.avigate_fusion, PATTERNS, "tanh", install=True)
    fusion = model.avigate_fusion
    fusion.enable_gate_tracking()
    for i in range(3):
        fusion.set_current_sample_id(f"sample_{i}")
        assert fusion.current_sample_id == f"sample_{i}"
        assert torch.equal(model(inputs_of(i)), outputs[i])
    assert fusion.track_gates is True and len(fusion.gate_history) == 3
    for data in fusion.gate_history.values():
        for layer in range(len(data["attention_gates"])):
            assert data["attention_gates"][layer].shape == data["ffn_gates"][layer].shape
    every, one = fusion.get_gate_statistics(), fusion.get_gate_statistics("sample_1")
    assert every["n_samples"] == 3 and one["n_samples"] == 1
    fusion.print_gate_summary()
    assert capsys.readouterr().out.startswith("3 samples")
    fusion.save_gate_analysis(tmp_path / "one", "sample_1")
    assert (tmp_path / "one" / "gate_analysis_sample_1.png").is_file()
    fusion.compare_samples_gates(["sample_0", "sample_2"], tmp_path / "two")
    assert (tmp_path / "two" / "gate_comparison.png").is_file()
    assert GateAnalyzer(fusion).tracker is tracker
    fusion.disable_gate_tracking()
    assert not fusion.track_gates and hooks_on(model) == 0
    assert state_of(model) == before and isinstance(fusion, Fusion)


def test_a_module_with_methods_is_copied_and_pickled_as_it_was(tmp_path: Path) -> None:
    model = Detector()
    plain = pickle.dumps(model)
    tracker = track_gates(model.avigate_fusion, PATTERNS, "tanh", install=True)
    tracker.enable_gate_tracking()
    tracker.set_current_sample_id("a")
    outputs = model(inputs_of(0))
    torch.save(model, tmp_path / "model.pt")
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    others.append(torch.load(tmp_path / "model.pt", weights_only=False))
    for other in others:
        assert type(other.avigate_fusion) is Fusion and hooks_on(other) == 0
        assert state_of(other) == state_of(pickle.loads(plain))
        assert torch.equal(other(inputs_of(0)), outputs)
    assert list(tracker.gate_history) == ["a"], "the copies' forwards are not the module's"
    assert model.avigate_fusion.track_gates, "and the module itself is still tracked"
    tracker.disable_gate_tracking()
    tracker.uninstall()
    assert type(model.avigate_fusion) is Fusion
    assert not hasattr(model.avigate_fusion, "gate_history")


def test_a_name_that_the_module_has_is_refused(network: Fusion) -> None:
    network.gate_history = {}
    with pytest.raises(ConfigError, match="install: Fusion has gate_history of its own"):
        track_gates(network, PATTERNS, "tanh", install=True)
    del network.gate_history
    track_gates(network, PATTERNS, "tanh", install=True)
    with pytest.raises(ConfigError, match="install: Fusion has enable_gate_tracking, "):
        track_gates(network, PATTERNS, "tanh", install=True)
    with pytest.raises(ConfigError, match="Fusion: no tracker's methods are on this module"):
        GateAnalyzer(Fusion())


def random_batch(architecture: Architecture) -> dict[str, torch.Tensor]:
    """Features of one video of 6 clips with a query of 4 words, and their masks."""
    sizes = {"txt": (4, "t"), "vid": (6, "v"), "aud": (6, "a")}
    batch = {}
    for name, (length, letter) in sizes.items():
        batch[name] = torch.randn(1, length, getattr(architecture, f"{letter}_feat_dim"))
        batch[f"{name}_mask"] = torch.ones(1, length)
    return batch


@pytest.mark.parametrize("gating_type", ["global", "clipwise", "elementwise"])
def test_a_trained_model_is_adapted_and_loaded_as_the_original_tool_did(gating_type: str) -> None:
    model = load_legacy_model_with_gate_tracking(f"zoo:tiny_avigate_{gating_type}", gating_type)
    before = state_of(model)
    own = torch.nn.Module()
    own.avigate_fusion = model.fusion
    model.avigate_fusion.enable_gate_tracking()
    model.avigate_fusion.set_current_sample_id("sample_000")
    model(**{f"src_{name}": value for name, value in random_batch(model.architecture).items()})
    assert len(model.avigate_fusion.gate_history["sample_000"]["attention_gates"]) == 2
    assert model.avigate_fusion.track_gates and state_of(model) == before
    own.avigate_fusion = copy.deepcopy(model.fusion)
    assert not hasattr(own.avigate_fusion, "track_gates")
    adapted = adapt_legacy_model(own, gating_type)
    adapted.avigate_fusion.enable_gate_tracking()
    adapted.avigate_fusion.set_current_sample_id("sample_001")
    width = model.architecture.hidden_dim
    clips, mask = torch.randn(1, 5, width), torch.ones(1, 5)
    adapted.avigate_fusion(clips, clips, mask, mask)
    shapes = {g.shape for g in adapted.avigate_fusion.gate_history["sample_001"]["ffn_gates"]}
    expected = {"global": (1, 1), "clipwise": (5, 1), "elementwise": (5, width)}
    assert shapes == {expected[gating_type]}
    other = "global" if gating_type == "elementwise" else "elementwise"
    again = torch.nn.Module()
    again.avigate_fusion = copy.deepcopy(model.fusion)
    with pytest.raises(UnsupportedModelError, match=f"gating_type={other}: the gates of Fusion"):
        adapt_legacy_model(again, other)
    with pytest.raises(UnsupportedModelError, match="has no module avigate_fusion"):
        adapt_legacy_model(torch.nn.Linear(2, 2))
