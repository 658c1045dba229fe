"""What watching attention costs beside a plain sdpa forward, and what other ways of it cost.

    python benchmarks/capture.py --works A B C --lengths 1024 2048 --rounds 5

Every number comes from a process of its own. Time: the method and the plain forward take turns and
the ratio of their medians is given, in CPU seconds of the process (the machine may be shared, and
waiting for a turn is no cost of a method) and in wall seconds. Memory: the peak of a process that
runs the method once, less the peak of one that runs the plain forward once.

Work A: maximum over all text queries and 576 image keys, per head and layer. Work B: the last query
row. Work C: 128 generated tokens, one row a step. Peers (nnsight, transformer_lens) are left out,
with the reason, where they are not installed or the work does not fit them.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Max

LAYERS, HEADS, WIDTH, VOCABULARY = 16, 16, 512, 2000
IMAGE = range(16, 16 + 576)
NEW_TOKENS = 128
METHODS = ("ours", "eager", "hooks", "nnsight", "transformer_lens")

Run = Callable[[], Any]


def build(attention: str) -> transformers.PreTrainedModel:
    """Return the model: 16 layers, 16 heads of 32, random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1376,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=16384,
        attn_implementation=attention,
    )
    return transformers.LlamaForCausalLM(config).eval()


def text_queries(length: int) -> tuple[int, ...]:
    """Return all tokens that are not of the image."""
    return tuple(i for i in range(length) if i not in IMAGE)


def plan_for(work: str, length: int) -> AttentionPlan:
    """Return the plan of a work."""
    if work == "A":
        return AttentionPlan(text_queries(length), tuple(IMAGE), Max())
    return AttentionPlan("last", None, Keep())


def reduce_whole(work: str, pattern: torch.Tensor, length: int) -> torch.Tensor:
    """Do a work's reduction on a whole layer's pattern (head, query, key)."""
    if work == "A":
        queries = torch.tensor(text_queries(length))
        return pattern[:, queries][:, :, IMAGE.start : IMAGE.stop].amax((1, 2))
    return pattern[:, -1].clone()


def runs(method: str, work: str, length: int) -> tuple[Run, Run]:
    """Return the plain run and the method's run; both make their model on first use."""
    ids = torch.randint(0, VOCABULARY, (1, length))
    sdpa = build("sdpa")
    if work == "C":
        return _generation(method, sdpa, ids)

    def plain() -> None:
        sdpa.model(input_ids=ids, use_cache=False)

    if method == "plain":
        return plain, plain
    if method == "ours":
        plans = [{"work": plan_for(work, length)}]

        def ours() -> None:
            with watch_attention(sdpa, plans) as watched:
                sdpa.model(input_ids=ids, use_cache=False)
            assert watched.results[0]["work"].paths[0] == "lse"

        return plain, ours
    makers = {"eager": _eager, "hooks": _hooks, "nnsight": _nnsight, "transformer_lens": _lens}
    return plain, makers[method](work, ids)


def _generation(method: str, model: Any, ids: torch.Tensor) -> tuple[Run, Run]:
    options = {
        "max_new_tokens": NEW_TOKENS,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    mask = torch.ones_like(ids)
    inputs = {"input_ids": ids, "attention_mask": mask}

    def plain() -> None:
        model.generate(**inputs, **options)

    def ours() -> None:
        row = {"row": AttentionPlan("last", None, Max(over=("head",)))}
        [out] = generate_watched(model, inputs, [row], [row], **options)
        assert len(out.decode["row"].steps) == NEW_TOKENS - 1

    def eager() -> None:
        eager_model = build("eager")
        out = eager_model.generate(
            **inputs, **options, output_attentions=True, return_dict_in_generate=True
        )
        assert len(out.attentions) == NEW_TOKENS

    known = {"plain": plain, "ours": ours, "eager": eager}
    if method not in known:
        raise NotImplementedError(f"{method}: work C is measured for ours and eager only")
    return plain, known[method]


def _eager(work: str, ids: torch.Tensor) -> Run:
    model, length = build("eager"), ids.shape[1]

    def run() -> None:
        out = model.model(input_ids=ids, use_cache=False, output_attentions=True)
        _ = [reduce_whole(work, a[0], length) for a in out.attentions]

    return run


def _hooks(work: str, ids: torch.Tensor) -> Run:
    model, length, kept = build("eager"), ids.shape[1], []

    def hook(module: Any, args: Any, output: Any) -> None:
        kept.append(reduce_whole(work, output[1][0], length))

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(hook)
    return lambda: (kept.clear(), model.model(input_ids=ids, use_cache=False))


def _nnsight(work: str, ids: torch.Tensor) -> Run:
    from nnsight import NNsight

    length = ids.shape[1]
    traced = NNsight(build("eager").model)

    def run() -> None:
        with traced.trace(input_ids=ids, use_cache=False):
            saved = []
            for layer in traced.layers:
                saved.append(reduce_whole(work, layer.self_attn.output[1][0], length).save())

    return run


def _lens(work: str, ids: torch.Tensor) -> Run:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformer_lens.model_bridge import TransformerBridge

    length = ids.shape[1]
    model = build("eager")
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    special = {"unk_token": "w0", "bos_token": "w1", "eos_token": "w2", "pad_token": "w2"}
    with tempfile.TemporaryDirectory() as folder:
        # It reads configuration and tokenizer again from where they came.
        model.config.save_pretrained(folder)
        made = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
        made.save_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=tokenizer)

    def hook(pattern: torch.Tensor, hook: Any) -> None:
        reduce_whole(work, pattern[0], length)

    hooks = [(f"blocks.{i}.attn.hook_pattern", hook) for i in range(LAYERS)]
    return lambda: bridge.run_with_hooks(ids, fwd_hooks=hooks, return_type=None)


@torch.no_grad()
def child(method: str, work: str, length: int, rounds: int, threads: int) -> dict[str, float]:
    """Measure in this process: medians over interleaved rounds, or the peak of one run."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    plain, run = runs(method, work, length)
    if rounds == 0:
        run()
        return {"peak_kib": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}
    times: dict[Run, list[tuple[float, float]]] = {plain: [], run: []}
    for turn in range(rounds + 1):
        for which in times if turn % 2 else reversed(times):
            cpu, wall = time.process_time(), time.perf_counter()
            which()
            if turn:
                spent = time.process_time() - cpu, time.perf_counter() - wall
                times[which].append(spent)
    base, ours = ([statistics.median(c) for c in zip(*times[w], strict=True)] for w in times)
    return {"cpu_ratio": ours[0] / base[0], "wall_ratio": ours[1] / base[1], "plain_s": base[0]}


def measure(method: str, work: str, length: int, rounds: int, threads: int) -> dict[str, Any]:
    """Run `child` in a process of its own; a failure becomes its last line."""
    command = [
        sys.executable,
        __file__,
        "--child",
        method,
        "--works",
        work,
        "--lengths",
        str(length),
        "--rounds",
        str(rounds),
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure what the command line asks for and print one line a number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="+", default=["A", "B", "C"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="measure peak memory as well")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        values = child(args.child, args.works[0], args.lengths[0], args.rounds, args.threads)
        print(json.dumps(values))
        return
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()}, {args.threads} thread(s)"
    )
    for work in args.works:
        for length in args.lengths:
            plain = measure("plain", work, length, 0, args.threads) if args.memory else {}
            for method in args.methods:
                result = measure(method, work, length, args.rounds, args.threads)
                if args.memory and "error" not in result:
                    peak = measure(method, work, length, 0, args.threads)
                    extra = (peak["peak_kib"] - plain["peak_kib"]) / 1024
                    result["extra_mib"] = round(extra, 1)
                shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
                print(f"work {work} N={length} {method}: {shown}", flush=True)


if __name__ == "__main__":
    main()
