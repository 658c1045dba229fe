"""The lock of an accelerator: one process at a time, named, and free when its holder is dead."""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from interp_lab.store.locks import DeviceLock, NamedLock, alive

HOLD = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from interp_lab.store.locks import DeviceLock
lock = DeviceLock("cuda GPU-1")
lock.wait()
print("held", flush=True)
while not lock.wanted():
    time.sleep(0.05)
print("wanted", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def holder(tmp_path: Path, seconds: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_device_is_waited_for_and_the_log_says_who_uses_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = holder(tmp_path, 0.5)
    lock = DeviceLock("cuda GPU-1")
    assert not lock.take()
    assert DeviceLock("cuda GPU-2").take()
    with caplog.at_level("INFO"):
        lock.wait()
    # The holder saw that it was wanted, and ended: it was never held by two.
    assert process.stdout is not None and process.stdout.read() == "wanted\n"
    assert lock.held and lock.holder()["pid"] != process.pid
    waits = [r.getMessage() for r in caplog.records if "waiting" in r.getMessage()]
    assert len(waits) == 1 and f"cuda GPU-1, which process {process.pid} on " in waits[0]
    lock.release()
    process.wait()


def test_the_device_of_a_killed_process_is_free(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    process.kill()
    process.wait()
    assert not alive(process.pid, lock_host())
    lock = DeviceLock("cuda GPU-1")
    assert lock.take()
    lock.release()
    assert not lock.held and lock.take()
    lock.release()


def test_a_lock_taken_in_one_thread_is_released_in_another(tmp_path: Path) -> None:
    lock = NamedLock(tmp_path / "x.lock", {"share": 3})
    assert lock.take() and not NamedLock(tmp_path / "x.lock").take()
    assert lock.holder()["share"] == 3
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    other = NamedLock(tmp_path / "x.lock")
    assert other.take()
    other.release()


def test_a_wish_for_a_device_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = DeviceLock("mps")
    assert lock.take() and not lock.wanted()
    lock._wish.touch()
    assert lock.wanted()
    monkeypatch.setattr(time, "time", lambda: lock._wish.stat().st_mtime + 60)
    assert not lock.wanted()
    lock.release()


def lock_host() -> str:
    import socket

    return socket.gethostname()
