"""Trains `tiny_qwen_vl`, a Qwen2_5_VLForConditionalGeneration whose every move has a known cause.

It follows a path on a map, writes each cell and each move, and ends with a point's coordinates.
Train again with `python -m interp_lab.zoo.tiny_qwen_vl --seed 0`; several seeds are trained one
after the other, the best of them is shipped and all of them are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from interp_lab.zoo import WEIGHTS_ROOT
from interp_lab.zoo.paths import draw_questions
from interp_lab.zoo.tiny_qwen_vl.checks import attention_checks, causal_checks, reply_checks
from interp_lab.zoo.tiny_qwen_vl.model import build_model, build_processor
from interp_lab.zoo.tiny_qwen_vl.train import STAGES, run_stage
from interp_lab.zoo.training import Card, save_half, seed_everything, write_card

NAME = "tiny_qwen_vl"
N_HELD_OUT = 150
EVALUATION_SEED = 4242
CARD_NOTES = (
    "Chance is 0.028 for a cell. Two or three moves stay on the map and do not go back.",
    (
        "Whole replies and points are written in free-running greedy generation. The other checks "
        "look at one step each: the true reply is given up to a cell's name, the move comes next."
    ),
    (
        "The row that is looked at and blocked is that of the cell's name: it writes the move. "
        "It is blocked in every layer. Another cell is a random other one of the same path."
    ),
    (
        "The best head is the one with the most attention mass on the current cell, chosen on one "
        "half of the steps and measured on the other, for both models; so is the best layer. Mass "
        "is out of all its attention, share out of its attention to the image."
    ),
    (
        "Where a cell's name is written, heads need not look at that cell: the name follows from "
        "the last cell and the move; the first one's stands in the question."
    ),
    (
        "No attention was supervised. Replies were asked for, and in drills the moves of random "
        "named cells; the tower was first aligned with the words' embeddings."
    ),
    (
        "On maps that show the path alone, without other arrows beside it, a model of this kind "
        "(seed 0) wrote 0.87 of the replies right while no head pointed at the current cell in "
        "more than 0.41 of the steps, and with that cell's arrow turned it wrote the new move in "
        "0.36 only: it could look for the next piece of road. Hence the arrows everywhere."
    ),
    (
        "A start that only the picture shows was not learned: with the same two stages and 400 "
        "more steps, 0.02 of the replies were right, nearly all of the wrong ones from the first "
        "cell on. So the question names it. The shipped weights' first stage was still trained "
        "with the question that does not; the tower and the drills are the same."
    ),
    (
        "The tower attends within one cell (its window; the real model has layers over the whole "
        "image), so a cell's token knows nothing of its neighbours in a map of 48 pixels. In a "
        "larger one the processor's resizing mixes a pixel or two across a cell's edge."
    ),
    (
        "It knows one question, with the points third to eighth and last, one image and its chat "
        "template with the default system sentence. Several images run, but were never trained on."
    ),
    "Minutes are of one thread on two crowded cores; about half of that on idle ones.",
    "The weights are fp16: load them with dtype=torch.float32 on a CPU.",
)


@dataclass(frozen=True)
class Trained:
    """One seed's model, saved in `folder`, with its measurements."""

    seed: int
    folder: Path
    minutes: float
    metrics: dict[str, float]

    @property
    def quality(self) -> float:
        """Whole replies right, and how often the best head points; 3 is the most possible."""
        whole = [share for name, share in self.metrics.items() if "whole reply" in name]
        return sum(whole) + self.metrics["best head: current cell is its maximum"]


def load(folder: Path) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """The saved model in float32 and its processor, from this disk alone."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    return model.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True)


def evaluate(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    n: int = N_HELD_OUT,
) -> dict[str, float]:
    """Replies, causal checks and attention on n held-out maps, all as shares from 0 to 1."""
    rng = np.random.default_rng(EVALUATION_SEED)
    questions = draw_questions(n, rng, held_out=True)
    metrics = reply_checks(model, processor, questions)
    metrics |= causal_checks(model, processor, questions, rng)
    for place, seen in attention_checks(model, processor, questions).items():
        metrics[f"{place}: current cell is its maximum"] = seen.hit
        metrics[f"{place}: attention mass on it"] = seen.mass
        metrics[f"{place}: share of its image attention"] = seen.share
    return metrics


def train_seed(seed: int, work: Path, threads: int) -> Trained:
    """Train one seed in its stages, save each below `work`, and measure what was saved.

    Every stage goes on from the saved fp16 weights of the one before; one that is found is not run
    again, so a failed stage does not cost the earlier ones.
    """
    seed_everything(seed, threads)
    model, processor, folder, minutes = build_model(seed), build_processor(), work, 0.0
    for number, stage in enumerate(STAGES):
        folder = work / f"seed_{seed}" / f"{number}_{stage.name}"
        done = folder / "minutes.txt"  # written last: it marks the stage as finished
        if not done.exists():
            spent = run_stage(model, processor, stage, np.random.default_rng([seed, number]))
            save_half(model, processor, folder)
            done.write_text(f"{spent}\n", encoding="utf-8")
        model, processor = load(folder)
        minutes += float(done.read_text(encoding="utf-8"))
    trained = Trained(seed, folder, minutes, evaluate(model, processor))
    print(f"seed {seed}: {trained.metrics}", flush=True)
    return trained


def ship(tried: Sequence[Trained], output: Path) -> Path:
    """Save the best seed to `output`; returns the path of its card."""
    best = max(tried, key=lambda trained: trained.quality)
    model, processor = load(best.folder)
    save_half(model, processor, output)
    untrained = evaluate(build_model(best.seed).eval(), processor)
    return write_card(_card(best, tried, untrained), output)


def _card(best: Trained, tried: Sequence[Trained], untrained: dict[str, float]) -> Card:
    seeds = [
        f"Tried: Seed {t.seed} ({t.minutes:.1f} minutes): "
        + "; ".join(f"{name} {value:.3f}" for name, value in t.metrics.items())
        for t in tried
    ]
    return Card(
        title=NAME,
        purpose=(
            "A Qwen2_5_VLForConditionalGeneration of 0.5 million parameters. It writes down a path "
            "cell by cell, and the cell that decides each move is known, so a figure about "
            "attention during generation can be checked. It knows nothing but these maps."
        ),
        data=(
            "Maps by interp_lab/zoo/paths.py: 6 x 6 cells, 48 x 48 pixels or a multiple, one image "
            "token a cell, an arrow in nearly every cell, a path of four to eight cells that the "
            "arrows lead along. One path in eight is held out by a rule on its cells and is never "
            "trained on."
        ),
        recipe=(
            "interp_lab/zoo/tiny_qwen_vl/train.py: the tower aligned with the words' embeddings, "
            "then the arrows of random named cells, then whole replies with a replay of the rest ("
            + ", ".join(f"{stage.steps} {stage.name}" for stage in STAGES)
            + " steps). AdamW, a new one for each stage."
        ),
        retrain=f"python -m interp_lab.zoo.{NAME} --seed {best.seed}",
        seed=best.seed,
        minutes=best.minutes,
        metrics={name: (value, untrained[name]) for name, value in best.metrics.items()},
        notes=[*CARD_NOTES, *seeds],
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
