"""What is true of `tiny_omni`: its answers, what they hang on, and where its heads listen.

Answers are written by the model itself. A phone is taken out of a clip, or another one is put in
its place, and the answers that hang on it must follow and the others stay. Attention is reported
beside that, with an untrained model as the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from interp_lab.zoo.speech import (
    EDGE,
    HELD_OUT,
    LANGUAGES,
    N_FRAMES,
    PAIRS,
    SIZE,
    VOWELS,
    Clip,
    Word,
    speak,
    without,
)
from interp_lab.zoo.tiny_omni.model import features, model_inputs
from interp_lab.zoo.tiny_omni.prompts import DIMENSIONS, TEXT_TYPES, Question, chat_prompt

BATCH = 60
# Where heads are watched from: the words of the pair in both blocks, the place of the number.
PLACES = (
    "first side in the dimension block",
    "second side in the dimension block",
    "first option's word",
    "second option's word",
    "last token",
)

Model = Qwen2_5OmniThinkerForConditionalGeneration
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Heard:
    """A held-out word as it was spoken, and three versions that differ in one phone only.

    other_vowel: a vowel of the other size in the same voice, to the sample where the old one was.
    """

    clip: Clip
    no_vowel: Clip
    no_consonant: Clip
    other_vowel: Clip


def held_out_clips(n: int, seed: int) -> list[Heard]:
    """n draws of the held-out words, each word as often as the others."""
    return [_hear(HELD_OUT[i % len(HELD_OUT)], [seed, i]) for i in range(n)]


def _hear(word: Word, seed: list[int]) -> Heard:
    clip = speak(word, np.random.default_rng(seed))
    rng = np.random.default_rng([*seed, 1])
    others = [vowel for vowel in VOWELS if vowel.side != word.vowel.side]
    other = Word(word.consonant, others[int(rng.integers(len(others)))], word.vowel_first)
    return Heard(
        clip,
        without(clip, word.vowel, rng),
        without(clip, word.consonant, rng),
        speak(other, np.random.default_rng(seed)),  # every vowel takes as many draws
    )


def inputs_for(
    processor: Qwen2_5OmniProcessor, questions: Sequence[Question], clips: Sequence[Clip] | None
) -> dict[str, Tensor]:
    """Model inputs for questions about a clip each, or about written words."""
    prompts = [chat_prompt(processor, question) for question in questions]
    return model_inputs(processor, prompts, None if clips is None else features(clips, processor))


@torch.no_grad()
def answers(
    model: Model,
    processor: Qwen2_5OmniProcessor,
    questions: Sequence[Question],
    clips: Sequence[Clip] | None = None,
) -> NDArray[np.str_]:
    """(n,) what the model writes by itself, greedily, until it ends its turn (4 tokens at most)."""
    written: list[str] = []
    generate = getattr(model, "generate")  # noqa: B009, its type names attributes it lacks
    for start in range(0, len(questions), BATCH):
        part = slice(start, start + BATCH)
        inputs = inputs_for(processor, questions[part], None if clips is None else clips[part])
        output = generate(**inputs, max_new_tokens=4, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        written += processor.batch_decode(new, skip_special_tokens=True)
    return np.array([text.strip() for text in written])


def reading_checks(model: Model, processor: Qwen2_5OmniProcessor) -> dict[str, float]:
    """Shares of right numbers about held-out words, written in each way; both pairs and orders."""
    checks = {}
    for data_type in TEXT_TYPES:
        languages = LANGUAGES if data_type == "original" else LANGUAGES[:1]
        for language in languages:
            asked = [
                Question(word, pair, swapped, data_type, language)
                for word, pair, swapped in product(HELD_OUT, PAIRS, (False, True))
            ]
            right = answers(model, processor, asked) == [q.answer for q in asked]
            name = f"{data_type} {language}" if data_type == "original" else data_type
            checks[f"{name}: number right"] = float(right.mean())
    return checks


def hearing_checks(
    model: Model, processor: Qwen2_5OmniProcessor, heard: Sequence[Heard]
) -> dict[str, float]:
    """Shares of clips, 0 to 1, whose number is right, or turns or stays as the change demands."""
    checks: dict[str, float] = {}
    for pair, name in ((SIZE, "size"), (EDGE, "sharpness")):
        asked = [Question(h.clip.word, pair, i % 2 == 1, "audio") for i, h in enumerate(heard)]
        right = np.array([q.answer for q in asked])
        own = answers(model, processor, asked, [h.clip for h in heard])
        mute = answers(model, processor, asked, [h.no_vowel for h in heard])
        soft = answers(model, processor, asked, [h.no_consonant for h in heard])
        turned = answers(model, processor, asked, [h.other_vowel for h in heard])
        checks[f"audio, {name}: number right"] = float((own == right).mean())
        checks[f"vowel silenced, {name}: number right"] = float((mute == right).mean())
        checks[f"consonant silenced, {name}: number right"] = float((soft == right).mean())
        if pair == SIZE:
            other = np.where(right == "1", "2", "1")
            checks["vowel exchanged, size: the other number"] = float((turned == other).mean())
        else:
            checks["vowel silenced, sharpness: same number"] = float((mute == own).mean())
            checks["vowel exchanged, sharpness: same number"] = float((turned == own).mean())
    return checks


@dataclass(frozen=True)
class Listening:
    """Attention to the clip and where its phones are.

    attention: pair -> (n, place, layer, head, 20), of all that a query gives. vowel, consonant:
    (n, 20), which frames belong to them.
    """

    attention: dict[str, Floats]
    vowel: NDArray[np.bool_]
    consonant: NDArray[np.bool_]


@torch.no_grad()
def listen(model: Model, processor: Qwen2_5OmniProcessor, heard: Sequence[Heard]) -> Listening:
    """Watch every head with both questions. The model's own kernel is set back afterwards."""
    kernel = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation("eager")
    seen: dict[str, Floats] = {}
    try:
        for pair in PAIRS:
            asked = [Question(h.clip.word, pair, i % 2 == 1, "audio") for i, h in enumerate(heard)]
            parts = []
            for start in range(0, len(heard), BATCH):
                part = slice(start, start + BATCH)
                clips = [h.clip for h in heard[part]]
                inputs = inputs_for(processor, asked[part], clips)
                parts.append(_audio_attention(model, processor, inputs))
            seen[pair] = np.concatenate(parts)
    finally:
        model.set_attn_implementation(kernel)
    vowel = np.stack([h.clip.frames(h.clip.word.vowel) for h in heard])
    consonant = np.stack([h.clip.frames(h.clip.word.consonant) for h in heard])
    return Listening(seen, vowel, consonant)


def _audio_attention(
    model: Model, processor: Qwen2_5OmniProcessor, inputs: dict[str, Tensor]
) -> Floats:
    """(n, place, layer, head, 20); prompts about clips have every word at one place."""
    output = model(**inputs, output_attentions=True, use_cache=False)
    patterns = torch.stack(output.attentions, 1).double()
    ids = inputs["input_ids"][0].tolist()
    sides = processor.tokenizer.convert_tokens_to_ids(list(DIMENSIONS))
    words = [i for i, token in enumerate(ids) if token in sides]
    start = ids.index(processor.audio_token_id)
    rows = patterns[..., start : start + N_FRAMES]
    return rows[:, :, :, [*words, len(ids) - 1]].movedim(3, 1).numpy()


@dataclass(frozen=True)
class Head:
    """A head seen from a place."""

    place: int
    layer: int
    head: int

    def __str__(self) -> str:
        return f"layer {self.layer} head {self.head} from the {PLACES[self.place]}"


def best(score: Floats) -> Head:
    """The head with the highest mean of `score`, (n, place, layer, head)."""
    at = np.unravel_index(score.mean(0).argmax(), score.shape[1:])
    return Head(*(int(i) for i in at))


def shares(seen: Floats, frames: NDArray[np.bool_]) -> Floats:
    """(n, place, layer, head) share of the attention to the clip that goes to these frames."""
    return (seen * frames[:, None, None, None]).sum(-1) / seen.sum(-1)


def moving(listening: Listening) -> tuple[Head, dict[str, float]]:
    """The head whose share moves most with the question, chosen on one half of the clips.

    moves: (vowel share minus consonant share) asked for size, minus the same asked for sharpness;
    2 at most. The shares are those of the other half, out of the attention to the clip.
    """
    share = {
        (phone, pair): shares(listening.attention[pair], getattr(listening, phone))
        for phone, pair in product(("vowel", "consonant"), PAIRS)
    }
    moved = share["vowel", SIZE] - share["consonant", SIZE]
    moved = moved - share["vowel", EDGE] + share["consonant", EDGE]
    half = len(moved) // 2
    head = best(moved[:half])
    at = (slice(half, None), head.place, head.layer, head.head)
    names = {SIZE: "asked for size", EDGE: "asked for sharpness"}
    found = {
        f"{phone} share, {names[pair]}": float(v[at].mean()) for (phone, pair), v in share.items()
    }
    mass = np.mean([seen.sum(-1)[at].mean() for seen in listening.attention.values()])
    return head, {"moves": float(moved[at].mean()), **found, "mass on the clip": float(mass)}


def pointing(
    seen: Floats, frames: NDArray[np.bool_], sides: NDArray[np.str_]
) -> tuple[Head, dict[str, float]]:
    """The head that looks most often at the phone, chosen on one half, measured on the other.

    sides: (n,) the side that each clip is on. hit: share of clips whose most attended frame is one
    of the phone's, of all and by side; chance: the phone's share of all frames. mass: the phone's
    part of all that the query gives; share: of what it gives to the clip.
    """
    half = len(seen) // 2
    chosen = np.eye(N_FRAMES, dtype=bool)[seen.argmax(-1)]
    hits = (chosen & frames[:, None, None, None]).any(-1).astype(float)
    head = best(hits[:half])
    at = (slice(half, None), head.place, head.layer, head.head)
    mass = (seen * frames[:, None, None, None]).sum(-1)
    by_side = {
        f"hit, {side}": float(hits[at][sides[half:] == side].mean()) for side in np.unique(sides)
    }
    found = {
        "hit": float(hits[at].mean()),
        **by_side,
        "chance": float(frames[half:].mean()),
        "mass": float(mass[at].mean()),
        "share": float(shares(seen, frames)[at].mean()),
    }
    return head, found
