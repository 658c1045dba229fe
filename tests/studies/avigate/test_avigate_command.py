"""task=avigate from the command line: the shipped network, and a network of the user's own."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gated_toy import Clips, Fusion
from hydra import compose, initialize_config_dir

from interp_lab.config.nodes import build, conf_dir
from interp_lab.store.results import open_results
from interp_lab.studies.avigate.gate_statistics import describe
from interp_lab.studies.avigate.tracking import load_traced, track_gates

SMALL = ("task=avigate", "numbers.bootstrap=100", "visualization.workers=0")
QUIET = ("visualization.max_samples=0", "output.exports=false")
MODEL = """
_target_: interp_lab.models.own.OwnModule
name: mine
allow_targets: [gated_toy]
module: {_target_: gated_toy.Fusion, layers: 3}
gates:
  attention: {hookpoints: ["attention_gate.*"], nonlinearity: tanh}
  ffn: {hookpoints: ["ffn_gate.*"], nonlinearity: tanh}
audio_gates: [attention]
"""
DATASET = "{_target_: gated_toy.Clips, name: clips, allow_targets: [gated_toy]}"


def result_path(said) -> Path:
    assert said.code == 0, said.err
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


@pytest.fixture
def own(tmp_path: Path):
    """Write the user's model and data set, and return what has to be typed."""

    def write(dataset: str = DATASET) -> tuple[str, ...]:
        for group, text in (("model", MODEL), ("dataset", dataset)):
            folder = tmp_path / "studies" / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "mine.yaml").write_text(text, encoding="utf-8")
        return (f"--config-dir={tmp_path}/studies", *SMALL, "model=mine", "dataset=mine")

    return write


def test_the_shipped_network_gives_every_file(command) -> None:
    path = result_path(
        command(
            *SMALL,
            "dataset.max_samples=5",
            "numbers.save_raw=true",
            "visualization.max_samples=1",
            "visualization.dpi=60",
        )
    )
    exports, figures = path.parent / "exports", path.parent / "figures"
    with open_results(path) as results:
        first = results.sample_ids[0]
        assert len(results) == 5
        assert results.holds("loss_difference", first)
        shape = results.read("gate_attention", first).shape
        raw = np.load(exports / "raw_data" / f"{first}_layer1_att.npy")
        assert np.array_equal(raw, results.read("gate_attention", first)[1])
    assert shape[1:] == (1, 1)
    for name in (
        "overall_statistics",
        "layer_distributions",
        "activation_patterns",
        "gate_clustering",
        "comparisons/gate_comparison",
        f"individual_samples/gate_analysis_{first}",
        "gate_benefit",
        "moments_under_gates",
    ):
        assert (figures / f"{name}.png").is_file(), name
    details = json.loads((exports / f"individual_samples/{first}_details.json").read_text())
    assert details["windows"] and details["gates"]["ffn"][0]["clips"] == 1
    report = (exports / "ANALYSIS_REPORT.md").read_text()
    for line in report.splitlines():
        if line.startswith("!["):
            assert (exports / line.partition("](")[2].rstrip(")")).is_file(), line
    with h5py.File(path) as file:
        labels = [d.label for d in next(iter(file["ragged"].values()))["gate_ffn"].dims]
    assert labels == ["layer", "clip", "channel"]


def test_gates_do_not_depend_on_the_batch(command) -> None:
    few = (*SMALL, *QUIET, "dataset.max_samples=4")
    one = result_path(command(*few, "batch_size=1", "++output.dir=${output.root}/one"))
    four = result_path(command(*few, "batch_size=4", "++output.dir=${output.root}/four"))
    with open_results(one) as a, open_results(four) as b:
        for name in a.sample_ids:
            for field in ("gate_attention", "gate_ffn", "predicted_windows", "loss_difference"):
                difference = np.abs(a.read(field, name) - b.read(field, name)).max()
                assert difference < 1e-4, (field, difference)


def test_a_checkpoint_is_traced_in_one_call_with_the_studys_numbers(command) -> None:
    path = result_path(command(*SMALL, *QUIET, "dataset.max_samples=2"))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides=["task=avigate"])
    dataset = build(cfg, "dataset")
    model = build(cfg, "model", device=torch.device("cpu"))
    tracker = load_traced(cfg.model.checkpoint, model="tiny_avigate", device="cpu")
    with open_results(path) as results, torch.no_grad(), tracker:
        for i, name in enumerate(results.sample_ids):
            tracker.set_current_sample_id(name)
            tracker.module(**model.prepare([dataset.load(i)]).inputs)
            for kind in ("attention", "ffn"):
                kept = np.stack(tracker.gate_history[name][f"{kind}_gates"])
                assert np.abs(kept - results.read(f"gate_{kind}", name)).max() < 1e-5
        own = tracker.get_gate_statistics()["gates"]["attention"]["overall"]
        for name in ("mean", "std", "p95", "magnitude"):
            expected = pytest.approx(results.aggregate(f"attention_{name}_overall"), abs=1e-5)
            assert own[name] == expected


def test_a_gate_that_the_user_sets_is_what_is_traced(command) -> None:
    change = (
        "capture.interventions=[{kind: set_gate, nonlinearity: tanh, value: 0.5, "
        "hookpoints: ['fusion.fusion_layers.*.gating_function.mlp_mha']}]"
    )
    path = result_path(command(*SMALL, *QUIET, "dataset.max_samples=3", change))
    with open_results(path) as results:
        for name in results.sample_ids:
            assert np.abs(results.read("gate_attention", name) - 0.5).max() < 1e-6
        # One value in every sample: nothing correlates with it, and nothing is made up.
        assert "attention_loss_correlation" not in results.aggregates
        assert "ffn_mean" in results.aggregates


def test_what_the_user_changes_stays_changed_in_the_variants(command) -> None:
    """A variant that sets the attention gates to what they are set to anyway changes nothing."""
    point = "fusion.fusion_layers.*.gating_function.mlp_"
    changes = ", ".join(
        f"{{kind: set_gate, nonlinearity: tanh, value: {value}, hookpoints: ['{point}{name}']}}"
        for name, value in (("mha", 0.5), ("ffn", -0.4))
    )
    typed = (f"capture.interventions=[{changes}]", "analysis.variants.audio_off=0.5")
    path = result_path(command(*SMALL, *QUIET, "dataset.max_samples=3", *typed))
    with open_results(path) as results:
        for name in results.sample_ids:
            assert results.read("loss_difference", name) == 0.0
            assert results.read("gates_open_loss", name) != results.read("loss", name)


def test_a_network_of_ones_own_is_traced_by_yaml_alone(command, own) -> None:
    path = result_path(command(*own(), "batch_size=1", "visualization.max_samples=1"))
    tracker = track_gates(Fusion(layers=3), {"attention": "attention_gate.*"}, "tanh")
    dataset = Clips()
    with open_results(path) as results:
        assert results.sample_ids == dataset.ids()
        values = []
        for i, name in enumerate(results.sample_ids):
            facts = dataset.load(i).facts
            with tracker:
                tracker.set_current_sample_id(name)
                network_inputs = (torch.tensor(facts[k])[None] for k in ("video", "audio"))
                tracker.module(*network_inputs)
            kept = np.stack(tracker.gate_history[name]["attention_gates"])
            stored = results.read("gate_attention", name)
            assert stored.shape == (3, len(facts["video"]), 1)
            assert np.abs(kept - stored).max() < 1e-6
            values.append(kept[:, :, 0])
        expected = describe(lambda: iter(values), 0.05)
        for name in ("mean", "std", "median", "share_positive", "magnitude"):
            assert results.aggregate(f"attention_{name}") == pytest.approx(
                expected[name][:-1], abs=1e-6
            )
        assert "loss" not in results.fields  # no moments, no measures


def test_padding_is_cut_and_a_batch_needs_a_word(command, own) -> None:
    said = command(*own(), *QUIET, "batch_size=6")
    assert said.code == 1 and "batch_size=1" in said.err and "Traceback" not in said.err
    path = result_path(command(*own(), *QUIET, "batch_size=6", "analysis.masked=false"))
    with open_results(path) as results:
        clips = [results.read("gate_ffn", n).shape[1] for n in results.sample_ids]
        assert clips == [5, 5, 7, 5, 5, 7]
        assert any("masked: false" in note for note in results.notes)


def test_a_sample_with_nan_fails_alone(command, own, tmp_path: Path) -> None:
    said = command(
        *own(f"{DATASET[:-1]}, broken: 2}}"),
        *QUIET,
        "batch_size=1",
        "max_failed_share=0.5",
    )
    assert said.code != 0 and "5 samples measured, 1 failed" in said.err
    found = list(tmp_path.rglob("results.h5"))
    with open_results(found[0]) as results:
        assert len(results) == 5
        (failure,) = results.failures
    assert failure.sample_id == "clip_2" and "NaN" in failure.reason


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("model=tiny_clip", "has no gates"),
        ("numbers.near_zero=-1", "near_zero"),
        ("analysis.maskd=true", "'masked'"),
        ("analysis.variants.gates_open={atention: 0.9}", "'attention'"),
        ("analysis.variants.gates_open=1.0", "strictly between -1 and 1"),
        ("numbers.compare_samples=[nowhere,1]", "no sample 'nowhere'"),
    ],
)
def test_mistakes_are_one_line(command, typed: str, says: str) -> None:
    said = command(*SMALL, "visualization.max_samples=0", "dataset.max_samples=2", typed)
    assert said.code == 1
    assert says in said.err and "Traceback" not in said.err
