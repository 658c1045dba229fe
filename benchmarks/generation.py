"""Time and memory of a long generation, plain and under the capture of the trajectory study.

    python benchmarks/generation.py [--steps 512] [--prompt 1500]

Each mode runs in a process of its own, so that one's memory does not hide in the other's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from interp_lab.capture.generate import generate_watched
from interp_lab.studies.trajectory.analysis import AnswersOfModel, Trajectory
from interp_lab.tokens import Token, TokenMap

LAYERS, HEADS, KV_HEADS, HEAD_DIM = 28, 12, 2, 32


def network() -> Qwen2ForCausalLM:
    """A random model with the layers and heads of Qwen2-VL-2B, and narrower."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=HEADS * HEAD_DIM,
        intermediate_size=768,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).eval()


def work(mode: str, prompt: int, steps: int) -> dict[str, float]:
    """Generate; return seconds, and the growth of the peak memory over the loaded model's."""
    model = network()
    layers = tuple(range(LAYERS)) if mode == "all layers" else (20,)
    study = AnswersOfModel(Trajectory(), layers)
    ids = torch.randint(1, 1000, (1, prompt), generator=torch.Generator().manual_seed(0))
    image = prompt * 3 // 4
    tokens = TokenMap(
        tuple(
            Token("<image>", "image", "image", image=0, cell=(i // 25, i % 25))
            for i in range(image // 25 * 25)
        )
        + tuple(Token("a", "user") for _ in range(prompt - image // 25 * 25)),
        ((image // 25, 25),),
    )
    options = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False}
    plans = study.plans(tokens)
    prefill = {n: p for n, p in plans.items() if p.when == "prefill"}
    decode = {n: p for n, p in plans.items() if p.when == "decode"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with torch.inference_mode():
        if mode == "plain":
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        else:
            kept = generate_watched(model, {"input_ids": ids}, [prefill], [decode], **options)
            assert len(kept[0].decode["row/decode"].steps) == steps - 1
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds, "MiB": grown / 1024}


def main() -> None:
    """Run every mode in its own process and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--prompt", type=int, default=1500)
    parser.add_argument("--mode")
    given = parser.parse_args()
    if given.mode:
        print(json.dumps(work(given.mode, given.prompt, given.steps)))
        return
    print(f"{LAYERS} layers, {HEADS} heads, {given.prompt} prompt tokens, {given.steps} steps")
    for mode in ("plain", "one layer", "all layers"):
        command = [sys.executable, __file__, "--mode", mode, "--steps", str(given.steps)]
        done = subprocess.run(
            [*command, "--prompt", str(given.prompt)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{mode:<11} {found['seconds']:7.1f} s  {found['MiB']:7.0f} MiB over the model")


if __name__ == "__main__":
    main()
