"""How often watching makes the host wait for the device: not in a layer, not in a decode step.

Counted on the CPU, where the same operations are called as on an accelerator: a number that Python
reads, places that depend on values, a comparison, and what is moved to the host.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Max

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
TO_HOST = ("tolist", "cpu", "numpy")
IDS = torch.arange(20)[None] + 1
MASK = torch.ones_like(IDS)
# Scattered queries and keys, chosen heads, and a whole row.
PLANS = {
    "block": AttentionPlan((3, 5, 9, 12, 15), (1, 2, 7, 9), Max(), heads=(0, 2)),
    "row": AttentionPlan("last", None, Keep()),
}


def waits(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often the host waits for the device in a run."""
    moved = Counter[str]()

    def counting(name: str) -> Callable[..., Any]:
        method = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            moved[name] += 1
            return method(self, *args, **kwargs)

        return call

    with monkeypatch.context() as patch, profile(activities=[ProfilerActivity.CPU]) as seen:
        for name in TO_HOST:
            patch.setattr(torch.Tensor, name, counting(name))
        run()
    return sum(e.name in WAITS for e in seen.events()) + moved.total()


def network(layers: int) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).eval()


def added_by_a_forward(layers: int, monkeypatch: pytest.MonkeyPatch) -> int:
    model = network(layers)

    def plain() -> None:
        with torch.inference_mode():
            model(input_ids=IDS, attention_mask=MASK, use_cache=False)

    def watched() -> None:
        with watch_attention(model, [PLANS], attention_mask=MASK):
            plain()

    return waits(watched, monkeypatch) - waits(plain, monkeypatch)


def added_by_generation(steps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    model = network(2)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    greedy = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def watched() -> None:
        [out] = generate_watched(model, inputs, [PLANS], [{"row": PLANS["row"]}], **greedy)
        assert len(out.decode["row"].steps) == steps - 1

    plain = waits(lambda: model.generate(**inputs, **greedy), monkeypatch)
    return waits(watched, monkeypatch) - plain


def test_watching_waits_for_the_device_once_a_forward_and_in_no_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The mask is read before the forward; a kernel's lse is looked at, and the rows' sums.
    assert [added_by_a_forward(layers, monkeypatch) for layers in (2, 5)] == [3, 3]


def test_watching_waits_for_the_device_in_no_decode_step(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (added_by_generation(steps, monkeypatch) for steps in (4, 40))
    assert few == many
