"""Trains `tiny_llava`, a LlavaForConditionalGeneration whose answers have a known cause.

It answers multiple-choice questions about the colour in one cell of a board, from the image, by a
letter. Train again with `python -m interp_lab.zoo.tiny_llava --seed 0`; several seeds are trained
one after the other, the one with the most right letters is shipped and all of them are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from interp_lab.zoo import WEIGHTS_ROOT
from interp_lab.zoo.boards import ask, draw
from interp_lab.zoo.tiny_llava.checks import attention_checks, causal_checks, layout_b_checks
from interp_lab.zoo.tiny_llava.model import INSTRUCTION, build_model, build_processor
from interp_lab.zoo.tiny_llava.train import StageLog, train
from interp_lab.zoo.training import Card, save_half, seed_everything, write_card

NAME = "tiny_llava"
N_HELD_OUT = 600
EVALUATION_SEED = 4242
CARD_NOTES = (
    "Chance is 0.333 for a letter and 0.0625 for a cell.",
    (
        "Letters are written in free-running greedy generation. Nothing is scored that comes after "
        "a given letter: from there the options alone would give the colour away."
    ),
    (
        "The best head is the one with the most attention mass on the asked cell, chosen on one "
        "half of the boards and measured on the other, for both models. Mass is out of all its "
        "attention, share out of its attention to the image."
    ),
    (
        "The letter is written at the last token, but the cell is looked up where its name stands: "
        "attention at the last token shows little of what the answer hangs on."
    ),
    (
        "No attention was supervised. The name's token was asked for the cell's colour in training "
        "(an auxiliary loss on the next-word scores), which is why a head points from there."
    ),
    (
        "It knows one prompt: its chat template, a question of either layout, and the instruction "
        f"{INSTRUCTION!r} Without the instruction its answers are no better than a guess."
    ),
    "Minutes are of one thread on two crowded cores; about half of that on idle ones.",
    "The weights are fp16: load them with dtype=torch.float32 on a CPU.",
)


@dataclass(frozen=True)
class Trained:
    """One seed's model, saved in `folder`, with its measurements."""

    seed: int
    folder: Path
    logs: list[StageLog]
    metrics: dict[str, float]

    @property
    def right(self) -> float:
        """Sum of the shares of right letters over the forms of the question, boards unchanged."""
        shares = {n: share for n, share in self.metrics.items() if n.endswith("letter right")}
        return sum(share for name, share in shares.items() if "blank" not in name)

    @property
    def minutes(self) -> float:
        """Wall time of all stages."""
        return sum(log.minutes for log in self.logs)


def load(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The saved model in float32 and its processor, from this disk alone."""
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    return model.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True)


def evaluate(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, n: int = N_HELD_OUT
) -> dict[str, float]:
    """Answers, causal checks and attention on n held-out boards, all as shares from 0 to 1."""
    rng = np.random.default_rng(EVALUATION_SEED)
    boards = draw(n, rng, held_out=True)
    questions = ask(boards, rng)
    metrics = causal_checks(model, processor, boards, questions, rng)
    metrics |= layout_b_checks(model, processor, boards, questions)
    for place, seen in attention_checks(model, processor, boards, questions).items():
        metrics[f"best head {place}: asked cell is its maximum"] = seen.hit
        metrics[f"best head {place}: attention mass on it"] = seen.mass
        metrics[f"best head {place}: share of its image attention"] = seen.share
    return metrics


def train_seed(seed: int, work: Path, threads: int) -> Trained:
    """Train one seed, save it below `work`, and measure what was saved."""
    seed_everything(seed, threads)
    processor = build_processor()
    model = build_model(seed)
    logs = train(model, processor, seed, work / f"seed_{seed}")
    folder = work / f"seed_{seed}" / NAME
    save_half(model, processor, folder)
    return Trained(seed, folder, logs, evaluate(*load(folder)))


def ship(tried: Sequence[Trained], output: Path) -> Path:
    """Save the seed with the most right letters to `output`; returns the path of its card."""
    best = max(tried, key=lambda trained: trained.right)
    model, processor = load(best.folder)
    save_half(model, processor, output)
    untrained = evaluate(build_model(best.seed).eval(), processor)
    return write_card(_card(best, tried, untrained), output)


def _card(best: Trained, tried: Sequence[Trained], untrained: dict[str, float]) -> Card:
    seeds = [
        f"Seed {t.seed} ({', '.join(f'{log.steps} {log.name}' for log in t.logs)} steps): "
        + "; ".join(f"{name} {value:.3f}" for name, value in t.metrics.items())
        for t in tried
    ]
    return Card(
        title=NAME,
        purpose=(
            "A LlavaForConditionalGeneration of 0.5 million parameters on a CLIP tower of its own. "
            "The cell that decides each answer is known, so a figure about attention, and a claim "
            "that a head matters, can be checked. It knows nothing but these boards."
        ),
        data=(
            "Boards by interp_lab/zoo/boards.py: 4 x 4 cells, 64 x 64 pixels, one shape a cell in "
            "one of six colours, one image token a cell, and a question with three options. One "
            "board in eight is held out by a rule on its colours and is never trained on."
        ),
        recipe=(
            "Four stages (interp_lab/zoo/tiny_llava/train.py): tower and projector aligned with "
            "the words' embeddings, colour of a named cell, letter of a word, the multiple-choice "
            "prompt in both layouts with a replay of the others. AdamW, a new one for each stage."
        ),
        retrain=f"python -m interp_lab.zoo.{NAME} --seed {best.seed}",
        seed=best.seed,
        minutes=best.minutes,
        metrics={name: (value, untrained[name]) for name, value in best.metrics.items()},
        notes=[*CARD_NOTES, *(f"Tried: {line}" for line in seeds)],
    )


def main() -> None:
    """Train the seeds that are asked for and ship the best of them."""
    parser = argparse.ArgumentParser(description=f"Train {NAME}.")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("outputs/zoo") / NAME)
    parser.add_argument("--output", type=Path, default=WEIGHTS_ROOT / NAME)
    args = parser.parse_args()
    tried = [train_seed(seed, args.work, args.threads) for seed in args.seed]
    print(ship(tried, args.output).read_text(encoding="utf-8"))
