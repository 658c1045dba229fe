"""scienceqa: definitions against a model whose attention is written down, and the knock-out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp_lab.capture.attention import watch_attention
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError
from interp_lab.statistics.heads import winners
from interp_lab.studies.scienceqa.analysis import (
    Definition,
    HeadsOfModel,
    ScienceQAHeads,
    answer_of,
    head_plan,
    scores_of,
)
from interp_lab.studies.scienceqa.knockout import Knockout, image_block, logit_difference
from interp_lab.tokens import Token, TokenMap

# Four tokens: text, image, image, text. Rows are queries; every row sums to 1.
A = np.array(
    [
        [  # layer 0
            [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.6, 0.1, 0.2]],
            [[1, 0, 0, 0], [0.9, 0.1, 0, 0], [0.1, 0.4, 0.5, 0], [0.2, 0.35, 0.4, 0.05]],
        ],
        [  # layer 1
            [[1, 0, 0, 0], [0.3, 0.7, 0, 0], [0.6, 0.2, 0.2, 0], [0.5, 0.1, 0.1, 0.3]],
            [[1, 0, 0, 0], [0.2, 0.8, 0, 0], [0.4, 0.1, 0.5, 0], [0.4, 0.05, 0.25, 0.3]],
        ],
    ]
)
TOKENS = TokenMap(
    (
        Token("a", "user", chars=(0, 1)),
        Token("<image>", "image", "image", image=0, cell=(0, 0)),
        Token("<image>", "image", "image", image=0, cell=(0, 1)),
        Token("b", "user", chars=(1, 2)),
    ),
    grids=((1, 2),),
    prompt="ab",
)
# By hand, per layer and head. The only text query that sees the image is token 3.
EXPECTED: dict[Definition, list[list[float]]] = {
    "max_text_to_image": [[0.6, 0.4], [0.1, 0.25]],
    "last_token_image_mass": [[0.6 + 0.1, 0.35 + 0.4], [0.1 + 0.1, 0.05 + 0.25]],
    "text_to_image_mean": [[0.7, 0.75], [0.2, 0.3]],
    # Image queries 1 and 2 on text keys 0 and 3: the mean of two sums.
    "image_to_text_mean": [[(0.5 + 0.2) / 2, (0.9 + 0.1) / 2], [(0.3 + 0.6) / 2, (0.2 + 0.4) / 2]],
}
WINNERS = {
    "max_text_to_image": [0, 1],
    "last_token_image_mass": [1, 1],
    "text_to_image_mean": [1, 1],
    "image_to_text_mean": [1, 0],
}

# By hand from `A`: the winner's numbers for cells 1 and 2, of layers 0 and 1.
MAPS = {
    "max_text_to_image": [[0.6, 0.1], [0.05, 0.25]],
    "last_token_image_mass": [[0.35, 0.4], [0.05, 0.25]],
    "text_to_image_mean": [[0.35, 0.4], [0.05, 0.25]],
    "image_to_text_mean": [[0.9, 0.1], [0.3, 0.6]],
}


def written_down() -> GPT2LMHeadModel:
    """A GPT-2 whose pattern is exactly `A`: keys are one-hot, queries are rows of log A."""
    config = GPT2Config(vocab_size=8, n_embd=8, n_layer=2, n_head=2, n_positions=8, n_inner=8)
    model = GPT2LMHeadModel(config).eval()
    scores = np.where(A > 0, np.log(np.where(A > 0, A, 1)), -30) * np.sqrt(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.wte.weight.copy_(torch.eye(8))
        one_hot = torch.eye(8)[0]
        spread = float((one_hot.var(unbiased=False) + config.layer_norm_epsilon).sqrt())
        for layer, block in enumerate(model.transformer.h):
            # This norm gives a one-hot vector back as it came.
            block.ln_1.weight.fill_(spread)
            block.ln_1.bias.fill_(1 / 8)
            for head in range(2):
                place = slice(4 * head, 4 * head + 4)
                query = torch.tensor(scores[layer, head], dtype=torch.float32)
                block.attn.c_attn.weight[:4, place] = query
                block.attn.c_attn.weight[:4, 8 + place.start : 8 + place.stop] = torch.eye(4)
    return model


@pytest.mark.parametrize("definition", list(EXPECTED))
def test_definitions_and_winners_by_hand(definition: Definition) -> None:
    model = written_down()
    plan = head_plan(definition, TOKENS)
    assert plan is not None
    with torch.no_grad(), watch_attention(model, [{"heads": plan}]) as watched:
        model(input_ids=torch.tensor([[0, 1, 2, 3]]))
    scores = scores_of(definition, plan, watched.results[0]["heads"].values.numpy())
    np.testing.assert_allclose(scores, EXPECTED[definition], atol=1e-6)
    assert winners(scores).tolist() == WINNERS[definition]


@pytest.mark.parametrize("definition", list(EXPECTED))
def test_a_cell_s_number_is_what_its_definition_says(definition: Definition) -> None:
    study = HeadsOfModel(ScienceQAHeads(definition, maps=1), lambda letter: 0, (2, 2))
    found = []
    for place in (0, 1):
        measuring = study.at(place)
        plans = [measuring.plans(TOKENS)]
        model = written_down()
        with torch.no_grad(), watch_attention(model, plans) as watched:
            model(input_ids=torch.tensor([[0, 1, 2, 3]]))
        found.append(measuring._numbers(TOKENS, watched.results[0]))
    (scores, by_token), (alone, nothing) = found
    assert nothing is None and by_token is not None
    assert np.array_equal(scores, alone)
    maps = by_token[np.arange(2), winners(scores)]
    np.testing.assert_allclose(maps, MAPS[definition], atol=1e-6)


def test_ties_go_to_the_first_head() -> None:
    assert winners(np.array([[0.5, 0.5, 0.1]])).tolist() == [0]


def test_an_input_without_an_image_has_nothing_to_watch() -> None:
    assert head_plan("max_text_to_image", TokenMap((Token("a", "user"),))) is None


def test_without_text_all_positions_look() -> None:
    cells = tuple(Token("<i>", "image", "image", image=0, cell=(0, c)) for c in (0, 1))
    plan = head_plan("max_text_to_image", TokenMap(cells, grids=((1, 2),)))
    assert plan is not None and plan.queries == (0, 1)


SCORES = np.array([[0.1, 0.9, 0.2], [0.3, 0.1, 0.2], [0.8, 0.1, 0.7]])


def test_winners_are_those_that_score_highest_and_controls_share_their_layers() -> None:
    knockout = Knockout("winners", 2, seed=0)
    chosen = knockout.heads("s", SCORES, winners(SCORES))
    assert chosen["winners"] == [(0, 1), (2, 0)]
    assert [layer for layer, _ in chosen["random"]] == [0, 2]
    assert not set(chosen["random"]) & set(chosen["winners"])
    assert knockout.heads("s", SCORES, winners(SCORES)) == chosen
    drawn = {tuple(knockout.heads(str(i), SCORES, winners(SCORES))["random"]) for i in range(20)}
    assert len(drawn) > 1


def test_named_heads_are_checked() -> None:
    chosen = Knockout([(1, 2)], 4, seed=0).heads("s", SCORES, winners(SCORES))
    assert chosen["winners"] == [(1, 2)]
    with pytest.raises(ConfigError, match=r"no head \[3, 0\]"):
        Knockout([(3, 0)], 4, seed=0).heads("s", SCORES, winners(SCORES))


def test_blocked_heads_give_the_image_nothing_and_others_are_unchanged() -> None:
    from interp_lab.capture.plans import AttentionPlan
    from interp_lab.capture.reduce import Keep

    model = written_down()
    plan = AttentionPlan(None, None, Keep())
    changes = image_block(TOKENS, [(0, 0)])
    with torch.no_grad(), watch_attention(model, [{"all": plan}], [changes]) as watched:
        model(input_ids=torch.tensor([[0, 1, 2, 3]]))
    pattern = watched.results[0]["all"].values.numpy()
    assert (pattern[0, 0, 3, 1:3] == 0).all()
    # What is left of row 3, [0.1, -, -, 0.2], is normalised to 1 again.
    np.testing.assert_allclose(pattern[0, 0, 3, [0, 3]], [1 / 3, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(pattern[0, 1], A[0, 1], atol=1e-6)


def test_logit_difference_is_against_the_best_other_letter() -> None:
    logits = torch.tensor([0.0, 5.0, 2.0, 4.5])
    tokens = {"A": 1, "B": 2, "C": 3}
    assert logit_difference(logits, "A", list("ABC"), tokens) == 0.5
    assert logit_difference(logits, "B", list("ABC"), tokens) == -3.0
    assert logit_difference(logits, None, list("ABC"), tokens) == 0.0


def exported(folder: Path, spans: list[tuple[int, int]], **options: Any) -> dict[str, Any]:
    """Write three samples whose images stand there, export them; return statistics.json."""
    import json

    from interp_lab.store.merge import merge
    from interp_lab.store.parts import PartWriter, list_parts
    from interp_lab.store.results import open_results
    from interp_lab.studies.scienceqa.analysis import ScienceQAHeads
    from interp_lab.studies.scienceqa.numbers import HeadNumbers

    analysis, numbers = ScienceQAHeads(**options), HeadNumbers(top_k=2, bootstrap=100)
    writer = PartWriter(folder / "parts", analysis.fields)
    for i, (winning, span) in enumerate(zip([[0, 11], [1, 11], [0, 2]], spans, strict=True)):
        scores = np.full((2, 12), 0.1)
        scores[[0, 1], winning] = 0.5
        values: dict[str, Any] = {
            "scores": scores,
            "max_head_per_layer": winning if span[0] >= 0 else [-1, -1],
            "margin": [0.4, 0.4],
            "image_token_start": span[0],
            "image_token_end": span[1],
            "image_file": f"{i}/image.png",
            "answer": "A",
            "predicted": "A",
            "output": "A",
            "correct": int(i != 2),
        }
        writer.add(i, str(i), values)
    writer.flush()
    attributes = {
        "task_name": "scienceqa",
        "model": "m",
        "dataset": "d",
        "notes": "[]",
        "definitions": json.dumps(analysis.definitions),
    }
    path = folder / "results.h5"
    merge(list_parts(folder / "parts"), ["0", "1", "2"], path, attributes, numbers.compute)
    with open_results(path) as results:
        numbers.export(results, folder / "exports")
        assert results.aggregate("accuracy") == pytest.approx(2 / 3)
    return json.loads((folder / "exports" / "statistics.json").read_text())


def test_exports_keep_the_formats_that_scripts_read(tmp_path: Path) -> None:
    assert exported(tmp_path, [(1, 17)] * 3) == {
        "num_samples": 3,
        "num_layers": 2,
        "num_heads": 12,
        "layer_head_counts": {"0": {"0": 2, "1": 1}, "1": {"2": 1, "11": 2}},
        "sys_length": 1,
        "img_length": 16,
        "analysis_type": "text_to_image_attention",
    }
    records = torch.load(tmp_path / "exports" / "attention_head_records.pt", weights_only=True)
    assert records[1] == {
        "sample_id": "1",
        "image_file": "1/image.png",
        "max_head_per_layer": [1, 11],
        "image_token_start": 1,
        "image_token_end": 17,
    }
    report = (tmp_path / "exports" / "analysis_report.txt").read_text()
    assert "11: 2 (67%)" in report and "does not show use" in report


@pytest.mark.parametrize(
    ("spans", "lengths"),
    [
        ([(35, 611), (-1, -1), (35, 611)], (35, 576)),  # one has no image
        ([(35, 611), (40, 616), (35, 611)], (None, 576)),
        ([(35, 611), (35, 99), (35, 611)], (35, None)),
        ([(-1, -1)] * 3, (None, None)),
    ],
)
def test_lengths_that_samples_do_not_share_are_null(
    tmp_path: Path, spans: list[tuple[int, int]], lengths: tuple[int | None, int | None]
) -> None:
    found = exported(tmp_path, spans, definition="image_to_text_mean")
    assert (found["sys_length"], found["img_length"]) == lengths
    assert found["analysis_type"] == "image_to_text_mean", "the original measured something else"


def test_an_answer_ends_where_the_format_s_next_turn_begins() -> None:
    """A model of llava_v0's format goes on with the other's turn; that is no answer of its."""
    sample = Sample("a", (("text", "Which?"),), facts={"stop": "###"})
    assert answer_of("B###Human: A###", sample) == "B"
    assert answer_of("B###", Sample("a")) == "B###"
