"""The fusion equals its equations, written out by hand in float64 NumPy; tolerance 1e-6."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from qd_detr_cases import batch, network
from torch import Tensor, nn

from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import GatePlan
from interp_lab.models.qd_detr.fusion import Fusion, GatedBlock, PaperBlock

Array = np.ndarray
TOLERANCE = 1e-6
VARIANT = (
    "fusion.fusion_layers.*.gating_function.mlp_mha",
    "fusion.fusion_layers.*.gating_function.mlp_ffn",
)


def weights(module: nn.Module) -> dict[str, Array]:
    return {k: v.double().numpy() for k, v in module.state_dict().items()}


def linear(w: dict[str, Array], name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def norm(w: dict[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def quick_gelu(x: Array) -> Array:
    return x / (1 + np.exp(-1.702 * x))


def mlp(w: dict[str, Array], name: str, x: Array, activation: Callable[[Array], Array]) -> Array:
    return linear(w, f"{name}.2", activation(linear(w, f"{name}.0", x)))


def attention(w: dict[str, Array], name: str, q: Array, kv: Array, n_heads: int) -> Array:
    """Multi-head attention of (queries, d) to (keys, d), one sample without padding."""
    d = q.shape[-1]
    inputs = (q, kv, kv)
    parts = [
        inputs[i] @ w[f"{name}.in_proj_weight"][i * d : (i + 1) * d].T
        + w[f"{name}.in_proj_bias"][i * d : (i + 1) * d]
        for i in range(3)
    ]
    query, key, value = [p.reshape(len(p), n_heads, -1).transpose(1, 0, 2) for p in parts]
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    mixed = (share @ value).transpose(1, 0, 2).reshape(len(q), d)
    return linear(w, f"{name}.out_proj", mixed)


def variant_by_hand(
    block: GatedBlock, v: Array, a: Array, gating_type: str, n_heads: int
) -> tuple[Array, Array, Array]:
    """The variant's block for one sample: output, attention gate, ffn gate."""
    w = weights(block)
    if gating_type == "global":
        joint = np.concatenate([v.mean(0), a.mean(0)])[None]
    else:
        joint = np.concatenate([v, a], axis=1)
    g_mha = np.tanh(mlp(w, "gating_function.mlp_mha", joint, relu))
    g_ffn = np.tanh(mlp(w, "gating_function.mlp_ffn", joint, relu))
    z = v + g_mha * linear(w, "out_proj", linear(w, "a_proj", norm(w, "norm1", a)))
    y = z + g_ffn * mlp(w, "ffn1", norm(w, "norm2", z), relu)
    x = norm(w, "norm3", y)
    r = y + attention(w, "self_attention", x, x, n_heads)
    return r + mlp(w, "ffn2", norm(w, "norm4", r), relu), g_mha, g_ffn


def paper_by_hand(
    block: PaperBlock, v: Array, a: Array, n_heads: int
) -> tuple[Array, Array, Array]:
    """The paper's block for one sample: output, attention gate, feed-forward gate."""
    w = weights(block)
    joint = np.concatenate([v.mean(0), a.mean(0)])[None]
    gates = [
        np.tanh(linear(w, f"{m}.{p}_proj", quick_gelu(linear(w, f"{m}.{p}_fc", joint))))
        for m, p in (("attn_gate", "ag"), ("ff_gate", "fg"))
    ]
    x = v + attention(w, "cross_attn", norm(w, "ln_3", v), a, n_heads) * gates[0]
    x = x + mlp(w, "cross_ff", norm(w, "ln_4", x), quick_gelu) * gates[1]
    query = norm(w, "ln_1", x)
    x = x + attention(w, "attn", query, query, n_heads)
    return x + mlp(w, "mlp", norm(w, "ln_2", x), quick_gelu), gates[0], gates[1]


def fusion(gating_type: str, n_layers: int = 2, masked: bool = True) -> Fusion:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Fusion(16, 4, n_layers, gating_type, masked)
        for parameter in made.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double().eval().requires_grad_(False)


@pytest.mark.parametrize("gating_type", ["global", "clipwise", "elementwise", "paper"])
def test_output_and_gates_equal_the_equations(gating_type: str) -> None:
    made = fusion(gating_type)
    generator = torch.Generator().manual_seed(4)
    video, audio = (torch.randn(1, 7, 16, generator=generator).double() for _ in range(2))
    ones = torch.ones(1, 7)
    patterns = ("*attn_gate", "*ff_gate") if gating_type == "paper" else ("*mlp_mha", "*mlp_ffn")
    nonlinearity = None if gating_type == "paper" else "tanh"
    plans = {name: GatePlan((name,), nonlinearity) for name in patterns}
    with watch_gates(made, [plans]) as rows:
        output = made(video, audio, ones, ones)
    v, a = video[0].numpy(), audio[0].numpy()
    for index, block in enumerate(made.fusion_layers):
        if isinstance(block, PaperBlock):
            v, *gates = paper_by_hand(block, v, a, 4)
        else:
            assert isinstance(block, GatedBlock)
            v, *gates = variant_by_hand(block, v, a, gating_type, 4)
        for name, by_hand in zip(patterns, gates, strict=True):
            watched = list(rows[0][name].values())[index].numpy()
            assert watched.shape == by_hand.shape
            assert np.abs(watched - by_hand).max() < TOLERANCE
            assert np.ptp(by_hand) > 0.01 or by_hand.size == 1
    assert np.abs(output[0].numpy() - v).max() < TOLERANCE


def gates_of(inputs: dict[str, Tensor], row: int, gating_type: str, masked: bool) -> list[Tensor]:
    made = network(gating_type, masked)
    plans: list[dict[str, GatePlan]] = [{} for _ in inputs["src_vid"]]
    plans[row] = {"gates": GatePlan(VARIANT, "tanh")}
    with watch_gates(made, plans) as rows:
        made(**inputs)
    return list(rows[row]["gates"].values())


@pytest.mark.parametrize("gating_type", ["global", "clipwise", "elementwise"])
def test_gates_do_not_depend_on_the_batch_where_means_are_masked(gating_type: str) -> None:
    lengths = [(9, 4), (5, 6), (7, 3)]
    inputs = batch(lengths, 9, 6)
    for row, (clips, _) in enumerate(lengths):
        alone = {
            k: v[row : row + 1, : clips if "txt" not in k else None] for k, v in inputs.items()
        }
        single = gates_of(alone, 0, gating_type, masked=True)
        together = gates_of(inputs, row, gating_type, masked=True)
        assert len(single) == 6  # three layers, two gates
        for a, b in zip(single, together, strict=True):
            assert (a - b[: len(a)]).abs().max() < 1e-5


def test_means_over_padding_make_a_global_gate_depend_on_the_batch() -> None:
    inputs = batch([(9, 4), (5, 4)], 9, 4)
    alone = {k: v[1:, : 5 if "txt" not in k else None] for k, v in inputs.items()}
    single = gates_of(alone, 0, "global", masked=False)
    together = gates_of(inputs, 1, "global", masked=False)
    assert max(float((a - b).abs().max()) for a, b in zip(single, together, strict=True)) > 0.05
    # Without padding the two definitions are one.
    for a, b in zip(single, gates_of(alone, 0, "global", masked=True), strict=True):
        assert torch.equal(a, b)
