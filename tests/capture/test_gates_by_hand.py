"""Gates of three nonlinearities, set, clamped and watched, against float64 arithmetic."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import ClampGate, GatePlan, SetGate

N_ROWS, WIDTH, N_BLOCKS = 3, 4, 3
KINDS = ("tanh", "sigmoid", None)
# fp32 against float64, relative to the largest number; a gate set through its logit is rounded once
# more on the way.
TOLERANCE = 2e-6
SQUASH = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    None: lambda x: x,
}


class Blocks(nn.Module):
    """x + gate(x) * value(x), three times; the gate's module puts out the logit, or the gate."""

    def __init__(self, kind: str | None) -> None:
        super().__init__()
        self.kind = kind
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"gate": nn.Linear(WIDTH, WIDTH), "value": nn.Linear(WIDTH, WIDTH)})
            for _ in range(N_BLOCKS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            gate = block["gate"](x)
            gate = getattr(torch, self.kind)(gate) if self.kind else gate
            x = x + gate * block["value"](x)
        return x


def by_hand(network: Blocks, x: np.ndarray, changes: list[Any]) -> tuple[np.ndarray, list[Any]]:
    """Return the output and the gates of each block, (row, width)."""
    gates = []
    for number, block in enumerate(network.blocks):
        weights = {
            n: [p.detach().double().numpy() for p in (m.weight, m.bias)] for n, m in block.items()
        }
        gate = SQUASH[network.kind](x @ weights["gate"][0].T + weights["gate"][1])
        for change in changes:
            if not any(h in ("blocks.*.gate", f"blocks.{number}.gate") for h in change.hookpoints):
                continue
            if isinstance(change, SetGate):
                gate = np.full_like(gate, change.value)
            else:
                gate = np.minimum(np.maximum(gate, change.low), change.high)
        gates.append(gate)
        x = x + gate * (x @ weights["value"][0].T + weights["value"][1])
    return x, gates


def bound(numbers: np.ndarray) -> float:
    return TOLERANCE * max(1.0, float(np.abs(numbers).max()))


def changes_of(name: str, kind: str | None) -> list[Any]:
    one, two, every = ("blocks.1.gate",), ("blocks.0.gate", "blocks.2.gate"), ("blocks.*.gate",)
    return {
        "nothing": [],
        "set one": [SetGate(one, 0.3, kind)],
        "set several": [SetGate(two, 0.75, kind)],
        "set all": [SetGate(every, 0.05, kind)],
        "clamp one": [ClampGate(one, 0.2, 0.4, kind)],
        "clamp all": [ClampGate(every, 0.3, 0.6, kind)],
        "clamp to one value": [ClampGate(two, 0.5, 0.5, kind)],
        "set and clamp": [SetGate(one, 0.9, kind), ClampGate(every, 0.1, 0.7, kind)],
    }[name]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "set one",
        "set several",
        "set all",
        "clamp one",
        "clamp all",
        "clamp to one value",
        "set and clamp",
    ],
)
def test_gates_equal_the_arithmetic(name: str, kind: str | None) -> None:
    torch.manual_seed(0)
    network, x = Blocks(kind).eval(), torch.randn(N_ROWS, WIDTH) * 2
    changes = changes_of(name, kind)
    plan = {"g": GatePlan(("blocks.*.gate",), kind)}
    with torch.no_grad(), watch_gates(network, [plan] * N_ROWS, changes) as watched:
        got = network(x)
    want, gates = by_hand(network, x.double().numpy(), changes)
    free, _ = by_hand(network, x.double().numpy(), [])
    assert (np.abs(want - free).max() > 1e-2) == bool(changes)
    np.testing.assert_allclose(got.double().numpy(), want, rtol=0, atol=bound(want))
    for row in range(N_ROWS):
        for number in range(N_BLOCKS):
            seen = watched[row]["g"][f"blocks.{number}.gate"].double().numpy()
            np.testing.assert_allclose(seen, gates[number][row], rtol=0, atol=bound(gates[number]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_go_through_a_clamped_gate_and_not_through_a_set_one(kind: str | None) -> None:
    """The gate's weights: none where it is set, none where the clamp holds it."""
    torch.manual_seed(0)
    network, x = Blocks(kind), torch.randn(1, WIDTH)
    changes = [
        SetGate(("blocks.0.gate",), 0.5, kind),
        ClampGate(("blocks.1.gate",), 0.3, 0.6, kind),
    ]
    with torch.enable_grad(), watch_gates(network, [{}], changes):
        network(x).sum().backward()
    _, gates = by_hand(network, x.double().numpy(), changes[:1])
    held = torch.tensor((gates[1][0] <= 0.3) | (gates[1][0] >= 0.6))
    first, second, third = (block["gate"].bias.grad for block in network.blocks)
    assert first is None or not first.any()
    assert torch.equal(second == 0, held)
    assert third.all()
