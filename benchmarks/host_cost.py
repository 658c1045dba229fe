"""What a long prompt costs on the host, outside the model's forward.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/host_cost.py --tokens 16384 --cells 100 150

A prompt of so many tokens, with one picture of that grid, goes through everything that a sample of
`scienceqa`, `semdim` and `trajectory` goes through but the forward and the processor: `prepare`
(the token map is within it), plans, their places in an attention call, knock-outs, and `update`
with captured tensors of the right shape (28 layers of 28 heads, random). CPU milliseconds, medians.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp_lab.capture.forwards import read_mask
from interp_lab.capture.frames import Extent, key_columns, key_places, query_columns, query_places
from interp_lab.capture.tally import Captured
from interp_lab.datasets.base import Sample
from interp_lab.models.answers import Answer
from interp_lab.models.language import LanguageModel
from interp_lab.models.tokenmaps import Span, qwen_vl_map
from interp_lab.studies.scienceqa.analysis import ScienceQAHeads
from interp_lab.studies.semdim.analysis import SemanticDimensionAttention
from interp_lab.studies.semdim.spans import word_spans
from interp_lab.studies.trajectory.analysis import Trajectory
from interp_lab.tokens import TokenMap

LAYERS, HEADS, WRITTEN, VOCABULARY = 28, 28, 64, 500
IMAGE, PATCH, MERGE = "<|image_pad|>", 14, 2
SPECIAL = [IMAGE, "<|vision_start|>", "<|vision_end|>", *(f"<|special_{i}|>" for i in range(12))]
MARKED = ("word", "dim1", "dim2", "number1", "number2")


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, with as many special tokens as a Qwen's."""
    words = [*SPECIAL, "?", *MARKED, *(f"w{i}" for i in range(VOCABULARY))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, additional_special_tokens=SPECIAL, pad_token=SPECIAL[-1]
    )


def prompt_of(n_text: int) -> tuple[str, list[Span]]:
    """Return a prompt of one picture and `n_text` other tokens, with the spans of semdim."""
    plain = [f"w{i % VOCABULARY}" for i in range(n_text - 2 - 8)]
    tail = ["word", "dim1", "dim2", "number1", "dim1", "number2", "dim2"]
    start = ["<|vision_start|>", IMAGE, "<|vision_end|>"]
    prompt = " ".join([*start, *plain, *tail, "w0"])
    spans: list[Span] = []
    at = prompt.rindex(" word ") + 1
    roles = ["word", "dimension", "dimension", *["option"] * 4]
    for text, role in zip(tail, roles, strict=True):
        spans.append(Span(at, at + len(text), role, text))
        at += len(text) + 1
    return prompt, [*spans, Span(0, len(prompt), "user")]


class Reader(LanguageModel):
    """A model without weights, whose processor has done its work already.

    Args:
        n_text: tokens beside the picture's.
        cells: the picture's grid.
    """

    def __init__(self, n_text: int, cells: tuple[int, int]) -> None:
        self.prompt, self.spans = prompt_of(n_text)
        rows, cols = cells
        self.grids = [(1, rows * MERGE, cols * MERGE)]
        text = SimpleNamespace(num_hidden_layers=LAYERS, num_attention_heads=HEADS)
        module = torch.nn.Linear(1, 1)
        config = SimpleNamespace(
            get_text_config=lambda: text,
            vision_config=SimpleNamespace(spatial_merge_size=MERGE),
            image_token_id=0,
        )
        object.__setattr__(module, "config", config)
        super().__init__(module, tokenizer(), torch.device("cpu"), WRITTEN, 0.0, [])
        expanded = self.prompt.replace(IMAGE, " ".join([IMAGE] * rows * cols))
        ids = torch.tensor([self.tokenizer(expanded)["input_ids"]])
        done = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.processor = lambda **_: done

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt."""
        return self.prompt, self.spans

    def token_map(
        self, prompt: str, ids: Any, spans: Any, sample: Sample, batch: Any, first: int
    ) -> TokenMap:
        """Return the map as `QwenVL` makes it."""
        return qwen_vl_map(self.tokenizer, prompt, ids, spans, self.module.config, self.grids)

    def pictures(self, sample: Sample, batch: Any, first: int) -> tuple[np.ndarray, ...]:
        """Return a small picture: what pixels cost does not depend on the prompt."""
        return (np.zeros((32, 32, 3), dtype=np.uint8),)

    def token_of(self, word: str) -> int:
        """Return some token."""
        return 20 + len(word)


def captured(study: str, tokens: TokenMap) -> dict[str, Captured]:
    """Return what a capture would give: random numbers of the right shapes."""
    n = len(tokens)
    if study == "scienceqa":
        return {"heads": _of((LAYERS, HEADS))}
    if study == "semdim":
        spans = word_spans(tokens, "option")
        square, flow = len(spans.matrix), len(spans.flow)
        return {
            "matrix": _of((LAYERS, square, square)),
            "fraction": _of((LAYERS, HEADS, len(spans.dimensions), len(spans.word))),
            "flow": _of((LAYERS, flow, flow)),
        }
    found = {"row/prefill": _of((1, 1, n))}
    found["row/decode"] = _of(*((1, 1, n + t) for t in range(1, WRITTEN)))
    for region in ("image", "prompt"):
        found[f"{region}/prefill"] = _of((LAYERS, HEADS, 1))
        found[f"{region}/decode"] = _of(*[(LAYERS, HEADS, 1)] * (WRITTEN - 1))
    return found


def _of(*shapes: tuple[int, ...]) -> Captured:
    layers = tuple(range(shapes[0][0]))
    return Captured(tuple(torch.rand(s) / s[-1] for s in shapes), layers, (), ())


def steps_of(name: str, model: Reader) -> dict[str, Callable[[], Any]]:
    """Return the parts of one sample's work on the host, in order, by name."""
    study = {
        "scienceqa": lambda: ScienceQAHeads(knockout="winners"),
        "semdim": lambda: SemanticDimensionAttention(knockout=True),
        "trajectory": lambda: Trajectory(),
    }[name]().for_model(model)
    phones = [(f"p{i}", i, i + 1) for i in range(4)]
    facts = {"options": {"A": "w1", "B": "w2"}, "phones": phones, "phone_unit": "char"}
    sample = Sample("s", (("text", model.prompt),), answer="A", facts=facts)
    [other] = model.prepare([sample]).seen
    got = captured(name, other.tokens)
    answer = Answer("A", tuple(range(WRITTEN)), torch.rand(1000), True, ("w1",) * WRITTEN)
    made = study.variants(sample, other, got)
    outputs = dict.fromkeys(["plain", *made], answer)

    def places() -> None:
        mask = torch.ones(1, len(seen.tokens), dtype=torch.long)
        extent = Extent(0, len(seen.tokens), len(seen.tokens))
        for row in read_mask(mask):
            for plan in plans.values():
                device = torch.device("cpu")
                query_places(query_columns(plan, row, extent), extent, device)
                key_places(key_columns(plan, row, extent.end), extent, device)

    plans = study.plans(other.tokens)
    # A map of its own, of which nothing was asked yet.
    [seen] = model.prepare([sample]).seen
    return {
        "prepare": lambda: model.prepare([sample]),
        "plans": lambda: study.plans(seen.tokens),
        "places": places,
        "variants": lambda: study.variants(sample, seen, got),
        "update": lambda: study.update(sample, seen, got, outputs),
    }


def milliseconds(study: str, model: Reader, rounds: int) -> dict[str, float]:
    """Return the median CPU time of each part; every round has a token map of its own."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work in steps_of(study, model).items():
            start = time.process_time()
            work()
            found.setdefault(name, []).append((time.process_time() - start) * 1000)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Print a table: one line a study."""
    parser = argparse.ArgumentParser(description="What a long prompt costs on the host.")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--cells", type=int, nargs=2, default=[100, 150])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", nargs="+", default=["scienceqa", "semdim", "trajectory"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, cols = args.cells
    model = Reader(args.tokens - rows * cols, (rows, cols))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{args.tokens} tokens, {rows * cols} of the image; CPU ms, median of {args.rounds}\n"
    )
    print("| study | prepare | plans | places | variants | update | sum |")
    print("|---|---|---|---|---|---|---|")
    for study in args.studies:
        found = milliseconds(study, model, args.rounds)
        values = [*found.values(), sum(found.values())]
        print(f"| {study} | {' | '.join(f'{v:.1f}' for v in values)} |", flush=True)


if __name__ == "__main__":
    main()
