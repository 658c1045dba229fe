"""The notebook's way to an attention video."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import interp_lab
from interp_lab.errors import ConfigError, SampleError
from interp_lab.store.results import open_results
from interp_lab.studies.trajectory.visualizer import AttentionVisualizer

DATA = Path(interp_lab.__file__).parent / "zoo/data/trajectory"


def gray(weights: np.ndarray) -> np.ndarray:
    return np.repeat((weights[:, None] * 255).astype(np.uint8), 3, axis=1)


def test_a_video_of_a_sample_with_a_colour_function_of_ones_own(tmp_path: Path) -> None:
    visualizer = AttentionVisualizer(
        "tiny_qwen_vl", output_dir=tmp_path, overrides=["model.max_new_tokens=6"]
    )
    sample, images = visualizer.load_sample_data(DATA / "maps.json", DATA, sample_idx=1)
    assert sample["id"] == "map_02" and len(images) == 1
    path = visualizer.create_attention_visualization_for_sample(
        sample, images, layer_idx=2, start_phrase="Predict the location", color=gray
    )
    assert Path(path).name == "combined_attention_visualization_layer2.mp4"
    frames = iio.imread(path)
    assert len(frames) == 6
    with open_results(Path(path).parent.parent) as results:
        assert results.sample_ids == ["map_02"]
        assert results.read("layers", 0).tolist() == [2]
    again = visualizer.create_attention_visualization_for_sample(
        sample, images, layer_idx=2, start_phrase="Predict the location"
    )
    # Drawn anew from the same result, now in the default colours.
    assert again == path
    assert np.abs(iio.imread(again).astype(int) - frames).max() > 50


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    visualizer = AttentionVisualizer(output_dir=tmp_path)
    with pytest.raises(ConfigError, match="sample_idx=99: there are 12 records"):
        visualizer.load_sample_data(DATA / "maps.json", DATA, 99)
    sample, images = visualizer.load_sample_data(DATA / "maps.json", DATA)
    with pytest.raises(SampleError, match="has no picture"):
        visualizer.create_attention_visualization_for_sample(sample, [])
    with pytest.raises(ConfigError, match=r"analysis.layers: no layer 20; this model has 4"):
        visualizer.create_attention_visualization_for_sample(sample, images, layer_idx=20)


def test_defaults_work_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that is shipped has 4 layers: layer 20 of 28 is its layer 3."""
    monkeypatch.chdir(tmp_path)
    visualizer = AttentionVisualizer(overrides=["model.max_new_tokens=3"])
    assert visualizer.max_image_num == 2
    sample, images = visualizer.load_sample_data(DATA / "maps.json", DATA)
    path = visualizer.create_attention_visualization_for_sample(sample=sample, images=images)
    assert Path(path).name == "combined_attention_visualization_layer3.mp4" and Path(path).is_file()
    assert len(iio.imread(path)) == 3
    # The published look, of the same measurement: a frame less, and its own start of the text.
    published = ["model.max_new_tokens=3", "visualization=reason_rft"]
    look = AttentionVisualizer(overrides=published)
    path = look.create_attention_visualization_for_sample(sample, images)
    assert len(iio.imread(path)) == 2
    # Further layers in a loop, by place, as the original's README has it.
    path = visualizer.create_attention_visualization_for_sample(sample, images, 0, "Predict")
    assert Path(path).name == "combined_attention_visualization_layer0.mp4" and Path(path).is_file()


def test_more_pictures_than_allowed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('[{"id": "a", "problem": "?", "image": ["1", "2", "3"]}]')
    with pytest.raises(SampleError, match="3 pictures, max_image_num=2"):
        AttentionVisualizer().load_sample_data(tmp_path / "data.json", tmp_path)
