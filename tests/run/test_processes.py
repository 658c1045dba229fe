"""How many processes the default launcher starts: as many as there are devices for."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra_plugins.hydra_joblib_launcher import _core

from interp_lab.run.sweep.record import SweptJobs, at_once, log


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of processes that joblib was asked for; no job is run."""
    counts: list[int] = []

    def launch(launcher: Any, job_overrides: Any, initial_job_idx: int) -> list[Any]:
        counts.append(launcher.joblib["n_jobs"])
        return []

    monkeypatch.setattr(_core, "launch", launch)
    return counts


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["device=0,1,2"], 3),
        (["device=cpu,cpu"], 2),
        (["device=cpu"], 1),
        (["seed=1,2,3"], 1),
        (["seed=1,2,3", "device=0"], 1),
        (["seed=1,2,3", "device=0,1"], 2),
        (["device=0,0"], 1),
        (["device=0,cuda,cuda:0,'cuda:1'"], 2),
        (["device=0,cpu,cpu"], 3),
        (["device=0,1", "hydra.launcher.n_jobs=5"], 5),
        (["device=0,1", "hydra.launcher.n_jobs=-1"], -1),
    ],
)
def test_as_many_processes_as_devices_unless_the_user_says_how_many(
    command: Callable[..., Any], started: list[int], overrides: list[str], count: int
) -> None:
    command("--multirun", *overrides)
    assert started == [count]


def test_jobs_that_would_wait_for_one_device_are_told(
    command: Callable[..., Any], started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    # Hydra takes the root logger's handlers away, caplog's among them.
    monkeypatch.setattr(log, "warning", said.append)
    command("--multirun", "seed=1,2,3", "device=0,1")
    assert said == []
    command("--multirun", "device=0,1", "seed=1,2,3")
    assert len(said) == 1 and said[0].startswith("device is not the last key of this sweep")


def test_never_more_processes_than_jobs() -> None:
    assert at_once(SweptJobs(("device",), (("device=0",),))) == 1
    assert at_once(SweptJobs(("seed",), (("seed=1",), ("seed=2",)))) == 1
