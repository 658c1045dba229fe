"""Held-out boards as ScienceQA files: the embedded data of the `scienceqa` study.

Both layouts that the study has to read are here, with questions that `tiny_llava` can answer, and
beside each a `truth.json` that says what is on every board. The same files are written again by
`python -m interp_lab.zoo.boards_scienceqa`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from interp_lab.zoo.boards import (
    CELL_NAMES,
    COLOURS,
    SHAPES,
    Boards,
    ask,
    draw,
    layout_a_text,
    layout_b_text,
    render,
)

FOLDER = Path(__file__).parent / "data" / "scienceqa"
SEED = 2024
N_LAYOUT_A = 60
N_LAYOUT_B = 20
TEXT_ONLY_EVERY = 4  # every fourth record of layout (b) has no image
FIRST_ID_B = 101

LECTURE = "LECTURE: A board has four rows, a to d, and four columns, 1 to 4."

Record = dict[str, object]


def write_layout_a(folder: Path, seed: int = SEED) -> list[Record]:
    """60 records with an image each: `questions.json`, `images/<id>/image.png`, `truth.json`."""
    rng = np.random.default_rng([seed, 0])
    boards = draw(N_LAYOUT_A, rng, held_out=True, grain=0.0)
    questions = ask(boards, rng)
    records, truth = [], {}
    for i, letter in enumerate(questions.letters()):
        name = str(i + 1)
        text = layout_a_text(int(questions.cells[i]), questions.options[i])
        image = _save_image(boards[i : i + 1], folder / "images", name)
        records.append(_record(name, image, f"<image>\n{text}", letter))
        truth[name] = _truth(boards, i, int(questions.cells[i]), letter)
    _save_json(records, folder / "questions.json")
    _save_json(truth, folder / "truth.json")
    return records


def write_layout_b(folder: Path, seed: int = SEED) -> list[Record]:
    """20 records, 5 of them without an image, images in `images/test`, beside `truth.json`.

    A record without an image has no `image` key; its context tells the colour.
    """
    rng = np.random.default_rng([seed, 1])
    boards = draw(N_LAYOUT_B, rng, held_out=True, grain=0.0)
    questions = ask(boards, rng)
    records, truth = [], {}
    for i, letter in enumerate(questions.letters()):
        name, cell = str(FIRST_ID_B + i), int(questions.cells[i])
        colour = COLOURS[questions.options[i][questions.right[i]]]
        text_only = i % TEXT_ONLY_EVERY == TEXT_ONLY_EVERY - 1
        text = layout_b_text(cell, questions.options[i], colour if text_only else None)
        solution = f"SOLUTION: The shape in cell {CELL_NAMES[cell]} is {colour}."
        answer = f"{LECTURE}\n{solution}\nThe answer is {letter}."
        if text_only:
            records.append(_record(name, None, text, answer))
        else:
            image = _save_image(boards[i : i + 1], folder / "images" / "test", name)
            records.append(_record(name, image, f"{text}\n<image>", answer))
        truth[name] = _truth(boards, i, cell, letter)
    _save_json(records, folder / "llava_test_QCM-LEA.json")
    _save_json(truth, folder / "truth.json")
    return records


def _record(name: str, image: str | None, question: str, answer: str) -> Record:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, **({} if image is None else {"image": image}), "conversations": turns}


def _truth(boards: Boards, i: int, cell: int, letter: str) -> Record:
    """What is on board i, cell by cell in reading order, and which cell decides the answer."""
    return {
        "cell": CELL_NAMES[cell],
        "cell_index": cell,
        "answer": letter,
        "colours": [COLOURS[c] for c in boards.colours[i]],
        "shapes": [SHAPES[s] for s in boards.shapes[i]],
    }


def _save_image(board: Boards, images: Path, name: str) -> str:
    """Write one board as PNG; returns its path relative to `images`."""
    relative = f"{name}/image.png"
    path = images / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(board)[0]).save(path, optimize=True)
    return relative


def _save_json(value: object, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Write both layouts into the package."""
    for name, write in (("layout_a", write_layout_a), ("layout_b", write_layout_b)):
        records = write(FOLDER / name)
        print(f"{FOLDER / name}: {len(records)} records")


if __name__ == "__main__":
    main()
