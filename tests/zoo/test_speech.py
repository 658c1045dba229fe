"""Made-up words are spoken and written as their truth says."""

import json
import unicodedata
import wave
from pathlib import Path

import numpy as np
import pytest

from interp_lab.zoo import speech, speech_semdim
from interp_lab.zoo.speech import HELD_OUT, LANGUAGES, RATE, TRAINING, WORDS, Clip, speak, without


def loudness(clip: Clip, start: int, end: int) -> float:
    """Root mean square of a stretch of the clip."""
    return float(np.sqrt(np.mean(clip.wave[start:end] ** 2)))


@pytest.mark.parametrize("word", WORDS[::5], ids=lambda w: w.romanization)
def test_sound_is_where_the_spans_are_and_nowhere_else(word: speech.Word) -> None:
    clip = speak(word, np.random.default_rng(3))
    assert clip.wave.shape == (12_800,)
    assert clip.wave.dtype == np.float32
    assert np.abs(clip.wave).max() < 0.7
    first, second = (clip.spans[phone.name] for phone in word.phones)
    assert 0 < first[0] < first[1] < second[0] < second[1] < len(clip.wave)
    for start, end in (first, second):
        assert loudness(clip, start, end) > 4 * speech.NOISE
    for start, end in ((0, first[0]), (first[1], second[0]), (second[1], len(clip.wave))):
        assert loudness(clip, start, end) < 1.3 * speech.NOISE


def test_a_frame_belongs_to_the_phone_at_its_middle() -> None:
    word = WORDS[0]
    clip = Clip(word, np.zeros(12_800, np.float32), {"K": (641, 1600), "IY0": (2500, 4800)})
    # Middles are at 320, 960, 1600, 2240, 2880, 3520, 4160, 4800, ... samples.
    assert clip.frames(word.consonant).nonzero()[0].tolist() == [1]
    assert clip.frames(word.vowel).nonzero()[0].tolist() == [4, 5, 6]
    assert clip.alignment("kee") == {
        "word": "kee",
        "sampling_rate": 16000,
        "frame_duration_ms": 40,
        "phones": [None, "K", None, None, "IY0", "IY0", "IY0"] + [None] * 13,
    }


def test_silencing_a_phone_leaves_every_other_sample() -> None:
    clip = speak(WORDS[7], np.random.default_rng(4))
    quiet = without(clip, clip.word.vowel, np.random.default_rng(5))
    start, end = clip.spans[clip.word.vowel.name]
    assert loudness(quiet, start, end) < 1.3 * speech.NOISE
    changed = np.flatnonzero(clip.wave != quiet.wave)
    assert changed.min() >= start
    assert changed.max() < end


def test_a_vowel_is_told_from_another_by_its_formants() -> None:
    def brightness(vowel: int) -> float:
        """Power from 1900 to 2800 Hz against that from 900 to 1500 Hz."""
        word = speech.Word(speech.CONSONANTS[0], speech.VOWELS[vowel], False)
        clip = speak(word, np.random.default_rng(6))
        start, end = clip.spans[word.vowel.name]
        power = np.abs(np.fft.rfft(clip.wave[start:end], RATE)) ** 2  # one value a hertz
        return float(power[1900:2800].sum() / power[900:1500].sum())

    front, open_front, central, back = (brightness(vowel) for vowel in range(4))
    assert min(front, open_front) > 3
    assert max(central, back) < 1 / 3


def test_held_out_words_are_balanced_and_made_of_known_phones() -> None:
    assert (len(HELD_OUT), len(TRAINING)) == (12, 36)
    sides = [tuple(word.sides.values()) for word in HELD_OUT]
    assert {side: sides.count(side) for side in set(sides)} == {
        ("small", "sharp"): 3,
        ("big", "sharp"): 3,
        ("small", "round"): 3,
        ("big", "round"): 3,
    }
    assert sum(word.vowel_first for word in HELD_OUT) == 6
    for kind in ("consonant", "vowel"):
        assert {getattr(w, kind).name for w in HELD_OUT} == {
            getattr(w, kind).name for w in TRAINING
        }


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_differ_in_every_script_and_are_composed(language: str) -> None:
    written = [word.written(language) for word in WORDS]
    assert len(set(written)) == len(WORDS)
    assert all(unicodedata.is_normalized("NFC", text) for text in written)


def test_a_word_in_all_its_forms() -> None:
    word = next(w for w in WORDS if w.romanization == "chaa")
    assert [word.written(language) for language in LANGUAGES] == ["chah", "tchâ", "치아", "チァ"]
    assert word.ipa == "t͡ʃ ɑː"
    assert word.sides == {"big-small": "big", "sharp-round": "sharp"}
    turned = next(w for w in WORDS if w.romanization == "aach")
    assert turned.written("ja") == "アチ"  # a full-size sign at the beginning


def test_the_shipped_files_are_what_the_command_writes(tmp_path: Path) -> None:
    speech_semdim.write(tmp_path)
    shipped = sorted(p for p in speech_semdim.FOLDER.rglob("*") if p.is_file())
    assert len(shipped) == 1 + 2 * 4 * 12
    assert sum(p.stat().st_size for p in shipped) < 3_000_000
    for path in shipped:
        again = tmp_path / path.relative_to(speech_semdim.FOLDER)
        if path.suffix == ".wav":  # another numpy may round the last bit in another way
            pair = [np.frombuffer(p.read_bytes()[44:], "<i2").astype(int) for p in (path, again)]
            assert np.abs(pair[0] - pair[1]).max() <= 1, path
        else:
            assert path.read_text() == again.read_text(), path


def test_the_shipped_words_have_their_clips_and_alignments() -> None:
    words = json.loads((speech_semdim.FOLDER / "words.json").read_text())
    assert list(words) == list(LANGUAGES)
    for language, records in words.items():
        for place, record in enumerate(records):
            name = f"{language}/{record['word']}"
            with wave.open(str(speech_semdim.FOLDER / "audio" / f"{name}.wav"), "rb") as file:
                form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
                assert form == (16_000, 1, 2)
                assert file.getnframes() == 12_800
            aligned = json.loads((speech_semdim.FOLDER / "alignment" / f"{name}.json").read_text())
            assert len(aligned["phones"]) == 20
            spoken = {phone.name for phone in HELD_OUT[place].phones}
            assert set(aligned["phones"]) == {None, *spoken}
