"""task=scienceqa from the command line: embedded data, exports, knock-out, imported records."""

import json
from pathlib import Path

import pytest
import torch

from interp_lab.store.results import open_results

FIGURES = {
    "max_attention_head_distribution",
    "max_attention_head_heatmap",
    "top_k_heads_per_layer",
    "head_frequency_total",
    "layer_diversity",
}


def result_path(said) -> Path:
    assert said.code == 0, said.err
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


def test_embedded_questions_give_the_files_that_scripts_know(command) -> None:
    path = result_path(command("task=scienceqa", "dataset.max_samples=12"))
    assert {p.stem for p in (path.parent / "figures").iterdir()} >= FIGURES
    statistics = json.loads((path.parent / "exports" / "statistics.json").read_text())
    assert statistics["num_samples"] == 12
    assert sum(statistics["layer_head_counts"]["0"].values()) == 12
    with open_results(path) as results:
        assert results.aggregate("accuracy") >= 0.95
        checks = json.loads(results.attributes["checks"])
        capture = json.loads(results.attributes["capture"])
    assert checks["verify"]["heads"] < 1e-4
    assert checks["live_check"]["image"] > 0
    assert capture["paths"] == ["lse"]


def test_eager_capture_gives_the_same_scores(command) -> None:
    fused = result_path(command("task=scienceqa", "dataset.max_samples=4"))
    eager = result_path(command("task=scienceqa", "dataset.max_samples=4", "capture.method=eager"))
    with open_results(fused) as a, open_results(eager) as b:
        for name in a.sample_ids:
            difference = abs(a.read("scores", name) - b.read("scores", name)).max()
            assert difference < 1e-5


def test_knocking_out_winners_is_compared_with_random_heads(command) -> None:
    path = result_path(
        command("task=scienceqa", "dataset.max_samples=6", "analysis.knockout=winners")
    )
    assert (path.parent / "figures" / "knockout.png").is_file()
    with open_results(path) as results:
        for name in results.sample_ids:
            plain = results.read("knockout_baseline_logit_difference", name)
            assert plain != results.read("knockout_winners_logit_difference", name)
            assert plain != results.read("knockout_random_logit_difference", name)
        paired = [
            results.read("knockout_winners_logit_difference", name)
            - results.read("knockout_random_logit_difference", name)
            for name in results.sample_ids
        ]
        expected = pytest.approx(sum(paired) / len(paired), abs=1e-4)
        assert results.aggregate("winners_less_random_logit_difference") == expected


def test_random_heads_alone_claim_nothing_of_winners(command) -> None:
    path = result_path(
        command("task=scienceqa", "dataset.max_samples=3", "analysis.knockout=random")
    )
    with open_results(path) as results:
        assert "knockout_random_accuracy" in results.aggregates
        assert not [name for name in results.aggregates if "winners" in name]


def test_interventions_of_the_configuration_reach_the_model(command) -> None:
    """With the image hidden from the question in every layer the letter is a guess."""
    hide = (
        "capture.interventions=[{kind: block, queries: {modality: text}, keys: {modality: image}}]"
    )
    path = result_path(command("task=scienceqa", "dataset.max_samples=12", hide))
    with open_results(path) as results:
        assert results.aggregate("accuracy") < 0.8
        assert max(results.read("scores", n).max() for n in results.sample_ids) == 0.0


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("capture.interventions=[{kind: blok}]", "'block'"),
        ("capture.interventions=[{kind: block, querys: {role: user}}]", "'queries'"),
        ("capture.interventions=[{kind: block, queries: {role: usr}}]", "'user'"),
        ("analysis.definition=max_text_to_imge", "'max_text_to_image'"),
        ("analysis.knockout=[[99,0]]", "no head [99, 0]"),
        ("dataset.question_file=nowhere.json", "no such file"),
        ("model=tiny_clip", "has no answers"),
    ],
)
def test_mistakes_are_one_line(command, typed: str, says: str) -> None:
    said = command("task=scienceqa", "dataset.max_samples=2", typed)
    assert said.code == 1
    assert says in said.err and "Traceback" not in said.err


def test_records_of_the_original_tool_are_drawn(command, tmp_path: Path) -> None:
    records = [
        {"sample_id": str(i), "image_file": f"{i}.png", "max_head_per_layer": [i % 3, 10]}
        for i in range(5)
    ]
    (tmp_path / "old").mkdir()
    torch.save(records, tmp_path / "old" / "attention_head_records.pt")
    typed = ("task=scienceqa", "mode=render", f"results={tmp_path}/old/attention_head_records.pt")
    path = result_path(command(*typed))
    assert {p.stem for p in (path.parent / "figures").iterdir()} >= FIGURES
    with open_results(path) as results:
        assert results.aggregate("layer_head_counts")[0, :3].tolist() == [2, 2, 1]


def test_a_records_file_that_holds_code_is_not_run(command, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save([Harm()], tmp_path / "records.pt")
    said = command("task=scienceqa", "mode=render", f"results={tmp_path}/records.pt")
    assert said.code == 1 and "nothing in it was run" in said.err
    assert not (tmp_path / "harmed").exists()


def test_a_model_that_is_not_asked_in_a_format_is_refused(command) -> None:
    """Its chat template would be used, and the result would name another prompt."""
    said = command("task=scienceqa", "model=tiny_qwen_vl", "dataset.conv_mode=llava_v1")
    assert said.code == 1
    assert said.err.splitlines()[-1] == (
        "error: dataset.conv_mode=llava_v1: model=tiny_qwen_vl (QwenVL) is not asked in this "
        "format; give dataset.conv_mode=chat_template"
    )
