"""task=trajectory from the command line: videos, several samples, other models, redrawing."""

import json
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from interp_lab.store.results import open_results

VIDEO = "combined_attention_visualization_layer{}.mp4"


def result_path(said, code: int = 0) -> Path:
    assert said.code == code, said.err
    line = next(x for x in said.out.splitlines() if x.startswith("results: "))
    return Path(line.removeprefix("results: "))


def test_one_map_gives_its_video_and_figures(command) -> None:
    path = result_path(command("task=trajectory", "analysis.layers=[1,3]"))
    figures = path.parent / "figures"
    for layer in (1, 3):
        frames = iio.imread(figures / VIDEO.format(layer))
        with open_results(path) as results:
            assert len(frames) == results.read("n_generated", 0)
    assert {p.stem for p in figures.glob("*.png")} >= {
        "attention_poster_layer1",
        "attention_strip_layer3",
        "attention_shares",
    }
    record = json.loads((path.parent / "exports" / "trajectory_records.json").read_text())[0]
    assert record["ended"] == "end_token"
    assert record["predicted_point"] == record["reference_point"]
    with open_results(path) as results:
        checks = json.loads(results.attributes["checks"])
    assert max(checks["verify"].values()) < 1e-5 and checks["live_check"]["image"] > 0


def test_eager_capture_gives_the_same_rows(command) -> None:
    quick = ("task=trajectory", "model.max_new_tokens=8", "visualization.max_samples=0")
    fused = result_path(command(*quick))
    eager = result_path(command(*quick, "capture.method=eager"))
    assert fused != eager
    with open_results(fused) as a, open_results(eager) as b:
        assert np.abs(a.read("rows", 0) - b.read("rows", 0)).max() < 1e-5


def test_bad_records_fail_alone_and_are_named(command, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (10_000, 50)).save(tmp_path / "long.png")
    records = [
        {"id": "dot", "image": "dot.png", "problem": "where?"},
        {"id": "long", "image": ["long.png"], "problem": "where?"},
        {"id": "gone", "image": ["gone.png"], "problem": "where?"},
        {"id": "two", "image": ["dot.png", "dot.png"], "problem": "어디? どこ?", "answer": [5, 5]},
    ]
    (tmp_path / "data.json").write_text(json.dumps(records))
    said = command(
        "task=trajectory",
        "dataset=trajectory",
        f"dataset.data_file={tmp_path}/data.json",
        "model.max_new_tokens=4",
        "visualization.max_samples=0",
        "max_failed_share=1",
    )
    path = result_path(said, code=3)
    with open_results(path) as results:
        assert results.sample_ids == ["dot", "two"]
        reasons = {f.sample_id: f.reason for f in results.failures}
        assert results.read("image_0", "dot").shape == (1, 1, 3)
        assert results.read("image_1", "two").shape == (1, 1, 3)
    assert "10000x50 pixels is more than 100 times" in reasons["long"]
    assert "gone.png: no such file" in reasons["gone"]


def test_llava_writes_under_the_same_study(command) -> None:
    path = result_path(
        command(
            "task=trajectory",
            "model=tiny_llava",
            "dataset=scienceqa_tiny",
            "dataset.max_samples=1",
            "visualization.max_samples=0",
        )
    )
    with open_results(path) as results:
        rows, share = results.read("rows", 0), results.read("share_image", 0)
        assert results.read("image_0", 0).shape == (64, 64, 3)
    np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-5)
    assert rows.shape[2] == share.shape[1]


def test_drawing_again_needs_no_torch_and_takes_other_options(command) -> None:
    path = result_path(command("task=trajectory", "model.max_new_tokens=5"))
    video = path.parent / "figures" / VIDEO.format(3)
    before = iio.imread(video).astype(int)
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from interp_lab.cli.command import run\n"
        f"sys.exit(run(['mode=render', 'results={path}', 'visualization.gamma=1', "
        "'visualization.colors=viridis', 'visualization.start_phrase=Predict', "
        "'visualization.workers=0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = iio.imread(video).astype(int)
    assert after.shape == before.shape and np.abs(after - before).max() > 50


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("analysis.layers=4", "no layer 4; this model has 4, 0 to 3"),
        ("analysis.heads=median", "analysis.heads=median: should be"),
        ("dataset.sample_idx=12", "there are 12 records"),
        ("visualization.fps=0", "visualization.fps=0"),
        ("model.max_new_tokens=0", "model.max_new_tokens from 1 on"),
    ],
)
def test_wrong_values_are_one_line(command, override: str, message: str) -> None:
    said = command("task=trajectory", override)
    assert said.code == 1
    assert message in said.err and said.err.strip().count("\n") == 0


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 60 kB; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True)
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line_and_leaves_no_half_part(small_disk: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "interp_lab",
        "task=trajectory",
        "model.max_new_tokens=40",
        f"output.root={small_disk}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and "the disk is full; free some space" in line
    assert "Traceback" not in done.stderr
    assert not list(small_disk.rglob("*.tmp"))
