"""Qwen2-VL and Qwen2.5-VL: pictures of any shape, prompts, answers, refusals."""

from pathlib import Path

import pytest
import torch
from tiny_qwen import CPU, architecture, model, sample, save_processor

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, MissingInputError, SampleError, UnsupportedModelError
from interp_lab.models.pieces import pieces
from interp_lab.models.qwen_vl import QwenVL


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_cells_are_the_merged_patches_of_every_picture(tmp_path, kind) -> None:
    made = model(tmp_path, kind)
    prepared = made.prepare([sample("one", (48, 32), (16, 64)), sample("two", (40, 40))])
    first, second = (seen.tokens for seen in prepared.seen)
    assert first.grids == ((4, 6), (8, 2))  # rows, cols of 8 pixels
    assert second.grids == ((5, 5),)
    assert [p.shape for p in prepared.seen[0].pictures] == [(32, 48, 3), (64, 16, 3)]
    assert len(first.where(modality="image", image=1)) == 16
    answers = made.run(prepared)
    assert all(len(a.pieces) == len(a.tokens) for a in answers)


def test_rows_of_a_batch_answer_as_they_do_alone(tmp_path) -> None:
    made = model(tmp_path)
    samples = [sample("one", (48, 32), (16, 64)), sample("two", (40, 40), text="a longer text ?")]
    together = made.run(made.prepare(samples))
    alone = [made.run(made.prepare([s]))[0] for s in samples]
    assert [a.tokens for a in together] == [a.tokens for a in alone]


def test_bounds_of_the_area_change_the_grid(tmp_path) -> None:
    made = model(tmp_path, min_pixels=64, max_pixels=1024)
    assert made.prepare([sample("s", (64, 64))]).seen[0].tokens.grids == ((4, 4),)
    with pytest.raises(ConfigError, match=r"min_pixels=9, model.max_pixels=4: give 0 < min"):
        model(tmp_path, min_pixels=9, max_pixels=4)


def test_a_single_pixel_is_a_picture(tmp_path) -> None:
    seen = model(tmp_path).prepare([sample("dot", (1, 1))]).seen[0]
    assert seen.tokens.grids == ((2, 2),)  # the least area, 256 pixels


def test_temperature_draws_the_same_whatever_else_runs(tmp_path) -> None:
    made = model(tmp_path, temperature=1.5, seed=3)
    prepared = made.prepare([sample("s", (16, 16))])
    first = made.run(prepared)[0].tokens
    torch.rand(7)
    assert made.run(prepared)[0].tokens == first
    made.seed = 4
    assert made.run(prepared)[0].tokens != first
    with pytest.raises(ConfigError, match="needs batch_size=1"):
        made.run(made.prepare([sample("a", (16, 16)), sample("b", (16, 16))]))


def test_text_alone_and_sound(tmp_path) -> None:
    made = model(tmp_path)
    assert made.prepare([sample("t")]).seen[0].tokens.grids == ()
    with pytest.raises(SampleError, match="takes text and images"):
        made.render(Sample("s", (("audio", 0), ("text", "x"))))


def test_another_family_is_refused(tmp_path) -> None:
    values = architecture() | {"model_type": "llava"}
    with pytest.raises(UnsupportedModelError, match="model_type is 'llava'"):
        QwenVL("x/y", CPU, init="random", architecture=values, processor=str(tmp_path))
    with pytest.raises(MissingInputError, match="model.checkpoint=./nowhere"):
        QwenVL("./nowhere", CPU)


def test_a_local_checkpoint_folder_loads_like_a_hub_id(tmp_path) -> None:
    made = model(tmp_path)
    folder = save_processor(tmp_path / "trained")
    made.module.save_pretrained(folder)
    again = QwenVL(folder, CPU, dtype="float32", max_new_tokens=6)
    one = made.prepare([sample("s", (24, 24))])
    assert torch.equal(made.forward(one.inputs), again.forward(one.inputs))


def test_pieces_are_letters_bytes_and_special_names(tmp_path) -> None:
    tokenizer = model(tmp_path).tokenizer
    ids = tokenizer("a 한!", add_special_tokens=False)["input_ids"] + [2]
    assert pieces(tokenizer, ids) == ("a", " ", "<ED>", "<95>", "한", "!", "<|im_end|>")
    broken = tokenizer("한", add_special_tokens=False)["input_ids"][:1] * 6
    assert len(pieces(tokenizer, broken)) == 6


@pytest.mark.parametrize(
    ("kind", "given", "unit"),
    [
        ("qwen2_vl", {}, "thousandths"),
        ("qwen2_5_vl", {}, "pixels"),
        ("qwen2_5_vl", {"coordinates": "shares"}, "shares"),
    ],
)
def test_the_unit_of_places_is_the_familys_or_the_yamls(tmp_path, kind, given, unit) -> None:
    made = model(tmp_path, kind, max_pixels=1024, **given)
    assert made.coordinates == unit
    # 64 x 32 pixels are 2,048; scaled to 1,024 or less in cells of 8 pixels.
    assert made.prepare([sample("s", (64, 32))]).seen[0].sizes == ((40, 16),)


@pytest.mark.parametrize("word", ["<|image_pad|>", "<|im_end|>"])
def test_a_word_that_the_model_does_not_read_as_text_is_refused(tmp_path, word) -> None:
    with pytest.raises(SampleError, match="does not read as text"):
        model(tmp_path).prepare([sample("s", (16, 16), text=f"what is {word} for?")])


def test_a_published_prompt_reaches_the_model_character_by_character(tmp_path: Path) -> None:
    """Blanks, line breaks and the blanks between problem and sentence are all in the input."""
    problem = (
        "\n\n  Based on the following requirements, <|object_ref_start|>it<|object_ref_end|> \n"
    )
    text = problem + "  Output the thinking process in <think> </think> and final answer in "
    text += "<answer> </answer> tags."
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    expected = f"<|im_start|>user\n{image}{text}<|im_end|>\n<|im_start|>assistant\n"
    made = model(tmp_path)
    prepared = made.prepare([sample("a", (32, 16), text=text)])
    tokens = prepared.seen[0].tokens
    assert tokens.prompt == expected
    ids = prepared.inputs["input_ids"][0].tolist()
    patches = len(tokens.where(image=0))
    assert made.tokenizer.decode(ids) == expected.replace(
        "<|image_pad|>", "<|image_pad|>" * patches
    )
