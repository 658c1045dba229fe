"""One type in a process of its own, with a limit of time and memory: what ends it ends no other."""

import contextlib
import json
import os
import resource
import signal
from typing import Any

import trial
from building import one_line

# Of the processor, so that a busy machine ends nothing; by the clock, for what waits forever.
SECONDS = 60
LONGEST = 600
BYTES = 10 << 30


def apart(model_type: str, seconds: int = SECONDS) -> dict[str, Any]:
    """Return a type's row, measured in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with contextlib.suppress(BaseException):
            _answer(writer, model_type, seconds)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"code {status}"
    late = ended in ("SIGALRM", "SIGXCPU")
    why = f"took more than {seconds} s" if late else f"ended by {ended}"
    return {"type": model_type, "reason": "ended", "why": why, "towers": []}


def _answer(writer: int, model_type: str, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(LONGEST)
    # What a library prints into the terminal belongs to no row.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        row = trial.one(model_type)
    except BaseException as error:
        row = {"type": model_type, "reason": "ended", "why": one_line(error), "towers": []}
    with os.fdopen(writer, "w") as stream:
        json.dump(row, stream)
