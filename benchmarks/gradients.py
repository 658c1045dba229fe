"""What gradients through blocked attention cost: a forward and a backward, beside the plain ones.

    PYTHONPATH=. python benchmarks/gradients.py --lengths 512 1024 --rounds 5

CPU seconds of the process; the ways take turns and the medians are compared. Memory: the peak of a
process that runs one way once, over that of one that runs the plain way once.
"""

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan, BlockAttention
from interp_lab.capture.reduce import Max

KEYS = tuple(range(16, 80))


def build() -> transformers.PreTrainedModel:
    """Return a Llama of 8 layers and 16 heads of 32, random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=16,
        max_position_embeddings=16384,
    )
    return transformers.LlamaForCausalLM(config).eval()


def ways(model: transformers.PreTrainedModel, length: int) -> dict[str, Any]:
    """Return a context for each way to run the model."""
    queries = {"32 rows": range(length - 32, length), "all rows": range(80, length)}
    blocked = {
        f"block of {name}": [[BlockAttention(tuple(rows), KEYS)]] for name, rows in queries.items()
    }
    watched = [{"max": AttentionPlan(tuple(range(80, length)), KEYS, Max())}]
    return {
        "plain": nullcontext,
        "watched": lambda: watch_attention(model, watched),
        **{name: (lambda c=c: watch_attention(model, [{}], c)) for name, c in blocked.items()},
    }


def step(model: transformers.PreTrainedModel, ids: torch.Tensor, context: Any) -> float:
    """Return the CPU seconds of a forward and a backward."""
    began = time.process_time()
    with context():
        model(input_ids=ids, use_cache=False).logits.logsumexp(-1).sum().backward()
    model.zero_grad()
    return time.process_time() - began


def peak(way: str, length: int) -> float:
    """Return the peak MiB of a process of its own that runs one way once."""
    command = [sys.executable, __file__, "--once", way, "--lengths", str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", help="one of the ways: print its peak memory alone")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build()
    for length in options.lengths:
        ids = torch.randint(0, 2000, (1, length))
        chosen = ways(model, length)
        if options.once:
            step(model, ids, chosen[options.once])
            # Not getrusage: its peak counts the parent's memory, from before this program began.
            status = Path("/proc/self/status").read_text().split()
            print(int(status[status.index("VmHWM:") + 1]) / 1024)
            return
        seconds: dict[str, list[float]] = {way: [] for way in chosen}
        for _ in range(options.rounds):
            for way, context in chosen.items():
                seconds[way].append(step(model, ids, context))
        plain = statistics.median(seconds["plain"])
        least = 0.0 if options.no_memory else peak("plain", length)
        for way, times in seconds.items():
            extra = 0.0 if options.no_memory else peak(way, length) - least
            ratio = statistics.median(times) / plain
            print(
                f"| {length} | {way} | {statistics.median(times):.2f} | {ratio:.2f} | {extra:.0f} |"
            )


if __name__ == "__main__":
    main()
