"""The notebook's entrance: the same as a command, as often as one likes, mistakes in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

import interp_lab
from interp_lab.errors import ConfigError
from interp_lab.studies.clip_similarity.analyzer import TokenSimilarityAnalyzer
from interp_lab.studies.trajectory.visualizer import AttentionVisualizer

SMALL = (
    "dataset=scenes",
    "dataset.max_samples=1",
    "output.exports=false",
    "~visualization.figures",
)


def test_run_is_a_function_again_and_again(tmp_path: Path) -> None:
    """Its name is also that of a package, which is imported on the way."""
    for layer in (-1, 0):
        typed = [*SMALL, f"output.root={tmp_path}", f"analysis.layer={layer}"]
        with interp_lab.run(typed) as results:
            assert results.sample_ids == ["scene_0.png"]
    assert interp_lab.run.study.run_study, "the package's modules are there too"


def test_names_do_not_depend_on_what_was_imported_first() -> None:
    code = "import interp_lab; from interp_lab import AttentionVisualizer; assert callable("
    code += "interp_lab.run) and callable(interp_lab.run) and interp_lab.open_results"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("model=tiny_clp", "model=tiny_clp: no such option. Did you mean 'tiny_clip'"),
        ("modle=tiny_clip", "modle: no such key. Did you mean 'mode' or 'model'"),
        ("analysis.lyer=3", "analysis.lyer: ClipSimilarity takes no such option"),
        ("batch_size=many", "batch_size"),
    ],
)
def test_a_mistake_is_one_line_in_python_too(typed: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        interp_lab.run([typed])
    assert str(raised.value).startswith(says) and "\n" not in str(raised.value)


def test_a_mistake_of_the_notebook_s_classes_is_one_line() -> None:
    with pytest.raises(ConfigError, match="model=clip_vit_large_patc14: no such option. Did you"):
        TokenSimilarityAnalyzer("clip-vit-large-patc14")
    visualizer = AttentionVisualizer(overrides=["modle=tiny_qwen_vl"])
    with pytest.raises(ConfigError, match="modle: no such key. Did you mean"):
        visualizer._composed("dataset.data_file=x")
