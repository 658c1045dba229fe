"""What `tiny_llava` is shown while it trains: batches of prompts about boards.

The multiple-choice question alone teaches nothing in minutes: three skills have to meet in it. So
each has a drill of its own with many answers a sequence: find a cell's colour, match a word to its
letter among options, and only then both at once in the prompt that users will send.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import LlavaProcessor

from interp_lab.zoo.boards import (
    CELL_NAMES,
    COLOURS,
    LETTERS,
    N_CELLS,
    Boards,
    Ints,
    Questions,
    ask,
    ask_about,
    dotted_options,
    draw,
    inline_options,
    layout_a_text,
    layout_b_text,
    question_line,
)
from interp_lab.zoo.tiny_llava.model import SPECIAL, chat_prompt, instructed

IMAGE_TURN = "USER: <image>\n"
TEXT_TURN = "USER: "
END = SPECIAL["eos_token"]
NAME_AT = 2 + N_CELLS + 7  # [BOS] USER:, the image, seven words: the place of the cell's name
SEVERAL = 5  # queries about one list of options in `match_drill`


@dataclass(frozen=True)
class Lesson:
    """Texts of equal token count, with the words that the model has to come up with.

    answers: supervised token positions counted from the end (-1 is the last).
    scored: the one among them whose accuracy is reported.
    echoes: position -> the word that each text is to bring to mind there, whatever comes next. A
    cell's name calls up its colour, an option's word its letter: a short way to each skill, where
    the answer alone leaves the model on a plateau for many hundred steps.
    """

    name: str
    texts: Sequence[str]
    answers: tuple[int, ...]
    scored: int
    boards: Boards | None = None
    echoes: Mapping[int, Sequence[str]] = field(default_factory=dict)


def colour_drill(n: int, k: int, rng: np.random.Generator) -> Lesson:
    """'b3? red', k cells a board: where is the named cell, and what colour does it hold."""
    boards, cells, words = _many_cells(n, k, rng)
    texts = [
        IMAGE_TURN + " ".join(f"{CELL_NAMES[c]}? {w}" for c, w in zip(*pair, strict=True))
        for pair in zip(cells, words, strict=True)
    ]
    answers = tuple(range(-3 * k + 2, 0, 3))  # name, '?', colour
    echoes = {at - 2: words[:, i].tolist() for i, at in enumerate(answers)}
    return Lesson("colour", texts, answers, scored=-1, boards=boards, echoes=echoes)


def open_drill(n: int, k: int, rng: np.random.Generator) -> Lesson:
    """The whole question, answered by the colour's word, k cells a board."""
    boards, cells, words = _many_cells(n, k, rng)
    texts = [
        IMAGE_TURN
        + " ".join(f"{question_line(c)} ASSISTANT: {w}" for c, w in zip(*pair, strict=True))
        for pair in zip(cells, words, strict=True)
    ]
    answers = tuple(range(-11 * k + 10, 0, 11))  # seven words, name, '?', 'ASSISTANT:', colour
    echoes = {at - 3: words[:, i].tolist() for i, at in enumerate(answers)}
    return Lesson("open", texts, answers, scored=-1, boards=boards, echoes=echoes)


def _many_cells(n: int, k: int, rng: np.random.Generator) -> tuple[Boards, Ints, NDArray[np.str_]]:
    """n boards, k different cells of each, (n, k), and the words of their colours, (n, k)."""
    boards = draw(n, rng)
    cells = rng.random((n, N_CELLS)).argsort(-1)[:, :k]
    colours = np.take_along_axis(boards.colours, cells, -1)
    return boards, cells, np.array(COLOURS)[colours]


def match_drill(n: int, rng: np.random.Generator) -> Lesson:
    """Text only: one list of options, then 'red' -> 'B' several times, drawn independently.

    Drawn without repetition, the last option would be found by elimination instead of by matching.
    """
    inline = rng.random() < 0.4
    options = rng.random((n, len(COLOURS))).argsort(-1)[:, : len(LETTERS)]
    right = rng.integers(len(LETTERS), size=(n, SEVERAL))
    texts = []
    for chosen, wanted in zip(options, right, strict=True):
        listed = f"Options: {inline_options(chosen)}" if inline else dotted_options(chosen)
        queries = [f"ASSISTANT: {COLOURS[chosen[i]]} {LETTERS[i]}" for i in wanted]
        texts.append(TEXT_TURN + " ".join([listed, *queries]))
    answers = tuple(range(-3 * SEVERAL + 2, 0, 3))
    first = answers[0]  # later queries could copy an earlier answer: only the first is scored
    return Lesson("match", texts, answers, scored=first, echoes=_letters_at(first - 7, n))


def _letters_at(first_option: int, n: int) -> dict[int, list[str]]:
    """Echoes: the word of each option, from position `first_option` on, calls up its letter."""
    return {first_option + 2 * i: [letter] * n for i, letter in enumerate(LETTERS)}


def choice_lesson(
    n: int,
    rng: np.random.Generator,
    processor: LlavaProcessor,
    *,
    spoken: bool = False,
    inline: bool = False,
) -> Lesson:
    """The prompt that users send, answered by a letter and the end of the turn.

    spoken: the colour's word comes first ('red B'), a step on the way to the bare letter.
    inline: layout (b) instead of layout (a).
    """
    boards = draw(n, rng)
    layout = layout_b_text if inline else layout_a_text
    texts, words = [], []
    for cell, options, right in _each(ask(boards, rng)):
        words.append(COLOURS[options[right]])
        prompt = chat_prompt(processor, instructed(layout(cell, options)))
        texts.append(" ".join([prompt, *words[-1:] * spoken, LETTERS[right], END]))
    name = "spoken" if spoken else "inline" if inline else "letter"
    answers = (-3, -2, -1) if spoken else (-2, -1)
    echoes = {NAME_AT: words, **_letters_at(NAME_AT + (6 if inline else 3), n)}
    return Lesson(name, texts, answers, scored=-2, boards=boards, echoes=echoes)


def told_lesson(n: int, rng: np.random.Generator, processor: LlavaProcessor) -> Lesson:
    """Layout (b) without an image: the context says what the colour is."""
    texts = []
    for cell, options, right in _each(ask_about(rng.integers(len(COLOURS), size=n), rng)):
        text = instructed(layout_b_text(cell, options, COLOURS[options[right]]))
        prompt = chat_prompt(processor, text, with_image=False)
        texts.append(f"{prompt} {LETTERS[right]} {END}")
    first_option = NAME_AT - N_CELLS + 13  # after the context's sentence
    return Lesson("told", texts, (-2, -1), scored=-2, echoes=_letters_at(first_option, n))


def _each(questions: Questions) -> Iterator[tuple[int, Ints, int]]:
    """(cell, options, index of the right one) of every question."""
    return zip(questions.cells.tolist(), questions.options, questions.right.tolist(), strict=True)
