"""Damaged parts and results: found before they are used, kept beside the run, named in the log.

A disk that failed, or a copy that was cut, must not end every further try. What cannot be read is
moved out of the way; its samples then count as not measured.
"""

import logging
import os
from pathlib import Path

from interp_lab.errors import StoreError
from interp_lab.store.checksum import Stamp, stamp_of
from interp_lab.store.layout import read_texts
from interp_lab.store.opening import CHECKED_SINCE, look_at, opened
from interp_lab.store.parts import read_failures, read_prints

log = logging.getLogger(__name__)
# Where they are kept, in the run's directory.
FOLDER = "damaged"
# What this process has found whole: a run looks at its files several times.
_whole: set[Stamp] = set()


def why_damaged(path: Path) -> str:
    """Return why a part or result cannot be read; empty if it can.

    Raises:
        OSError: if the file system does not give it, which says nothing of what it holds.
    """
    stamp = stamp_of(path)
    if stamp in _whole:
        return ""
    try:
        with opened(path) as file:
            if file.attrs.get("schema_version", 0) >= CHECKED_SINCE and not look_at(path):
                return "its checksum is gone"
            read_texts(file["samples/sample"])
            read_prints(file["samples"])
            read_failures(file)
    except StoreError as error:
        return str(error).removeprefix(f"{path}: ")
    _whole.add(stamp)
    return ""


def set_aside(path: Path, run: Path) -> bool:
    """Move a file out of the way if it is damaged, and say so; return whether it was.

    Args:
        path: a part or result.
        run: the directory of the run.
    """
    why = why_damaged(path)
    if not why:
        return False
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    kept, number = folder / path.name, 1
    while kept.exists():
        number += 1
        kept = folder / f"{number}-{path.name}"
    os.replace(path, kept)
    log.warning("%s: %s; kept as %s, its samples are measured again", path, why, kept)
    return True
