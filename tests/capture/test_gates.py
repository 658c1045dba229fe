"""Gates of a user's own network: watched by pattern, set and clamped, and left as they were."""

import pytest
import torch
from torch import nn

from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import ClampGate, GatePlan, SetGate
from interp_lab.errors import ConfigError, UnsupportedModelError


class Gated(nn.Module):
    """x + tanh(gate(x)) * 2, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"gate": nn.Linear(3, 1)}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer["gate"](x)) * 2
        return x


@pytest.fixture
def network() -> Gated:
    torch.manual_seed(0)
    return Gated().eval()


PLAN = GatePlan(("layers.*.gate",), "tanh")
X = torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.5]])


def test_gates_equal_the_arithmetic_row_by_row(network: Gated) -> None:
    with torch.no_grad(), watch_gates(network, [{"g": PLAN}, {"g": PLAN}]) as rows:
        network(X)
    first = torch.tanh(network.layers[0]["gate"](X))
    second = torch.tanh(network.layers[1]["gate"](X + first * 2))
    for row in (0, 1):
        torch.testing.assert_close(rows[row]["g"]["layers.0.gate"], first[row])
        torch.testing.assert_close(rows[row]["g"]["layers.1.gate"], second[row])


def test_a_set_gate_reaches_the_output_and_is_what_is_watched(network: Gated) -> None:
    change = SetGate(("layers.0.gate", "layers.1.gate"), 0.5, "tanh")
    with torch.no_grad(), watch_gates(network, [{"g": PLAN}, {}], [change]) as rows:
        out = network(X)
    torch.testing.assert_close(out, X + 2.0)
    torch.testing.assert_close(rows[0]["g"]["layers.1.gate"], torch.tensor([0.5]))


def test_a_clamped_gate_stays_within_and_others_are_unchanged(network: Gated) -> None:
    with torch.no_grad():
        free = torch.tanh(network.layers[0]["gate"](X))
        with watch_gates(
            network, [{"g": PLAN}] * 2, [ClampGate(("layers.0.gate",), -0.1, 0.1, "tanh")]
        ) as rows:
            network(X)
    for row in (0, 1):
        torch.testing.assert_close(rows[row]["g"]["layers.0.gate"], free[row].clamp(-0.1, 0.1))


def test_everything_is_as_before_also_after_an_exception(network: Gated) -> None:
    before = network(X)
    with (
        pytest.raises(RuntimeError, match="stop"),
        watch_gates(network, [{"g": PLAN}], [SetGate(("layers.*.gate",), 0.0, "tanh")]),
    ):
        raise RuntimeError("stop")
    assert sum(len(m._forward_hooks) for m in network.modules()) == 0
    assert torch.equal(network(X), before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (SetGate(("layers.*.gate",), 1.0, "tanh"), "strictly between -1 and 1"),
        (SetGate(("layers.*.gate",), -0.1, "sigmoid"), "between 0 and 1"),
        (ClampGate(("layers.*.gate",), 0.5, 0.1, "tanh"), "above high"),
        (SetGate(("layers.*.gate",), 0.1, "tahn"), "'tanh'"),
    ],
)
def test_impossible_changes_are_one_line(network: Gated, change: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says), watch_gates(network, [], [change]):
        pass


def test_a_pattern_without_a_match_names_the_nearest(network: Gated) -> None:
    with (
        pytest.raises(UnsupportedModelError, match=r"layers\.0\.gate"),
        watch_gates(network, [{"g": GatePlan(("layers.*.gaet",))}]),
    ):
        pass
