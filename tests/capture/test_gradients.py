"""Gradients through changed attention, and gradient checkpointing.

The reference is a small decoder in plain torch, float64, with full masked scores and a softmax: it
shares no code with the capture, nor with transformers' attention.
"""

from typing import Any

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import keep_all
from torch import Tensor, nn

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.gates import watch_gates
from interp_lab.capture.hidden import watch_hidden
from interp_lab.capture.plans import (
    BlockAttention,
    GatePlan,
    HiddenPlan,
    ScaleAttention,
    SetGate,
    ZeroHeads,
)
from interp_lab.errors import ConfigError

# fp32 against float64, over three layers and a loss: relative to the largest gradient of a tensor.
TOLERANCE = 2e-5
CHANGES: dict[str, list[Any]] = {
    "block": [BlockAttention((9, 10, 11, 20), (1, 2, 5))],
    "heads": [BlockAttention(None, (3, 4), layers=(0, 2), heads=(1, 2))],
    "scale": [ScaleAttention((8, 9, 20), (2, 7), factor=0.25)],
    "zero": [ZeroHeads({0: (1,), 2: (0, 3)})],
    "all": [
        BlockAttention((9, 12), (1,)),
        ScaleAttention(None, (2,), factor=3.0, layers=(1,)),
        ZeroHeads({1: (2,)}),
    ],
}


@pytest.fixture(autouse=True)
def _with_gradients():
    with torch.enable_grad():
        yield


def added(changes: list[Any], layer: int, n: int, n_heads: int) -> Tensor:
    """Return what the changes add to a layer's scores, (head, query, key)."""
    extra = torch.zeros(n_heads, n, n, dtype=torch.float64)
    for change in changes:
        if isinstance(change, ZeroHeads) or layer not in (change.layers or range(99)):
            continue
        amount = torch.tensor(getattr(change, "factor", 0.0), dtype=torch.float64).log()
        for head in range(n_heads) if change.heads is None else change.heads:
            for q in range(n) if change.queries is None else change.queries:
                for k in change.keys:
                    extra[head, q, k] += amount
    return extra


def rotated(x: Tensor) -> Tensor:
    """Turn (head, token, dim) by position, base 10,000, halves paired."""
    n, dim = x.shape[-2:]
    turn = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * turn
    angle = torch.cat((angle, angle), -1)
    first, second = x.chunk(2, -1)
    return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


def llama_loss(weights: dict[str, Tensor], ids: Tensor, changes: list[Any]) -> Tensor:
    """Return `loss_of` the logits of a Llama of 3 layers, 4 heads of 8 on 2 key heads."""
    x = weights["model.embed_tokens.weight"][ids[0]]
    n = len(x)
    causal = torch.full((n, n), -torch.inf, dtype=torch.float64).triu(1)
    for layer in range(3):
        at = {k.split(f"layers.{layer}.")[1]: w for k, w in weights.items() if f".{layer}." in k}
        y = normed(x, at["input_layernorm.weight"])
        heads = [
            (y @ at[f"self_attn.{p}_proj.weight"].T).view(n, -1, 8).transpose(0, 1) for p in "qkv"
        ]
        q, k, v = rotated(heads[0]), rotated(heads[1]), heads[2]
        k, v = k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)
        scores = q @ k.transpose(1, 2) / 8**0.5 + causal + added(changes, layer, n, 4)
        out = scores.softmax(-1) @ v
        for change in changes:
            if isinstance(change, ZeroHeads):
                kept = torch.ones(4, 1, 1, dtype=torch.float64)
                kept[list(change.heads.get(layer, ()))] = 0
                out = out * kept
        x = x + out.transpose(0, 1).reshape(n, -1) @ at["self_attn.o_proj.weight"].T
        y = normed(x, at["post_attention_layernorm.weight"])
        gate, up = y @ at["mlp.gate_proj.weight"].T, y @ at["mlp.up_proj.weight"].T
        x = x + (nn.functional.silu(gate) * up) @ at["mlp.down_proj.weight"].T
    return loss_of(normed(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T)


def loss_of(logits: Tensor) -> Tensor:
    """Return a number that depends on every token's logits, each in its own way."""
    weigh = torch.linspace(-1, 1, logits.shape[-2], dtype=logits.dtype)
    return (logits.log_softmax(-1)[..., 7] * weigh).sum()


def grads(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def reference_grads(model: nn.Module, ids: Tensor, changes: list[Any]) -> dict[str, Tensor]:
    weights = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}
    llama_loss(weights, ids, changes).backward()
    return {n: w.grad for n, w in weights.items()}


def worst(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Return the largest difference, relative to the largest gradient of its tensor."""
    assert got.keys() == want.keys()
    sizes = {n: float(w.abs().max()) for n, w in want.items()}
    return max(float((got[n] - want[n]).abs().max()) / (sizes[n] or 1.0) for n in want)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CHANGES)
def test_gradients_equal_those_of_masked_scores(name: str, implementation: str) -> None:
    model, inputs = tiny.make(tiny.llama, scale=3.0)
    model.set_attn_implementation(implementation)
    with watch_attention(model, [{"all": keep_all()}], [CHANGES[name]]):
        loss_of(model(**inputs).logits).backward()
    got = grads(model)
    want = reference_grads(model, inputs["input_ids"], CHANGES[name])
    assert worst(got, want) <= TOLERANCE
    # The control: without the changes the gradients are other ones by far.
    assert worst(got, reference_grads(model, inputs["input_ids"], [])) > 1000 * TOLERANCE


def test_the_reference_is_the_unwatched_model() -> None:
    model, inputs = tiny.make(tiny.llama, scale=3.0)
    loss_of(model(**inputs).logits).backward()
    assert worst(grads(model), reference_grads(model, inputs["input_ids"], [])) <= TOLERANCE


def test_rows_of_a_padded_batch_have_their_own_gradients() -> None:
    """Two rows, one padded on the left: the loss reads each row's last 20 tokens."""
    model, inputs = tiny.make(tiny.llama, scale=3.0)
    ids = torch.cat((inputs["input_ids"], inputs["input_ids"].flip(1)))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    changes = [CHANGES["block"], [BlockAttention((9, 10), (1, 2))]]
    with watch_attention(model, [{}, {}], changes):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=places).logits
    (loss_of(logits[0]) + loss_of(logits[1, 4:])).backward()
    got = grads(model)
    alone = [
        reference_grads(model, ids[:1], changes[0]),
        reference_grads(model, ids[1:, 4:], changes[1]),
    ]
    assert worst(got, {n: alone[0][n] + alone[1][n] for n in got}) <= TOLERANCE


@pytest.mark.parametrize(
    "build", [tiny.gemma2, tiny.gpt_oss, tiny.gpt2, tiny.mistral], ids=lambda b: b.__name__
)
def test_gradients_with_caps_sinks_and_windows(build: Any) -> None:
    """Their own eager forward, with the scores masked by hooks on its softmax, is the reference."""
    model, inputs = tiny.make(build, scale=3.0)
    change = BlockAttention((15, 16, 20), (13, 14, 15))
    implementation = model.config._attn_implementation
    with watch_attention(model, [{}], [[change]]):
        loss_of(model(**inputs).logits).backward()
    got = grads(model)
    softmax, hidden = nn.functional.softmax, torch.zeros(24, 24, dtype=torch.bool)
    for query in (15, 16, 20):
        hidden[query, [13, 14, 15]] = True

    def masked(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if scores.dim() == 4 and scores.shape[2] == 24:
            width = scores.shape[3] - 24
            scores = scores.masked_fill(nn.functional.pad(hidden, (0, width)), -1e30)
        return softmax(scores, *args, **kwargs)

    model.config._attn_implementation = "eager"
    nn.functional.softmax = masked
    try:
        loss_of(model(**inputs).logits).backward()
    finally:
        nn.functional.softmax = softmax
        model.config._attn_implementation = implementation
    # Both sides are fp32, so each is as far from the truth as one is above.
    assert worst(got, grads(model)) <= 5 * TOLERANCE


@pytest.mark.parametrize("build", [tiny.llama, tiny.gemma2, tiny.llava], ids=lambda b: b.__name__)
def test_watching_alone_leaves_gradients_as_they_are(build: Any) -> None:
    model, inputs = tiny.make(build)
    loss_of(model(**inputs).logits).backward()
    want = grads(model)
    with watch_attention(model, [{"all": keep_all()}]) as watched:
        loss_of(model(**inputs).logits).backward()
    got = grads(model)
    assert all(torch.equal(got[n], want[n]) for n in want)
    assert not watched.results[0]["all"].values.requires_grad


# -- gradient checkpointing ---------------------------------------------------------------------


def checkpointed(reentrant: bool) -> tuple[Any, dict[str, Any]]:
    model, inputs = tiny.make(tiny.llama, scale=3.0)
    model.train().gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        # Its inputs, not only the weights, must want gradients.
        model.enable_input_require_grads()
    return model, {**inputs, "use_cache": False}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["block", "all"])
def test_a_checkpointed_layer_is_changed_again_in_backward(name: str, reentrant: bool) -> None:
    model, inputs = checkpointed(reentrant)
    plans = [{"all": keep_all()}]
    with watch_attention(model, plans, [CHANGES[name]]) as watched:
        loss_of(model(**inputs).logits).backward()
    assert worst(grads(model), reference_grads(model, inputs["input_ids"], CHANGES[name])) <= (
        TOLERANCE
    )
    assert len(watched.results[0]["all"].steps) == 1
    with torch.no_grad(), watch_attention(model.eval(), plans, [CHANGES[name]]) as plain:
        model(**inputs)
    torch.testing.assert_close(
        watched.results[0]["all"].values, plain.results[0]["all"].values, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", ["fused", "eager", "eager_rows"])
def test_what_runs_again_is_no_step(method: Any, reentrant: bool) -> None:
    model, inputs = checkpointed(reentrant)
    loss_of(model(**inputs).logits).backward()
    want = grads(model)
    got: dict[str, Tensor] = {}
    with watch_attention(model, [{"all": keep_all()}], method=method) as watched:
        for _ in range(2):
            loss_of(model(**inputs).logits).backward()
            got = grads(model)
    assert len(watched.results[0]["all"].steps) == 2
    if method != "eager":
        assert all(torch.equal(got[n], want[n]) for n in want)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["block", "zero"])
def test_backward_after_a_changed_watch_is_refused(name: str, reentrant: bool) -> None:
    model, inputs = checkpointed(reentrant)
    with (
        pytest.raises(ConfigError, match=r"layers\.0\.self_attn: .*call backward before the watch"),
        watch_attention(model, [{}], [CHANGES[name]]),
    ):
        model(**inputs)
    with torch.no_grad(), watch_attention(model, [{}], [CHANGES[name]]):
        model(**inputs)
    with watch_attention(model, [{"all": keep_all()}]):
        logits = model(**inputs).logits
    loss_of(logits).backward()
    assert worst(grads(model), reference_grads(model, inputs["input_ids"], [])) <= TOLERANCE


def test_forwards_of_other_padding_before_one_backward_are_refused() -> None:
    model, inputs = checkpointed(False)
    padded = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
    padded["attention_mask"][:, :3] = 0

    def backward(batches: list[dict[str, Any]]) -> None:
        with watch_attention(model, [{}], [CHANGES["block"]]):
            torch.stack([loss_of(model(**b).logits) for b in batches]).sum().backward()

    backward([inputs, inputs])
    assert worst(
        {n: g / 2 for n, g in grads(model).items()},
        reference_grads(model, inputs["input_ids"], CHANGES["block"]),
    ) <= (TOLERANCE)
    with pytest.raises(ConfigError, match="other padding .*after each forward"):
        backward([inputs, padded])


class Checkpointed(nn.Module):
    """x times a gate, in a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.out = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            return torch.tanh(self.out(x * torch.sigmoid(self.gate(x))))

        return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)


def test_gates_and_hidden_states_of_a_checkpointed_layer() -> None:
    network, x = Checkpointed().double(), torch.randn(1, 3, dtype=torch.float64)
    x.requires_grad_()
    change = [SetGate(("gate",), 0.25, "sigmoid")]
    seen: list[Tensor] = []
    plans = [{"h": HiddenPlan("out", reduce=lambda h: seen.append(h.detach()) or h.detach())}]
    with (
        watch_hidden(network, {"out": "out"}, plans),
        watch_gates(network, [{"g": GatePlan(("gate",), "sigmoid")}], change) as gates,
    ):
        network(x).sum().backward()
    slope = 1 - torch.tanh(network.out(x * 0.25)) ** 2
    torch.testing.assert_close(x.grad, (slope * network.out.weight * 0.25).detach())
    torch.testing.assert_close(gates[0]["g"]["gate"], torch.full((3,), 0.25, dtype=torch.float64))
    assert len(seen) == 1
    with (
        pytest.raises(ConfigError, match="gate: was changed under gradient checkpointing"),
        watch_gates(network, [{}], change),
    ):
        network(x)
