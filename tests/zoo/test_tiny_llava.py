"""tiny_llava answers from the asked cell and nothing else; the truth is planted by the boards."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from interp_lab.zoo import boards, boards_scienceqa, weights_path
from interp_lab.zoo.tiny_llava.checks import (
    answers,
    attention_checks,
    causal_checks,
    layout_a_texts,
    painted,
    pointing,
)
from interp_lab.zoo.tiny_llava.lessons import (
    Lesson,
    choice_lesson,
    colour_drill,
    match_drill,
    open_drill,
    told_lesson,
)
from interp_lab.zoo.tiny_llava.make import load
from interp_lab.zoo.tiny_llava.model import build_model, build_processor, chat_prompt, instructed
from interp_lab.zoo.tiny_llava.train import Stage, pixels, token_ids, train
from interp_lab.zoo.training import MAX_WEIGHT_BYTES

N_BOARDS = 300
WEIGHTS = "tiny_llava"


@cache
def trained() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The shipped model and processor, in float32."""
    return load(weights_path(WEIGHTS))


@cache
def held_out() -> tuple[boards.Boards, boards.Questions]:
    """Boards that the held-out rule keeps out of every training, with a question each."""
    rng = np.random.default_rng(77)
    drawn = boards.draw(N_BOARDS, rng, held_out=True)
    return drawn, boards.ask(drawn, rng)


@cache
def checks() -> dict[str, float]:
    """The causal checks on the held-out boards."""
    return causal_checks(*trained(), *held_out(), np.random.default_rng(78))


def write_letter(text: str, image: Image.Image | None) -> str:
    """What the model writes to a question by itself, as the general LLaVA code would ask it."""
    model, processor = trained()
    content = [] if image is None else [{"type": "image", "image": image}]
    turn = [{"role": "user", "content": [*content, {"type": "text", "text": instructed(text)}]}]
    inputs = processor.apply_chat_template(
        turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    return processor.decode(new, skip_special_tokens=True)


# The boards


def test_a_cell_is_painted_by_itself() -> None:
    drawn, questions = held_out()
    changed = boards.blanked(drawn, questions.cells)
    differs = (boards.render(drawn) != boards.render(changed)).any(-1)
    n, side, size = len(drawn), boards.SIDE, boards.CELL_PIXELS
    cells = differs.reshape(n, side, size, side, size).any((2, 4)).reshape(n, -1)
    assert (cells == (np.arange(boards.N_CELLS) == questions.cells[:, None])).all()


def test_a_question_has_one_true_option() -> None:
    drawn, questions = held_out()
    truth = drawn.colours[np.arange(N_BOARDS), questions.cells]
    assert ((questions.options == truth[:, None]).sum(1) == 1).all()
    assert (questions.options[np.arange(N_BOARDS), questions.right] == truth).all()
    assert all(len(set(options)) == 3 for options in questions.options.tolist())


def test_no_training_board_is_held_out() -> None:
    seen = boards.draw(2000, np.random.default_rng(0), grain=0.0)
    assert not boards.is_held_out(seen.colours).any()
    assert boards.is_held_out(held_out()[0].colours).all()


# The processor


def test_the_prompt_has_one_image_token_a_cell_in_one_span() -> None:
    _, processor = trained()
    text = "What color is the shape in cell b3?\nA. red\nB. blue\nC. green"
    prompt = chat_prompt(processor, instructed(text))
    assert prompt == (
        "USER: <image>\nWhat color is the shape in cell b3?\nA. red\nB. blue\nC. green\n"
        "Answer with the option's letter from the given choices directly. ASSISTANT:"
    )
    inputs = processor(images=Image.new("RGB", (64, 64)), text=prompt, return_tensors="pt")
    at = (inputs["input_ids"][0] == processor.image_token_id).nonzero().flatten().tolist()
    assert at == list(range(2, 18))  # after [BOS] and 'USER:'
    assert processor.tokenizer.unk_token_id not in inputs["input_ids"]


def test_training_sees_what_the_processor_makes() -> None:
    _, processor = trained()
    drawn = held_out()[0][:4]
    images = [Image.fromarray(image) for image in boards.render(drawn)]
    made = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(drawn, processor), made)


# The answers


def test_letters_are_right_on_held_out_boards() -> None:
    assert checks()["letter right"] >= 0.95


def test_the_answer_follows_the_asked_cell_and_no_other() -> None:
    assert checks()["asked cell recoloured: the new letter"] >= 0.95
    assert checks()["another cell recoloured: same letter"] >= 0.95


def test_without_the_asked_cell_the_answer_is_a_guess() -> None:
    # Four standard errors around one third at 300 boards: 4 * sqrt(1/3 * 2/3 / 300) = 0.109.
    assert abs(checks()["asked cell blank: letter right"] - 1 / 3) <= 0.109
    assert checks()["another cell blank: letter right"] >= 0.95


def test_llava_s_system_sentence_does_no_harm() -> None:
    model, processor = trained()
    sentence = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions."
    )
    drawn, questions = held_out()
    prompts = [
        f"{sentence} {chat_prompt(processor, instructed(text))}"
        for text in layout_a_texts(questions)[:100]
    ]
    inputs = processor(images=painted(drawn[:100]), text=prompts, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    written = processor.batch_decode(output[:, -1:])
    assert (
        np.mean([a == b for a, b in zip(written, questions.letters()[:100], strict=True)]) >= 0.95
    )


def test_an_untrained_model_guesses_at_best() -> None:
    drawn, questions = held_out()
    control = build_model(7).eval()
    written = answers(control, trained()[1], layout_a_texts(questions), painted(drawn))
    assert (written == questions.letters()).mean() <= 0.45


# The attention


def test_a_head_points_at_the_asked_cell_from_its_name() -> None:
    seen = attention_checks(*trained(), *held_out())["at the cell's name"]
    assert seen.hit >= 0.95
    assert seen.mass >= 0.8
    assert seen.share >= 0.8


def test_no_head_of_an_untrained_model_points() -> None:
    for seen in attention_checks(build_model(7).eval(), trained()[1], *held_out()).values():
        assert seen.hit <= 0.2  # chance: 0.0625
        assert seen.mass <= 0.1
        assert seen.share <= 0.2


def test_pointing_reports_the_half_that_did_not_choose() -> None:
    attention = torch.zeros(4, 1, 2, 16)
    attention[:2, 0, 1, 5] = 0.8  # head 1 wins the first half
    attention[2:, 0, 0, 5] = 0.9  # head 0 would win the second
    attention[2:, 0, 1, 5] = 0.1
    attention[3, 0, 1, 6] = 0.3
    seen = pointing(attention, np.full(4, 5))
    assert (seen.layer, seen.head) == (0, 1)
    assert seen.hit == 0.5
    assert seen.mass == pytest.approx(0.1)
    assert seen.share == pytest.approx((1 + 0.25) / 2)


# The shipped files


def test_weights_are_half_precision_and_small() -> None:
    folder = weights_path(WEIGHTS)
    assert sum(f.stat().st_size for f in folder.glob("*.safetensors")) <= MAX_WEIGHT_BYTES
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert "Tried: Seed 0" in (folder / "CARD.md").read_text()
    assert "Tried: Seed 1" in (folder / "CARD.md").read_text()


def test_samples_of_layout_a_are_answered() -> None:
    folder = boards_scienceqa.FOLDER / "layout_a"
    records = json.loads((folder / "questions.json").read_text())
    right = 0
    for record in records:
        question, answer = (turn["value"] for turn in record["conversations"])
        assert question.startswith("<image>\n")
        image = Image.open(folder / "images" / record["image"]).convert("RGB")
        right += write_letter(question.removeprefix("<image>\n"), image) == answer
    assert len(records) == 60
    assert right >= 57


def test_samples_of_layout_b_are_answered_with_and_without_image() -> None:
    folder = boards_scienceqa.FOLDER / "layout_b"
    records = json.loads((folder / "llava_test_QCM-LEA.json").read_text())
    right = {True: 0, False: 0}
    for record in records:
        question, answer = (turn["value"] for turn in record["conversations"])
        has_image = "image" in record
        assert question.endswith("\n<image>") == has_image
        image = Image.open(folder / "images/test" / record["image"]) if has_image else None
        letter = write_letter(question.removesuffix("\n<image>"), image)
        right[has_image] += answer.endswith(f"The answer is {letter}.")
    assert len(records) == 20
    assert right[True] >= 14  # of 15
    assert right[False] >= 4  # of 5


def test_the_samples_are_what_the_command_writes(tmp_path: Path) -> None:
    boards_scienceqa.write_layout_a(tmp_path / "layout_a")
    boards_scienceqa.write_layout_b(tmp_path / "layout_b")
    shipped = sorted(p for p in boards_scienceqa.FOLDER.rglob("*") if p.is_file())
    assert len(shipped) == 60 + 15 + 4
    for path in shipped:
        again = tmp_path / path.relative_to(boards_scienceqa.FOLDER)
        if path.suffix == ".png":  # the pixels are fixed, the compression is the library's
            assert np.array_equal(Image.open(path), Image.open(again)), path
        else:
            assert path.read_text() == again.read_text(), path


# The training


def supervised(lesson: Lesson) -> list[str]:
    """The words of the lesson's first text that the loss asks for, in reading order."""
    processor = build_processor()
    ids = token_ids(lesson.texts, processor)[0]
    return processor.tokenizer.convert_ids_to_tokens([ids[p] for p in sorted(lesson.answers)])


def test_lessons_ask_for_the_words_that_the_board_decides() -> None:
    rng = np.random.default_rng(5)
    assert set(supervised(colour_drill(2, 4, rng))) <= set(boards.COLOURS)
    assert set(supervised(match_drill(2, rng))) <= set(boards.LETTERS)
    letter, end = supervised(choice_lesson(2, rng, build_processor()))
    assert letter in boards.LETTERS
    assert end == "[EOS]"


def test_echoes_are_asked_for_at_the_words_they_belong_to() -> None:
    rng = np.random.default_rng(6)
    processor = build_processor()
    lessons = [choice_lesson(2, rng, processor, inline=inline) for inline in (False, True)]
    lessons += [colour_drill(2, 3, rng), open_drill(2, 2, rng), match_drill(2, rng)]
    lessons.append(told_lesson(2, rng, processor))
    for lesson in lessons:
        ids = token_ids(lesson.texts, processor)[0]
        for position, (word, *_) in lesson.echoes.items():
            (said,) = processor.tokenizer.convert_ids_to_tokens([ids[position]])
            # A cell's name calls up a colour, a colour among the options its letter.
            pairs = (boards.CELL_NAMES, boards.COLOURS), (boards.COLOURS, boards.LETTERS)
            assert any(said in first and word in then for first, then in pairs), lesson.name


def test_a_finished_stage_is_loaded_and_not_run_again(tmp_path: Path) -> None:
    def short(rng: np.random.Generator, _: LlavaProcessor) -> list[tuple[float, Lesson]]:
        return [(1.0, match_drill(4, rng))]

    stage = Stage("short", short, watch="match", enough=1.1, at_most=2, warm_up=1)
    processor, first, second = build_processor(), build_model(0), build_model(1)
    logs = train(first, processor, 0, tmp_path, (stage,), tower_steps=1)
    assert [log.steps for log in logs] == [2]
    (before,) = tmp_path.glob("*.safetensors")
    written = before.stat().st_mtime_ns
    assert train(second, processor, 0, tmp_path, (stage,), tower_steps=1) == logs
    assert before.stat().st_mtime_ns == written
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
