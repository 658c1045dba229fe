"""tiny_qwen_vl takes each move from the current cell and nothing else; the maps plant the truth."""

import itertools
import json
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from interp_lab.capture.generate import Generated, generate_watched
from interp_lab.capture.plans import AttentionPlan, BlockAttention
from interp_lab.capture.reduce import Keep
from interp_lab.zoo import paths_trajectory, weights_path
from interp_lab.zoo.paths import (
    CELL_NAMES,
    MOVES,
    N_CELLS,
    Question,
    box,
    draw_map,
    draw_questions,
    render,
)
from interp_lab.zoo.tiny_llava.checks import pointing
from interp_lab.zoo.tiny_qwen_vl.checks import (
    Step,
    attention_checks,
    causal_checks,
    one_step,
    replies,
    step_attention,
    step_inputs,
)
from interp_lab.zoo.tiny_qwen_vl.make import load
from interp_lab.zoo.tiny_qwen_vl.model import (
    END,
    PAD,
    build_model,
    build_processor,
    chat_prompt,
    model_inputs,
)
from interp_lab.zoo.tiny_qwen_vl.train import (
    DRILLED,
    Stage,
    asked_mask,
    batch_loss,
    draw_batch,
    drill,
    run_stage,
    windows_at_once,
)

WEIGHTS = "tiny_qwen_vl"
MAX_BYTES = 1_100_000
N_MAPS, N_WATCHED = 100, 24


@cache
def trained() -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """The shipped model and processor, in float32."""
    return load(weights_path(WEIGHTS))


@cache
def held_out() -> list[Question]:
    """Maps that the held-out rule keeps out of every training, with a question each."""
    return draw_questions(N_MAPS, np.random.default_rng(77), held_out=True)


@cache
def checks() -> dict[str, float]:
    """The causal checks on the held-out maps."""
    return causal_checks(*trained(), held_out(), np.random.default_rng(78))


# The processor


def test_the_prompt_is_qwen_s_and_has_one_image_token_a_cell() -> None:
    _, processor = trained()
    problem = held_out()[0].problem
    prompt = chat_prompt(processor, problem)
    assert prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|><|image_pad|><|vision_end|>{problem}<|im_end|>\n<|im_start|>assistant\n"
    )
    inputs = processor(images=Image.new("RGB", (48, 48)), text=prompt, return_tensors="pt")
    assert (inputs["input_ids"] == processor.image_token_id).sum() == N_CELLS
    assert processor.tokenizer.unk_token_id not in inputs["input_ids"]


@pytest.mark.parametrize("side", [20, 47, 48, 49, 53, 96, 100, 384, 999])
def test_a_square_picture_of_any_size_has_six_by_six_cells(side: int) -> None:
    made = trained()[1].image_processor(Image.new("RGB", (side, side)), return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 12, 12]]  # patches; two by two are one token


def test_what_is_decoded_reads_as_it_was_written() -> None:
    tokenizer = trained()[1].tokenizer
    for question in held_out():
        for text in (question.problem, question.reply + END):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert tokenizer.unk_token_id not in ids
    # A name, a move or a coordinate is one token.
    pieces = tokenizer.tokenize("1 c2 right 2 c3</think><answer><|box_start|>(417,")
    assert pieces == "1, c2, right, 2, c3,</think>,<answer>,<|box_start|>,(,417".split(",") + [","]


# The replies


@pytest.mark.parametrize("cell_pixels", [8, 64])
def test_whole_replies_are_right_on_held_out_maps(cell_pixels: int) -> None:
    written = replies(*trained(), held_out(), cell_pixels)
    assert np.mean(written == [question.reply for question in held_out()]) >= 0.9


def test_samples_are_answered_as_the_general_code_asks_them() -> None:
    model, processor = trained()
    records = json.loads((paths_trajectory.FOLDER / "maps.json").read_text())
    right = 0
    for record in records:
        picture = Image.open(paths_trajectory.FOLDER / record["image"][0]).convert("RGB")
        content = [{"type": "image", "image": picture}, {"type": "text", "text": record["problem"]}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        text = processor.decode(output[0, inputs["input_ids"].shape[1] :])
        right += text == record["solution"] + END
    assert right >= 11


def test_several_images_run_in_one_prompt() -> None:
    model, processor = trained()
    question = held_out()[0]
    pictures = [Image.fromarray(image) for image in render([question.map] * 2, 16)]
    prompt = chat_prompt(processor, question.problem, n_images=2)
    inputs = processor(text=[prompt], images=pictures, return_tensors="pt")
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 2 * N_CELLS
    output = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert processor.decode(output[0, -2:]).startswith("<think>")


# What a move hangs on


def test_the_move_follows_the_current_cell_s_arrow_and_no_other_cell() -> None:
    assert checks()["move right"] >= 0.95
    assert checks()["current cell's arrow turned: the new move"] >= 0.9
    assert checks()["another cell blank: same move"] >= 0.95


def test_without_the_current_cell_the_move_is_lost() -> None:
    assert checks()["current cell blank: move right"] <= 0.6
    assert checks()["attention to the current cell blocked: move right"] <= 0.6
    assert checks()["attention to another cell blocked: same move"] >= 0.95


def moves_under_block(cells: list[int], steps: list[Step]) -> list[str]:
    """The moves that our own knock-out leaves, with one cell hidden from the row that writes."""
    model, processor = trained()
    moves = []
    for step, cell in zip(steps, cells, strict=True):
        inputs = step_inputs(processor, [step], [step.question.map])
        ids = inputs["input_ids"][0]
        first = int((ids == processor.image_token_id).int().argmax())
        change = BlockAttention(queries=(len(ids) - 1,), keys=(first + cell,))
        (made,) = generate_watched(
            model, inputs, [{}], [{}], [[change]], max_new_tokens=1, do_sample=False
        )
        moves.append(processor.decode(made.tokens).strip())
    return moves


def test_our_own_knock_out_finds_the_same() -> None:
    rng = np.random.default_rng(79)
    steps = [one_step(question, rng) for question in held_out()[:30]]
    right = [step.move for step in steps]
    hidden = moves_under_block([step.cell for step in steps], steps)
    other = moves_under_block([step.other for step in steps], steps)
    assert np.mean([a == b for a, b in zip(hidden, right, strict=True)]) <= 0.6
    assert np.mean([a == b for a, b in zip(other, right, strict=True)]) >= 0.9


# Where heads look while the model writes


def watch(
    model: Qwen2_5_VLForConditionalGeneration, question: Question
) -> tuple[Generated, list[str]]:
    """One reply written under our own capture, and its tokens as words."""
    processor = trained()[1]
    inputs = model_inputs(processor, [question.problem], render([question.map]))
    cells = np.flatnonzero((inputs["input_ids"][0] == processor.image_token_id).numpy())
    plan = AttentionPlan("last", tuple(cells.tolist()), Keep())
    (made,) = generate_watched(
        model, inputs, [{}], [{"cells": plan}], max_new_tokens=48, do_sample=False
    )
    return made, [processor.decode([token]).strip() for token in made.tokens]


def test_a_head_looks_at_the_current_cell_when_it_writes_a_move() -> None:
    """Rows are those that predict a move, in free-running generation: the cell's name was read."""
    rows, cells = [], []
    for question in held_out()[:N_WATCHED]:
        made, words = watch(trained()[0], question)
        seen = made.decode["cells"].steps
        for step, (here, then) in enumerate(itertools.pairwise(words)):
            if then in MOVES:
                rows.append(seen[step][:, :, 0])
                cells.append(CELL_NAMES.index(here))
    found = pointing(torch.stack(rows), np.array(cells))
    assert len(rows) > 3 * N_WATCHED
    assert found.hit >= 0.6  # chance: 1/36; 0.65 over the 150 maps of the card
    assert found.mass >= 0.4


def test_our_capture_equals_the_eager_pattern_at_every_move() -> None:
    model, _ = trained()
    question = held_out()[0]
    made, words = watch(model, question)
    steps = [Step(question, index) for index in range(len(question.walked) - 1)]
    eager = step_attention(*trained(), steps)
    at = [i for i, then in enumerate(words[1:]) if then in MOVES]
    ours = torch.stack([made.decode["cells"].steps[i][:, :, 0] for i in at])
    torch.testing.assert_close(ours, eager, atol=2e-5, rtol=0)


# The control


def test_an_untrained_model_neither_writes_nor_points() -> None:
    control = build_model(7).eval()
    some = held_out()[:30]
    written = replies(control, trained()[1], some)
    assert not any(box(q.walked[-1]) in text for q, text in zip(some, written, strict=True))
    for seen in attention_checks(control, trained()[1], some).values():
        assert seen.hit <= 0.25
        assert seen.mass <= 0.1


# The shipped files


def test_weights_are_half_precision_and_small() -> None:
    folder = weights_path(WEIGHTS)
    assert sum(f.stat().st_size for f in folder.glob("*.safetensors")) <= MAX_BYTES
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert "Tried: Seed 0" in (folder / "CARD.md").read_text()


# The training


def test_the_tower_at_once_gives_the_numbers_of_the_tower_window_by_window() -> None:
    processor, model = build_processor(), build_model(0).eval()
    inputs = draw_batch(np.random.default_rng(0), processor, n=2, n_drills=0)
    with torch.no_grad():
        plain = model(**inputs, use_cache=False).logits
        with windows_at_once(model):
            at_once = model(**inputs, use_cache=False).logits
        again = model(**inputs, use_cache=False).logits
    torch.testing.assert_close(at_once, plain, atol=1e-5, rtol=0)
    assert torch.equal(again, plain)
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_the_loss_asks_for_replies_and_for_the_moves_of_drills() -> None:
    processor = build_processor()
    ids = draw_batch(np.random.default_rng(0), processor, n=6, n_drills=3)["input_ids"]
    for i, (row, asked) in enumerate(zip(ids, asked_mask(ids, processor, 3), strict=True)):
        text, rest = processor.decode(row[asked]), processor.decode(row[~asked])
        if i < 3:
            assert text.startswith("<think>1 ") and text.endswith("</answer>" + END)
            assert "<think>" not in rest and PAD not in text
        else:
            assert len(text.split()) == DRILLED and set(text.split()) <= set(MOVES)
            assert not set(rest.split()) & set(MOVES)


def test_a_drill_tells_what_the_arrows_show() -> None:
    rng = np.random.default_rng(8)
    drawn = draw_map(rng)
    words = drill(drawn, rng).removeprefix("<think>").split()
    numbers, names, moves = words[::3], words[1::3], words[2::3]
    assert numbers == [str(i % 8 + 1) for i in range(DRILLED)]
    assert len(set(names)) == DRILLED
    assert moves == [drawn.move(CELL_NAMES.index(name)) for name in names]


def test_the_loss_by_hand() -> None:
    """A model of equal scores pays log(vocabulary) a token and gets nothing right."""
    processor, model = build_processor(), build_model(0).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    inputs = draw_batch(np.random.default_rng(0), processor, n=4, n_drills=2)
    loss, moves, whole = batch_loss(model, inputs, processor, 2)
    assert loss.item() == pytest.approx(np.log(model.lm_head.out_features))
    assert moves == whole == 0


def test_the_same_seed_trains_the_same_model() -> None:
    weights = []
    stage = Stage("short", steps=2, batch=4, drills=2, warm_up=1, tower_steps=1)
    for _ in range(2):
        processor, model = build_processor(), build_model(3)
        run_stage(model, processor, stage, np.random.default_rng(3))
        weights.append(model.lm_head.weight.detach().clone())
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], build_model(3).lm_head.weight)
