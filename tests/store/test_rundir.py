"""A run directory: one worker at a time, and a dead one does not block it."""

import subprocess
import sys
from pathlib import Path

import pytest

from interp_lab.errors import StoreError
from interp_lab.store.places import safe_name
from interp_lab.store.rundir import RunDirectory

HOLD = """
import sys, time
from interp_lab.store.rundir import RunDirectory
with RunDirectory(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_worker_is_told_who_holds_it_and_a_dead_one_does_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with (
        pytest.raises(StoreError, match=f"process {holder.pid} on "),
        RunDirectory(tmp_path).locked(),
    ):
        pass
    holder.kill()
    holder.wait()
    with RunDirectory(tmp_path).locked():
        pass


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot write there"),
        RunDirectory(tmp_path / "file" / "run").locked(),
    ):
        pass


def test_sample_ids_become_file_names_that_differ() -> None:
    ids = ["cat.jpg", "나비", "a/b.png", "a_b.png", "..", "../../x", "", "x" * 300]
    names = [safe_name(sample_id) for sample_id in ids]
    assert names[:2] == ids[:2]
    assert len(set(names)) == len(ids)
    assert all(name and "/" not in name and not name.startswith(".") for name in names)
    assert max(map(len, names)) < 200
