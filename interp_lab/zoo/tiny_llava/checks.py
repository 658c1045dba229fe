"""What is true of `tiny_llava`: its answers, what they hang on, and where its heads look.

Attention in the right place does not prove use, and an answer without attention in the right place
is possible too. So the answers are checked by changing single cells of the board, and attention is
reported beside that, with an untrained model as the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, LlavaForConditionalGeneration, LlavaProcessor

from interp_lab.zoo.boards import (
    COLOURS,
    LETTERS,
    N_CELLS,
    Boards,
    Questions,
    blanked,
    layout_a_text,
    layout_b_text,
    recoloured,
    render,
)
from interp_lab.zoo.tiny_llava.model import chat_prompt, instructed

BATCH = 100


def inputs_for(
    processor: LlavaProcessor, texts: Sequence[str], images: list[Image.Image] | None
) -> BatchFeature:
    """Model inputs for questions with an image each, or for all of them without any."""
    prompts = [
        chat_prompt(processor, instructed(text), with_image=images is not None) for text in texts
    ]
    return processor(images=images, text=prompts, return_tensors="pt", padding=True)


def painted(boards: Boards) -> list[Image.Image]:
    """The boards as images."""
    return [Image.fromarray(image) for image in render(boards)]


def layout_a_texts(questions: Questions) -> list[str]:
    """The questions as records of layout (a) hold them."""
    pairs = zip(questions.cells.tolist(), questions.options, strict=True)
    return [layout_a_text(cell, options) for cell, options in pairs]


@torch.no_grad()
def answers(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    texts: Sequence[str],
    images: list[Image.Image] | None,
) -> NDArray[np.str_]:
    """(n,) what the model writes by itself, greedily, until it ends its turn (4 tokens at most)."""
    written: list[str] = []
    generate = getattr(model, "generate")  # noqa: B009, its type names attributes it lacks
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        inputs = inputs_for(processor, texts[part], None if images is None else images[part])
        output = generate(**inputs, max_new_tokens=4, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        written += processor.batch_decode(new, skip_special_tokens=True)
    return np.array([text.strip() for text in written])


def layout_b_checks(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    boards: Boards,
    questions: Questions,
) -> dict[str, float]:
    """Shares of right letters in layout (b): by the image, and by a context without an image."""
    right = np.array(questions.letters())
    rows = list(zip(questions.cells.tolist(), questions.options, questions.right, strict=True))
    seen = [layout_b_text(cell, options) for cell, options, _ in rows]
    told = [layout_b_text(cell, options, COLOURS[options[i]]) for cell, options, i in rows]
    by_image = answers(model, processor, seen, painted(boards)) == right
    by_text = answers(model, processor, told, None) == right
    return {
        "layout (b): letter right": float(by_image.mean()),
        "layout (b), told by the text: letter right": float(by_text.mean()),
    }


def causal_checks(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    boards: Boards,
    questions: Questions,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Shares of boards, 0 to 1, on which the answer is right or reacts as the named change demands.

    Another option's colour is painted into the asked cell, then into another cell; then either of
    them is emptied. Every other pixel stays as it was.
    """
    n = len(boards)
    letters = np.array(list(LETTERS))
    right = letters[questions.right]
    new = (questions.right + rng.integers(1, len(LETTERS), size=n)) % len(LETTERS)
    colour = questions.options[np.arange(n), new]
    asked = questions.cells
    other = (asked + rng.integers(1, N_CELLS, size=n)) % N_CELLS

    texts = layout_a_texts(questions)

    def written(changed: Boards) -> NDArray[np.str_]:
        return answers(model, processor, texts, painted(changed))

    before = written(boards)
    checks = {
        "letter right": before == right,
        "asked cell recoloured: the new letter": written(recoloured(boards, asked, colour))
        == letters[new],
        "another cell recoloured: same letter": written(recoloured(boards, other, colour))
        == before,
        "asked cell blank: letter right": written(blanked(boards, asked)) == right,
        "another cell blank: letter right": written(blanked(boards, other)) == right,
    }
    return {name: float(hits.mean()) for name, hits in checks.items()}


@dataclass(frozen=True)
class Pointing:
    """The head that looks most at one cell; chosen on half of the boards, measured on the others.

    hit: share of boards on which this cell is the one it looks at most, among the 16.
    mass: the cell's share of all that head's attention. share: the same among image tokens only.
    """

    layer: int
    head: int
    hit: float
    mass: float
    share: float


def pointing(attention: Tensor, cells: NDArray[np.int64]) -> Pointing:
    """The head of `attention`, (n, layer, head, 16), with the most mass on the `cells`, (n,)."""
    n, _, n_heads, _ = attention.shape
    wanted = torch.from_numpy(cells)
    mass = attention[torch.arange(n), :, :, wanted]
    half = n // 2
    layer, head = divmod(int(mass[:half].mean(0).argmax()), n_heads)
    seen, own = attention[half:, layer, head], mass[half:, layer, head]
    hit = (seen.argmax(-1) == wanted[half:]).float()
    share = own / seen.sum(-1)
    return Pointing(layer, head, hit.mean().item(), own.mean().item(), share.mean().item())


@torch.no_grad()
def board_attention(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, inputs: BatchFeature
) -> dict[str, Tensor]:
    """(n, layer, head, 16) attention to the board, from the cell's name and from the last token.

    The letter is written by the last token. The model's own kernel is set back afterwards.
    """
    kernel = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation("eager")
    try:
        output = model(**inputs, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(kernel)
    patterns = torch.stack(output.attentions, 1)
    # Prompts of layout (a) are equally long, so every token has one place in all of them.
    first_ids = inputs["input_ids"][0].tolist()
    start = first_ids.index(processor.image_token_id)
    name = first_ids.index(processor.tokenizer.convert_tokens_to_ids("cell")) + 1
    board = patterns[..., start : start + N_CELLS]
    return {"at the cell's name": board[..., name, :], "at the last token": board[..., -1, :]}


def attention_checks(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    boards: Boards,
    questions: Questions,
) -> dict[str, Pointing]:
    """How well the best head points at the asked cell, from two places of the prompt."""
    inputs = inputs_for(processor, layout_a_texts(questions), painted(boards))
    places = board_attention(model, processor, inputs)
    return {place: pointing(seen, questions.cells) for place, seen in places.items()}
