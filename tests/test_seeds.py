"""The table of the five seeds: every test that it names is there, and what no other test showed."""

import ast
import logging
import re
from collections import Counter
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from gated_toy import Clips, Fusion
from PIL import Image

import interp_lab
from interp_lab import (
    AttentionVisualizer,
    GateAnalyzer,
    SimilarityVisualizer,
    TokenSimilarityAnalyzer,
    load_traced,
    track_gates,
)
from interp_lab.config.nodes import build, conf_dir
from interp_lab.libraries.hydra_inside import composed
from interp_lab.models.base import resolve_device
from interp_lab.store.results import open_results

ROOT = Path(__file__).parents[1]
PACKAGE = Path(interp_lab.__file__).parent
CAT = PACKAGE / "zoo" / "photos" / "cat.jpg"
ROW = re.compile(r"^\| (\d+|-) \| (.+) \| (.+) \| (\w+) \| (.*) \|$")
STATUSES = ("works", "differs", "missing")
SEEDS, FEWEST = 5, 180


def table() -> list[tuple[str, ...]]:
    """The rows: line, what the seed says, what is here, status, tests."""
    text = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
    lines = [x for x in text.splitlines() if x.startswith("|")]
    heads = [x for x in lines if x.startswith(("| line |", "|---"))]
    assert len(heads) == 2 * SEEDS and text.count("\n## ") == SEEDS
    found = [ROW.match(x) for x in lines if x not in heads]
    assert all(found), [x for x in lines if x not in heads and not ROW.match(x)]
    return [m.groups() for m in found if m]


@cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(n.name for n in tree.body if isinstance(n, ast.FunctionDef))


def test_every_row_has_a_status_and_tests_that_exist() -> None:
    rows = table()
    assert len(rows) >= FEWEST
    for line, seed, _, status, tests in rows:
        where = f"line {line}: {seed}"
        assert status in STATUSES, where
        named = [t.strip("`").split("::") for t in tests.split("<br>") if t]
        assert named or status != "works", f"{where}: nothing shows that it works"
        for file, name in named:
            assert name.startswith("test_") and name in named_in(file), f"{where}: {file}::{name}"


def test_a_row_stands_once() -> None:
    counts = Counter((line, seed, here) for line, seed, here, _, _ in table())
    assert [row for row, n in counts.items() if n > 1] == []


def result_path(said: Any, code: int = 0) -> Path:
    assert said.code == code, said.err
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


# All seeds.


def test_what_the_seeds_import_is_installed_with_us() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("dependencies = [")[2].partition("\n]")[0]
    names = set(re.findall(r"\"([a-z-]+)", listed))
    wanted = "torch transformers pillow imageio tqdm numpy matplotlib hydra-core"
    assert set(wanted.split()) <= names


def test_devices_by_number_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = {0: 0, "1": 1, "cuda": 0, "cuda:1": 1, None: 0}
    for typed, index in asked.items():
        assert resolve_device(typed) == torch.device("cuda", index)
    assert resolve_device("cpu") == torch.device("cpu")


# Seed 000.


def test_the_shipped_words_are_in_the_seeds_languages() -> None:
    cfg = composed(conf_dir(), ["task=semdim", "dataset.language=null"])
    assert {name.split("/")[0] for name in build(cfg, "dataset").ids()} == {"en", "fr", "ko", "ja"}


def test_a_word_has_the_fields_of_the_seeds_pickle() -> None:
    analysis = build(composed(conf_dir(), ["task=semdim"]), "analysis")
    wanted = {"attention_matrix", "matrix_tokens", "dimension1", "dimension2", "tokens"}
    assert wanted <= {field.name for field in analysis.fields}


# Seed 001.


def test_minus_one_is_every_sample() -> None:
    cfg = composed(conf_dir(), ["task=scienceqa"])
    few = composed(conf_dir(), ["task=scienceqa", "dataset.max_samples=3"])
    assert cfg.dataset.max_samples == -1
    assert len(build(cfg, "dataset").ids()) > len(build(few, "dataset").ids()) == 3


def test_records_have_every_layer_in_order_and_the_report_a_line_each(command: Any) -> None:
    path = result_path(
        command(
            "task=scienceqa",
            "dataset.max_samples=3",
            "visualization.max_samples=0",
            "numbers.bootstrap=100",
            "capture.verify=off",
            "capture.live_check=false",
        )
    )
    exports = path.parent / "exports"
    records = torch.load(exports / "attention_head_records.pt")
    with open_results(path) as results:
        stored = [results.read("max_head_per_layer", name).tolist() for name in results.sample_ids]
    assert [r["max_head_per_layer"] for r in records] == stored
    n_layers = len(stored[0])
    layer = n_layers - 1
    assert [r["max_head_per_layer"][layer] for r in records] == [heads[layer] for heads in stored]
    report = (exports / "analysis_report.txt").read_text()
    assert "distinct" in report and "entropy" in report
    numbers = re.findall(r"^ +(\d+) +\d+ +\d+\.\d\d", report, re.MULTILINE)
    assert [int(n) for n in numbers] == list(range(n_layers))


# Seed 002.


def test_arguments_of_the_attention_visualizer() -> None:
    made = signature(AttentionVisualizer).parameters
    assert list(made)[:2] == ["model_name_or_path", "max_image_num"]
    assert made["max_image_num"].default == 2
    called = signature(AttentionVisualizer.create_attention_visualization_for_sample).parameters
    assert list(called)[1:5] == ["sample", "images", "layer_idx", "start_phrase"]
    assert called["layer_idx"].default in (20, None)
    assert called["start_phrase"].default is ...  # the configuration's
    loaded = signature(AttentionVisualizer.load_sample_data).parameters
    assert list(loaded)[3] == "sample_idx" and loaded["sample_idx"].default == 0


def test_a_film_comes_as_gif_and_webp_too(command: Any) -> None:
    """Frames, times, size and pixels are those of the video; they are read back by imageio."""
    small = ("model.max_new_tokens=4", "visualization.width=480", "visualization.workers=0")
    formats = ("visualization.video=[mp4,gif,webp]", "visualization.fps=2")
    others = ("poster", "strip", "share_maps", "share_curves", "distance_curves")
    small += tuple(f"visualization.figures.{name}.enabled=false" for name in others)
    path = result_path(command("task=trajectory", "analysis.layers=3", *small, *formats))
    stem = path.parent / "figures" / "combined_attention_visualization_layer3"
    video = imageio.imread(f"{stem}.mp4", plugin="FFMPEG").astype(int)
    assert video.shape == (4, 270, 480, 3)
    for kind in ("gif", "webp"):
        shown = imageio.imread(f"{stem}.{kind}", plugin="pillow", mode="RGB", index=...)
        shown = shown.astype(int)
        assert shown.shape == video.shape
        # Lossy all three: the mean difference over a frame, of 255.
        assert np.abs(shown - video).mean(axis=(1, 2, 3)).max() < 4
        with Image.open(f"{stem}.{kind}") as animation:
            for i in range(4):
                animation.seek(i)
                animation.load()
                assert animation.info["duration"] == 500


def test_one_format_of_a_film_is_typed_as_a_word(command: Any) -> None:
    cfg = composed(conf_dir(), ["task=trajectory", "visualization.video=gif"])
    assert cfg.visualization.figures.video.format == "gif"
    said = command("task=trajectory", "visualization.video=[gif,avi]")
    assert said.code == 1 and "visualization.video" in said.err
    said = command("task=trajectory", "visualization.video=gif", "visualization.fps=60")
    assert said.code == 1 and "a GIF shows at most 50 pictures a second" in said.err


# Seed 003.


def keep(network: Fusion, samples: int) -> Any:
    tracker = track_gates(network, {"attention": "attention_gate.*", "ffn": "ffn_gate.*"}, "tanh")
    tracker.enable_gate_tracking()
    for i in range(samples):
        facts = Clips().load(i).facts
        tracker.set_current_sample_id(f"sample_{i}")
        network(torch.tensor(facts["video"])[None], torch.tensor(facts["audio"])[None])
    return tracker


class CustomGateAnalyzer(GateAnalyzer):
    """An analyzer of a user's own, as the seed shows it."""

    def widest(self) -> str:
        kept = self.tracker.gate_history
        return max(kept, key=lambda name: np.ptp(kept[name]["attention_gates"][0]))


def test_an_analysis_of_ones_own_reads_the_history() -> None:
    tracker = keep(Fusion().eval(), 3)
    assert tracker.track_gates is True and len(tracker.gate_history) == 3
    assert tracker.current_sample_id == ("sample_2",)
    for data in tracker.gate_history.values():
        for layer_idx in range(len(data["attention_gates"])):
            att_gate, ffn_gate = data["attention_gates"][layer_idx], data["ffn_gates"][layer_idx]
            assert isinstance(att_gate, np.ndarray) and att_gate.shape == ffn_gate.shape
            counts = np.histogram(att_gate, bins=4, range=(-1, 1))[0]
            assert counts.sum() == att_gate.size
    assert CustomGateAnalyzer(tracker).widest() in tracker.gate_history
    tracker.disable_gate_tracking()
    assert tracker.track_gates is False


@pytest.mark.parametrize("gating_type", ["global", "clipwise", "elementwise"])
def test_every_gating_type_is_tracked_in_its_shape(gating_type: str) -> None:
    cfg = composed(conf_dir(), ["task=avigate", f"model.gating_type={gating_type}"])
    model = build(cfg, "model", device=torch.device("cpu"))
    options = {"model": "tiny_avigate", "device": "cpu", "gating_type": gating_type}
    tracker = load_traced(cfg.model.checkpoint, **options)
    tracker.set_current_sample_id("one")
    inputs = model.prepare([build(cfg, "dataset").load(0)]).inputs
    with torch.no_grad(), tracker:
        tracker.module(**inputs)
    for layer in tracker.gate_history["one"]["attention_gates"]:
        clips, channels = layer.shape
        assert (clips > 1, channels > 1) == (gating_type != "global", gating_type == "elementwise")


# Seed 004.


def test_defaults_of_the_similarity_seed() -> None:
    cfg = composed(conf_dir())
    style = cfg.visualization
    assert (list(style.figsize), style.cmap, style.format, style.dpi) == (
        [20, 16],
        None,
        "png",
        150,
    )
    assert style.save_individual is True and style.save_combined is True
    assert cfg.analysis.metric == "cosine" and cfg.device is None
    assert cfg.output.root == "outputs" and cfg.output.exports is True


def test_a_picture_of_ones_own_with_several_settings(command: Any, tmp_path: Path) -> None:
    Image.open(CAT).save(tmp_path / "my image.png")
    given = ("dataset=images", f"dataset.path={tmp_path}/my image.png", "device=cpu")
    style = ("visualization.cmap=hot", "visualization.max_samples=0")
    path = result_path(command(*given, "analysis.metric=dot_product", *style))
    with open_results(path) as results:
        assert results.sample_ids == ["my image.png"]
        assert np.abs(results.read("cls_similarity", 0)).max() > 1, "no cosine"


def test_similarities_load_as_the_seed_shows(command: Any) -> None:
    path = result_path(command("visualization.max_samples=0"))
    data = np.load(path.parent / "exports" / "similarities.npz")
    n = int(data["grid_size"])
    assert data["horizontal_right"].shape == (n, n - 1)
    assert data["vertical_down"].shape == (n - 1, n)
    assert data["cls_similarity"].shape == (n, n)


def test_single_figures_alone_and_no_exports(command: Any) -> None:
    quick = ("visualization.dpi=30", "visualization.workers=0")
    path = result_path(command("visualization.save_combined=false", "output.exports=false", *quick))
    figures = path.parent / "figures"
    assert {p.relative_to(figures).as_posix() for p in figures.rglob("*.png")} == {
        f"individual/{name}_similarity.png" for name in ("horizontal", "vertical", "cls")
    }
    assert not (path.parent / "exports").exists()
    cfg = composed(conf_dir(), ["visualization.save_individual=false"])
    enabled = {name: node.get("enabled", True) for name, node in cfg.visualization.figures.items()}
    assert enabled["combined"] is True and enabled["cls"] is False


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("model=clip_vit_large_patch14,clip_vit_large_patch14_336", "model.init=random"), 2),
        (("dataset=images", "dataset.path={cat},{coffee},{rocket}"), 3),
    ],
    ids=["models", "images"],
)
def test_several_images_or_models_in_one_command(
    command: Any, given: tuple[str, ...], names: int
) -> None:
    photos = {p.stem: p for p in CAT.parent.glob("*.jpg")}
    said = command("--multirun", "mode=plan", *(one.format(**photos) for one in given))
    assert said.code == 0, said.err
    assert len(set(re.findall(r"^plan +(\S+)", said.out, re.MULTILINE))) == names


def test_a_folder_of_pictures_in_a_loop(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("cat", "coffee"):
        Image.open(CAT.with_name(f"{name}.jpg")).resize((90, 70)).save(images / f"{name}.jpg")
    analyzer = TokenSimilarityAnalyzer("tiny-clip", device="cpu", similarity_metric="cosine")
    visualizer = SimilarityVisualizer(figsize=(6, 5), dpi=30)
    for image_path in images.glob("*.jpg"):
        result = analyzer.analyze(str(image_path))
        n = result.grid_size
        assert result.horizontal_right.shape == (n, n - 1)
        assert -1 <= result.cls_similarity.mean() <= 1
        visualizer.visualize_all(result, save_path=str(tmp_path / f"{image_path.stem}.png"))
    assert {p.name for p in tmp_path.glob("*.png")} == {"cat.png", "coffee.png"}


def test_hydra_run_dir_moves_the_log_alone(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = result_path(command("hydra.run.dir=.", "visualization.max_samples=0"))
    assert path.parent.parent == tmp_path / "outputs" / "clip_similarity"
    assert (tmp_path / "interp_lab.log").is_file() and Path.cwd() == tmp_path


def test_the_package_logs_where_a_notebook_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    interp_lab.run(["visualization.max_samples=0"]).close()
    assert any(record.name.startswith("interp_lab.") for record in caplog.records)
