"""Gates in canonical shapes, and their statistics by hand and by SciPy."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from interp_lab.errors import ConfigError, SampleError
from interp_lab.models.base import GateHooks
from interp_lab.studies.avigate.gate_statistics import (
    PERCENTILES,
    STATISTICS,
    describe,
    separation,
    spearman,
)
from interp_lab.studies.avigate.gates import canonical, gate_changes, gate_values

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [((), (1, 1)), ((1, 1), (1, 1)), ((6,), (1, 6)), ((9, 1), (5, 1)), ((9, 6), (5, 6))],
)
def test_gates_become_clips_by_channels_and_lose_their_padding(shape, becomes) -> None:
    gates = {"a.0": torch.randn(shape), "a.1": torch.randn(shape)}
    found = canonical(gates, ("a.0", "a.1"), 5, "x")
    assert found.shape == (2, *becomes)
    for layer, path in enumerate(gates):
        expected = gates[path].reshape(-1, becomes[1]).numpy()[: becomes[0]]
        assert np.array_equal(found[layer], expected)


def test_layers_stand_in_the_order_of_the_network_not_of_the_run() -> None:
    gates = {"b": torch.tensor([[2.0]]), "a": torch.tensor([[1.0]])}
    assert canonical(gates, ("a", "b"), None, "x").ravel().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        ({"a": torch.zeros(1, 1)}, "gate b: it did not run"),
        ({"a": torch.zeros(1, 1), "b": torch.zeros(5, 1)}, "different shapes"),
        ({"a": torch.zeros(1, 1), "b": torch.zeros(1, 1, 1)}, "shape (1, 1, 1)"),
        ({"a": torch.zeros(1, 1), "b": torch.full((1, 1), torch.nan)}, "gate b: NaN"),
        ({"a": torch.zeros(3, 1), "b": torch.zeros(3, 1)}, "3 values over time for the 4 clips"),
    ],
)
def test_gates_that_are_no_gates_fail_their_sample(gates, says) -> None:
    with pytest.raises(SampleError, match=re.escape(says)):
        canonical(gates, ("a", "b"), 4, "x")


def test_a_samples_means_by_hand() -> None:
    gates = np.array([[[0.5, -0.5], [0.25, -0.75]]], dtype=np.float32)
    values = gate_values("ffn", gates)
    assert values["mean_ffn"].tolist() == [-0.125]
    assert values["magnitude_ffn"].tolist() == [0.5]


BY_HAND = np.array([[-0.4, -0.02, 0.02, 0.6], [0.1, 0.2, 0.3, 0.4]])


def test_statistics_by_hand() -> None:
    found = describe(lambda: iter([BY_HAND[:, :1], BY_HAND[:, 1:]]), near_zero=0.05)
    assert set(found) == set(STATISTICS)
    assert found["mean"] == pytest.approx([0.05, 0.25, 0.15])
    assert found["magnitude"] == pytest.approx([0.26, 0.25, 0.255])
    assert found["min"].tolist() == [-0.4, 0.1, -0.4]
    assert found["max"].tolist() == [0.6, 0.4, 0.6]
    assert found["median"] == pytest.approx([0.0, 0.25, 0.15])
    assert found["share_positive"] == pytest.approx([0.25, 1.0, 0.625])
    assert found["share_negative"] == pytest.approx([0.25, 0.0, 0.125])
    assert found["share_near_zero"] == pytest.approx([0.5, 0.0, 0.25])
    assert found["std"] == pytest.approx([*BY_HAND.std(axis=1), BY_HAND.std()])
    assert found["p5"] == pytest.approx(
        [*np.percentile(BY_HAND, 5, axis=1), np.percentile(BY_HAND, 5)]
    )


def test_many_values_give_the_same_statistics_without_holding_them() -> None:
    blocks = [RNG.uniform(-1, 1, (3, n)) ** 3 for n in (700, 1, 2300)]
    held = describe(lambda: iter(blocks), 0.05)
    streamed = describe(lambda: iter(blocks), 0.05, exact_up_to=100)
    gap = 2e-3  # between neighbours of 3,000 values: the nearest is taken, not interpolated
    for name in STATISTICS:
        tolerance = gap if name in PERCENTILES else 1e-9
        assert streamed[name] == pytest.approx(held[name], abs=tolerance)


def test_one_value_everywhere_has_its_percentiles() -> None:
    blocks = [np.full((1, 500), 0.3)]
    found = describe(lambda: iter(blocks), 0.05, exact_up_to=10)
    assert found["median"] == pytest.approx([0.3, 0.3])
    assert found["std"] == pytest.approx([0.0, 0.0])


def test_correlation_is_scipys_and_its_interval_holds_it() -> None:
    y = RNG.normal(size=60)
    x = np.stack([y + RNG.normal(size=60), np.round(-y), RNG.normal(size=60)], axis=1)
    found = spearman(x, y, seed=0, n_resamples=300)
    assert found is not None
    expected = [stats.spearmanr(x[:, i], y).statistic for i in range(3)]
    assert found.value == pytest.approx(expected)
    assert (found.low < found.value).all() and (found.value < found.high).all()
    assert found.low[0] > 0 > found.high[1]


def test_nothing_correlates_with_a_constant() -> None:
    y = RNG.normal(size=10)
    assert spearman(np.ones((10, 1)), y, seed=0, n_resamples=100) is None
    assert spearman(y[:2, None], y[:2], seed=0, n_resamples=100) is None


def test_separation_is_the_share_of_pairs() -> None:
    x = np.array([[0.9], [0.5], [0.5], [0.1]])
    first = np.array([True, True, False, False])
    found = separation(x, first, seed=0, n_resamples=200)
    assert found is not None
    # Of four pairs three are larger and one is a tie.
    assert found.value == pytest.approx([3.5 / 4])
    assert separation(x, np.ones(4, dtype=bool), seed=0, n_resamples=100) is None


def test_gates_are_closed_as_far_as_their_nonlinearity_can() -> None:
    gates = {"attention": GateHooks(("a.*",), "tanh"), "ffn": GateHooks(("f.*",), "sigmoid")}
    (change,) = gate_changes(gates, 0.0, ("attention",))
    assert (change.hookpoints, change.value, change.nonlinearity) == (("a.*",), 0.0, "tanh")
    changes = gate_changes(gates, {"ffn": 0.0, "attention": 0.9}, ())
    assert [c.value for c in changes] == [1e-6, 0.9]
    with pytest.raises(ConfigError, match="'attention'"):
        gate_changes(gates, {"atention": 0.0}, ())
