"""Every bad input of the table gives its line, before a model is loaded and without a traceback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_table import CASES
from hostile_ways import WAYS, Case, placed, put

from interp_lab.cli.command import run

FEWEST = 100


@pytest.fixture
def said(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Case], str]:
    """Return a function that lets a case come in and returns the line that it gives."""

    def load(*arguments: Any) -> None:
        raise AssertionError("a model is loaded")

    def call(case: Case) -> str:
        given = [placed(one, tmp_path) for one in case.given]
        if case.way in WAYS:
            return WAYS[case.way](tmp_path, given[0], placed(case.options, tmp_path))
        places = [f"output.root={tmp_path}/outputs", f"hydra.sweep.dir={tmp_path}/multirun"]
        if "output" in str(given):
            places.pop(0)
        if case.way == "own file":
            put(tmp_path / "mine.yaml", given.pop(0))
            given = [f"--config-dir={tmp_path}", "--config-name=mine", *given]
        code = run([*places, *given])
        err = capfd.readouterr().err
        assert "Traceback" not in err and code == 1, err
        (line,) = [x for x in err.splitlines() if x.startswith("error: ")]
        return line.removeprefix("error: ")

    monkeypatch.chdir(tmp_path)
    # The command sets it for its process, which here is that of all tests.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr("interp_lab.models.loading.load_on", load)
    return call


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_gives_its_line(
    said: Callable[[Case], str], case: Case, tmp_path: Path
) -> None:
    line, says = said(case), placed(case.says, tmp_path)
    if says.endswith(" ..."):
        assert line.startswith(says.removesuffix(" ..."))
    else:
        assert line == says
    assert "\n" not in line


def test_the_table_is_large_and_names_each_case_once() -> None:
    assert len(CASES) >= FEWEST
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.way for case in CASES} == {*WAYS, "typed", "own file"}
