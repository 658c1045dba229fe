"""A run's directory: where its parts, result, figures and lock lie, and who works in it."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
from filelock import FileLock, Timeout

from interp_lab.errors import StoreError
from interp_lab.store.parts import list_parts


class RunDirectory:
    """The places of one run.

    Args:
        path: outputs/<task>/<model>-<dataset>-<run_id>.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.parts = self.path / "parts"
        self.results = self.path / "results.h5"
        self.figures = self.path / "figures"
        self.exports = self.path / "exports"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory while the block runs; the lock of a dead process is free.

        Raises:
            StoreError: if it cannot be made or written, or another process holds it (says which).
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"{self.path}: another process works here ({self._owner()}); wait for it, or "
                "choose another output.root"
            ) from error
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write there ({error.strerror})") from error
        try:
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            (self.path / ".owner").write_text(json.dumps(owner))
            yield
        finally:
            (self.path / ".owner").unlink(missing_ok=True)
            lock.release()

    def sources(self, resume: bool) -> list[Path]:
        """Return the files that hold finished samples: parts, and the result when resuming."""
        earlier = [self.results] if resume and self._is_complete() else []
        return list_parts(self.parts) + earlier

    def clear_parts(self) -> None:
        """Delete the parts; the result stays."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def _is_complete(self) -> bool:
        if not self.results.is_file():
            return False
        try:
            with h5py.File(self.results, "r") as file:
                return bool(file.attrs.get("complete", False))
        except OSError:
            return False

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / ".owner").read_text())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError):
            return "unknown"
