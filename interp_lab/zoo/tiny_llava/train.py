"""How `tiny_llava` is trained: in stages, each of which the next one builds on.

Mixed from the start, nothing is learned in minutes. First the tower speaks the words' own vectors,
then a named cell is looked up, then words are matched to letters, then the question itself is
asked. What a stage does not repeat is forgotten within fifty steps, so each one replays the earlier
ones. Only words are ever asked for: no attention is supervised anywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from interp_lab.zoo.boards import CELL_NAMES, COLOURS, N_CELLS, Boards, draw, render
from interp_lab.zoo.tiny_llava.lessons import (
    Lesson,
    choice_lesson,
    colour_drill,
    match_drill,
    open_drill,
    told_lesson,
)
from interp_lab.zoo.tiny_llava.model import IMAGE_TOKEN

LEARNING_RATE = 2e-3
ECHO_WEIGHT = 0.5
SMOOTHING = 0.07  # of the running accuracy that ends a stage
TOWER_STEPS = 80
SHARPNESS = 15.0  # of the cosines in the tower's alignment

WeightedLessons = list[tuple[float, Lesson]]


@dataclass(frozen=True)
class Stage:
    """One stage: what it shows at each step and when it ends.

    It ends `decay` steps after the running accuracy of `watch` passes `enough`, or after `at_most`
    steps; over the decay the learning rate falls to zero.
    """

    name: str
    lessons: Callable[[np.random.Generator, LlavaProcessor], WeightedLessons]
    watch: str
    enough: float
    at_most: int
    warm_up: int
    decay: int = 0


@dataclass(frozen=True)
class StageLog:
    """What a stage took, and the running accuracies that it ended with."""

    name: str
    steps: int
    minutes: float
    accuracies: dict[str, float]


def look(rng: np.random.Generator, _: LlavaProcessor) -> WeightedLessons:
    """Find the colour of a named cell."""
    return [(1.0, colour_drill(96, 10, rng))]


def match(rng: np.random.Generator, _: LlavaProcessor) -> WeightedLessons:
    """Find the letter of a word; looking is replayed so that it is not forgotten."""
    return [(1.0, match_drill(160, rng)), (0.25, colour_drill(20, 10, rng))]


def answer(rng: np.random.Generator, processor: LlavaProcessor) -> WeightedLessons:
    """The multiple-choice question in both layouts, with a replay of everything before it."""
    look_again = open_drill(32, 3, rng) if rng.random() < 0.7 else colour_drill(32, 8, rng)
    kind = rng.random()
    if kind < 0.12:
        main = (1.0, told_lesson(96, rng, processor))
    elif kind < 0.32:
        spoken = choice_lesson(64, rng, processor, spoken=True, inline=rng.random() < 0.25)
        main = (0.7, spoken)
    else:
        main = (1.0, choice_lesson(96, rng, processor, inline=rng.random() < 0.25))
    return [(0.5, look_again), (0.3, match_drill(48, rng)), main]


STAGES = (
    Stage("look", look, watch="colour", enough=0.985, at_most=1500, warm_up=50),
    Stage("match", match, watch="match", enough=0.97, at_most=500, warm_up=30),
    Stage("answer", answer, watch="letter", enough=0.975, at_most=1600, warm_up=30, decay=200),
)


def pixels(boards: Boards, processor: LlavaProcessor) -> Tensor:
    """(n, 3, 64, 64) inputs, as the processor would make them from the painted boards."""
    images = processor.image_processor
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std))
    painted = torch.from_numpy(render(boards)).permute(0, 3, 1, 2)
    return (painted / 255 - mean) / std


def token_ids(texts: Sequence[str], processor: LlavaProcessor) -> Tensor:
    """(n, length) ids with the image tokens in place. Raises ValueError where lengths differ."""
    expanded = [text.replace(IMAGE_TOKEN, IMAGE_TOKEN * N_CELLS) for text in texts]
    return torch.tensor(processor.tokenizer(expanded)["input_ids"])


def lesson_loss(
    model: LlavaForConditionalGeneration, lesson: Lesson, processor: LlavaProcessor
) -> tuple[Tensor, float]:
    """Cross-entropy over the lesson's answers, and the accuracy at its scored position."""
    ids = token_ids(lesson.texts, processor)
    images = None if lesson.boards is None else pixels(lesson.boards, processor)
    logits = model(input_ids=ids, pixel_values=images, use_cache=False).logits
    places = list(lesson.answers)
    predicted = logits[:, [p - 1 for p in places]]
    loss = F.cross_entropy(predicted.flatten(0, 1), ids[:, places].flatten())
    if lesson.echoes:
        words = [processor.tokenizer.convert_tokens_to_ids(w) for w in lesson.echoes.values()]
        echoed = logits[:, list(lesson.echoes)].transpose(0, 1).flatten(0, 1)
        loss = loss + ECHO_WEIGHT * F.cross_entropy(echoed, torch.tensor(words).flatten())
    right = logits[:, lesson.scored - 1].argmax(-1) == ids[:, lesson.scored]
    return loss, right.float().mean().item()


def optimizer_for(parameters: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    """The optimizer of every stage."""
    return torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)


def prepare_tower(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
) -> None:
    """Align each image token with the embeddings of its cell's name and of its colour's word.

    Left free, the projector's outputs grow to ten times a word's size, nearly all of it shared by
    every cell, and no head finds a cell in it: hence cosines, and a pull towards unit size.
    """
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    optimizer = optimizer_for([*tower.parameters(), *projector.parameters()])
    embeddings = F.normalize(model.model.language_model.embed_tokens.weight.detach(), dim=-1)
    name_ids = processor.tokenizer.convert_tokens_to_ids(list(CELL_NAMES))
    colour_ids = processor.tokenizer.convert_tokens_to_ids(list(COLOURS))
    cells, loss = torch.arange(N_CELLS).repeat(64), torch.zeros(())
    for _ in range(steps):
        boards = draw(64, rng)
        patches = tower(pixels(boards, processor)).last_hidden_state[:, 1:]  # without CLS
        tokens = projector(patches).flatten(0, 1)
        cosines = F.normalize(tokens, dim=-1) @ embeddings.T
        colours = torch.from_numpy(boards.colours).flatten()
        loss = F.cross_entropy(SHARPNESS * cosines[:, name_ids], cells)
        loss = loss + F.cross_entropy(SHARPNESS * cosines[:, colour_ids], colours)
        loss = loss + 0.1 * (tokens.pow(2).mean(-1) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"tower: loss {loss.item():.3f}", flush=True)


def run_stage(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    stage: Stage,
    rng: np.random.Generator,
) -> StageLog:
    """Train one stage in place."""
    optimizer = optimizer_for(list(model.parameters()))
    running: dict[str, float] = {}
    begun, step, ends = time.monotonic(), 0, stage.at_most
    while step < ends:
        if ends == stage.at_most and running.get(stage.watch, 0) > stage.enough:
            ends = min(stage.at_most, step + stage.decay)
        left = min(1.0, (ends - step) / stage.decay) if stage.decay else 1.0
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / stage.warm_up) * left
        optimizer.zero_grad()
        for weight, lesson in stage.lessons(rng, processor):
            loss, accuracy = lesson_loss(model, lesson, processor)
            (weight * loss).backward()
            before = running.get(lesson.name, accuracy)
            running[lesson.name] = before + SMOOTHING * (accuracy - before)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            seen = ", ".join(f"{name} {value:.3f}" for name, value in running.items())
            minutes = (time.monotonic() - begun) / 60
            print(f"{stage.name} {step}: {seen} ({minutes:.1f} min)", flush=True)
    return StageLog(stage.name, step, (time.monotonic() - begun) / 60, running)


def train(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    seed: int,
    checkpoints: Path,
    stages: Sequence[Stage] = STAGES,
    tower_steps: int = TOWER_STEPS,
) -> list[StageLog]:
    """Train the stages in place; returns what each of them took.

    After each stage weights and log go to `checkpoints`; a stage that is found there is loaded, not
    run, so a failed stage does not cost the ones before it.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    model.train()
    logs: list[StageLog] = []
    for number, stage in enumerate(stages):
        weights = checkpoints / f"{number}_{stage.name}.safetensors"
        log = weights.with_suffix(".json")  # written last: it marks the stage as finished
        if log.exists():
            load_model(model, weights)
            logs.append(StageLog(**json.loads(log.read_text(encoding="utf-8"))))
            continue
        rng = np.random.default_rng([seed, number])
        if number == 0:
            prepare_tower(model, processor, rng, tower_steps)
        logs.append(run_stage(model, processor, stage, rng))
        save_model(model, str(weights))
        log.write_text(json.dumps(asdict(logs[-1])), encoding="utf-8")
    model.eval()
    return logs
