"""Results of a study of words, written by the real store, with numbers that a test can foresee."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from interp_lab.fields import (
    Category,
    DimensionCurve,
    Document,
    Field,
    Pattern,
    PhoneMap,
    Scalar,
    Spectrogram,
    UnitScores,
)
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results
from interp_lab.visualization.base import Style

FIELDS: list[Field] = [
    *(
        Category(name, name)
        for name in (
            "language",
            "word",
            "data_type",
            "dimension1",
            "dimension2",
            "pair",
            "answer",
            "predicted",
        )
    ),
    *(Scalar(name, name) for name in ("correct", "flipped")),
    Pattern("attention_matrix", "attention", definition="semdim.attention_matrix/1"),
    Pattern("flow_matrix", "attention to the answer", definition="semdim.flow/1"),
    *(
        UnitScores(f"fraction_{n}", "share", definition=f"semdim.fraction/1 ({n})")
        for n in ("sum", "mean")
    ),
    *(Document(name, name) for name in ("matrix_tokens", "flow_tokens", "units")),
    Spectrogram("spectrogram", "sound"),
]


@dataclass(frozen=True)
class Word:
    """A word as one data type gives it: tokens of text, or seconds of tokens of audio."""

    word: str
    language: str
    data_type: str
    tokens: tuple[str, ...] = ()
    n_audio: int = 0
    phones: tuple[str, ...] = ()


APPLE = Word("apple", "en", "original", ("app", "le"))
BUTTERFLY = Word("나비", "ko", "original", ("나", "비"))
CHO = Word("チョウ", "ja", "original", ("チ", "ョ", "ウ"))
CAFE = Word("été", "fr", "original", ("é", "té"))
CHURCH = Word(
    "church",
    "en",
    "ipa",
    ("t͡ʃ", "ɯː", "ɹ", "ŋ", "æ̃", "t͡ʃ"),
    phones=("t͡ʃ", "ɯː", "ɹ", "ŋ", "æ̃", "t͡ʃ"),
)
NABI = Word("나비", "ko", "audio", n_audio=20, phones=("n", "a", "b", "i"))


def word_tokens(word: Word, group: str = "word") -> list[dict[str, Any]]:
    """The word's tokens as a document lists them; audio has 40 ms a token."""
    if word.n_audio:
        return [
            {"text": "<|AUDIO|>", "group": group, "seconds": [0.04 * i, 0.04 * (i + 1)]}
            for i in range(word.n_audio)
        ]
    return [{"text": text, "group": group, "seconds": None} for text in word.tokens]


def units_of(word: Word) -> list[dict[str, Any]]:
    """Phones: two silent audio tokens at either end, the rest in equal stretches; or tokens."""
    if not word.n_audio:
        return [
            {"label": t, "keys": [i], "start": i, "end": i + 1, "unit": "token"}
            for i, t in enumerate(word.tokens)
        ]
    parts = np.array_split(np.arange(2, word.n_audio - 2), len(word.phones))
    return [
        {
            "label": phone,
            "keys": part.tolist(),
            "start": 0.04 * part[0],
            "end": 0.04 * part[-1] + 0.04,
            "unit": "second",
        }
        for phone, part in zip(word.phones, parts, strict=True)
    ]


def causal(rng: np.random.Generator, layers: int, heads: int, n: int, peak: int) -> np.ndarray:
    """Attention (layers, heads, n, n): strong on the first token, near ones, and a peak."""
    logits = rng.normal(0, 0.8, (layers, heads, n, n))
    logits -= 0.12 * np.abs(np.arange(n)[:, None] - np.arange(n)[None])
    logits[..., 0] += 1.5
    logits[..., n // 2 :, peak] += np.linspace(0, 3, layers)[:, None, None]
    logits[..., ~np.tri(n, dtype=bool)] = -np.inf
    weights = np.exp(logits)
    return (0.6 * weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def pieces(group: str, name: str, length: int) -> list[dict[str, Any]]:
    """The tokens of a dimension: its first letters, and the rest if there is any."""
    texts = [text for text in (name[:length], name[length:]) if text]
    return [{"text": f" {text}", "group": group, "seconds": None} for text in texts]


def sample_values(
    word: Word, pair: tuple[str, str], flipped: bool, layers: int, heads: int
) -> dict[str, Any]:
    """One sample's fields; dimension1 is the one that is shown first."""
    rng = np.random.default_rng(zlib.crc32(f"{word.word}{pair}{flipped}".encode()))
    first, second = pair[::-1] if flipped else pair
    values: dict[str, Any] = {
        "language": word.language,
        "word": word.word,
        "data_type": word.data_type,
        "dimension1": first,
        "dimension2": second,
        "pair": "-".join(pair),
        "answer": str(1 + flipped),
        "predicted": "1",
        "correct": not flipped,
        "flipped": flipped,
    }
    matrix = word_tokens(word) + pieces("dim1", first, 6) + pieces("dim2", second, 6)
    flow = word_tokens(word) + pieces("option1", first, 4) + pieces("option2", second, 4)
    flow += [{"text": "\n", "group": "answer", "seconds": None}]
    for name, tokens, n_heads in (("matrix", matrix, heads), ("flow", flow, 1)):
        n = len(tokens)
        values[f"{name}_tokens"] = json.dumps(tokens)
        field = "attention_matrix" if name == "matrix" else "flow_matrix"
        values[field] = causal(rng, layers, n_heads, n, n // 3)
    units = units_of(word)
    values["units"] = json.dumps(units)
    for name in ("sum", "mean"):
        values[f"fraction_{name}"] = rng.beta(4, 4, (layers, heads, len(units)))
    if word.n_audio:
        values["spectrogram"] = spectrogram(word)
    return values


def spectrogram(word: Word, mels: int = 80) -> np.ndarray:
    """(mel, frame) of 10 ms: a band of energy that differs from phone to phone."""
    frames = np.arange(word.n_audio * 4)
    sound = np.random.default_rng(1).normal(0, 0.08, (mels, len(frames)))
    for place, unit in enumerate(units_of(word)):
        inside = (frames >= unit["start"] * 100) & (frames < unit["end"] * 100)
        for formant in (12, 30 + 7 * place, 60):
            shape = np.exp(-(((np.arange(mels) - formant) / 5) ** 2))
            sound[:, inside] += shape[:, None] * (0.7 + 0.3 * np.sin(frames[inside] / 3))
    return sound


Asked = tuple[Word, tuple[str, str], bool]
PAIRS = (("big", "small"), ("sharp", "round"))


def asked(words: Sequence[Word], pairs: Sequence[tuple[str, str]] = PAIRS) -> list[Asked]:
    """Every word with every pair in both orders."""
    return [(w, p, flipped) for w in words for p in pairs for flipped in (False, True)]


def written(
    folder: Path,
    questions: Sequence[Asked],
    *,
    layers: int = 4,
    heads: int = 3,
    aggregates: Sequence[tuple[Field, Any]] = (),
    without: Sequence[str] = (),
) -> Results:
    """Write a result into `folder` and open it."""
    ids = []
    fields = [field for field in FIELDS if field.name not in without]
    writer = PartWriter(folder / "parts", fields, size=10_000, seconds=1e9)
    for index, (word, pair, flipped) in enumerate(questions):
        ids.append(f"{word.language}/{word.word}/{word.data_type}/{'-'.join(pair)}/{int(flipped)}")
        values = sample_values(word, pair, flipped, layers, heads)
        writer.add(index, ids[-1], {k: v for k, v in values.items() if k not in without})
    writer.flush()
    final = folder / "results.h5"
    attributes = {"task_name": "semdim", "model": "tiny_omni", "dataset": "words"}
    merge(list_parts(folder / "parts"), ids, final, attributes, lambda results: list(aggregates))
    return open_results(final)


def phone_aggregates(
    phones: Sequence[str], dimensions: Sequence[str], layers: int, seed: int = 0
) -> list[tuple[Field, Any]]:
    """Shares near 0.5 that drift apart over the layers; some cells without any word."""
    rng = np.random.default_rng(seed)
    lean = rng.normal(0, 0.12, (len(phones), len(dimensions)))
    shares = 0.5 + lean * np.linspace(0.1, 1, layers)[:, None, None]
    shares = (shares + rng.normal(0, 0.01, shares.shape)).clip(0, 1)
    counts = rng.poisson(6, lean.shape) * (rng.random(lean.shape) > 0.15)
    counts = np.broadcast_to(counts, shares.shape)
    curves = shares.mean(axis=1).T
    spread = np.linspace(0.03, 0.05, layers)
    about = "share toward the first side"
    found: list[tuple[Field, Any]] = [
        (
            PhoneMap("phone_dimension", about, definition="semdim.fraction/1 (sum)"),
            np.where(counts > 0, shares, 0),
        ),
        (PhoneMap("phone_dimension_count", "words", dtype="int64"), counts),
        (Document("phones", "phones"), json.dumps(list(phones))),
        (Document("dimensions", "dimensions"), json.dumps(list(dimensions))),
        (PhoneMap("phone_mass", "attention"), rng.uniform(0.02, 0.5, shares.shape)),
        (PhoneMap("phone_permutation_low", about), np.full_like(shares, 0.42)),
        (PhoneMap("phone_permutation_high", about), np.full_like(shares, 0.58)),
        *(
            (PhoneMap(f"phone_familywise_{end}", about, definition="a/1"), np.full_like(shares, v))
            for end, v in (("low", 0.4), ("high", 0.6))
        ),
        (DimensionCurve("permutation_low", about), np.full_like(curves, 0.47)),
        (DimensionCurve("permutation_high", about), np.full_like(curves, 0.53)),
    ]
    for end, shift in (("", 0.0), ("_low", -1.0), ("_high", 1.0)):
        found.append((DimensionCurve(f"dimension_curve{end}", about), curves + shift * spread))
    return found


def knockout_aggregates() -> list[tuple[Field, Any]]:
    """What blocking the word changes, by band; the baseline's answer cannot change."""
    found: list[tuple[Field, Any]] = []
    numbers = {
        "baseline": (0.9, None),
        "all": (0.52, 0.45),
        "early": (0.6, 0.38),
        "middle": (0.8, 0.15),
        "late": (0.88, 0.02),
    }
    for band, (accuracy, change) in numbers.items():
        for measure, value in (("accuracy", accuracy), ("answer_change", change)):
            if value is None:
                continue
            for end, shift in (("", 0.0), ("_low", -0.05), ("_high", 0.04)):
                name = f"knockout_{band}_{measure}{end}"
                found.append((Scalar(name, measure), max(0.0, value + shift)))
    return found


def blank_group(results: Results, style: Style, samples: Sequence[str]) -> Figure:
    """Draw nothing, quickly; fail on what is no group."""
    assert isinstance(samples, tuple) and len(samples) == 4
    return Figure(figsize=(1, 1))
