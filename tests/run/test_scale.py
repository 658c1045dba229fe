"""The simulated pool by hand arithmetic, and the trivial study that measures the framework."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from interp_lab.store.results import open_results

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = spec_from_file_location("scale_benchmark", BENCHMARKS / "scale.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_without_failures_the_makespan_is_that_of_the_largest_share(scale: ModuleType) -> None:
    pool = scale.Pool(cost=1.0, spread=0.0, start=10.0, batch_size=2)
    # 22 samples are 11 batches of 2; three devices get 4, 4 and 3 batches.
    out = scale.simulate(22, 3, pool)
    assert out.makespan == pytest.approx(10 + 8)
    assert out.ideal == out.bound == pytest.approx(10 + 22 / 3)
    assert (out.rounds, out.died, out.again) == (1, 0, 0)


def test_a_death_costs_the_part_at_hand_and_another_command(
    scale: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two devices, 16 samples of 1 s in batches of 2, parts of 4; one dies at 10 + 7 s."""
    pool = scale.Pool(cost=1.0, spread=0.0, start=10.0, failures=1.0, batch_size=2, part_size=4)
    rng = np.random.default_rng(0)

    class Planned:
        def lognormal(self, *arguments: float) -> np.ndarray:
            return rng.lognormal(*arguments)

        def exponential(self, mean: float, n: int) -> np.ndarray:
            return np.array([np.inf, 17.0])

    monkeypatch.setattr(scale.np.random, "default_rng", lambda seed: Planned())
    out = scale.simulate(16, 2, pool)
    # It measured 6 of its 8 samples and wrote 4 of them; 4 are left when the other one ends at 18.
    assert out.makespan == pytest.approx(18 + 10 + 4)
    assert (out.rounds, out.died, out.again) == (2, 1, 2)


@pytest.mark.parametrize("failures", [0.0, 3.0])
def test_every_sample_is_stored_once_whatever_dies(
    scale: ModuleType, tmp_path: Path, failures: float
) -> None:
    """Through the real store: parts of the devices, merged, hold every number at its place."""
    store = scale.RealParts(tmp_path, 1500)
    pool = scale.Pool(failures=failures, part_size=16, start=5.0, cost=2.0)
    out = scale.simulate(1500, 8, pool, store.keep)
    assert bool(out.died) == bool(failures) and bool(out.again) == bool(failures)
    assert out.makespan >= out.bound >= out.ideal * 0.999
    assert store.check()["parts"] >= 1500 / 16


def test_the_trivial_study_runs_through_the_real_command(
    command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    said = command(
        "task=synthetic",
        f"--config-dir={BENCHMARKS}/studies",
        "dataset.n=500",
        "batch_size=50",
        "dataset.bad_every=100",
    )
    assert said.code == 3, said.err
    from synthetic_study import scores_of

    path = said.out.strip().splitlines()[-1].removeprefix("results: ")
    with open_results(path) as results:
        assert len(results) == 495 and len(results.failures) == 5
        [block] = results.stream(["number", "scores"], 1000)
        expected = np.array([i for i in range(500) if i % 100 != 99])
        assert (block["number"] == expected).all()
        assert (block["scores"] == scores_of(expected)).all()
