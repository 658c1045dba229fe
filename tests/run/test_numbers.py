"""Numbers are made again of what is stored: no model, no torch, the run's own directory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from interp_lab.config.nodes import conf_dir, run_id
from interp_lab.libraries.hydra_inside import composed
from interp_lab.store.results import open_results

GOLDEN = Path(__file__).parents[1] / "golden"
# A study's option of numbers, and an aggregate that it changes.
OPTIONS = {
    "scienceqa": ("numbers.near_tie=0.9", "near_tie_share"),
    "semdim": ("numbers.normalize=mean", None),
    "avigate": ("numbers.near_zero=0.5", "near_zero"),
}
QUIET = ("visualization.figures=null",)


@pytest.fixture
def result(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a study's golden result and returns its path."""

    def copy(study: str) -> Path:
        path = tmp_path / study / "results.h5"
        path.parent.mkdir()
        path.write_bytes((GOLDEN / study / "results.h5").read_bytes())
        return path

    return copy


def samples_of(path: Path) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        for top in ("samples", "ragged"):
            file[top].visititems(
                lambda name, item, top=top: (
                    found.update({f"{top}/{name}": item[()]})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    return found


def settings(path: Path) -> str:
    with open_results(path) as results:
        return results.attributes["config"]


@pytest.mark.parametrize("study", OPTIONS)
@pytest.mark.parametrize("mode", ["compute", "render"])
def test_a_stored_result_gets_other_numbers(
    study: str, mode: str, result: Callable[[str], Path], command: Callable[..., Any]
) -> None:
    path = result(study)
    option, aggregate = OPTIONS[study]
    before = samples_of(path)
    with open_results(path) as results:
        old = None if aggregate is None else np.asarray(results.aggregate(aggregate))
    said = command(f"mode={mode}", f"results={path}", option, *QUIET)
    assert said.code == 0, said.err
    assert "nothing is measured" in said.out
    after = samples_of(path)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    with open_results(path) as results:
        assert results.attributes["complete"]
        key, value = option.removeprefix("numbers.").split("=")
        assert f"{key}: {value}" in results.attributes["config"]
        if old is not None:
            assert not np.array_equal(old, results.aggregate(aggregate))


def test_the_same_options_again_change_no_number(
    result: Callable[[str], Path], command: Callable[..., Any]
) -> None:
    path = result("scienceqa")
    with open_results(path) as results:
        old = {name: np.asarray(results.aggregate(name)) for name in results.aggregates}
    assert command("mode=compute", f"results={path}", *QUIET).code == 0
    with open_results(path) as results:
        assert old.keys() == results.aggregates.keys()
        for name, value in old.items():
            np.testing.assert_array_equal(value, results.aggregate(name))


def test_options_of_numbers_are_no_other_run() -> None:
    def id_of(*overrides: str) -> str:
        return run_id(composed(conf_dir(), ["task=scienceqa", *overrides]))

    assert id_of() == id_of("numbers.bootstrap=500", "numbers.top_k=7", "numbers.near_tie=0.2")
    assert id_of() != id_of("analysis.definition=text_to_image_mean")


def test_the_same_command_with_other_numbers_measures_nothing(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    typed = ("task=scienceqa", "dataset.max_samples=2", *QUIET)
    first = command(*typed, "numbers.bootstrap=100")
    assert first.code == 0, first.err
    [path] = tmp_path.glob("outputs/scienceqa/*/results.h5")
    before = samples_of(path)
    again = command(*typed, "numbers.bootstrap=200", "numbers.top_k=2")
    assert again.code == 0, again.err
    assert list(tmp_path.glob("outputs/scienceqa/*/results.h5")) == [path]
    assert "loading" not in again.out and "nothing is measured" in again.out
    assert "bootstrap: 200" in settings(path)
    for name, value in before.items():
        np.testing.assert_array_equal(value, samples_of(path)[name])
    report = (path.parent / "exports" / "analysis_report.txt").read_text()
    assert report


def test_neither_torch_nor_transformers_is_imported(result: Callable[[str], Path]) -> None:
    path = result("semdim")
    arguments = ["mode=compute", f"results={path}", "numbers.bootstrap=200", *QUIET]
    code = (
        "import sys, json\nfrom interp_lab.cli.command import run\n"
        f"code = run({[*arguments, f'output.root={path.parent}']!r})\n"
        "print(json.dumps([code, [m for m in ('torch', 'transformers') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [0, []], done.stderr


@pytest.mark.parametrize("mode", ["compute", "render"])
def test_what_was_measured_cannot_be_changed_afterwards(
    mode: str, result: Callable[[str], Path], command: Callable[..., Any]
) -> None:
    path = result("scienceqa")
    typed = "analysis.definition=text_to_image_mean"
    said = command(f"mode={mode}", f"results={path}", typed, *QUIET)
    assert said.code == 1
    assert "numbers.KEY" in said.err


def test_a_moved_option_is_found_under_its_new_name(command: Callable[..., Any]) -> None:
    said = command("task=scienceqa", "analysis.bootstrap=500")
    assert said.code == 1 and "numbers.bootstrap" in said.err
