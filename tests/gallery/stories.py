"""Results of every study at any size, written by the real store and reduced by the real numbers.

What is measured of a sample is random with a peak where one can be seen; how it is reduced and
drawn is the product's own.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import known_trajectories
import known_words
import numpy as np
from known_trajectories import WORDS, Story
from known_words import Word, asked, sample_values

from interp_lab.fields import Field, Scalar, UnitScores
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.studies.avigate.analysis import GateTracing
from interp_lab.studies.avigate.gates import gate_fields, gate_values
from interp_lab.studies.avigate.moments import MEASURES, field_name, moment_fields
from interp_lab.studies.avigate.numbers import GateNumbers
from interp_lab.studies.clip_similarity.analysis import ClipSimilarity
from interp_lab.studies.clip_similarity.numbers import SimilarityNumbers
from interp_lab.studies.scienceqa.analysis import ScienceQAHeads
from interp_lab.studies.scienceqa.numbers import HeadNumbers
from interp_lab.studies.semdim.analysis import SemanticDimensionAttention
from interp_lab.studies.semdim.numbers import WordNumbers
from interp_lab.studies.trajectory.numbers import AnswerNumbers

# Sixty letters, and scripts whose letters other fonts have.
NAMES = (
    "a_name_of_sixty_letters_that_no_axis_has_room_for_" + "x" * 10,
    "고양이와 개",
    "猫と犬のいる風景",
    "قطة وكلب",
    "t͡ʃæ̃ŋɹɯː",
)


@dataclass(frozen=True)
class Measured:
    """What an analysis says of a sample: its fields, and definitions by name."""

    fields: Sequence[Field]
    definitions: Mapping[str, str]


@dataclass(frozen=True)
class Size:
    """How large a result is.

    Args:
        name: what the sheet calls it.
        layers, heads: of the model.
        samples: of the run.
        tokens: of a word, an answer or a video; cells a side of a picture's grid are its root.
        names: sample names and words, again and again.
    """

    name: str
    layers: int
    heads: int
    samples: int
    tokens: int
    names: tuple[str, ...] = NAMES


SMALL = Size("small", layers=2, heads=2, samples=1, tokens=3)
MEDIUM = Size("medium", layers=6, heads=8, samples=12, tokens=24)
LARGE = Size("large", layers=80, heads=64, samples=5000, tokens=200)
SIZES = {size.name: size for size in (SMALL, MEDIUM, LARGE)}


def clip_similarity(folder: Path, size: Size) -> Path:
    """Maps of a grid over a picture."""
    analysis = ClipSimilarity()
    side = max(2, round(size.tokens**0.5))
    rng = np.random.default_rng(0)

    def values(index: int) -> dict[str, Any]:
        cells = rng.normal(0.5, 0.15, (side, side)).cumsum(0).cumsum(1) / side**2
        maps = {
            "horizontal_right": cells[:, 1:],
            "vertical_down": cells[1:],
            "cls_similarity": cells,
        }
        means = {f"mean_{name}": one.mean() for name, one in maps.items()}
        picture = known_trajectories.picture_of((224, 224), index)
        return {**maps, **means, "picture": picture}

    few = replace(size, samples=min(size.samples, 300))
    numbers = SimilarityNumbers()
    return _write(folder, "clip_similarity", _ids(few), analysis, values, numbers)


def scienceqa(folder: Path, size: Size) -> Path:
    """Scores of every head, one of each layer ahead."""
    analysis = ScienceQAHeads()
    rng = np.random.default_rng(1)
    shape = size.layers, size.heads

    side = max(2, round(size.tokens**0.5))

    def maps(index: int, best: np.ndarray) -> dict[str, Any]:
        share = rng.random((size.layers, side, side)) ** 4
        values = share / share.max((1, 2), keepdims=True) * best[:, None, None]
        picture = known_trajectories.picture_of((224, 224), index)
        question = "Which of the places on this map is the farthest north? A. here B. 東京"
        return {"winner_maps": values, "picture": picture, "question": question, "seen_share": 0.6}

    def values(index: int) -> dict[str, Any]:
        scores = rng.random(shape) * 0.6
        scores[np.arange(size.layers), np.arange(size.layers) % size.heads] += 0.35
        ordered = np.sort(scores, axis=1)
        return {
            "scores": scores,
            "max_head_per_layer": scores.argmax(1),
            "margin": (ordered[:, -1] - ordered[:, -2]) / ordered[:, -1],
            "image_token_start": 5,
            "image_token_end": 5 + size.tokens,
            "image_file": "images/1.png",
            "answer": "A",
            "predicted": "AB"[index % 4 == 3],
            "output": "A",
            "correct": int(index % 4 != 3),
            **(maps(index, scores.max(1)) if index < 2 else {}),
        }

    numbers = HeadNumbers(bootstrap=100)
    return _write(folder, "scienceqa", _ids(size), analysis, values, numbers)


def trajectory(folder: Path, size: Size) -> Path:
    """Answers with a peak that moves over two pictures."""
    words = tuple(WORDS[i % len(WORDS)] for i in range(min(size.tokens, 120)))
    side = max(2, round(size.tokens**0.5))
    kept = (0, size.layers - 1)
    few = replace(size, samples=min(size.samples, 4))

    def values(index: int) -> dict[str, Any]:
        story = Story(
            _id(few, index),
            words,
            sides=((224, 320), (200, 100))[: 1 + index % 2],
            grids=((side, side + 2), (side, 3))[: 1 + index % 2],
            layers=kept,
        )
        before, known_trajectories.N_LAYERS = known_trajectories.N_LAYERS, size.layers
        try:
            return known_trajectories.values_of(story)
        finally:
            known_trajectories.N_LAYERS = before

    measured = Measured(known_trajectories.FIELDS, {})
    return _write(folder, "trajectory", _ids(few), measured, values, AnswerNumbers())


def semdim(folder: Path, size: Size) -> Path:
    """Words that are read and heard, with every pair in both orders."""
    # Eight words are heard, every second one: of few no head can stand out from shuffles.
    n_words = 1 if size.samples < 4 else 16 if size.tokens < 100 else 8
    words = [_word(size, i) for i in range(n_words)]
    questions = asked(words)[: 2 if n_words == 1 else None]

    def values(index: int) -> dict[str, Any]:
        found = sample_values(*questions[index], size.layers, min(size.heads, 8))
        # One head looks at what is first in the word for one pair and at what is last for another.
        mass = np.full_like(found["fraction_sum"], 0.1)
        mass[-1, -1, 0 if found["pair"] == "big-small" else -1] = 1.5
        return found | {"mass": mass, "n_dim1_tokens": 1, "n_dim2_tokens": 1}

    ids = [f"{w.language}/{w.word}/{w.data_type}/{'-'.join(p)}/{int(f)}" for w, p, f in questions]
    definitions = SemanticDimensionAttention().definitions
    fields = [
        *known_words.FIELDS,
        UnitScores("mass", "attention on the phone"),
        *(Scalar(f"n_dim{n}_tokens", "tokens of a dimension", dtype="int64") for n in (1, 2)),
    ]
    measured = Measured(fields, definitions)
    return _write(folder, "semdim", ids, measured, values, WordNumbers(bootstrap=100))


def _word(size: Size, index: int) -> Word:
    name = size.names[index % len(size.names)] + str(index)
    if index % 2:
        return Word(name, "ko", "original", tuple(f"t{i}" for i in range(size.tokens)))
    phones = ("t͡ʃ", "ɯː", "ɹ", "ŋ", "æ̃", "i", "ɔ", "b")[: max(2, min(8, size.tokens // 4))]
    return Word(name, "en", "audio", n_audio=4 + max(size.tokens, len(phones)), phones=phones)


def avigate(folder: Path, size: Size) -> Path:
    """Gates that open where the audio informs."""
    kinds, variants = ("attention", "ffn"), ("audio_off", "gates_open")
    fields = [*gate_fields(kinds), *moment_fields(variants)]
    measured = Measured(fields, GateTracing().definitions)
    rng = np.random.default_rng(2)
    few = replace(size, samples=min(size.samples, 300), layers=min(size.layers, 12))

    def values(index: int) -> dict[str, Any]:
        informs = index % 2 == 0
        found: dict[str, Any] = {"id": _id(few, index), "query": few.names[index % 5]}
        for kind in kinds:
            gates = rng.normal(0.7 * informs + 0.1, 0.1, (few.layers, size.tokens, 1))
            found |= gate_values(kind, np.tanh(gates).astype(np.float32))
        length = 2.0 * size.tokens
        found |= {
            "audio_kind": "informative" if informs else "misleading",
            "clip_seconds": 2.0,
            "saliency": rng.random(size.tokens),
            "predicted_saliency": rng.random(size.tokens),
            "windows": np.array([[0.2, 0.5]]) * length,
            "predicted_windows": np.array([[0.25, 0.5], [0.6, 0.8]]) * length,
            "predicted_scores": np.array([0.9, 0.3]),
            "loss_difference": 0.5 if informs else -0.2,
        }
        for condition in ("plain", *variants):
            found |= {field_name(condition, measure): rng.random() for measure in MEASURES}
        return found

    return _write(folder, "avigate", _ids(few), measured, values, GateNumbers(bootstrap=100))


STUDIES: Mapping[str, Callable[[Path, Size], Path]] = {
    story.__name__: story for story in (avigate, clip_similarity, scienceqa, semdim, trajectory)
}


def _id(size: Size, index: int) -> str:
    return f"{size.names[index % len(size.names)]} {index}"


def _ids(size: Size) -> list[str]:
    return [_id(size, index) for index in range(size.samples)]


def _write(
    folder: Path,
    study: str,
    ids: Sequence[str],
    measured: Any,
    values: Callable[[int], dict[str, Any]],
    numbers: Any,
) -> Path:
    """Write a result of the study into `folder` and return its path."""
    writer = PartWriter(folder / "parts", measured.fields, size=100_000, seconds=1e9)
    for index, sample in enumerate(ids):
        writer.add(index, sample, values(index))
    writer.flush()
    attributes = {
        "task_name": study,
        "model": "a_model",
        "dataset": "a_data_set",
        "definitions": json.dumps(dict(measured.definitions)),
    }
    final = folder / "results.h5"
    merge(list_parts(folder / "parts"), ids, final, attributes, numbers.compute)
    return final
