"""What is true of `tiny_qwen_vl`: what it writes, what each move hangs on, where its heads look.

Replies are written by the model itself. Then single steps are taken apart: the reply is given up to
the name of a cell, and the move that comes next must follow this cell's arrow and no other, in the
pixels as in the attention. Where heads look at that step is reported beside it, with an untrained
model as the control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from interp_lab.zoo.paths import (
    CELL_PIXELS,
    N_CELLS,
    PathMap,
    Question,
    blanked,
    box,
    other_moves,
    render,
    turned,
)
from interp_lab.zoo.tiny_llava.checks import Pointing, pointing
from interp_lab.zoo.tiny_qwen_vl.model import END, model_inputs

BATCH = 50
REPLY_TOKENS = 48  # the longest reply has 41
LARGE = 8 * CELL_PIXELS

Model = Qwen2_5_VLForConditionalGeneration


@dataclass(frozen=True)
class Step:
    """One move of a reply: the model has named the path's cell `index` (from 0), the move is next.

    new_move: another move that the cell's arrow could show. other: another cell of the path.
    """

    question: Question
    index: int
    new_move: str = ""
    other: int = -1

    @property
    def cell(self) -> int:
        """The current cell, whose name was just written."""
        return self.question.walked[self.index]

    @property
    def move(self) -> str:
        """The move that the map shows."""
        return self.question.map.move(self.cell)

    @property
    def written(self) -> str:
        """The true reply up to the current cell's name."""
        return self.question.said(self.index)


def every_step(questions: Sequence[Question]) -> list[Step]:
    """All moves of all replies."""
    return [Step(q, index) for q in questions for index in range(len(q.walked) - 1)]


def one_step(question: Question, rng: np.random.Generator) -> Step:
    """A random move of a reply whose arrow could also show another, with a random other cell."""
    last = len(question.walked) - 1
    moves = {i: found for i in range(last) if (found := other_moves(question.map, i))}
    index = int(rng.choice(list(moves)))
    others = [cell for cell in question.map.cells if cell != question.walked[index]]
    return Step(question, index, str(rng.choice(moves[index])), int(rng.choice(others)))


@torch.no_grad()
def replies(
    model: Model,
    processor: Qwen2_5_VLProcessor,
    questions: Sequence[Question],
    cell_pixels: int = CELL_PIXELS,
) -> NDArray[np.str_]:
    """(n,) what the model writes by itself, greedily, until it ends its turn."""
    written: list[str] = []
    generate = getattr(model, "generate")  # noqa: B009, its type names attributes it lacks
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        images = render([q.map for q in part], cell_pixels)
        inputs = model_inputs(processor, [q.problem for q in part], images)
        output = generate(**inputs, max_new_tokens=REPLY_TOKENS, do_sample=False)
        written += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :])
    return np.array([text.split(END)[0] for text in written])


def reply_checks(
    model: Model, processor: Qwen2_5_VLProcessor, questions: Sequence[Question]
) -> dict[str, float]:
    """Shares of replies that are right word for word, and of right points, on two map sizes."""
    right = np.array([q.reply for q in questions])
    points = [box(q.walked[-1]) for q in questions]
    checks = {}
    for pixels in (CELL_PIXELS, LARGE):
        written = replies(model, processor, questions, pixels)
        found = [point in text for point, text in zip(points, written, strict=True)]
        side = render([questions[0].map], pixels).shape[1]
        checks[f"map of {side} pixels: whole reply right"] = float((written == right).mean())
        checks[f"map of {side} pixels: point right"] = float(np.mean(found))
    return checks


def step_inputs(
    processor: Qwen2_5_VLProcessor, steps: Sequence[Step], maps: Sequence[PathMap]
) -> BatchFeature:
    """Inputs that end with the current cell's name, so that the last token writes the move."""
    problems = [step.question.problem for step in steps]
    return model_inputs(processor, problems, render(maps), [step.written for step in steps])


@torch.no_grad()
def next_words(
    model: Model,
    processor: Qwen2_5_VLProcessor,
    steps: Sequence[Step],
    change: Callable[[Step], PathMap] | None = None,
    blocked: Callable[[Step], int] | None = None,
) -> NDArray[np.str_]:
    """(n,) the word that the model writes next at each step.

    change: the map that is shown in place of the question's own. blocked: a cell that no layer can
    attend to from the current cell's name, the row that writes the move.
    """
    words: list[str] = []
    for start in range(0, len(steps), BATCH):
        part = steps[start : start + BATCH]
        maps = [change(step) if change else step.question.map for step in part]
        inputs = step_inputs(processor, part, maps)
        if blocked:
            inputs = _blocked(model, inputs, [blocked(step) for step in part])
        last = model(**inputs, use_cache=False).logits[:, -1].argmax(-1)
        words += processor.batch_decode(last[:, None])
    return np.array([word.strip() for word in words])


def _blocked(model: Model, inputs: BatchFeature, cells: Sequence[int]) -> BatchFeature:
    """The inputs with a mask that hides one cell's image token from the last token of each row."""
    ids, padding = inputs["input_ids"], inputs["attention_mask"].bool()
    length = ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & padding[:, None, :]
    seen |= torch.eye(length, dtype=torch.bool)  # a padded row must see something
    first = (ids == model.config.image_token_id).int().argmax(-1)
    seen[torch.arange(len(ids)), -1, first + torch.tensor(cells)] = False
    positions, _ = model.model.get_rope_index(
        ids,
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
    )
    hidden = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    mask = {"full_attention": hidden[:, None]}  # as the model itself would make it
    return BatchFeature({**inputs, "attention_mask": mask, "position_ids": positions})


def causal_checks(
    model: Model,
    processor: Qwen2_5_VLProcessor,
    questions: Sequence[Question],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Shares of steps, 0 to 1, at which the move is right or reacts as the named change demands.

    One step a question. `another cell` is a random other one of the drawn path.
    """
    steps = [one_step(question, rng) for question in questions]
    right, new = (np.array([getattr(s, name) for s in steps]) for name in ("move", "new_move"))

    def written(**options: Callable[[Step], object]) -> NDArray[np.str_]:
        return next_words(model, processor, steps, **options)  # pyright: ignore

    before = written()
    blank_other = written(change=lambda s: blanked(s.question.map, s.other))
    checks = {
        "move right": before == right,
        "current cell's arrow turned: the new move": written(
            change=lambda s: turned(s.question.map, s.cell, s.new_move)
        )
        == new,
        "current cell blank: move right": written(change=lambda s: blanked(s.question.map, s.cell))
        == right,
        "another cell blank: same move": blank_other == before,
        "attention to the current cell blocked: move right": written(blocked=lambda s: s.cell)
        == right,
        "attention to another cell blocked: same move": written(blocked=lambda s: s.other)
        == before,
    }
    return {name: float(hits.mean()) for name, hits in checks.items()}


@torch.no_grad()
def step_attention(model: Model, processor: Qwen2_5_VLProcessor, steps: Sequence[Step]) -> Tensor:
    """(n, layer, head, 36) attention to the map's cells from the token that writes the move.

    The model's own kernel is set back afterwards.
    """
    kernel = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation("eager")
    parts = []
    try:
        for start in range(0, len(steps), BATCH):
            part = steps[start : start + BATCH]
            inputs = step_inputs(processor, part, [step.question.map for step in part])
            output = model(**inputs, output_attentions=True, use_cache=False)
            rows = torch.stack(output.attentions, 1)[:, :, :, -1]
            first = (inputs["input_ids"] == model.config.image_token_id).int().argmax(-1)
            cells = first[:, None, None, None] + torch.arange(N_CELLS)
            parts.append(rows.gather(-1, cells.expand(*rows.shape[:3], N_CELLS)))
    finally:
        model.set_attn_implementation(kernel)
    return torch.cat(parts)


def attention_checks(
    model: Model, processor: Qwen2_5_VLProcessor, questions: Sequence[Question]
) -> dict[str, Pointing]:
    """How well the best head, and the best layer's mean over heads, point at the current cell.

    Either is chosen on the first half of the steps and measured on the second.
    """
    steps = every_step(questions)
    seen = step_attention(model, processor, steps)
    cells = np.array([step.cell for step in steps])
    return {
        "best head": pointing(seen, cells),
        "best layer, mean over heads": replace(
            pointing(seen.mean(2, keepdim=True), cells), head=-1
        ),
    }
