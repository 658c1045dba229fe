"""tiny_omni answers from the phone that it is asked about; the truth is planted by speech.py."""

import json
import wave
from functools import cache

import numpy as np
import pytest
import torch
from transformers import (
    BatchFeature,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from interp_lab.datasets.semdim_prompts import read_template
from interp_lab.zoo import speech, speech_semdim, weights_path
from interp_lab.zoo.speech import EDGE, HELD_OUT, LANGUAGES, PAIRS, SIZE, WORDS
from interp_lab.zoo.tiny_omni.checks import (
    Heard,
    Listening,
    answers,
    hearing_checks,
    held_out_clips,
    inputs_for,
    listen,
    moving,
    pointing,
    reading_checks,
)
from interp_lab.zoo.tiny_omni.make import load
from interp_lab.zoo.tiny_omni.model import build_model, build_processor
from interp_lab.zoo.tiny_omni.prompts import DATA_TYPES, Question, chat_prompt, prompt_words
from interp_lab.zoo.tiny_omni.train import (
    DIMENSION_AT,
    FULL_STOP_AT,
    OPTIONS_AT,
    Phase,
    match_drill,
    spread,
    train,
)
from interp_lab.zoo.training import MAX_WEIGHT_BYTES

WEIGHTS = "tiny_omni"
N_CLIPS = 240
SEED = 77  # not the card's


@cache
def trained() -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, Qwen2_5OmniProcessor]:
    """The shipped model and processor, in float32."""
    return load(weights_path(WEIGHTS))


@cache
def heard() -> list[Heard]:
    """Draws of words that no training has heard."""
    return held_out_clips(N_CLIPS, SEED)


@cache
def hearing() -> dict[str, float]:
    """The causal checks on them."""
    return hearing_checks(*trained(), heard())


@cache
def listening() -> Listening:
    """The attention to them."""
    return listen(*trained(), heard())


def sizes() -> np.ndarray:
    """The size of each word that is heard."""
    return np.array([h.clip.word.sides[SIZE] for h in heard()])


@cache
def control() -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The same architecture with untrained weights."""
    return build_model(7).eval()


def through_processor(asked: list[Question], clips: list[speech.Clip]) -> BatchFeature:
    """Inputs as the general code makes them, padded to 30 s."""
    processor = trained()[1]
    prompts = [chat_prompt(processor, question) for question in asked]
    waves = [clip.wave for clip in clips]
    return processor(text=prompts, audio=waves, padding=True, return_tensors="pt")


# The prompt and the processor


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_prompt_is_the_study_s_own(data_type: str) -> None:
    question = Question(HELD_OUT[3], EDGE, True, data_type, "fr")
    filled = read_template(None, data_type).fill(question.written, *question.sides)
    content = [
        {"type": kind, "text": value} if kind == "text" else {"type": "audio", "audio": "audio"}
        for kind, value in filled.parts
    ]
    _, processor = trained()
    rendered = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert rendered == chat_prompt(processor, question)


def test_the_prompt_in_full() -> None:
    assert chat_prompt(trained()[1], Question(HELD_OUT[0], SIZE, False, "audio")) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Which of the two features fits the sound of this spoken word better?\n\n[WORD]\n"
        "<|audio_bos|><|AUDIO|><|audio_eos|>\n\n[SEMANTIC DIMENSION]\nbig vs small\n\n"
        "[OPTIONS]\n1: big\n2: small\n\nAnswer with the number only.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_written_word_is_one_token_a_sign() -> None:
    tokenizer = trained()[1].tokenizer
    for word in WORDS:
        spellings = [word.written(language) for language in LANGUAGES]
        for text in [*spellings, word.romanization, word.ipa]:
            signs = [sign for sign in text if sign != " "]
            assert tokenizer.tokenize(text) == signs
            assert len(signs) >= 2
            assert tokenizer.unk_token not in signs


def test_a_word_of_the_prompt_is_one_token_where_it_stands_alone() -> None:
    tokenizer = trained()[1].tokenizer
    assert tokenizer.tokenize("big vs bigs\n1: sharp") == ["big", "vs", *"bigs", "1", ":", "sharp"]
    assert all(len(tokenizer.tokenize(word)) == 1 for word in prompt_words())


def test_a_clip_is_twenty_tokens_and_no_token_is_unknown() -> None:
    _, processor = trained()
    inputs = inputs_for(processor, [Question(HELD_OUT[0], SIZE, False, "audio")], [heard()[0].clip])
    ids = inputs["input_ids"][0]
    at = (ids == processor.audio_token_id).nonzero().flatten().tolist()
    assert at == list(range(at[0], at[0] + 20))
    assert processor.tokenizer.unk_token_id not in ids


def test_inputs_are_what_the_processor_makes() -> None:
    _, processor = trained()
    clips = [h.clip for h in heard()[:3]]
    asked = [Question(clip.word, SIZE, False, "audio") for clip in clips]
    made = through_processor(asked, clips)
    short = inputs_for(processor, asked, clips)
    assert short.keys() == made.keys()
    assert made["feature_attention_mask"].sum(1).tolist() == [80, 80, 80]
    torch.testing.assert_close(short["input_features"], made["input_features"][..., :80])
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(short[name], made[name])


def test_vision_start_survives_saving() -> None:
    model, processor = trained()
    place = processor.tokenizer.convert_tokens_to_ids("<|vision_bos|>")
    assert model.config.vision_start_token_id == place


# The answers


@pytest.mark.parametrize("name", ["size", "sharpness"])
def test_numbers_are_right_on_unseen_spoken_words(name: str) -> None:
    assert hearing()[f"audio, {name}: number right"] >= 0.95


def test_numbers_are_right_on_unseen_written_words() -> None:
    found = reading_checks(*trained())
    assert len(found) == 4 + 2
    assert min(found.values()) >= 0.95, found


def test_without_the_vowel_the_size_is_a_guess_and_the_sharpness_stays() -> None:
    # Four standard errors around one half at 240 clips: 4 * sqrt(1/2 * 1/2 / 240) = 0.129.
    assert abs(hearing()["vowel silenced, size: number right"] - 0.5) <= 0.129
    assert hearing()["vowel silenced, sharpness: same number"] >= 0.95


def test_without_the_consonant_the_sharpness_is_a_guess_and_the_size_stays() -> None:
    assert abs(hearing()["consonant silenced, sharpness: number right"] - 0.5) <= 0.129
    assert hearing()["consonant silenced, size: number right"] >= 0.95


def test_another_vowel_turns_the_size_and_not_the_sharpness() -> None:
    assert hearing()["vowel exchanged, size: the other number"] >= 0.95
    assert hearing()["vowel exchanged, sharpness: same number"] >= 0.95


def test_an_exchanged_vowel_is_the_only_change() -> None:
    for h in heard()[:12]:
        start, end = h.clip.spans[h.clip.word.vowel.name]
        changed = np.flatnonzero(h.clip.wave != h.other_vowel.wave)
        assert start <= changed.min() < changed.max() < end
        assert h.other_vowel.word.sides[SIZE] != h.clip.word.sides[SIZE]


def test_an_untrained_model_guesses_at_best() -> None:
    clips = [h.clip for h in heard()[:60]]
    asked = [Question(c.word, PAIRS[i % 2], i % 4 > 1, "audio") for i, c in enumerate(clips)]
    written = answers(control(), trained()[1], asked, clips)
    assert (written == [q.answer for q in asked]).mean() <= 0.7


# The attention


def test_a_head_moves_with_the_question() -> None:
    head, found = moving(listening())
    assert found["moves"] > 0.5, head  # 2 at most; no question asked would give 0
    assert found["vowel share, asked for size"] > found["consonant share, asked for size"]
    assert found["consonant share, asked for sharpness"] > found["vowel share, asked for sharpness"]
    assert found["mass on the clip"] >= 0.3


def test_a_head_points_at_the_vowel() -> None:
    _, found = pointing(listening().attention[SIZE], listening().vowel, sizes())
    assert found["hit"] >= 0.7
    assert found["chance"] < 0.25
    assert found["mass"] >= 0.3


def test_no_head_of_an_untrained_model_moves_or_points() -> None:
    seen = listen(control(), trained()[1], heard())
    assert moving(seen)[1]["moves"] < 0.1
    assert pointing(seen.attention[SIZE], seen.vowel, sizes())[1]["hit"] < 0.5


def test_heads_are_measured_on_the_half_that_did_not_choose() -> None:
    frames = np.zeros((4, 20), dtype=bool)
    frames[:, 5] = True
    seen = np.full((4, 1, 1, 2, 20), 0.01)
    seen[:2, 0, 0, 1, 5] = 0.8  # head 1 wins the first half
    seen[2:, 0, 0, 0, 5] = 0.9  # head 0 would win the second
    seen[3, 0, 0, 1, 5] = 0.21
    head, found = pointing(seen, frames, np.array(["big", "small", "big", "small"]))
    assert (head.layer, head.head) == (0, 1)
    assert found["mass"] == pytest.approx((0.01 + 0.21) / 2)
    assert found["share"] == pytest.approx((1 / 20 + 0.21 / 0.4) / 2)
    assert found["hit"] == 0.5  # in the last clip; in the third all frames are equal
    assert (found["hit, big"], found["hit, small"]) == (0, 1)
    assert found["chance"] == pytest.approx(1 / 20)


def test_moves_is_the_arithmetic_of_four_shares() -> None:
    vowel, consonant = np.zeros((2, 2, 20), dtype=bool)
    vowel[:, :4], consonant[:, 10:12] = True, True
    seen = {pair: np.zeros((2, 1, 1, 1, 20)) for pair in PAIRS}
    seen[SIZE][..., 0], seen[SIZE][..., 19] = 0.3, 0.1
    seen[EDGE][..., 10], seen[EDGE][..., 1] = 0.15, 0.05
    _, found = moving(Listening(seen, vowel, consonant))
    assert found["vowel share, asked for size"] == pytest.approx(0.75)
    assert found["consonant share, asked for sharpness"] == pytest.approx(0.75)
    assert found["moves"] == pytest.approx(0.75 - 0 - 0.25 + 0.75)
    assert found["mass on the clip"] == pytest.approx((0.4 + 0.2) / 2)


# The shipped files


def test_weights_are_half_precision_and_small() -> None:
    folder = weights_path(WEIGHTS)
    assert sum(f.stat().st_size for f in folder.glob("*.safetensors")) <= MAX_WEIGHT_BYTES
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert "Tried: Seed 0" in (folder / "CARD.md").read_text()


def test_shipped_clips_are_answered_through_the_processor() -> None:
    model, processor = trained()
    right = []
    for turn, language in enumerate(LANGUAGES):
        clips = []
        for word in HELD_OUT:
            path = speech_semdim.FOLDER / f"audio/{language}/{word.written(language)}.wav"
            with wave.open(str(path), "rb") as file:
                samples = np.frombuffer(file.readframes(12_800), "<i2")
            clips.append(speech.Clip(word, (samples / 32768).astype(np.float32), {}))
        asked = [
            Question(word, PAIRS[(i + turn) % 2], i % 4 > 1, "audio")
            for i, word in enumerate(HELD_OUT)
        ]
        inputs = through_processor(asked, clips)
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        written = processor.batch_decode(new, skip_special_tokens=True)
        right += [text.strip() == q.answer for text, q in zip(written, asked, strict=True)]
    assert len(right) == 48
    assert sum(right) >= 46


# The training


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_echoes_stand_where_the_words_are(data_type: str) -> None:
    processor = build_processor()
    question = Question(WORDS[2], SIZE, True, data_type)
    tokens = processor.tokenizer.tokenize(chat_prompt(processor, question) + "1<|im_end|>")
    assert tokens[DIMENSION_AT] == "big"
    assert [tokens[place] for place in OPTIONS_AT] == ["small", "big"]
    assert tokens[FULL_STOP_AT] == "."


def test_a_drill_s_number_is_its_word_s() -> None:
    for drill in match_drill(np.random.default_rng(8)):
        assert drill.sides[int(drill.answer) - 1] == drill.written
        assert drill.sides[0] != drill.sides[1]


def test_spread_is_the_entropy_over_the_clip() -> None:
    pattern = torch.zeros(1, 1, 60, 60)
    pattern[..., DIMENSION_AT, 3:23] = 0.01  # all of the clip alike: log 20
    for place in OPTIONS_AT:
        pattern[..., place, [4, 9]] = 0.3  # two frames: log 2; what lies outside does not count
        pattern[..., place, 40] = 0.4
    found = spread([pattern, torch.full_like(pattern, torch.nan)], first=3)
    assert found.item() == pytest.approx((np.log(20) + 2 * np.log(2)) / 3, abs=1e-3)


SHORT = (
    Phase("learn", steps=1, peak=1e-3, warm_up=1, fall=1),
    Phase("focus", steps=1, peak=1e-3, warm_up=1, fall=1, focus=0.1),
)


def test_training_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"N_CLIPS": 40, "N_HALF_CLIPS": 10}
    sizes |= {f"{kind}_BATCH": 6 for kind in ("AUDIO", "TEXT", "DRILL")}
    for name, size in sizes.items():
        monkeypatch.setattr(f"interp_lab.zoo.tiny_omni.train.{name}", size)
    states = []
    for _ in range(2):
        model = build_model(3)
        train(model, build_processor(), seed=3, phases=SHORT)
        states.append(model.state_dict())
    start = build_model(3).state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in start)
    assert any(not torch.equal(states[0][name], start[name]) for name in start)
