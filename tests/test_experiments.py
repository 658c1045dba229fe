"""Every experiment composes to what its study published, and runs on the shipped models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest
from omegaconf import OmegaConf

from interp_lab.config.nodes import conf_dir
from interp_lab.libraries.hydra_inside import composed
from interp_lab.store.results import Results, open_results

Command = Callable[..., Any]
ZOO = Path(__file__).parents[1] / "interp_lab" / "zoo"
# What the study's own tool does where nothing is asked of it, and what it is asked with.
PUBLISHED = {
    "reason_rft": {
        "task_name": "trajectory",
        "model.checkpoint": "Qwen/Qwen2-VL-2B-Instruct",
        "model.max_new_tokens": 4096,
        "model.temperature": 0.1,
        "dataset.prompt": "vlmlocpredictor",
        "analysis.layers": 20,
        "visualization.gamma": 0.4,
        "visualization.fps": 2,
        "visualization.stretch": "row",
        "visualization.mark": "query",
        "visualization.start_phrase": "assistant",
    },
    "himap": {
        "task_name": "scienceqa",
        "model.dtype": "float16",
        "dataset.conv_mode": "vicuna_v1",
        "analysis.definition": "max_text_to_image",
        "analysis.knockout": None,
    },
    "avigate": {
        "task_name": "avigate",
        "analysis.masked": False,
        "model.masked": False,
        "analysis.variants": None,
        "numbers.compare_samples": True,
        "dataset.audio_width": 2048,
    },
    "clip_token": {
        "task_name": "clip_similarity",
        "model.checkpoint": "openai/clip-vit-large-patch14",
        "analysis.metric": "cosine",
        "analysis.layer": -1,
        "visualization.cmap": "viridis",
        "visualization.figsize": [20, 16],
        "visualization.dpi": 150,
    },
}
NO_FIGURES = "~visualization.figures"
# What makes each small enough to be tried.
TINY = {
    "reason_rft": (
        *("model=tiny_qwen_vl", "dataset=trajectory_tiny", "model.max_new_tokens=6"),
        "analysis.layers=null",
    ),
    "himap": ("model=tiny_llava", "dataset=scienceqa_tiny", "dataset.max_samples=3", NO_FIGURES),
    "avigate": (
        *("model=tiny_avigate", "dataset=qvhighlights_tiny", "dataset.max_samples=3"),
        NO_FIGURES,
    ),
    "clip_token": ("model=tiny_clip", f"dataset.path={ZOO}/photos/cat.jpg"),
    "untrained_control": ("dataset.max_samples=1", NO_FIGURES),
}
FEW = ("visualization.workers=0", "visualization.max_samples=1", "visualization.dpi=20")


@pytest.fixture
def ran(command: Command) -> Callable[[str], Results]:
    """Run an experiment on a shipped model."""

    def run(name: str) -> Results:
        said = command(f"experiment={name}", *TINY[name], *FEW)
        assert said.code == 0, said.err
        return open_results(said.out.strip().splitlines()[-1].removeprefix("results: "))

    return run


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_experiment_is_what_the_study_published(name: str) -> None:
    cfg = composed(conf_dir(), [f"experiment={name}"])
    for key, value in PUBLISHED[name].items():
        found = OmegaConf.select(cfg, key)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert found == value, key


def test_reason_rft_asks_its_sentence_and_draws_a_frame_less(ran: Callable[[str], Results]) -> None:
    sentence = "{problem}  Output the thinking process in <think> </think> and final answer in "
    sentence += "<answer> </answer> tags."
    with ran("reason_rft") as results:
        assert results.prompts == {"vlmlocpredictor": sentence}
        tokens = json.loads(str(results.read("tokens", 0)))
        assert sentence.removeprefix("{problem}") in tokens["prompt"]
        folder = results.path.parent / "figures"
        n_written = int(results.read("n_generated", 0))
    film = iio.imread(folder / "combined_attention_visualization_layer3.mp4")
    assert len(film) == n_written - 1


def test_himap_counts_heads_in_its_own_file(ran: Callable[[str], Results]) -> None:
    with ran("himap") as results:
        said = json.loads((results.path.parent / "exports" / "statistics.json").read_text())
        start, end = (int(results.read(f"image_token_{k}", 0)) for k in ("start", "end"))
        assert list(results.prompts) == ["vicuna_v1"]
    assert said["analysis_type"] == "text_to_image_attention" and said["num_samples"] == 3
    assert (said["sys_length"], said["img_length"]) == (start, end - start)


def test_avigate_reads_gates_once(ran: Callable[[str], Results]) -> None:
    with ran("avigate") as results:
        assert any(note.startswith("masked: false") for note in results.notes)
        assert {"gate_attention", "gate_ffn", "loss"} <= set(results.fields)
        assert "loss_difference" not in results.fields


def test_clip_token_leaves_the_files_of_the_tool(ran: Callable[[str], Results]) -> None:
    with ran("clip_token") as results:
        folder = results.path.parent / "figures"
        names = {str(p.relative_to(folder)) for p in folder.rglob("*.png")}
    assert names >= {
        "similarity_analysis_combined.png",
        "individual/horizontal_similarity.png",
        "individual/vertical_similarity.png",
        "individual/cls_similarity.png",
    }


def test_the_untrained_control_says_what_it_is(ran: Callable[[str], Results]) -> None:
    with ran("untrained_control") as results:
        assert any("RANDOM WEIGHTS" in note for note in results.notes)
