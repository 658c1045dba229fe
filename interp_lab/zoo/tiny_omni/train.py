"""How `tiny_omni` is trained: clips and written words side by side, from the first step.

The number alone is hard to learn, since three skills meet in it: hear the phone, know its side,
find the side's option. So some words of the prompt are asked, on the way, for what they could
already know (an auxiliary loss on the next-word scores). No attention is supervised anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from interp_lab.zoo.speech import (
    EDGE,
    LANGUAGES,
    N_FRAMES,
    PAIRS,
    SIZE,
    TRAINING,
    Clip,
    drawn_words,
    speak_each,
    without,
)
from interp_lab.zoo.tiny_omni.model import END, features, model_inputs
from interp_lab.zoo.tiny_omni.prompts import (
    OPTIONS,
    TEXT_TYPES,
    Asked,
    Question,
    chat_prompt,
    prompt_words,
)

BETAS, DECAY = (0.9, 0.98), 0.02
N_CLIPS, N_HALF_CLIPS = 4000, 500
AUDIO_BATCH, TEXT_BATCH, DRILL_BATCH = 48, 32, 32
HALF_SHARE = 0.15  # of the clips in a batch that lack the phone that is not asked about
ECHO_WEIGHT = 0.5

# Places counted from the end of a prompt with its answer; all prompts end alike.
FULL_STOP_AT = -6
OPTIONS_AT = (-15, -12)
DIMENSION_AT = -21
OWN_SHARE = 0.5


@dataclass(frozen=True)
class Phase:
    """A part of the training: it has an optimizer of its own.

    fall: steps over which the learning rate falls to its end; before that it stays at `peak`.
    focus: weight of the spread of attention over the clip (see `spread`); 0 = not looked at.
    """

    name: str
    steps: int
    peak: float
    warm_up: int
    fall: int
    focus: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = min(1.0, (self.steps - step) / self.fall)
        return self.peak * min(1.0, (step + 1) / self.warm_up) * max(0.02, left)


PHASES = (
    Phase("learn", steps=400, peak=2e-3, warm_up=60, fall=250),
    Phase("focus", steps=160, peak=1e-3, warm_up=20, fall=50, focus=0.1),
)


@dataclass(frozen=True)
class Pool:
    """Clips to draw from, with features (n, 128, 80), each with the pairs that it can answer."""

    clips: Sequence[Clip]
    features: Tensor
    pairs: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Drill:
    """A question without a sound: which option is the word that stands in the word's block."""

    sides: tuple[str, str]
    side: str
    data_type: str

    @property
    def written(self) -> str:
        """The word in the block."""
        return self.side

    @property
    def answer(self) -> str:
        """The number of the same word."""
        return OPTIONS[self.sides.index(self.side)]


def draw_pool(rng: np.random.Generator, processor: Qwen2_5OmniProcessor) -> Pool:
    """Clips of the training words; some have one phone only, for the question about that one.

    From those the model learns that one phone's absence says nothing about the other.
    """
    whole = speak_each(drawn_words(TRAINING, N_CLIPS, rng), rng)
    voiced = speak_each(drawn_words(TRAINING, N_HALF_CLIPS, rng), rng)
    struck = speak_each(drawn_words(TRAINING, N_HALF_CLIPS, rng), rng)
    clips = [
        *whole,
        *(without(clip, clip.word.consonant, rng) for clip in voiced),
        *(without(clip, clip.word.vowel, rng) for clip in struck),
    ]
    pairs = [PAIRS] * N_CLIPS + [(SIZE,)] * N_HALF_CLIPS + [(EDGE,)] * N_HALF_CLIPS
    return Pool(clips, features(clips, processor), pairs)


def audio_questions(pool: Pool, rng: np.random.Generator) -> tuple[list[Question], Tensor]:
    """Questions about clips, and the clips' features."""
    half = rng.random(AUDIO_BATCH) < HALF_SHARE
    n_half = len(pool.clips) - N_CLIPS
    chosen = np.where(
        half, N_CLIPS + rng.integers(n_half, size=len(half)), rng.integers(N_CLIPS, size=len(half))
    )
    asked = [
        Question(pool.clips[i].word, str(rng.choice(pool.pairs[i])), rng.random() < 0.5, "audio")
        for i in chosen
    ]
    return asked, pool.features[chosen]


def text_questions(rng: np.random.Generator) -> list[Question]:
    """Questions about written words; those in a language's own script are half of them."""
    return [
        Question(
            TRAINING[rng.integers(len(TRAINING))],
            str(rng.choice(PAIRS)),
            rng.random() < 0.5,
            str(rng.choice(TEXT_TYPES, p=(0.5, 0.25, 0.25))),
            str(rng.choice(LANGUAGES)),
        )
        for _ in range(TEXT_BATCH)
    ]


def match_drill(rng: np.random.Generator) -> list[Drill]:
    """Prompts whose word is one of their own options: find the same word, say its number."""
    words = prompt_words()
    drills = []
    for _ in range(DRILL_BATCH):
        first, second = rng.choice(len(words), 2, replace=False)
        sides = (words[first], words[second])
        drills.append(Drill(sides, sides[rng.integers(2)], str(rng.choice(TEXT_TYPES))))
    return drills


def spread(attentions: Sequence[Tensor], first: int) -> Tensor:
    """Entropy (nats) of the attention to a clip, which begins at token `first`.

    Mean over clips, heads, the places of the echoes and all layers but the last. It says nothing of
    where attention should go, and a head that leaves the clip alone gains nothing either.
    """
    found = []
    for pattern in attentions[:-1]:
        row = pattern[:, :, [DIMENSION_AT, *OPTIONS_AT], first : first + N_FRAMES]
        share = row / row.sum(-1, keepdim=True)
        found.append(-(share * (share + 1e-6).log()).sum(-1).mean())
    return torch.stack(found).mean()


def loss_of(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    processor: Qwen2_5OmniProcessor,
    questions: Sequence[Asked],
    heard: Tensor | None,
    focus: float = 0.0,
) -> tuple[Tensor, float]:
    """Loss of the number, of the turn's end and of the echoes; share of right numbers.

    Echoes: the second side in the dimension block and the last full stop call up the word's side;
    an option's word calls up its number and, as likely, the word's side.

    focus: weight of `spread` for clips; needs eager attention where it is not 0.
    """
    texts = [chat_prompt(processor, q) + q.answer + END for q in questions]
    inputs = model_inputs(processor, texts, heard)
    watch = focus > 0 and heard is not None
    output = model(**inputs, use_cache=False, output_attentions=watch)
    logits, ids, tokenizer = output.logits, inputs["input_ids"], processor.tokenizer
    loss = F.cross_entropy(logits[:, -3:-1].flatten(0, 1), ids[:, -2:].flatten())
    side = torch.tensor(tokenizer.convert_tokens_to_ids([q.side for q in questions]))
    for place in (DIMENSION_AT, FULL_STOP_AT):
        loss = loss + ECHO_WEIGHT * F.cross_entropy(logits[:, place], side)
    for place, number in zip(OPTIONS_AT, OPTIONS, strict=True):
        own = torch.full_like(side, tokenizer.convert_tokens_to_ids(number))
        called = F.cross_entropy(logits[:, place], own) * OWN_SHARE
        called = called + F.cross_entropy(logits[:, place], side) * (1 - OWN_SHARE)
        loss = loss + ECHO_WEIGHT * called
    if watch:
        first = ids[0].tolist().index(processor.audio_token_id)
        loss = loss + focus * spread(output.attentions, first)
    right = logits[:, -3].argmax(-1) == ids[:, -2]
    return loss, right.float().mean().item()


def train(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    processor: Qwen2_5OmniProcessor,
    seed: int,
    phases: Sequence[Phase] = PHASES,
) -> None:
    """Train the model in place, on clips and written words of the training words alone."""
    rng = np.random.default_rng([seed, 1])
    pool = draw_pool(rng, processor)
    kernel = model.config._attn_implementation or "sdpa"
    model.train()
    for phase in phases:
        # Attention can be read off the eager kernel only; it costs more time.
        model.set_attn_implementation("eager" if phase.focus else kernel)
        run_phase(model, processor, pool, phase, rng)
    model.set_attn_implementation(kernel)
    model.eval()


def run_phase(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    processor: Qwen2_5OmniProcessor,
    pool: Pool,
    phase: Phase,
    rng: np.random.Generator,
) -> None:
    """Train the model in place for one phase, with a new optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), phase.peak, betas=BETAS, weight_decay=DECAY)
    begun, running = time.monotonic(), np.full(3, 1 / len(OPTIONS))
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate(step)
        heard = loss_of(model, processor, *audio_questions(pool, rng), phase.focus)
        read = loss_of(model, processor, text_questions(rng), None)
        matched = loss_of(model, processor, match_drill(rng), None)
        optimizer.zero_grad()
        (heard[0] + read[0] + matched[0]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += 0.05 * (np.array([heard[1], read[1], matched[1]]) - running)
        if (step + 1) % 20 == 0:
            minutes = (time.monotonic() - begun) / 60
            seen = f"heard {running[0]:.3f} read {running[1]:.3f} matched {running[2]:.3f}"
            losses = f"losses {heard[0].item():.3f} {read[0].item():.3f}"
            print(f"{phase.name} {step + 1}: {seen}, {losses}, {minutes:.1f} min", flush=True)
