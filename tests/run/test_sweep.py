"""Sweeps as a stranger meets them: shared samples, errors of every job, stops, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from interp_lab.run.sweep.jobs import collapsed
from interp_lab.run.sweep.record import Outcome
from interp_lab.store.results import open_results

QUICK = (
    *("dataset=images", "~visualization.figures"),
    *("capture.verify=off", "capture.live_check=false", "output.part_size=2", "batch_size=2"),
)
HERE = ("--multirun", "hydra/launcher=basic")


def result_of(root: Path) -> Path:
    (path,) = root.rglob("results.h5")
    return path


def contents(path: Path) -> dict[str, object]:
    """Every dataset of a file, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


@pytest.fixture
def one(command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path) -> Path:
    """The result of one job, over ten pictures of which one is broken."""
    said = command(*QUICK, f"dataset.path={pictures(9, bad=1)}")
    assert said.code == 3, said.err
    (tmp_path / "outputs").rename(tmp_path / "one")
    return result_of(tmp_path / "one")


def quick(tmp_path: Path, *more: str) -> list[str]:
    return [*QUICK, f"dataset.path={tmp_path}/pictures", *more]


def test_two_jobs_share_the_samples_and_make_the_result_of_one(
    command: Callable[..., object], one: Path, tmp_path: Path
) -> None:
    """The launcher that people get: worker processes."""
    said = command("--multirun", *quick(tmp_path, "device=cpu,cpu"))
    assert said.code == 3, said.err
    path = result_of(tmp_path / "outputs")
    assert said.out.strip().splitlines()[-1] == f"results: {path}"
    assert "samples 1 of 2 (device cpu of cpu,cpu): 6 of 10" in said.out
    assert "samples 2 of 2 (device cpu of cpu,cpu): 4 of 10" in said.out
    assert contents(path) == contents(one)
    with open_results(path) as results:
        assert results.attributes["n_missing"] == 0 and results.attributes["device"] == "cpu"
    assert not list(path.parent.rglob("*.part.h5"))


def test_groups_are_merged_each_and_the_model_is_loaded_once(
    command: Callable[..., object], one: Path, tmp_path: Path
) -> None:
    metrics = "analysis.metric=cosine,dot_product"
    layers = "analysis.layer=-1,0,1"
    said = command(*HERE, *quick(tmp_path, metrics, layers, "device=cpu"))
    assert said.code == 3, said.err
    assert said.out.count("loading tiny_clip on cpu") == 1
    assert said.out.count("using the model of the job before") == 5
    found = {}
    for path in (tmp_path / "outputs").rglob("results.h5"):
        with open_results(path) as results:
            found[results.attributes["run_id"]] = path
    assert len(found) == 6
    with open_results(one) as results:
        # The model that served others before gives the numbers of a fresh one.
        assert contents(found[results.attributes["run_id"]]) == contents(one)


def test_shares_are_completed_by_more_or_fewer_jobs(
    command: Callable[..., object], one: Path, tmp_path: Path
) -> None:
    said = command(*quick(tmp_path, "shard.index=1", "shard.count=3"))
    assert said.code == 0 and "results:" not in said.out
    assert "the last job merges (6 samples of other shares left)" in said.out
    said = command("mode=merge", *quick(tmp_path))
    assert said.code == 3 and "4 samples merged, 6 not measured yet" in said.err
    with open_results(result_of(tmp_path / "outputs")) as results:
        assert results.attributes["n_missing"] == 6
        assert results.notes[0].startswith("INCOMPLETE: 6 of 10")
    said = command(*HERE, *quick(tmp_path, "device=cpu,cpu"))
    assert said.code == 3, said.err
    path = result_of(tmp_path / "outputs")
    assert contents(path) == contents(one)
    with open_results(path) as results:
        assert not [n for n in results.notes if n.startswith("INCOMPLETE")]
        assert results.attributes["n_missing"] == 0


def test_all_parts_there_and_no_result_needs_no_model(
    command: Callable[..., object],
    one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("killed before the merge")

    with monkeypatch.context() as patch:
        patch.setattr("interp_lab.run.work.conclude", fail)
        with pytest.raises(RuntimeError, match="killed"):
            command(*quick(tmp_path))
    assert list((tmp_path / "outputs").rglob("*.part.h5"))
    monkeypatch.setattr("interp_lab.models.clip.ClipVision.__init__", fail)
    said = command("mode=merge", *quick(tmp_path))
    assert said.code == 3, said.err
    path = result_of(tmp_path / "outputs")
    assert contents(path) == contents(one)
    with h5py.File(path) as file, h5py.File(one) as other:
        for key in ("notes", "device", "checks", "capture", "definitions", "counts"):
            assert file.attrs[key] == other.attrs[key], key


def test_beginning_anew_with_several_jobs_measures_everything_once(
    command: Callable[..., object], one: Path, tmp_path: Path
) -> None:
    arguments = quick(tmp_path, "device=cpu,cpu")
    assert command(*HERE, *arguments).code == 3
    path = result_of(tmp_path / "outputs")
    before = path.read_bytes()
    # The first job alone, as if the second had been killed.
    said = command(
        "--multirun",
        "hydra/launcher=basic",
        "resume=false",
        *quick(tmp_path, "shard.index=0,0", "shard.count=2"),
    )
    assert said.code == 3 and "5 samples measured, 1 failed" in said.err
    assert path.read_bytes() == before
    said = command("mode=merge", *quick(tmp_path))
    assert said.code == 1 and "is complete, and what could be merged now lacks 4" in said.err
    said = command(*HERE, *arguments)
    assert said.code == 3 and "6 of 10, 0 to do" in said.out
    # In one process the first job measures what the second has not begun.
    assert "going on with what others have not begun" in said.out
    assert "4 of 10, 0 to do" in said.out
    assert path.read_bytes() != before and contents(path) == contents(one)
    said = command(*HERE, "resume=false", *arguments)
    assert said.code == 3 and said.out.count("beginning anew") == 1
    assert "6 of 10, 6 to do" in said.out and "4 of 10, 0 to do" in said.out
    assert contents(path) == contents(one)


def test_failed_samples_are_tried_again_by_every_job_before_the_merge(
    command: Callable[..., object], one: Path, tmp_path: Path
) -> None:
    arguments = quick(tmp_path, "device=cpu,cpu", "max_failed_share=0.9")
    assert command(*HERE, *arguments).code == 3
    pictures = tmp_path / "pictures"
    (pictures / "bad_0000.png").write_bytes((pictures / "good_0000.png").read_bytes())
    said = command(*HERE, *arguments, "retry_failed=true")
    assert said.code == 0, said.err
    with open_results(result_of(tmp_path / "outputs")) as results:
        assert len(results) == 10


def test_devices_that_are_not_there_are_one_line(
    command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures(4)
    said = command(*HERE, *quick(tmp_path, "device=7,8,9"))
    assert said.code == 1
    (line,) = [line for line in said.err.splitlines() if line]
    assert line.startswith("error: device=7 (cuda:7), device=8 (cuda:8), device=9 (cuda:9): not on")
    assert "Traceback" not in said.out


def test_every_job_tells_its_own_error_and_the_others_go_on(
    command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures(4)
    said = command(*HERE, *quick(tmp_path, "analysis.layer=-1,9,0", "model.init=pretrained,rndom"))
    assert said.code == 1
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2, said.err
    assert "jobs 1, 3, 5: model.init=rndom" in lines[0]
    assert "job 2 (analysis.layer=9 model.init=pretrained): analysis.layer=9" in lines[1]
    assert said.out.count("results: ") == 2


def test_two_commands_on_one_run_directory_one_works_the_other_says_so(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    pictures(300)
    command = [sys.executable, "-m", "interp_lab", *quick(tmp_path, f"output.root={tmp_path}/o")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list((tmp_path / "o").rglob("*.part.h5")):
        time.sleep(0.02)
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 1
    assert f"process {first.pid} on " in second.stderr and "works here" in second.stderr
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate()
    assert first.returncode == 130 and "the same command goes on" in err


def test_a_killed_worker_is_named_and_the_other_measures_what_it_has_left(
    command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """Real processes; the other one stands still until the killed one is gone."""
    pictures(80)
    arguments = ["--multirun", *quick(tmp_path, "device=cpu,cpu", f"output.root={tmp_path}/o")]
    arguments += [f"hydra.sweep.dir={tmp_path}/sweep"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "interp_lab", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def pid_of(job: int) -> int:
        (told,) = (tmp_path / "sweep").glob(f".jobs/*/{job:06d}.json")
        return json.loads(told.read_text())["pid"]

    def shares() -> set[int]:
        """Those of which there is a part; everybody begins with his own."""
        parts = (tmp_path / "o").rglob("*.part.h5")
        return {int(p.name.split("-")[0]) // 2 % 2 for p in parts}

    while sweep.poll() is None and not shares():
        time.sleep(0.005)
    survivor = min(shares())
    os.kill(pid_of(survivor), signal.SIGSTOP)
    while sweep.poll() is None and len(shares()) < 2:
        time.sleep(0.005)
    killed = pid_of(1 - survivor)
    os.kill(killed, signal.SIGKILL)
    os.kill(pid_of(survivor), signal.SIGCONT)
    out, err = sweep.communicate()
    assert sweep.returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"job {1 - survivor}" in line and f"process {killed} on " in line
    assert "ended without a word" in line
    path = result_of(tmp_path / "o")
    assert f"results: {path}" in out
    assert command(*quick(tmp_path)).code == 0
    assert contents(path) == contents(result_of(tmp_path / "outputs"))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a: x", "b: x"], ["a, b: x (all 2 jobs)"]),
        (["x", "x"], ["x (all 2 jobs)"]),
        (["a: x", "b: y"], ["job 0 (k=0): a: x", "job 1 (k=1): b: y"]),
        (["a: x", "", "b: x"], ["jobs 0, 2: a, b: x"]),
        (["a: x"], ["a: x"]),
    ],
)
def test_equal_complaints_are_one_line(lines: list[str], told: list[str]) -> None:
    outcomes = [Outcome(n, [f"k={n}"], "error", line) for n, line in enumerate(lines) if line]
    assert collapsed(outcomes, len(lines)) == told
