"""Makes the compiled models: weights, what is true of them, and a card.

Nothing is trained. `python -m interp_lab.zoo.compiled` writes the same folders again in a few
minutes, nearly all of which go into cutting: a claim that does not hold stops it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from interp_lab.zoo import WEIGHTS_ROOT
from interp_lab.zoo.compiled import llava, qwen_vl
from interp_lab.zoo.compiled.claims import claimed
from interp_lab.zoo.compiled.measure import asked, measured
from interp_lab.zoo.compiled.truth import Truth, write_truth
from interp_lab.zoo.training import save_half

# Model -> the module that makes it, and the layout of its parts.
MODELS = {
    "compiled_llava": (llava, "home"),
    "compiled_llava_moved": (llava, "moved"),
    "compiled_qwen_vl": (qwen_vl, "home"),
}


def make(name: str, root: Path) -> Truth:
    """Write a model's folder below `root`, measured as it was saved; return its truth.

    Raises:
        ClaimError: if a claim about it does not hold; the folder then has no truth.
    """
    module, layout = MODELS[name]
    folder, processor = root / name, module.build_processor()
    model = module.build_model(layout)
    save_half(model, processor, folder)
    saved = type(model).from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    to = asked(processor=processor, known=module.vocabulary(), image_token=processor.image_token)
    truth = measured(saved, claimed(name, layout), to)
    write_truth(truth, folder)
    (folder / "CARD.md").write_text(card(truth), encoding="utf-8")
    return truth


def card(truth: Truth) -> str:
    """Return what a reader of the folder has to know, as Markdown."""
    planted = [head for head in truth.heads if head.part not in ("sink", "even")]
    rows = [
        f"| {head.layer} | {head.head} | {head.part} | {head.at} -> {head.looks_at} "
        f"| {head.mass:.2f} | {head.right_without} | {head.right_blind} |"
        for head in planted
    ]
    kind = MODELS[truth.model][0].build_model.__annotations__["return"]
    lines = [
        f"# {truth.model}",
        "",
        f"A {kind} whose weights are computed, not trained: which head does "
        "what is known beforehand. It answers the questions about the boards of "
        "interp_lab/zoo/boards.py and knows nothing else. `truth.json` says what is true of every "
        "head and every route; interp_lab/zoo/compiled/truth.py says how to read it, and "
        "interp_lab/zoo/compiled/mechanism.py what the parts do.",
        "",
        f"Of {truth.boards} held-out boards it has {truth.right} right. Where the mechanism fails "
        f"it writes {truth.guess}, which is right on {truth.guessed}.",
        "",
        "| layer | head | part | looks | mass | right without it | right, image hidden from it |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "All other heads look at the first token or evenly at everything, and write nothing.",
        "Made again by:",
        "",
        "    python -m interp_lab.zoo.compiled",
        "",
        "The weights are fp16: load them with dtype=torch.float32 on a CPU.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the models that are asked for."""
    parser = argparse.ArgumentParser(description="Make the compiled models.")
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--output", type=Path, default=WEIGHTS_ROOT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.model:
        truth = make(name, args.output)
        print(f"{name}: {truth.right} of {truth.boards} right, all claims hold")
