"""Places that a run finds as they are: a disk without locks, a home and caches that are read-only.

No file system of this machine lacks locks, so there the system call stands for it; the read-only
places are real (/proc, where not even root can write).
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK = ("~visualization.figures", "output.exports=false", "dataset=images")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_one_line_before_a_model(
    number: int,
    command: Callable[..., Any],
    pictures: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = command(*QUICK, f"dataset.path={pictures(2)}")
    assert said.code == 1 and "loading" not in said.out
    [line] = said.err.strip().splitlines()
    assert f"{tmp_path}/outputs" in line and errno.errorcode[number] in line
    assert "this file system has no file locks" in line and "output.root=" in line
    assert not list(tmp_path.glob("outputs/**/*.h5"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc on this machine")
def test_a_home_and_caches_that_are_read_only_cost_nothing(
    command: Callable[..., Any], pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "INTERP_LAB_CACHE", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "/proc/no_such_place")
    said = command(*QUICK, f"dataset.path={pictures(2)}")
    assert said.code == 0, said.err
    assert "results: " in said.out and "Traceback" not in said.out + said.err


def test_a_temporary_folder_that_is_gone_costs_nothing(
    command: Callable[..., Any], pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/no_such_place")
    said = command(*QUICK, f"dataset.path={pictures(2)}")
    assert said.code == 0, said.err
