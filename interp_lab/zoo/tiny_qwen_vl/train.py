"""How `tiny_qwen_vl` is trained: maps in, the walk in words and the point's coordinates out.

First the tower speaks the words' own vectors. Then drills name random cells and ask for their
arrows, many in one sequence, until named cells are found; then the walks themselves are asked for,
with a replay of the drills. Only words are ever asked for: no attention is supervised anywhere.
Each step draws new maps in one of several sizes, so that the processor's resizing is no stranger.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    BatchFeature,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from interp_lab.libraries.huggingface import implementation_of, set_implementation
from interp_lab.zoo.paths import (
    BLANK,
    CELL_NAMES,
    CELL_PIXELS,
    END_SIGN,
    MOVES,
    N_CELLS,
    ORDINALS,
    Images,
    PathMap,
    draw_map,
    draw_questions,
    render,
)
from interp_lab.zoo.tiny_qwen_vl.model import END, MERGE_SIZE, model_inputs

SIZES = (CELL_PIXELS, 2 * CELL_PIXELS, 4 * CELL_PIXELS)  # pixels of a cell
BATCH, TOWER_RATE = 32, 2e-3  # of the tower alone
GRAIN = 5.0  # largest standard deviation of the pixel noise (0-255); a batch draws its own
BETAS, DECAY = (0.9, 0.98), 0.02
DRILLED = 26  # cells of a drill
SHARPNESS = 15.0  # of the cosines in the tower's alignment
WINDOWS_AT_ONCE = "flash_windows_at_once"


@dataclass(frozen=True)
class Stage:
    """A part of the training: a warm-up, a level stretch, a linear fall to nearly nothing.

    batch: maps a step. drills: how many of them ask for random cells in place of the path.
    tower_steps: before all that, of the tower alone.
    """

    name: str
    steps: int
    batch: int
    drills: int
    peak: float = 2e-3
    warm_up: int = 30
    fall: int = 100
    tower_steps: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = min(1.0, (self.steps - step) / self.fall)
        return self.peak * min(1.0, (step + 1) / self.warm_up) * max(0.02, left)


STAGES = (
    Stage("look", steps=320, batch=28, drills=18, tower_steps=80),
    Stage("walk", steps=260, batch=28, drills=6, peak=1.5e-3),
    Stage("settle", steps=240, batch=28, drills=10, peak=8e-4, fall=160),
)


def _attend_in_windows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of equally long windows, (1, head, windows * length, dim), in one call."""
    length = MERGE_SIZE**2
    heads, total, dim = query.shape[1:]
    windows = (heads, total // length, length, dim)
    q, k, v = (tensor.reshape(windows).transpose(0, 1) for tensor in (query, key, value))
    seen = F.scaled_dot_product_attention(q, k, v, scale=scaling)
    return seen.transpose(1, 2).reshape(1, total, heads, dim), None


@contextmanager
def windows_at_once(model: Qwen2_5_VLForConditionalGeneration) -> Iterator[None]:
    """Inside, the tower attends in all windows by one call; the numbers are the same.

    The tower calls a plain kernel once for every window, 36 times an image, which takes longer than
    everything else in a training step. A kernel whose name begins with 'flash' gets all of them.
    """
    AttentionInterface.register(WINDOWS_AT_ONCE, _attend_in_windows)
    config = model.model.visual.config
    before = implementation_of(config)
    set_implementation(config, WINDOWS_AT_ONCE)
    try:
        yield
    finally:
        set_implementation(config, before)


def drill(drawn: PathMap, rng: np.random.Generator) -> str:
    """Random cells of a map with the moves that their arrows show, written like a walk."""
    cells = rng.permutation(np.flatnonzero((drawn.signs != BLANK) & (drawn.signs != END_SIGN)))
    said = [f"{CELL_NAMES[cell]} {drawn.move(cell)}" for cell in cells[:DRILLED].tolist()]
    numbers = itertools.cycle(range(1, len(ORDINALS) + 1))
    return "<think>" + " ".join(f"{i} {words}" for i, words in zip(numbers, said, strict=False))


def photograph(maps: Sequence[PathMap], rng: np.random.Generator) -> Images:
    """The maps in one random size, with a little pixel noise."""
    painted = render(maps, int(rng.choice(SIZES)))
    grain = rng.standard_normal(painted.shape, dtype=np.float32) * np.float32(rng.uniform(0, GRAIN))
    return (painted + grain).round().clip(0, 255).astype(np.uint8)


def draw_batch(
    rng: np.random.Generator, processor: Qwen2_5_VLProcessor, n: int, n_drills: int
) -> BatchFeature:
    """Inputs for n new training maps of one size; the last n_drills of them are drills."""
    questions = draw_questions(n, rng)
    images = photograph([q.map for q in questions], rng)
    replies = [q.reply + END for q in questions[: n - n_drills]]
    replies += [drill(q.map, rng) for q in questions[n - n_drills :]]
    return model_inputs(processor, [q.problem for q in questions], images, replies)


def prepare_tower(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    rng: np.random.Generator,
    steps: int,
) -> None:
    """Align each image token with the embeddings of its cell's name and of its arrow's word.

    The directions are aligned, and the size is pulled towards 1.
    """
    tower, words = model.model.visual, processor.tokenizer.convert_tokens_to_ids
    optimizer = torch.optim.AdamW(tower.parameters(), TOWER_RATE, BETAS, weight_decay=DECAY)
    embeddings = F.normalize(model.model.language_model.embed_tokens.weight.detach(), dim=-1)
    names = embeddings[words([f" {name}" for name in CELL_NAMES])]
    moves = embeddings[words([f" {move}" for move in MOVES])]
    cells, loss = torch.arange(N_CELLS).repeat(BATCH), torch.zeros(())
    for _ in range(steps):
        maps = [draw_map(rng) for _ in range(BATCH)]
        pictures = [Image.fromarray(image) for image in photograph(maps, rng)]
        made = processor.image_processor(pictures, return_tensors="pt")
        tokens = tower(made["pixel_values"], made["image_grid_thw"]).pooler_output
        signs = torch.from_numpy(np.concatenate([drawn.signs for drawn in maps]))
        arrows = (signs != BLANK) & (signs != END_SIGN)
        facing = F.normalize(tokens, dim=-1)
        loss = F.cross_entropy(SHARPNESS * facing @ names.T, cells)
        shown = SHARPNESS * facing[arrows] @ moves.T
        loss = loss + F.cross_entropy(shown, signs[arrows] - 1)
        loss = loss + 0.1 * (tokens.pow(2).mean(-1) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"tower: loss {loss.item():.3f}", flush=True)


def asked_mask(ids: Tensor, processor: Qwen2_5_VLProcessor, n_drills: int) -> Tensor:
    """(n, length) bool, the tokens that the loss asks for: replies in full, of drills the moves."""
    words = processor.tokenizer.convert_tokens_to_ids
    asked = (ids == words("<think>")).cumsum(-1) > 0
    moves = torch.isin(ids, torch.tensor(words([f" {move}" for move in MOVES])))
    asked[len(ids) - n_drills :] &= moves[len(ids) - n_drills :]
    return asked


def batch_loss(
    model: Qwen2_5_VLForConditionalGeneration,
    inputs: BatchFeature,
    processor: Qwen2_5_VLProcessor,
    n_drills: int,
) -> tuple[Tensor, float, float]:
    """Cross-entropy of the asked tokens; shares of moves in drills and of whole replies right."""
    wanted = inputs["input_ids"][:, 1:]
    asked = asked_mask(wanted, processor, n_drills)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    loss = F.cross_entropy(logits[asked], wanted[asked])
    right, replies = logits.argmax(-1) == wanted, len(wanted) - n_drills
    moves = right[replies:][asked[replies:]].float().mean().item()
    whole = (right | ~asked)[:replies].all(-1).float().mean().item()
    return loss, moves, whole


def run_stage(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    stage: Stage,
    rng: np.random.Generator,
) -> float:
    """Train the model in place for one stage; returns the minutes that it took."""
    optimizer = torch.optim.AdamW(model.parameters(), stage.peak, BETAS, weight_decay=DECAY)
    begun, running = time.monotonic(), np.zeros(2)
    model.train()
    with windows_at_once(model):
        if stage.tower_steps:
            prepare_tower(model, processor, rng, stage.tower_steps)
        for step in range(stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.rate(step)
            inputs = draw_batch(rng, processor, stage.batch, stage.drills)
            loss, *right = batch_loss(model, inputs, processor, stage.drills)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            running += 0.1 * (np.array(right) - running)
            if (step + 1) % 25 == 0:
                minutes = (time.monotonic() - begun) / 60
                seen = f"moves in drills {running[0]:.3f}, whole replies {running[1]:.3f}"
                line = f"{stage.name} {step + 1}: loss {loss.item():.3f}, {seen}"
                print(f"{line}, {minutes:.1f} min", flush=True)
    model.eval()
    return (time.monotonic() - begun) / 60
