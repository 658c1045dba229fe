"""What watching attention costs on a GPU, at the shapes of 7B models with random weights in bf16.

    python benchmarks/gpu.py             # everything, for benchmarks/README.md
    python benchmarks/gpu.py --models llava --lengths 2048 --batches 1 8 --layers 8
    python benchmarks/gpu.py --smoke     # tiny sizes on the CPU: only shows that all of it runs

Work: the largest attention of every text query on 576 image keys, by layer and head. Each method
and the plain sdpa forward take turns; the ratio of their medians is given. `time` is the forward
alone, on the device's own clock; `samples/s` is by the wall clock, from the making of the plans to
the numbers on the host, watched over plain. `extra` is the device's peak memory over a plain
forward's.

Where a model's layers take more than half of the memory, fewer are made and the table says how
many; every layer costs the same, so the ratios stand for the whole model. What does not fit is
told as such, and so is a method that is not installed.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Max

METHODS = ("ours", "eager", "hooks", "nnsight")
MOST_TIME, LEAST_RATE = 1.02, 0.98
Run = Callable[[], Any]


@dataclass(frozen=True)
class Shape:
    """The text stack of a model: its class and sizes, and where the image stands in a prompt."""

    name: str
    network: str
    width: int
    inner: int
    heads: int
    kv_heads: int
    layers: int
    vocabulary: int
    image: range


SHAPES = {
    "llava": Shape(
        "LLaVA-1.5 (Llama 7B)", "Llama", 4096, 11008, 32, 32, 32, 32064, range(35, 35 + 576)
    ),
    "omni": Shape(
        "Qwen2.5-Omni thinker", "Qwen2", 3584, 18944, 28, 4, 28, 152064, range(20, 20 + 576)
    ),
}


def small(shape: Shape) -> Shape:
    """Return the shape with its heads and little else, for `--smoke`."""
    return replace(
        shape, width=8 * shape.heads, inner=64, layers=2, vocabulary=99, image=range(4, 20)
    )


def build(shape: Shape, layers: int, longest: int, device: torch.device) -> Any:
    """Return the model with random weights in bf16, made on its device."""
    config = getattr(transformers, f"{shape.network}Config")(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=longest,
    )
    network = getattr(transformers, f"{shape.network}ForCausalLM")
    torch.manual_seed(0)
    with device:
        model = network._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    return model.eval().requires_grad_(False)


class Bench:
    """One model and input, and the ways to get at its attention.

    Args:
        model: the network.
        shape: its sizes.
        length, batch: of the input.
    """

    def __init__(self, model: Any, shape: Shape, length: int, batch: int) -> None:
        self.model, self.shape, self.batch = model, shape, batch
        self.device = next(model.parameters()).device
        self.ids = torch.randint(3, 90, (batch, length), device=self.device)
        self.text = [i for i in range(length) if i not in shape.image]

    def forward(self) -> torch.Tensor:
        """Run the model; logits of the last token alone, as for an answer."""
        return self.model(input_ids=self.ids, use_cache=False, logits_to_keep=1).logits

    def reduce(self, pattern: torch.Tensor) -> torch.Tensor:
        """Do the work on a layer's whole pattern (row, head, query, key): (row, head)."""
        image = self.shape.image
        text = torch.tensor(self.text, device=pattern.device)
        return pattern[:, :, :, image.start : image.stop].index_select(2, text).amax((2, 3))

    def plain(self) -> list[torch.Tensor]:
        """Run the model as it is."""
        return [self.forward()]

    def ours(self) -> list[torch.Tensor]:
        """Watch the planned blocks."""
        plan = AttentionPlan(tuple(self.text), tuple(self.shape.image), Max())
        with watch_attention(self.model, [{"work": plan}] * self.batch) as watched:
            self.forward()
        assert {p for row in watched.results for p in row["work"].paths} == {"lse"}
        return [row["work"].values for row in watched.results]

    def eager(self) -> list[torch.Tensor]:
        """Take every layer's pattern as the model returns them all."""
        out = self.model(
            input_ids=self.ids, use_cache=False, logits_to_keep=1, output_attentions=True
        )
        return [self.reduce(pattern) for pattern in out.attentions]

    def hooks(self) -> list[torch.Tensor]:
        """Take each layer's pattern in a hook, so that one is alive at a time."""
        kept: list[torch.Tensor] = []
        layers = self.model.model.layers
        handles = [
            layer.self_attn.register_forward_hook(lambda m, a, o: kept.append(self.reduce(o[1])))
            for layer in layers
        ]
        try:
            self.forward()
        finally:
            for handle in handles:
                handle.remove()
        return kept

    def nnsight(self) -> list[torch.Tensor]:
        """Take each layer's pattern by nnsight."""
        from nnsight import NNsight

        traced, saved = NNsight(self.model), []
        with traced.trace(input_ids=self.ids, use_cache=False, logits_to_keep=1):
            for layer in traced.model.layers:
                saved.append(self.reduce(layer.self_attn.output[1]).save())
        return saved


class Clock:
    """Seconds of a run: on the device's own clock, and on the wall with the numbers on the host."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def measure(self, run: Run) -> tuple[float, float]:
        """Return the seconds of the device and of the wall."""
        wall = time.perf_counter()
        if not self.cuda:
            _ = [value.float().cpu() for value in run()]
            seconds = time.perf_counter() - wall
            return seconds, seconds
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        wall = time.perf_counter()
        begin.record()
        values = run()
        end.record()
        _ = [value.float().cpu() for value in values]
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000, time.perf_counter() - wall

    def peak(self, run: Run) -> float:
        """Return the peak memory of a run in MiB; 0 where the device does not tell."""
        if not self.cuda:
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / 2**20


@dataclass(frozen=True)
class Row:
    """One line of the table: ratios to plain, or the reason why there are none."""

    time: float = 0.0
    rate: float = 0.0
    extra: float = 0.0
    plain: float = 0.0
    why: str = ""


def compare(bench: Bench, method: str, rounds: int) -> Row:
    """Let a method and the plain forward take turns; what does not work becomes its reason."""
    clock, run = Clock(bench.device), getattr(bench, method)
    whole = method != "ours"

    def switched() -> Any:
        # Whole patterns come from eager attention; the same weights are used for both.
        bench.model.set_attn_implementation("eager")
        try:
            return run()
        finally:
            bench.model.set_attn_implementation("sdpa")

    watched = switched if whole else run
    try:
        peaks = [clock.peak(bench.plain), clock.peak(watched)]
        clock.measure(bench.plain), clock.measure(watched)
        times = [(clock.measure(bench.plain), clock.measure(watched)) for _ in range(rounds)]
    except ImportError as error:
        return Row(why=f"not installed ({error.name})")
    except torch.cuda.OutOfMemoryError:
        return Row(why="out of memory")
    except Exception as error:
        return Row(why=f"{type(error).__name__}: {' '.join(str(error).split())[:80]}")
    finally:
        gc.collect()
        torch.cuda.empty_cache() if clock.cuda else None
    device, wall = (
        [statistics.median(pair[side][kind] for pair in times) for side in (0, 1)]
        for kind in (0, 1)
    )
    return Row(device[1] / device[0], wall[0] / wall[1], peaks[1] - peaks[0], device[0])


def layers_that_fit(shape: Shape, wanted: int | None, device: torch.device) -> int:
    """Return how many layers to make: all, those asked for, or what fits half of the memory."""
    if wanted or device.type != "cuda":
        return min(wanted or shape.layers, shape.layers)
    each = 2 * (
        2 * shape.width**2 * (1 + shape.kv_heads / shape.heads) + 3 * shape.width * shape.inner
    )
    free = torch.cuda.mem_get_info(device)[0] - 4 * shape.vocabulary * shape.width
    return max(1, min(shape.layers, int(free / 2 / each)))


def table(args: argparse.Namespace, device: torch.device) -> list[tuple[str, Row]]:
    """Measure and print a Markdown table; return its lines of ours."""
    print("| model | layers | N | batch | method | plain s | time | samples/s | extra MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    ours: list[tuple[str, Row]] = []
    for name in args.models:
        shape = small(SHAPES[name]) if args.smoke else SHAPES[name]
        layers = layers_that_fit(shape, args.layers, device)
        model = build(shape, layers, max(args.lengths), device)
        for length in args.lengths:
            for batch in args.batches:
                for method in args.methods:
                    with torch.inference_mode():
                        row = compare(Bench(model, shape, length, batch), method, args.rounds)
                    where = f"{shape.name} | {layers} | {length} | {batch} | {method}"
                    print(f"| {where} | {shown(row)} |", flush=True)
                    ours += [(where, row)] if method == "ours" else []
        del model
        gc.collect()
    return ours


def shown(row: Row) -> str:
    """Return the numbers of a line as cells."""
    if row.why:
        return f"{row.why} | - | - | -"
    return f"{row.plain:.3f} | {row.time:.3f} | {row.rate:.3f} | {row.extra:.0f}"


def goals(ours: Sequence[tuple[str, Row]]) -> list[str]:
    """Return the lines that say whether the goals are met, and where they are not."""
    measured = [(where, row) for where, row in ours if not row.why]
    slow = [where for where, row in measured if row.time > MOST_TIME]
    few = [where for where, row in measured if row.rate < LEAST_RATE]
    lines = []
    for goal, missed in (
        (f"time <= {MOST_TIME} of plain", slow),
        (f"samples/s >= {LEAST_RATE} of plain", few),
    ):
        line = f"goal {goal}: met in {len(measured) - len(missed)} of {len(measured)}"
        lines.append(line + (f"; not in: {'; '.join(missed)}" if missed else ""))
    return lines


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument(
        "--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384, 32768]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if args.smoke:
        args.lengths, args.batches, args.rounds = [48], [1, 2], 2
    elif not torch.cuda.is_available():
        parser.exit(1, "no GPU here: torch.cuda.is_available() is False; --smoke runs on the CPU\n")
    device = torch.device("cpu" if args.smoke else "cuda:0")
    card = "CPU, tiny sizes: these times mean nothing"
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {card}, bf16\n")
    ours = table(args, device)
    if not args.smoke:
        print("", *goals(ours), sep="\n")


if __name__ == "__main__":
    main()
