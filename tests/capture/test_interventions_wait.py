"""Interventions ask a device for nothing while the model runs, and once when the watch ends.

On the CPU nothing is waited for, but the same operations run: each that hands a number from a
tensor to Python, or looks for places in one, would hold up an accelerator.
"""

from collections import Counter
from typing import Any

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import gap, keep_all
from torch.utils._python_dispatch import TorchDispatchMode

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan, BlockAttention, ScaleAttention, ZeroHeads
from interp_lab.capture.reduce import Max
from interp_lab.errors import ConfigError

# Tensor -> Python, tensors whose size depends on numbers, and Python lists -> tensor.
ASKING = (
    "_local_scalar_dense",
    "item",
    "nonzero",
    "equal",
    "is_nonzero",
    "unique",
    "masked_select",
)
SENDING = ("lift_fresh",)


class Operations(TorchDispatchMode):
    """Counts the operations that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_"):
            parts = [t for t in args[1] if t is not None]
            name = "nonzero" if any(t.dtype == torch.bool for t in parts) else name
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    def of(self, names: tuple[str, ...]) -> int:
        return sum(self.counts[name] for name in names)


SCATTERED = (8, 10, 13, 15, 17, 19, 20, 22, 23)
CHANGES = {
    "block": [BlockAttention((9, 10, 11), (1, 2, 3))],
    "scattered": [BlockAttention(SCATTERED, (1, 3, 4, 6), heads=(0, 2))],
    "scale": [ScaleAttention((8, 10, 12), (2, 3), factor=0.5)],
    "several": [BlockAttention(SCATTERED, (1,)), ScaleAttention(None, (2, 5), factor=2.0)],
    "heads": [ZeroHeads({layer: (0, 2, 3) for layer in range(2)})],
}


def counted(n_layers: int, changes: list[Any]) -> Operations:
    """Run a padded batch of two under the changes; return what ran inside."""
    config = tiny.tf.LlamaConfig(**{**tiny.GQA, "num_hidden_layers": n_layers})
    model, inputs = tiny.make(lambda: (tiny.tf.LlamaForCausalLM(config), tiny.text_inputs(27, 2)))
    inputs["attention_mask"][1, :3] = 0
    plans = [{"max": AttentionPlan((20, 21), (1, 2), Max())}] * 2
    operations = Operations()
    with (
        watch_attention(model, plans, [changes] * 2, attention_mask=inputs["attention_mask"]),
        operations,
    ):
        model(**inputs)
    return operations


@pytest.mark.parametrize("name", CHANGES)
def test_no_layer_waits_for_its_device(name: str) -> None:
    few, many = counted(2, CHANGES[name]), counted(6, CHANGES[name])
    plain_few, plain_many = counted(2, []), counted(6, [])
    assert many.counts["mm"] > few.counts["mm"]
    for names in (ASKING, SENDING):
        assert many.of(names) - few.of(names) == plain_many.of(names) - plain_few.of(names)
    assert many.of(ASKING) == plain_many.of(ASKING)


def test_the_device_is_asked_once_a_row_when_the_watch_has_ended() -> None:
    model, inputs = tiny.make(tiny.llama)
    batch = {k: torch.cat((v, v)) for k, v in inputs.items()}
    changes = [[BlockAttention((9, 10), (1,))], []]
    with watch_attention(model, [{}, {}], changes) as watched:
        model(**batch)
        with Operations() as operations:
            watched.collect()
    assert operations.of(ASKING) == 1


def test_a_query_without_keys_is_told_at_the_end_and_gives_no_nan_before() -> None:
    model, inputs = tiny.make(tiny.llama)
    batch = {k: torch.cat((v, v)) for k, v in inputs.items()}
    changes = [[], [BlockAttention((0, 5), (0,), layers=(1,))]]
    with (
        pytest.raises(ConfigError, match="row 1 leave a query without any key"),
        watch_attention(model, [{}, {}], changes),
    ):
        assert model(**batch).logits.isfinite().all()


@pytest.mark.parametrize("pad", [0, 3])
def test_all_queries_are_all_tokens_and_never_padding(pad: int) -> None:
    """A row of padding sees nothing, which is not the intervention's doing."""
    model, inputs = tiny.make(tiny.llama)
    change = BlockAttention(None, (3, 4), heads=(1,))
    with watch_attention(model, [{"all": keep_all()}], [[change]]) as alone:
        want = model(**inputs).logits
    mask = torch.nn.functional.pad(inputs["attention_mask"], (pad, 0))
    ids = torch.nn.functional.pad(inputs["input_ids"], (pad, 0), value=5)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with watch_attention(model, [{"all": keep_all()}], [[change]]) as padded:
        got = model(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, pad:]
    # The order of sums over keys differs with the width of a row.
    assert gap(got, want) <= 1e-4 * float(want.abs().max())
    both = [w.results[0]["all"].values for w in (alone, padded)]
    assert gap(*both) <= 1e-5
    assert both[1][:, 1, :, 3:5].max() == 0
