"""Held-out maps as trajectory files: the embedded data of the `trajectory` study.

A JSON list in the format that the study has to read, PNG pictures beside it, and questions that
`tiny_qwen_vl` can answer. The same files are written again by
`python -m interp_lab.zoo.paths_trajectory`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from interp_lab.zoo.paths import CELL_PIXELS, Question, box, draw_questions, render

FOLDER = Path(__file__).parent / "data" / "trajectory"
SEED = 2026
N_RECORDS = 12
PICTURE_CELL = 8 * CELL_PIXELS  # pixels of a cell; the processor makes the map small again

Record = dict[str, object]


def sample_questions(seed: int = SEED) -> list[Question]:
    """The twelve held-out maps with their questions."""
    return draw_questions(N_RECORDS, np.random.default_rng(seed), held_out=True)


def write_records(folder: Path, seed: int = SEED) -> list[Record]:
    """Write `maps.json` and `maps/<id>.png`; returns the records."""
    questions = sample_questions(seed)
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    records = []
    for number, question in enumerate(questions, start=1):
        name = f"map_{number:02}"
        picture = Image.fromarray(render([question.map], PICTURE_CELL)[0])
        picture.save(folder / "maps" / f"{name}.png", optimize=True)
        records.append(_record(name, question))
    text = json.dumps(records, indent=1)
    (folder / "maps.json").write_text(text + "\n", encoding="utf-8")
    return records


def _record(name: str, question: Question) -> Record:
    label = f"<|object_ref_start|>the {question.asked} point<|object_ref_end|>"
    return {
        "id": name,
        "image": [f"./maps/{name}.png"],
        "problem": question.problem,
        "solution": question.reply,
        "answer": f"{label}{box(question.walked[-1])}",
    }


def main() -> None:
    """Write the records into the package."""
    print(f"{FOLDER}: {len(write_records(FOLDER))} records")


if __name__ == "__main__":
    main()
