"""The command line as a stranger meets it: real processes, real files, exit codes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from interp_lab.store.results import open_results

INTERP_LAB = [sys.executable, "-m", "interp_lab"]


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*INTERP_LAB, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_cfg_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import atexit, sys; from interp_lab.cli.command import run; "
        "atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules))); "
        f"sys.exit(run({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "False"
    assert "style: screen" in done.stdout


def test_default_command_measures_draws_and_names_its_result(
    command: Callable[..., object],
) -> None:
    said = command()
    assert said.code == 0, said.err
    last = said.out.strip().splitlines()[-1]
    path = Path(last.removeprefix("results: "))
    assert last.startswith("results: ") and path.name == "results.h5"
    names = {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*.*")}
    assert {
        "figures/similarity_analysis_combined.png",
        "figures/individual/horizontal_similarity.png",
        "figures/individual/vertical_similarity.png",
        "figures/individual/cls_similarity.png",
        "exports/similarities.npz",
        "exports/config.yaml",
    } <= names
    exported = np.load(path.parent / "exports" / "similarities.npz")
    assert exported["horizontal_left"].shape == (8, 7)
    assert (exported["vertical_up"] == exported["vertical_down"]).all()
    assert int(exported["grid_size"]) == 8 and int(exported["num_patches"]) == 64


def test_failed_samples_are_recorded_and_give_exit_code_3(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    said = command(
        "dataset=images", f"dataset.path={pictures(9, bad=2)}", "visualization.max_samples=0"
    )
    assert said.code == 3, said.err
    with open_results(result_path(said)) as results:
        assert len(results) == 9
        assert [f.sample_id for f in results.failures] == ["bad_0000.png", "bad_0001.png"]
        assert all("picture" in f.reason for f in results.failures)


def test_a_run_in_which_everything_fails_is_an_error(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    said = command("dataset=images", f"dataset.path={pictures(0, bad=2)}")
    assert said.code == 1
    assert "none of 2 samples could be measured" in said.err


def test_too_many_failures_stop_a_run(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    said = command("dataset=images", f"dataset.path={pictures(5, bad=12)}", "max_failed_share=0.5")
    assert said.code == 1
    assert "max_failed_share=0.5" in said.err


def test_render_changes_the_figures_and_nothing_else(command: Callable[..., object]) -> None:
    path = result_path(command("visualization.figsize=[8,6]", "visualization.cmap=magma"))
    figure = path.parent / "figures" / "similarity_analysis_combined.png"
    before, kept = figure.read_bytes(), path.read_bytes()
    settings = (path.parent / ".hydra" / "config.yaml").read_bytes()
    said = command("mode=render", f"results={path}", "visualization.dpi=50")
    assert said.code == 0, said.err
    from PIL import Image

    assert Image.open(figure).size == (8 * 50, 6 * 50)
    assert figure.read_bytes() != before
    assert path.read_bytes() == kept
    assert (path.parent / ".hydra" / "config.yaml").read_bytes() == settings


def test_summary_lists_what_is_stored(command: Callable[..., object]) -> None:
    path = result_path(command("visualization.max_samples=0"))
    said = command("mode=summary", f"results={path}")
    assert said.code == 0
    for words in ("cat.jpg", "horizontal_right", "1 samples measured, 0 failed"):
        assert words in said.out


@pytest.mark.parametrize("results", ["nowhere.h5", "pyproject.toml"])
def test_render_of_no_result_is_one_line(command: Callable[..., object], results: str) -> None:
    said = command("mode=render", f"results={results}")
    assert said.code == 1 and said.err.startswith("error: results=")


def test_killed_and_continued_equals_uninterrupted(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGKILL at several moments; what comes out must be the same, dataset by dataset."""
    common = [
        "dataset=images",
        f"dataset.path={pictures(36, bad=2)}",
        "visualization.max_samples=0",
        "batch_size=2",
        "output.part_size=4",
    ]
    whole = start(*common, f"output.root={tmp_path}/whole")
    out, err = whole.communicate()
    assert whole.returncode == 3, err
    reference = Path(out.strip().splitlines()[-1].removeprefix("results: "))

    broken = [*common, f"output.root={tmp_path}/broken"]
    parts_before = -1
    for wanted in (2, 6):
        process = start(*broken)
        while process.poll() is None:
            parts = list((tmp_path / "broken").rglob("*.part.h5"))
            if len(parts) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        process.communicate()
        parts = len(list((tmp_path / "broken").rglob("*.part.h5")))
        assert parts > parts_before
        parts_before = parts
    last = start(*broken)
    out, err = last.communicate()
    assert last.returncode == 3, err
    assert "were measured before" in err + out
    continued = Path(out.strip().splitlines()[-1].removeprefix("results: "))
    assert contents(continued) == contents(reference)
    assert not list(continued.parent.rglob("*.part.h5"))


def test_interrupt_stops_cleanly_and_says_how_to_go_on(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    process = start(
        "dataset=images",
        f"dataset.path={pictures(400)}",
        "visualization.max_samples=0",
        "batch_size=1",
        "output.part_size=2",
        f"output.root={tmp_path}/o",
    )
    while process.poll() is None and not list((tmp_path / "o").rglob("*.part.h5")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    assert not list((tmp_path / "o").rglob("results.h5"))


def test_a_finished_run_is_not_measured_again(command: Callable[..., object]) -> None:
    first = result_path(command("visualization.max_samples=0"))
    stamp = first.stat().st_mtime_ns
    assert result_path(command("visualization.max_samples=0")).stat().st_mtime_ns == stamp
    assert (
        result_path(command("visualization.max_samples=0", "resume=false")).stat().st_mtime_ns
        != stamp
    )


def test_failed_samples_can_be_tried_again(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    folder = pictures(3, bad=1)
    arguments = ["dataset=images", f"dataset.path={folder}", "visualization.max_samples=0"]
    assert command(*arguments, "max_failed_share=0.9").code == 3
    # Nothing was changed, so nothing is tried; when it is asked for, it fails again.
    for again in ("retry_failed=false", "retry_failed=true"):
        assert command(*arguments, "max_failed_share=0.9", again).code == 3
    # A file that was changed is another sample, which needs no word.
    (folder / "bad_0000.png").write_bytes((folder / "good_0000.png").read_bytes())
    said = command(*arguments, "max_failed_share=0.9")
    assert said.code == 0 and "1 sample changed since measured" in said.out, said.err
    with open_results(result_path(said)) as results:
        assert results.sample_ids[0] == "bad_0000.png" and len(results) == 4


def result_path(said: object) -> Path:
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


def contents(path: Path) -> dict[str, object]:
    """Every dataset of a file, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
