"""Spoken words of one consonant and one vowel, made by arithmetic, with the truth about each.

The vowel decides whether a word is small or big, the consonant whether it is sharp or round. So
two questions about one clip have their answers in two different places, and it is known, to the
sample, where these are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
SECONDS = 0.8
FRAME_SECONDS = 0.04  # one audio token of Qwen2.5-Omni
N_FRAMES = round(SECONDS / FRAME_SECONDS)
NOISE = 0.01  # the faint noise under every clip; phones have peaks between 0.35 and 0.5

LANGUAGES = ("en", "fr", "ko", "ja")
SIZE, EDGE = "big-small", "sharp-round"
PAIRS = (SIZE, EDGE)

Wave = NDArray[np.float64]
Clipped = NDArray[np.float32]


@dataclass(frozen=True)
class Phone:
    """A phone and how it is written.

    name: as in alignment files (ARPAbet). side: what it decides. ipa, roman: in these alphabets.
    written: language -> spelling, one of its signs standing for this phone alone.
    """

    name: str
    side: str
    ipa: str
    roman: str
    written: dict[str, str]


def _phone(name: str, side: str, ipa: str, roman: str, spellings: str) -> Phone:
    return Phone(name, side, ipa, roman, dict(zip(LANGUAGES, spellings.split(), strict=True)))


# Kana and Hangul write a bare consonant with their neutral vowel, so that a sign is a phone.
CONSONANTS = (
    _phone("K", "sharp", "k", "k", "k k 크 ク"),
    _phone("T", "sharp", "t", "t", "t t 트 ト"),
    _phone("CH", "sharp", "t͡ʃ", "ch", "ch tch 치 チ"),
    _phone("M", "round", "m", "m", "m m 므 ム"),
    _phone("B", "round", "b", "b", "b b 브 ブ"),
    _phone("L", "round", "l", "l", "l l 르 ル"),
)
VOWELS = (
    _phone("IY0", "small", "iː", "ii", "ee î 이 イ"),
    _phone("EH0", "small", "ɛ", "ee", "eh é 에 エ"),
    _phone("AA0", "big", "ɑː", "aa", "ah â 아 ア"),
    _phone("OW0", "big", "oʊ", "oo", "oh ô 오 オ"),
)
_SMALL_KANA = dict(zip("イエアオ", "ィェァォ", strict=True))  # after a consonant
_FORMANTS = {  # Hz, of a neutral speaker
    "IY0": (300, 2300, 3000),
    "EH0": (450, 2000, 2700),
    "AA0": (750, 1200, 2500),
    "OW0": (480, 850, 2400),
}
_BURSTS = {"K": 2500, "T": 5000, "CH": 3600}  # Hz, where the noise is strongest
_MURMURS = {"M": 260, "B": 420, "L": 340}  # Hz


@dataclass(frozen=True)
class Word:
    """A consonant and a vowel in one of the two orders."""

    consonant: Phone
    vowel: Phone
    vowel_first: bool

    @property
    def phones(self) -> tuple[Phone, Phone]:
        """The phones as they are spoken."""
        first, second = self.consonant, self.vowel
        return (second, first) if self.vowel_first else (first, second)

    @property
    def sides(self) -> dict[str, str]:
        """Dimension pair -> the side that this word is on."""
        return {SIZE: self.vowel.side, EDGE: self.consonant.side}

    @property
    def ipa(self) -> str:
        """Phones in the phonetic alphabet, with spaces between them."""
        return " ".join(phone.ipa for phone in self.phones)

    @property
    def romanization(self) -> str:
        """The word in plain Latin letters, the same for every language."""
        return "".join(phone.roman for phone in self.phones)

    def written(self, language: str) -> str:
        """The word in a language's script, composed (NFC). Raises KeyError if it is unknown."""
        first, second = (phone.written[language] for phone in self.phones)
        if language == "ja" and not self.vowel_first:
            second = _SMALL_KANA[second]
        return unicodedata.normalize("NFC", first + second)


WORDS = tuple(
    Word(consonant, vowel, first)
    for consonant, vowel, first in product(CONSONANTS, VOWELS, (False, True))
)


def is_held_out(word: Word) -> bool:
    """Whether no training may have the word: each consonant has two such words, each vowel three.

    Half of them begin with the vowel; every letter and every phone occurs in other words too.
    """
    place = CONSONANTS.index(word.consonant) + 2 * word.vowel_first
    return VOWELS.index(word.vowel) == place % len(VOWELS)


HELD_OUT = tuple(word for word in WORDS if is_held_out(word))
TRAINING = tuple(word for word in WORDS if not is_held_out(word))


@dataclass(frozen=True)
class Clip:
    """A word, spoken once.

    wave: (12800,) float32 at 16 kHz, below 1. spans: phone name -> its first sample and the one
    past its last; between and around them is faint noise only.
    """

    word: Word
    wave: Clipped
    spans: dict[str, tuple[int, int]]

    def frames(self, phone: Phone) -> NDArray[np.bool_]:
        """(20,) which 40 ms frames have their middle within the phone."""
        start, end = self.spans[phone.name]
        middles = (np.arange(N_FRAMES) + 0.5) * FRAME_SECONDS * RATE
        return (middles >= start) & (middles < end)

    def alignment(self, written: str) -> dict[str, object]:
        """The alignment record of this clip: the phone of every 40 ms frame, None for silence."""
        phones: list[str | None] = [None] * N_FRAMES
        for phone in self.word.phones:
            for frame in np.flatnonzero(self.frames(phone)):
                phones[frame] = phone.name
        return {
            "word": written,
            "sampling_rate": RATE,
            "frame_duration_ms": round(FRAME_SECONDS * 1000),
            "phones": phones,
        }


def speak(word: Word, rng: np.random.Generator) -> Clip:
    """One draw of the word: voice, pitch, loudness, place and gap differ from draw to draw."""
    wave = rng.normal(0, NOISE, round(SECONDS * RATE))
    sounds = [_sound(phone, rng) * rng.uniform(0.35, 0.5) for phone in word.phones]
    gap = round(rng.uniform(0.04, 0.1) * RATE)
    margin = round(0.03 * RATE)
    spoken = sum(map(len, sounds)) + gap
    start = int(rng.integers(margin, len(wave) - spoken - margin))
    spans = {}
    for phone, sound in zip(word.phones, sounds, strict=True):
        end = start + len(sound)
        wave[start:end] += sound
        spans[phone.name] = (start, end)
        start = end + gap
    return Clip(word, wave.astype(np.float32), spans)


def speak_each(words: Iterable[Word], rng: np.random.Generator) -> list[Clip]:
    """One draw of each word, in order."""
    return [speak(word, rng) for word in words]


def drawn_words(words: Sequence[Word], n: int, rng: np.random.Generator) -> list[Word]:
    """n words, each of them as often as the others or once more, in random order."""
    order = rng.permutation(np.arange(n) % len(words))
    return [words[i] for i in order]


def without(clip: Clip, phone: Phone, rng: np.random.Generator) -> Clip:
    """The clip with nothing but faint noise where the phone was; every other sample is kept."""
    start, end = clip.spans[phone.name]
    wave = clip.wave.copy()
    wave[start:end] = rng.normal(0, NOISE, end - start)
    return Clip(clip.word, wave, clip.spans)


def _sound(phone: Phone, rng: np.random.Generator) -> Wave:
    """The phone alone, with a peak of 1."""
    make: Callable[[str, int, np.random.Generator], Wave]
    if phone.name in _FORMANTS:
        make, seconds = _vowel, rng.uniform(0.14, 0.2)
    else:
        make = _burst if phone.name in _BURSTS else _murmur
        seconds = rng.uniform(0.09, 0.13)
    sound = make(phone.name, round(seconds * RATE), rng)
    return sound / np.abs(sound).max()


def _vowel(name: str, n: int, rng: np.random.Generator) -> Wave:
    """Pulses of the glottis through three resonances, which make one vowel of another."""
    pitch = rng.uniform(90, 240) * np.linspace(1, rng.uniform(0.85, 1.1), n)
    pulses = _pulses(pitch)
    throat = rng.uniform(0.93, 1.08)  # a shorter one has higher formants
    voice = np.zeros(n)
    for formant, width, gain in zip(_FORMANTS[name], (70, 90, 120), (1, 0.7, 0.4), strict=True):
        voice += gain * _resonate(pulses, formant * throat * rng.uniform(0.96, 1.04), width)
    return voice * _fade(n)


def _burst(name: str, n: int, rng: np.random.Generator) -> Wave:
    """High noise that starts at once and dies away; after a short closure, but for CH."""
    noise = np.diff(rng.normal(0, 1, n + 1))
    closed = n // 8 if name == "CH" else n // 3
    noise[:closed] = 0
    noise[closed:] *= np.exp(-np.linspace(0, 1.5 if name == "CH" else 3, n - closed))
    return _resonate(noise, _BURSTS[name] * rng.uniform(0.95, 1.05), 900)


def _murmur(name: str, n: int, rng: np.random.Generator) -> Wave:
    """A low voiced hum; B begins with a closure, L rings at a second, weak resonance."""
    pulses = _pulses(np.full(n, rng.uniform(90, 200)))
    hum = _resonate(pulses, _MURMURS[name], 80)
    if name == "L":
        hum = hum + 0.15 * _resonate(pulses, 1100, 120)
    hum = hum * _fade(n)
    if name == "B":
        hum[: n // 3] = 0
    return hum


def _pulses(pitch: Wave) -> Wave:
    """One unit pulse a period of a pitch in Hz, given for each sample."""
    return np.diff(np.floor(np.cumsum(pitch / RATE)), prepend=0)


def _fade(n: int) -> Wave:
    return np.hanning(n) ** 0.3


def _resonate(sound: Wave, frequency: float, width: float) -> Wave:
    """The sound through a resonator of two poles (Hz), computed in the frequency domain."""
    n = 1 << int(np.ceil(np.log2(len(sound) + 800)))
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(n))
    radius = np.exp(-np.pi * width / RATE)
    angle = 2 * np.pi * frequency / RATE
    poles = 1 - 2 * radius * np.cos(angle) * turn + radius**2 * turn**2
    return np.fft.irfft(np.fft.rfft(sound, n) * (1 - radius) / poles, n)[: len(sound)]
