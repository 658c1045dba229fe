"""Models that hear, by their id: when each token hears, spans, and semdim's numbers."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import audio_cases
import numpy as np
import pytest
import torch
from test_qwen_omni import spoken

from interp_lab.capture.session import watch
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.audio_lm import AudioLM
from interp_lab.models.placing import sound
from interp_lab.models.placing.sound import Heard
from interp_lab.studies.semdim.analysis import SemanticDimensionAttention

CPU = torch.device("cpu")
RATE = 16_000
FAMILIES = ("qwen2_audio", "voxtral", "qwen2_5_omni", "qwen3_omni")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, AudioLM] = {}

    def get(name: str) -> AudioLM:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            architecture = getattr(audio_cases, name)(folder)
            made[name] = AudioLM(
                "none",
                CPU,
                dtype="float32",
                init="random",
                architecture=architecture,
                processor=str(folder),
                max_new_tokens=2,
            )
        return made[name]

    return get


def by_hand(name: str, count: int) -> np.ndarray:
    """Centres by the arithmetic of each encoder; spectra have a frame every 10 ms, from 0 on."""
    t = np.arange(count)
    if name in (
        "qwen2_audio",
        "qwen2_5_omni",
        "audio_flamingo",
    ):  # frames halved, then averaged in pairs
        return 0.01 + 0.04 * t
    if name == "voxtral":  # frames halved, then four together
        return 0.03 + 0.08 * t
    return t // 13 + 0.08 * (t % 13)  # halved three times within seconds of 13 tokens each


@pytest.mark.parametrize("name", [*FAMILIES, "audio_flamingo"])
def test_tokens_hear_when_arithmetic_says(models: Any, name: str) -> None:
    heard = models(name)._longest_heard[1]
    live = ~np.isnan(heard.centres)
    assert live.sum() == {"voxtral": 31, "qwen3_omni": 31}.get(name, 60)
    off = np.abs(heard.centres - by_hand(name, len(live)))[live]
    # The tokens at both ends of a second's window hear less than the others, on one side.
    limit = 0.04 if name == "qwen3_omni" else 0.006
    assert off[1:-1].max() < limit and heard.even == (name != "qwen3_omni")
    assert np.median(off) < 0.006
    assert heard.width == pytest.approx(
        {"voxtral": 0.13, "qwen3_omni": 0.15}.get(name, 0.1), abs=0.03
    )


def test_a_trained_model_in_half_precision_is_measured_as_well() -> None:
    heard = AudioLM("zoo:tiny_omni", CPU)._longest_heard[1]
    np.testing.assert_allclose(heard.centres, by_hand("qwen2_5_omni", 60), atol=0.006)


@pytest.mark.parametrize("name", FAMILIES)
def test_spans_and_times_of_a_prompt(models: Any, name: str) -> None:
    model = models(name)
    samples = [spoken(0.8, name="a"), spoken(1.3, name="b")]
    for seen, seconds in zip(model.prepare(samples).seen, (0.8, 1.3), strict=True):
        tokens = seen.tokens
        heard = tokens.where(modality="audio")
        step = model._longest_heard[1].step
        assert len(heard) == pytest.approx(seconds / step, abs=1.1)
        times = [tokens.tokens[i].seconds for i in heard]
        assert times[0][0] < step and abs(times[-1][1] - seconds) < 1.6 * step
        assert all(a[1] == b[0] for a, b in pairwise(times))
        padding = tokens.where(role="pad")
        assert all(tokens.tokens[i].seconds is None for i in padding)
        assert len(heard) + len(padding) == (375 if name == "voxtral" else len(heard))
        for label, word in (("dim1", "big"), ("dim2", "small")):
            found = tokens.where(role="option", label=label)
            assert "".join(tokens.tokens[i].text for i in found).strip() == word


@pytest.mark.parametrize("name", FAMILIES)
def test_semdim_on_speech_equals_the_models_own_eager_attention(models: Any, name: str) -> None:
    model = models(name)
    study = SemanticDimensionAttention().for_model(model)
    prepared = model.prepare([spoken(0.8)])
    [seen] = prepared.seen
    plans = study.plans(seen.tokens)
    with torch.inference_mode():
        with watch(model, prepared, [plans]) as capture:
            model.forward(prepared.inputs)
        model.module.set_attn_implementation("eager")
        try:
            truth = model.module(**prepared.inputs, output_attentions=True, use_cache=False)
        finally:
            model.module.set_attn_implementation("sdpa")
    plan = plans["fraction"]
    found = capture.rows[0]["fraction"].values
    for layer, whole in enumerate(truth.attentions):
        block = whole[0][:, list(plan.queries)][:, :, list(plan.keys)]
        torch.testing.assert_close(found[layer], block, atol=1e-6, rtol=0)
    assert all(seen.tokens.tokens[k].seconds for k in plan.keys)


def test_clips_of_different_length_in_one_batch_answer_like_one_by_one(models: Any) -> None:
    model = models("qwen2_audio")
    samples = [spoken(0.8, name="a"), spoken(0.5, name="b")]
    with torch.inference_mode():
        together = model.run(model.prepare(samples))
        alone = [model.run(model.prepare([s]))[0] for s in samples]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.first_logits, b.first_logits, atol=1e-4, rtol=0)


def test_text_alone_is_read(models: Any) -> None:
    sample = Sample("t", parts=(("text", "Is it big?"),))
    tokens = models("qwen2_5_omni").prepare([sample]).seen[0].tokens
    assert tokens.where(modality="audio") == ()
    assert "".join(tokens.tokens[i].text for i in tokens.where(role="user")) == "Is it big?"


def test_a_clip_at_another_rate_is_refused(models: Any) -> None:
    with pytest.raises(SampleError, match="48000 Hz, the model hears 16000 Hz"):
        models("qwen2_5_omni").prepare([spoken(rate=48_000)])


def test_a_clip_longer_than_the_model_hears_is_refused(tmp_path: Path) -> None:
    """An extractor of 2 seconds cuts what comes after, without a word."""
    architecture = audio_cases.qwen2_audio(tmp_path, seconds=2)
    model = AudioLM(
        "none", CPU, dtype="float32", init="random", architecture=architecture,
        processor=str(tmp_path),
    )  # fmt: skip
    with pytest.raises(SampleError, match=r"2\.6 s of audio, the model hears the first 1\.9\d+ s"):
        model.prepare([spoken(2.6)])


@pytest.mark.parametrize("shift", [1, -1, 3])
def test_a_map_that_is_off_by_tokens_is_caught_by_the_check(models: Any, shift: int) -> None:
    model = models("qwen2_5_omni")
    good = model._longest_heard[1]
    args = model._listen, round(1.2 * RATE), RATE, "x"
    assert np.isfinite(sound.check(good, *args).centres).all()
    wrong = Heard(good.centres + shift * good.step, good.width, good.even)
    with pytest.raises(UnsupportedModelError, match="do not hear the stretch"):
        sound.check(wrong, *args)


def tokens_of(clips: Any, centres: np.ndarray, half: float) -> np.ndarray:
    """A model of arithmetic: each token is what it hears, every tenth number of it."""
    found = []
    for clip in clips:
        at = np.arange(len(clip)) / RATE
        heard = [clip[np.abs(at - c) < half] for c in centres]
        found.append([np.r_[h[::10], np.zeros(3200)][:3200] for h in heard])
    return np.array(found)


def test_measuring_takes_few_forwards() -> None:
    """The bands one by one would be 240 for 6 s."""
    clips: list[Any] = []

    def listen(waves: Any) -> np.ndarray:
        clips.extend(waves)
        return tokens_of(waves, np.arange(10) * 0.5 + 0.4, 0.05)

    sound.measure(listen, 6 * RATE, RATE, "x")
    assert len(clips) == 1 + 1 + sound.BANDS + 2 * 4


@pytest.mark.parametrize("seconds", [0.7, 2.4, 5.0])
def test_uneven_tokens_and_padding_are_found(seconds: float) -> None:
    centres = np.cumsum(np.tile([0.05, 0.09], 200))[: int(seconds / 0.07) - 1]
    padded = np.r_[centres, seconds + 1, seconds + 2]
    listen = lambda clips: tokens_of(clips, padded, 0.05)  # noqa: E731
    heard = sound.measure(listen, round(seconds * RATE), RATE, "x")
    assert np.isnan(heard.centres[-2:]).all() and heard.times()[-1] is None
    off = np.abs(heard.centres[1:-3] - centres[1:-1])
    assert off.max() < sound.BAND / 2 and not heard.even


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        (lambda clips: tokens_of(clips, np.full(5, 1.0), 1.0), "mix the clip"),
        (lambda clips: tokens_of(clips, np.arange(8)[::-1] * 0.2 + 0.3, 0.05), "do not rise"),
        (lambda clips: np.zeros((len(clips), 4, 3)), "follows the sound"),
    ],
)
def test_what_has_no_time_is_refused(listen: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        sound.measure(listen, 2 * RATE, RATE, "x")


def test_a_model_that_does_not_run_on_noise_is_one_line(tmp_path: Path) -> None:
    """An extractor of 30 seconds beside a tower that takes 3."""
    architecture = audio_cases.qwen2_audio(tmp_path)
    audio_cases.qwen2_audio(tmp_path, seconds=30)
    with pytest.raises(UnsupportedModelError, match="does not run on a clip of noise") as raised:
        AudioLM(
            "none", CPU, dtype="float32", init="random", architecture=architecture,
            processor=str(tmp_path),
        )  # fmt: skip
    assert "\n" not in str(raised.value)


def test_a_model_that_does_not_hear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'llama'.*hears and writes"):
        AudioLM("none", CPU, init="random", architecture={"model_type": "llama"})
    with pytest.raises(ConfigError, match="no model.architecture|has none"):
        AudioLM("none", CPU, init="random")
