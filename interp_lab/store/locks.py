"""Locks that say who holds them; what a dead process held is free at once.

The lock itself is the operating system's (flock); a JSON file beside it names the holder. On a
network file system that lacks flock, filelock says so or falls back to a lock file of its own.
"""

import json
import logging
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp_lab.errors import StoreError, unlockable

log = logging.getLogger(__name__)
SECONDS_BETWEEN_TRIES = 0.2
# A process that waits for a device says so at every try; a wish that is older was given up.
WISH_LASTS = 5.0


def alive(pid: int, host: str) -> bool:
    """Return whether a process lives; one on another host is taken to."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_private(folder: Path) -> None:
    """Make a folder for this user alone in a place that others can write to, or check it.

    Raises:
        StoreError: if it is a link, or another user's, or everybody can write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    why = ""
    if not stat.S_ISDIR(found.st_mode):
        why = "is a link"
    elif found.st_uid != os.getuid():
        why = f"belongs to another user (uid {found.st_uid})"
    elif found.st_mode & 0o002:
        why = "can be written to by everybody"
    if why:
        raise StoreError(
            f"{folder}: {why}, so no lock is taken there; remove it, or give TMPDIR=... a folder "
            "of your own"
        )


def check_planted(folder: Path) -> None:
    """Refuse a way to a folder that leads over a link which another user put into a shared place.

    Raises:
        StoreError: names the link.
    """
    for place in (folder, *folder.parents):
        try:
            found, above = os.lstat(place), os.stat(place.parent)
        except OSError:
            continue
        if (
            stat.S_ISLNK(found.st_mode)
            and above.st_mode & stat.S_IWOTH
            and found.st_uid not in (os.getuid(), 0, above.st_uid)
        ):
            raise StoreError(
                f"{place}: is a link of another user (uid {found.st_uid}) in a folder that "
                "everybody can write to; choose another output.root"
            )


class NamedLock:
    """A lock between processes, whose holder can be named.

    Args:
        path: the lock file; the holder is written beside it.
        about: what to write of the holder, beside its pid and host.
    """

    def __init__(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._holder = path.with_suffix(".json")
        self._about = dict(about or {})
        # The thread that lets go of a device's lock is not the one that took it.
        self._lock = FileLock(path, timeout=0, thread_local=False)

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._lock.is_locked

    def take(self) -> bool:
        """Take the lock if it is free; return whether it is ours now.

        Raises:
            StoreError: if nothing can be written there.
        """
        try:
            self._prepare(self.path.parent)
            self._lock.acquire()
            about = {"pid": os.getpid(), "host": socket.gethostname(), **self._about}
            temporary = self._holder.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(about))
            os.replace(temporary, self._holder)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise StoreError(unlockable(error, self.path.parent)) from error
        return True

    def _prepare(self, folder: Path) -> None:
        check_planted(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self.held:
            self._holder.unlink(missing_ok=True)
            self._lock.release(force=True)

    def holder(self) -> dict[str, Any]:
        """Return what the holder wrote of itself; empty if it cannot be read."""
        for _ in range(10):
            try:
                found = json.loads(self._holder.read_text())
                # Between taking the lock and writing, the name is that of a dead holder.
                if alive(found["pid"], found["host"]):
                    return found
            except (OSError, ValueError, KeyError):
                pass
            time.sleep(0.05)
        return {}

    def forget(self) -> None:
        """Delete the files of a lock that nobody holds."""
        self._holder.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def named(holder: Mapping[str, Any]) -> str:
    """Return the holder of a lock as text."""
    return f"process {holder['pid']} on {holder['host']}" if holder else "an unknown process"


class DeviceLock(NamedLock):
    """The lock of an accelerator of this host, for all processes of this user.

    It is held as long as a model lies on the device, so that two jobs never share its memory.

    Args:
        name: of the device, the same in every process whatever its numbering.
    """

    def __init__(self, name: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"interp_lab-{os.getuid()}"
        self.name = name
        super().__init__(folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.lock")
        self._wish = self.path.with_suffix(".wanted")

    def _prepare(self, folder: Path) -> None:
        check_private(folder)

    def wait(self) -> None:
        """Take the lock, as soon as it is free."""
        said = False
        while not self.take():
            self._wish.touch()
            if not said:
                log.info("waiting for %s, which %s uses", self.name, named(self.holder()))
                said = True
            time.sleep(SECONDS_BETWEEN_TRIES)
        # Whoever else waits says so again at once.
        self._wish.unlink(missing_ok=True)

    def wanted(self) -> bool:
        """Return whether another process waits for it."""
        try:
            return time.time() - self._wish.stat().st_mtime < WISH_LASTS
        except OSError:
            return False
