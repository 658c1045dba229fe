"""Samples a second while attention is watched, over without: batch 1 and 16, tiny and 0.5B.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/throughput.py --models tiny --rounds 9
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/throughput.py --models 0.5B --rounds 3

A prompt's forward, with a plan a row as the studies have them: the largest weight of every head and
layer between the later half of the prompt and its first quarter, and the whole last row. Plain and
watched take turns; the ratio is that of the medians, in CPU seconds of the process, since the
machine may be shared.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Max

SHAPES = {
    "tiny": {
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    # Qwen2-0.5B.
    "0.5B": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}


def plans_for(tokens: int) -> dict[str, AttentionPlan]:
    """Return the plans of one row."""
    queries, keys = tuple(range(tokens // 2, tokens)), tuple(range(tokens // 4))
    return {
        "block": AttentionPlan(queries, keys, Max()),
        "row": AttentionPlan("last", None, Keep()),
    }


@torch.inference_mode()
def ratio(model: Any, batch: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Return samples a CPU second without watching, and the share of it that is left with."""
    ids = torch.randint(0, model.config.vocab_size, (batch, tokens))
    mask = torch.ones_like(ids)
    plans = [plans_for(tokens) for _ in range(batch)]

    def plain() -> None:
        model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)

    def watched() -> None:
        with watch_attention(model, plans, attention_mask=mask) as seen:
            plain()
        assert all(row["block"].paths[0] == "lse" for row in seen.results)

    plain()
    found: dict[Callable[[], None], list[float]] = {plain: [], watched: []}
    for _ in range(rounds):
        for run, seconds in found.items():
            began = time.process_time()
            run()
            seconds.append(time.process_time() - began)
    without, with_it = (statistics.median(seconds) for seconds in found.values())
    return batch / without, without / with_it


def main() -> None:
    """Print a row for each model and batch size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, 1 thread")
    print("| model | tokens | batch | samples a CPU second | watched, over plain |")
    print("|---|---|---|---|---|")
    for name in args.models:
        torch.manual_seed(0)
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SHAPES[name])).eval()
        for batch in args.batches:
            samples, left = ratio(model, batch, args.tokens, args.rounds)
            print(f"| {name} | {args.tokens} | {batch} | {samples:.3g} | {left:.3f} |", flush=True)


if __name__ == "__main__":
    main()
