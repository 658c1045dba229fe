"""No process outlives its command: a killed command's helpers are counted until there are none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

QUICK = ("dataset=images", "output.exports=false", "output.part_size=2", "batch_size=2")


def helpers(pid: int, word: str) -> list[psutil.Process]:
    """The living descendants of a process whose command line holds a word."""
    found = []
    try:
        for process in psutil.Process(pid).children(recursive=True):
            if word in " ".join(process.cmdline()):
                found.append(process)
    except psutil.Error:
        return []
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize(
    ("word", "extra"),
    [
        ("spawn_main", ("visualization.workers=2", "visualization.max_samples=200")),
        ("LokyProcess", ("device=cpu,cpu", "--multirun", "~visualization.figures")),
    ],
)
@pytest.mark.slow
def test_helpers_of_a_killed_command_end(
    word: str, extra: tuple[str, ...], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    places = (f"output.root={tmp_path}/o", f"hydra.sweep.dir={tmp_path}/s")
    arguments = [*QUICK, f"dataset.path={pictures(60)}", *places, *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "interp_lab", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def at_work() -> bool:
        # A drawing worker has its watch once a figure is there, a measuring one with a part.
        done = list(tmp_path.glob("o/**/*.png")) + list(tmp_path.glob("o/**/*.part.h5"))
        enough = len(helpers(process.pid, word)) == 2
        return process.poll() is not None or (
            enough and any(p.suffix == (".png" if word == "spawn_main" else ".h5") for p in done)
        )

    assert wait_for(at_work, 240) and process.poll() is None
    left = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    gone = wait_for(lambda: not [p for p in left if lives(p)], 60)
    assert gone, [p for p in left if lives(p)]


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
