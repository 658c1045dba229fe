"""Processes that end with the command that started them, whatever ended the command.

A command that is killed outright (SIGKILL, no memory left) cannot end its helpers: they would wait
for work for ever, each with its memory. So each helper looks after its parent by itself.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

SECONDS_BETWEEN_LOOKS = 0.25
# What a helper that is at work may take to write down what it has finished.
SECONDS_TO_FINISH = 20.0
# Linux: the signal that a process gets when its parent dies (prctl).
_PR_SET_PDEATHSIG = 1
_watched: set[int] = set()


def end_with(parent: int, busy: Callable[[], bool] = lambda: False) -> None:
    """Let this process end soon after its parent has; a second call for it changes nothing.

    Args:
        parent: pid of the process that started this one.
        busy: whether to wait for this process to end by itself, for some seconds.
    """
    if parent in _watched:
        return
    _watched.add(parent)
    if os.getppid() != parent and not busy():
        os._exit(1)
    threading.Thread(target=_watch, args=(parent, busy), daemon=True, name="parent").start()


def _watch(parent: int, busy: Callable[[], bool]) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    until = time.monotonic() + SECONDS_TO_FINISH
    while busy() and time.monotonic() < until:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    # Not sys.exit: it would end this thread, and exit handlers wait for the parent's pipes.
    os._exit(1)


def killed_with(parent: int) -> None:
    """Let the system kill this process when its parent's thread ends (Linux; elsewhere nothing).

    It is for a process in which no thread of ours may get a turn, such as one inside HDF5.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
