"""What the trainings of the zoo share: seeding, the size limit, and a model card with its origin.

A model whose making cannot be repeated proves nothing. So every weights folder gets a card that
says how the model was trained, what was measured on held-out data, and how to do it again.
"""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

MAX_WEIGHT_BYTES = 2_000_000


@dataclass(frozen=True)
class Card:
    """What a reader of a weights folder has to know.

    metrics: name -> (trained, untrained); None where an untrained model has no such value.
    """

    title: str
    purpose: str
    data: str
    recipe: str
    retrain: str
    seed: int
    minutes: float
    metrics: Mapping[str, tuple[float, float | None]]
    notes: Sequence[str] = ()


def seed_everything(seed: int, threads: int = 1) -> None:
    """Seeds Python, numpy and torch. One thread makes sums come in the same order every time."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def save_half(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> int:
    """Saves a fp16 copy of the model and its processor; returns the size of the weights in bytes.

    Raises ValueError where the weights are above MAX_WEIGHT_BYTES or overflow fp16; the model given
    stays as it is.
    """
    half = copy.deepcopy(model).half()
    overflowed = [name for name, value in half.state_dict().items() if not value.isfinite().all()]
    if overflowed:
        raise ValueError(f"these weights do not fit fp16: {', '.join(overflowed)}")
    half.save_pretrained(folder)
    processor.save_pretrained(folder)
    files = list(folder.glob("*.safetensors"))
    for path in files:
        path.chmod(0o644)  # safetensors makes it private; an installed package is for all users
    size = sum(path.stat().st_size for path in files)
    if size > MAX_WEIGHT_BYTES:
        raise ValueError(f"{folder} holds {size} bytes of weights, above {MAX_WEIGHT_BYTES}")
    return size


def write_card(card: Card, folder: Path) -> Path:
    """Writes the card as Markdown; returns the path of CARD.md."""
    rows = [
        f"| {name} | {trained:.3f} | {'-' if untrained is None else f'{untrained:.3f}'} |"
        for name, (trained, untrained) in card.metrics.items()
    ]
    lines = [
        f"# {card.title}",
        *("", card.purpose),
        *("", "## Data", card.data),
        *("", "## Training", card.recipe),
        f"Seed {card.seed}, {card.minutes:.1f} minutes. To train again:",
        *("", f"    {card.retrain}"),
        *("", "## Measured on held-out data, from the saved fp16 weights in float32"),
        *("", "| | trained | untrained |", "|---|---|---|", *rows),
        *("", "## Notes", *(f"- {note}" for note in card.notes)),
    ]
    path = folder / "CARD.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
