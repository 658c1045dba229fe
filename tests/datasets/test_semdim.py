"""Semantic-dimension files: what is chosen, what a sample holds, and each way to be damaged."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir

from interp_lab.config.nodes import check_arguments, conf_dir, plain
from interp_lab.datasets.semdim import SemanticDimensions
from interp_lab.errors import ConfigError, InterpLabError, MissingInputError, SampleError

Record = dict[str, Any]
Make = Callable[..., SemanticDimensions]
RATE = 16_000


def word(text: str, answers: dict[str, str] | None = None, **changes: Any) -> Record:
    """A record with the answer of each pair."""
    answers = {"big-small": "small"} if answers is None else answers
    return {
        "word": text,
        "ipa": "æ t͡ʃ u",
        "romanization": "achoo",
        "word_group": "common",
        "dimensions": {pair: {"answer": answer} for pair, answer in answers.items()},
        **changes,
    }


def sound(path: Path, wave: np.ndarray | None = None, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)
    soundfile.write(path, tone if wave is None else wave, rate, subtype="FLOAT")
    return path


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes words and opens them, as text unless said otherwise."""

    def write(words: Any, **options: Any) -> SemanticDimensions:
        file = tmp_path / "words.json"
        text = words if isinstance(words, str) else json.dumps(words)
        file.write_text(text, encoding="utf-8")
        return SemanticDimensions(str(file), **{"data_type": "original", **options})

    return write


@pytest.fixture
def spoken(make: Make, tmp_path: Path) -> Make:
    """The same for audio, in a folder `audio` and with alignments in `aligned`."""
    (tmp_path / "audio" / "en").mkdir(parents=True)
    (tmp_path / "aligned").mkdir()
    places = {"audio_root": str(tmp_path / "audio"), "alignment_dir": str(tmp_path / "aligned")}

    def write(words: Any, **options: Any) -> SemanticDimensions:
        return make(words, **{"data_type": "audio", **places, **options})

    return write


def shown(dataset: SemanticDimensions, index: int) -> list[tuple[str, str]]:
    """Label and text of each span of a sample."""
    sample = dataset.load(index)
    return [(s.label, sample.parts[s.part][1][s.start : s.end]) for s in sample.facts["spans"]]


def test_both_orders_of_every_pair_are_samples(make: Make) -> None:
    dataset = make({"en": [word("achoo", {"big-small": "small", "fast-slow": "fast"})]})
    assert dataset.ids() == [
        "en/achoo/big-small/plain",
        "en/achoo/big-small/flipped",
        "en/achoo/fast-slow/plain",
        "en/achoo/fast-slow/flipped",
    ]
    samples = [dataset.load(i) for i in range(4)]
    assert [s.id for s in samples] == dataset.ids()
    assert [s.answer for s in samples] == ["2", "1", "1", "2"]
    flipped = samples[1].facts
    assert {k: v for k, v in flipped.items() if k != "spans"} == {
        "word": "achoo",
        "written": "achoo",
        "language": "en",
        "data_type": "original",
        "word_group": "common",
        "dimension1": "small",
        "dimension2": "big",
        "pair": "big-small",
        "flipped": True,
        "options": {"1": "small", "2": "big"},
        "phones": (),
        "phone_unit": "",
    }
    assert shown(dataset, 1) == [
        ("word", "achoo"),
        ("dim1", "small"),
        ("dim2", "big"),
        ("number1", "1"),
        ("dim1", "small"),
        ("number2", "2"),
        ("dim2", "big"),
    ]
    assert "1: small\n2: big" in samples[1].parts[0][1]


def test_without_flip_only_the_canonical_order_is_asked(make: Make) -> None:
    words = {
        "en": [word("a", {"small-big": "small", "zig-zag": "zag"}), word("b", {"zag-zig": "zag"})]
    }
    dataset = make(words, flip=False)
    # big-small is the study's order; zig-zag is the one that comes first in the file.
    assert dataset.ids() == ["en/a/big-small/plain", "en/a/zig-zag/plain", "en/b/zig-zag/plain"]
    assert [dataset.load(i).answer for i in range(3)] == ["2", "2", "2"]
    assert dataset.load(0).facts["dimension1"] == "big"


@pytest.mark.parametrize("text", ["sound", "smal", "1", "vs", "feature"])
def test_a_word_that_also_stands_elsewhere_is_the_one_in_its_block(make: Make, text: str) -> None:
    sample = make({"en": [word(text)]}).load(0)
    (span,) = [s for s in sample.facts["spans"] if s.role == "word"]
    prompt = sample.parts[span.part][1]
    assert prompt.count(text) > 1
    assert prompt[: span.start].endswith("[WORD]\n") and prompt[span.end :].startswith("\n\n[")


@pytest.mark.parametrize(
    ("data_type", "written", "phones"),
    [
        ("original", "café", ()),
        ("romanized", "achoo", ()),
        ("ipa", "ã t͡ʃ ɯː", (("ã", 0, 1), ("t͡ʃ", 2, 5), ("ɯː", 6, 8))),
    ],
)
def test_mixed_unicode_forms_are_one(
    make: Make, data_type: str, written: str, phones: tuple[Any, ...]
) -> None:
    # NFD letters, and spaces that are not phones.
    record = word(unicodedata.normalize("NFD", "café"), ipa="a\u0303 t͡ʃ  ɯː ")
    dataset = make({"fr": [record]}, data_type=data_type)
    assert dataset.ids()[0] == "fr/café/big-small/plain"
    facts = dataset.load(0).facts
    assert (facts["word"], facts["written"]) == ("café", written)
    assert facts["phones"] == phones
    assert facts["phone_unit"] == ("char" if data_type == "ipa" else "")
    assert [written[a:b] for _, a, b in phones] == [label for label, _, _ in phones]


def test_korean_and_japanese_stay_whole(make: Make) -> None:
    texts = {"ko": "꼬끼오", "ja": "ガタガタ"}
    words = {k: [word(unicodedata.normalize("NFD", t))] for k, t in texts.items()}
    dataset = make(words)
    for index, text in ((0, "꼬끼오"), (2, "ガタガタ")):
        assert dataset.load(index).facts["written"] == text
        assert shown(dataset, index)[0] == ("word", text)
        assert len(text) == len(shown(dataset, index)[0][1])


def test_languages_groups_pairs_and_numbers_are_chosen(make: Make) -> None:
    both = {"big-small": "big", "sharp-round": "round"}
    words = {
        "en": [word("a", both), word("b", {}), word("c", both, word_group="rare"), word("d", both)],
        "ko": [word("e", {"big-small": "big"}), word("f", both)],
    }

    def names(**options: Any) -> list[str]:
        return [i.removesuffix("/plain") for i in make(words, flip=False, **options).ids()]

    assert names(language="ko") == ["ko/e/big-small", "ko/f/big-small", "ko/f/sharp-round"]
    assert names(language=["ko", "en"], dimensions=["round-sharp"]) == [
        "ko/f/sharp-round",
        "en/a/sharp-round",
        "en/c/sharp-round",
        "en/d/sharp-round",
    ]
    assert names(word_group="rare", dimensions="big-small") == ["en/c/big-small"]
    assert names(max_samples=1, dimensions=["big-small"]) == ["en/a/big-small", "ko/e/big-small"]
    counted = make(words, dimensions=["sharp-round"])
    assert (counted.n_words, len(counted.ids())) == (4, 8)
    assert (counted.skipped_without_dimensions, counted.skipped_by_dimensions) == (1, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"language": "xx"}, "dataset.language=xx: unknown. Known: en, ja"),
        ({"language": ["en", "jaa"]}, "dataset.language=jaa: unknown. Did you mean 'ja'?"),
        ({"language": []}, "dataset.language: the list is empty"),
        ({"word_group": "comon"}, "Did you mean 'common'? Known in the chosen languages: common"),
        ({"dimensions": ["big-smal"]}, "dataset.dimensions=big-smal: unknown. Did you mean 'big-s"),
        ({"dimensions": ["x-y"]}, "good-bad, beautiful-ugly"),
        ({"dimensions": ["x-y"]}, "zig-zag"),
        ({"dimensions": ["hard-soft"]}, "no word is left to measure (1 without dimensions, 2 with"),
        ({"data_type": "adio"}, "dataset.data_type=adio: unknown. Did you mean 'audio'? Known: or"),
        ({"max_samples": 0}, "dataset.max_samples=0"),
        ({"data_type": "audio"}, "dataset.audio_root is not given"),
        ({"data_type": "audio", "audio_root": "."}, "has no folder 'en'; choose others with"),
        ({"data_type": "audio", "audio_root": "nowhere"}, "dataset.audio_root=nowhere: no such"),
        ({"prompt_file": "nowhere"}, "dataset.prompt_file=nowhere: no such"),
    ],
)
def test_a_wrong_choice_is_one_line_before_the_model_is_loaded(
    make: Make, options: dict[str, Any], says: str
) -> None:
    words = {"en": [word("a", {"zig-zag": "zig"}), word("b", {})], "ja": [word("c")]}
    with pytest.raises(InterpLabError) as refused:
        make(words, **options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ("{", MissingInputError, "not JSON"),
        ([], ConfigError, "should be an object, language -> list of words"),
        ({"en": {}}, ConfigError, "'en' should hold a list of words"),
        ({"en": [], "ja": []}, ConfigError, "holds no word"),
        ({"../en": [word("a")]}, ConfigError, "cannot be the name of a language"),
    ],
)
def test_a_file_without_words_is_refused(
    make: Make, words: Any, error: type[InterpLabError], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(words)


@pytest.mark.parametrize(
    ("record", "name", "says"),
    [
        ("achoo", "record 1", "word: should be a text"),
        ({"dimensions": {}}, "record 1", "word: should be a text"),
        (word(" "), "record 1", "word: should be a text"),
        (word("\ud800"), "record 1", "word: should be a text"),
        ({"word": "b"}, "b", "dimensions: should be an object"),
        (word("b", dimensions=["big-small"]), "b", "dimensions: should be an object"),
        (word("b", {"big-small": "smal"}), "b/pair 0", "answer of 'big-small' is 'smal', not big"),
        (word("b", dimensions={"big-small": "big"}), "b/pair 0", "answer of 'big-small' is None"),
        (word("b", {"bigsmall": "big"}), "b/pair 0", "'bigsmall' should be two features"),
        (word("b", {"big-": "big"}), "b/pair 0", "'big-' should be two features"),
    ],
)
def test_a_damaged_record_fails_alone_and_by_name(
    make: Make, record: Any, name: str, says: str
) -> None:
    dataset = make({"en": [word("a"), record, word("c")]}, flip=False)
    ids = ["en/a/big-small/plain", f"en/{name}", "en/c/big-small/plain"]
    assert dataset.ids() == ids
    with pytest.raises(SampleError, match=says):
        dataset.load(1)
    assert [dataset.load(i).id for i in (0, 2)] == [ids[0], ids[2]]


def test_a_pair_given_twice_and_a_missing_field_fail(make: Make) -> None:
    record = word("a", {"big-small": "big", "small-big": "big"}, romanization=None)
    dataset = make({"en": [record]})
    assert dataset.ids()[2:] == ["en/a/pair 1"]
    with pytest.raises(SampleError, match="'small-big' names a pair that was given before"):
        dataset.load(2)
    for data_type, says in (("romanized", "romanization: should be a text, is None"),):
        with pytest.raises(SampleError, match=says):
            make({"en": [record]}, data_type=data_type).load(0)


def test_a_damaged_record_is_not_lost_to_a_filter(make: Make) -> None:
    words = {"en": [word("a"), "b", word("c", {"bigsmall": "big"})]}
    dataset = make(words, word_group="common", dimensions=["big-small"], flip=False)
    assert dataset.ids() == ["en/a/big-small/plain", "en/record 1", "en/c/pair 0"]


def test_ids_are_unique_and_stay_whatever_is_chosen(make: Make) -> None:
    nfd = unicodedata.normalize("NFD", "é")
    texts = ["bank", "é", "bank", nfd, "bank (2)", "and/or", "and|or", "bank"]
    pairs = {"big-small": "big", "fast-slow": "slow"}
    words = {
        "en": [word(t, pairs, word_group=str(i)) for i, t in enumerate(texts)],
        "fr": [word("bank", pairs, word_group="7")],
    }
    every = make(words).ids()
    assert len(set(every)) == len(every) == 9 * 4
    assert every[2 * 4] == "en/bank (2)'/big-small/plain"  # the word `bank (2)` has that name
    assert every[4 * 4] == "en/bank (2)/big-small/plain"
    assert every[5 * 4].startswith("en/and|or/") and every[6 * 4].startswith("en/and|or (2)/")
    assert make(words).ids() == every
    assert make(words, word_group="7", dimensions=["fast-slow"]).ids() == [
        "en/bank (3)/fast-slow/plain",
        "en/bank (3)/fast-slow/flipped",
        "fr/bank/fast-slow/plain",
        "fr/bank/fast-slow/flipped",
    ]


def test_a_spoken_word_is_heard_and_not_read(spoken: Make, tmp_path: Path) -> None:
    file = sound(tmp_path / "audio" / "en" / "achoo.wav")
    sample = spoken({"en": [word("achoo")]}).load(0)
    assert [kind for kind, _ in sample.parts] == ["text", "audio", "text"]
    assert "achoo" not in sample.parts[0][1] + sample.parts[2][1]
    ((waveform, rate),) = sample.audio
    assert (waveform.shape, waveform.dtype, rate) == ((8000,), np.float32, RATE)
    facts = sample.facts
    assert (facts["word"], facts["written"], facts["audio_file"]) == ("achoo", "", str(file))
    assert (facts["seconds"], facts["phones"], facts["phone_unit"]) == (0.5, (), "second")
    assert "trimmed" not in facts


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_the_file_of_a_word_is_found_in_both_unicode_forms(
    spoken: Make, tmp_path: Path, form: Any, suffix: str
) -> None:
    name = unicodedata.normalize(form, "가é")
    tone = 0.5 * np.sin(np.arange(8000))
    soundfile.write(tmp_path / "audio" / "en" / f"{name}{suffix}", tone, RATE)
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "가é")
    assert spoken({"en": [word(other)]}).load(0).facts["audio_file"].endswith(f"{name}{suffix}")


@pytest.mark.parametrize(
    ("name", "wave", "says"),
    [
        ("missing", None, "missing.wav: no such audio file, nor a .flac"),
        ("and/or", None, "no file can be named after 'and/or'"),
        ("bad", np.zeros(0), "holds no sound"),
        ("bad", np.full(8000, np.nan), "NaN"),
        ("bad", np.full(301 * RATE, 0.1), "301 s; no model here hears more than 300 s"),
    ],
)
def test_a_word_without_a_usable_sound_fails_and_is_not_read_as_text(
    spoken: Make, tmp_path: Path, name: str, wave: np.ndarray | None, says: str
) -> None:
    sound(tmp_path / "audio" / "en" / "good.wav")
    if wave is not None:
        sound(tmp_path / "audio" / "en" / f"{name}.wav", wave)
    dataset = spoken({"en": [word(name), word("good")]}, flip=False)
    with pytest.raises(SampleError, match=says):
        dataset.load(0)
    assert len(dataset.load(1).audio) == 1


def test_an_empty_file_fails_and_stereo_of_48_khz_is_heard(spoken: Make, tmp_path: Path) -> None:
    (tmp_path / "audio" / "en" / "empty.wav").touch()
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000)
    sound(tmp_path / "audio" / "en" / "wide.wav", np.stack([tone, tone], axis=1), 48_000)
    dataset = spoken({"en": [word("empty"), word("wide")]}, flip=False)
    with pytest.raises(SampleError, match="cannot be read as audio"):
        dataset.load(0)
    ((waveform, rate),) = dataset.load(1).audio
    assert (waveform.shape, rate) == ((8000,), RATE)


def align(path: Path, phones: Any, frame: Any = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"phones": phones, "frame_duration_ms": frame}), "utf-8")


def test_phones_are_runs_of_frames_and_silence_is_none(spoken: Make, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        sound(tmp_path / "audio" / "en" / f"{name}.wav")
    align(
        tmp_path / "aligned" / "en" / "a.json",
        [None, None, "M", "M", "IY0", None, "M"] + [None] * 5,
    )
    align(tmp_path / "aligned" / "b.json", ["a\u0303"] + [None] * 24, frame=20)
    dataset = spoken({"en": [word("a"), word("b"), word("c")]}, flip=False)
    labels, starts, ends = zip(*dataset.load(0).facts["phones"], strict=True)
    assert labels == ("M", "IY0", "M")
    assert (starts, ends) == (
        pytest.approx((0.08, 0.16, 0.24)),
        pytest.approx((0.16, 0.2, 0.28)),
    )
    assert dataset.load(1).facts["phones"] == (("ã", 0.0, 0.02),)
    assert dataset.load(2).facts["phones"] == ()


@pytest.mark.parametrize(
    ("phones", "frame", "says"),
    [
        ("M", 40, "phones should be a list"),
        ([1], 40, "phone 1 is neither a text nor null"),
        (["M"], None, "frame_duration_ms=None: should be a positive number"),
        (["M"], 0, "frame_duration_ms=0"),
        (["M"] * 6, 40, "6 frames are 0.24 s, the audio has 0.50 s"),
        ([None] * 20 + ["M"], 40, "the last phone ends at 0.84 s, the audio at 0.50 s"),
    ],
)
def test_an_alignment_that_does_not_fit_fails(
    spoken: Make, tmp_path: Path, phones: Any, frame: Any, says: str
) -> None:
    sound(tmp_path / "audio" / "en" / "a.wav")
    align(tmp_path / "aligned" / "a.json", phones, frame)
    with pytest.raises(SampleError, match=says):
        spoken({"en": [word("a")]}).load(0)


def test_trimming_is_recorded_and_moves_the_phones(spoken: Make, tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3200) / RATE)
    wave = np.concatenate([np.zeros(3200), tone, np.zeros(1600)])
    sound(tmp_path / "audio" / "en" / "a.wav", wave)
    align(tmp_path / "aligned" / "a.json", [None] * 4 + ["T"] * 3 + ["A"] * 3 + [None] * 2)
    sample = spoken({"en": [word("a")]}, trim_silence=True).load(0)
    assert sample.facts["trimmed"] == pytest.approx((0.2, 0.4))
    assert sample.facts["seconds"] == pytest.approx(0.2)
    assert len(sample.audio[0][0]) == 3200
    # T lies from 0.16 to 0.28 s: its first frame was cut off.
    assert [p[0] for p in sample.facts["phones"]] == ["T", "A"]
    times = [t for p in sample.facts["phones"] for t in p[1:]]
    assert times == pytest.approx([0, 0.08, 0.08, 0.2])


def test_own_prompts_are_used(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    prompt = {"user_prompt": "{dimension2}, {dimension1}: {word}"}
    content = {"semantic_dimension": {"semantic_dimension_binary_original": prompt}}
    file.write_text(json.dumps(content), "utf-8")
    dataset = make({"en": [word("small")]}, prompt_file=str(file))
    assert dataset.load(1).parts == (("text", "big, small: small"),)
    assert shown(dataset, 1) == [("dim2", "big"), ("dim1", "small"), ("word", "small")]


@pytest.mark.parametrize("option", ["semdim", "semdim_tiny"])
def test_the_yaml_gives_what_the_class_takes(option: str) -> None:
    given = ["dataset.data_file=words.json", f"dataset={option}"]

    def values(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", overrides=[*given, *overrides])
        return check_arguments(SemanticDimensions, plain(cfg.dataset), "dataset")

    found = values("dataset.language=[en,ko]", "dataset.data_type=ipa")
    assert (found["language"], found["data_type"], found["flip"]) == (["en", "ko"], "ipa", True)
    assert values("+analysis.flip=false")["flip"] is False
    with pytest.raises(ConfigError, match="dataset.data_type='ip'"):
        values("dataset.data_type=ip")


@pytest.mark.parametrize(
    "name", ["\u00e9te\u0301.WAV", "e\u0301te\u0301.wav", "\u00e9t\u00e9.Flac"]
)
def test_a_sound_is_found_in_any_spelling(spoken: Make, tmp_path: Path, name: str) -> None:
    kind = "FLAC" if name.lower().endswith("flac") else "WAV"
    (tmp_path / "audio" / "en").mkdir(parents=True, exist_ok=True)
    soundfile.write(
        tmp_path / "audio" / "en" / name, np.sin(np.arange(8000) / 5), RATE, format=kind
    )
    dataset = spoken({"en": [word("e\u0301t\u00e9")]}, flip=False)
    assert dataset.load(0).facts["audio_file"].endswith(name)


def test_two_sounds_of_one_word_are_an_error(spoken: Make, tmp_path: Path) -> None:
    for name in ("\u00e9te\u0301", "e\u0301te\u0301"):
        sound(tmp_path / "audio" / "en" / f"{name}.WAV")
    dataset = spoken({"en": [word("\u00e9t\u00e9")]}, flip=False)
    with pytest.raises(SampleError, match="2 files have this name"):
        dataset.load(0)
