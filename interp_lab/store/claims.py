"""Claims on pieces of a run's work: a lock file each, free again when its process has died.

Nobody is asked and nothing central is written, so that hundreds of workers do not wait for each
other. Taking a piece and finishing it are seven file operations: open, lock, read, a look for the
finished one, a byte for the holder; at the end a new name and closing. Choosing among the pieces of
others takes one listing of the folder more.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from interp_lab.errors import StoreError, unlockable

log = logging.getLogger(__name__)
HELD, DONE = ".lock", ".done"
# Who dies with a piece may have died of it: after so many deaths nobody takes it again.
MOST_DEATHS = 3
# A byte of the lock file for each holder; one that gives a piece back changes his.
_HOLDER, _BLAMELESS = b".", b"-"
_MOST_BYTES = 4096
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Taken:
    """A piece that this process holds.

    Args:
        name: of the piece.
        fd: its open lock file.
        before: holders that went without finishing it; some of its samples may be finished.
    """

    name: str
    fd: int
    before: int


@dataclass(frozen=True)
class Listing:
    """The pieces that somebody has taken so far: held or abandoned, and finished."""

    begun: frozenset[str]
    done: frozenset[str]


class Claims:
    """The claims on the pieces of one division of a run's work.

    Args:
        folder: where the lock files lie; all workers of the division name the same one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._over = folder.with_name(f"{folder.name}{DONE}")
        # Pieces that nobody should take again.
        self.given_up: set[str] = set()

    def prepare(self) -> bool:
        """Make the folder; return whether the disk has the locks that die with a process.

        Raises:
            StoreError: if nothing can be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.folder / "probe", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in _BUSY:
                raise StoreError(unlockable(error, self.folder)) from error
        return True

    def over(self) -> bool:
        """Return whether all pieces were finished and merged before."""
        return self._over.exists()

    def listing(self) -> Listing:
        """Return which pieces somebody has taken so far."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            names = []
        return Listing(
            frozenset(n.removesuffix(HELD) for n in names if n.endswith(HELD)),
            frozenset(n.removesuffix(DONE) for n in names if n.endswith(DONE)),
        )

    def take(self, name: str) -> Taken | None:
        """Take a piece, unless somebody holds it, has finished it, or too many have ended in it.

        Raises:
            StoreError: if the lock file cannot be written.
        """
        try:
            fd = os.open(self.folder / f"{name}{HELD}", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(unlockable(error, self.folder)) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = os.pread(fd, _MOST_BYTES, 0)
            if self._is_done(name) or self._ended_many(name, before.count(_HOLDER)):
                os.close(fd)
                return None
            os.pwrite(fd, _HOLDER, len(before))
        except OSError as error:
            os.close(fd)
            if error.errno in _BUSY:
                return None
            raise StoreError(unlockable(error, self.folder)) from error
        return Taken(name, fd, len(before))

    def _is_done(self, name: str) -> bool:
        """Return whether a piece is finished; the file that asking for it has made goes again."""
        if not (self.folder / f"{name}{DONE}").exists():
            return False
        # Whoever has opened it as well looks for the finished one after locking, as we did.
        (self.folder / f"{name}{HELD}").unlink(missing_ok=True)
        return True

    def _ended_many(self, name: str, deaths: int) -> bool:
        if deaths < MOST_DEATHS:
            return False
        if name not in self.given_up:
            self.given_up.add(name)
            log.warning(
                "%d jobs ended in the same samples; the jobs of this command take them no more",
                deaths,
            )
        return True

    def finish(self, taken: Taken) -> None:
        """Mark a piece as finished, once what came of it is on the disk."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder / f"{taken.name}{HELD}", self.folder / f"{taken.name}{DONE}")
        os.close(taken.fd)

    def give_back(self, taken: Taken, blameless: bool) -> None:
        """Let others take a piece that is not finished.

        Args:
            taken: the piece.
            blameless: this worker was asked to stop; else the piece may have ended it.
        """
        if blameless:
            with contextlib.suppress(OSError):
                os.pwrite(taken.fd, _BLAMELESS, taken.before)
        os.close(taken.fd)

    def close(self) -> None:
        """Put one mark in the place of all lock files; nobody works any more."""
        with contextlib.suppress(OSError):
            self._over.touch()
            shutil.rmtree(self.folder, ignore_errors=True)
