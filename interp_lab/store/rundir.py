"""A run's directory: where its parts, result and figures lie, and who works in it.

Workers claim a share each and write parts without asking anybody. What concerns all of them
(claiming, reading what is finished, merging) happens while one of them holds the directory.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_lab.errors import StoreError
from interp_lab.store.claims import Claims
from interp_lab.store.damaged import set_aside, why_damaged
from interp_lab.store.locks import NamedLock, alive, named
from interp_lab.store.opening import opened
from interp_lab.store.parts import list_parts

# Where exports lie, beside the result.
EXPORTS = "exports"
log = logging.getLogger(__name__)
SECONDS_BETWEEN_TRIES = 0.2
# Most waits are over before anybody could read that there was one.
SECONDS_BEFORE_SAYING = 2.0
# The pool of workers of separate commands.
ALL = "all"


@dataclass(frozen=True)
class Claim:
    """What a worker wants to work on.

    Args:
        index, count: its share.
        batch_size: shares are made of batches, so all workers need the same.
        command: identity of the command or sweep that it works for.
        pid: of the command that ends it when it dies; None if it lives by itself.
        pool: which workers take what others have not begun; empty for a share that stays fixed.
    """

    index: int
    count: int
    batch_size: int
    command: str
    pid: int | None = None
    pool: str = ""

    def clashes(self, other: Mapping[str, Any]) -> bool:
        """Return whether a worker with the claim `other` could measure the same samples."""
        same_division = (other.get("count"), other.get("batch_size")) == (
            self.count,
            self.batch_size,
        )
        pools = {self.pool, other.get("pool", "")}
        # Who takes from everybody does so only where everybody says what he takes.
        apart = len(pools) == 2 and ALL in pools
        return not same_division or other.get("index") == self.index or apart

    def yields(self, holder: Mapping[str, Any]) -> bool:
        """Return whether to wait for a holder: it ends by itself and leaves us something."""
        if holder.get("command") == self.command:
            return True
        # A worker whose command has died stops after its batch.
        starter = holder.get("pid_of_command")
        return starter is not None and not alive(starter, holder["host"])


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
        self.exports = self.path / EXPORTS
        self._claims = self.path / ".claims"
        self._generation = self.parts / "generation.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory while the block runs, as soon as nobody else does.

        Raises:
            StoreError: if it cannot be made or written.
        """
        lock = NamedLock(self.path / ".lock")
        began, said = time.monotonic(), False
        while not lock.take():
            if not said and time.monotonic() - began > SECONDS_BEFORE_SAYING:
                said = True
                log.info("waiting for %s, which merges %s", named(lock.holder()), self.path)
            time.sleep(SECONDS_BETWEEN_TRIES)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def claimed(self, claim: Claim) -> Iterator[NamedLock]:
        """Work on a share while the block runs; the claim of a dead process is free.

        Jobs of one sweep wait for each other, all others are refused.

        Raises:
            StoreError: if another process works on the same samples (says which), or the
                directory cannot be made or written.
        """
        about = {
            "index": claim.index,
            "count": claim.count,
            "batch_size": claim.batch_size,
            "command": claim.command,
            "pid_of_command": claim.pid,
            "pool": claim.pool,
        }
        lock = NamedLock(self._claims / f"{claim.index:06d}-of-{claim.count:06d}.lock", about)
        said = False
        while (holder := self._try(claim, lock)) is not None:
            if not claim.yields(holder):
                raise StoreError(
                    f"{self.path}: {_working(holder)}; wait for it, or choose another output.root"
                )
            if not said:
                said = True
                log.info("waiting: %s in %s", _working(holder), self.path)
            time.sleep(SECONDS_BETWEEN_TRIES)
        try:
            yield lock
        finally:
            lock.release()

    def _try(self, claim: Claim, lock: NamedLock) -> dict[str, Any] | None:
        """Take the claim; return the holder of one that stands in its way."""
        with self.held():
            workers = self.workers()
            clash = [holder for holder in workers if not holder or claim.clashes(holder)]
            if clash:
                return clash[0]
            lock.take()
            if not workers:
                self._sweep_up(claim.pool)
            return None

    def workers(self) -> list[dict[str, Any]]:
        """Return who works here, while the directory is held."""
        found = []
        for path in sorted(self._claims.glob("*.lock")):
            lock = NamedLock(path)
            if lock.take():
                lock.release()
                lock.forget()
            else:
                found.append(lock.holder())
        return found

    def begin_anew(self, command: str) -> bool:
        """Put the finished samples aside, once a command; return whether this call did.

        The result stays where it is, but counts no more, until a new one replaces it. The
        directory is held, and the caller has its claim.

        Raises:
            StoreError: if other workers are writing parts.
        """
        if command in (self._begun(), self._attribute("generation")):
            return False
        others = [h for h in self.workers() if h.get("command") != command]
        if others:
            raise StoreError(f"{self.path}: {_working(others[0])}; resume=false cannot begin anew")
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True)
        temporary = self._generation.with_suffix(".tmp")
        temporary.write_text(json.dumps({"id": command}))
        temporary.replace(self._generation)
        return True

    def sources(self) -> list[Path]:
        """Return the files that hold finished samples: parts, and the result if it counts."""
        return list_parts(self.parts) + ([self.results] if self.result_counts() else [])

    def whole_sources(self, move: bool) -> list[Path]:
        """Return the same files without damaged ones, which the log names.

        Args:
            move: set damaged files aside; the directory is held. Else they are only left out.
        """
        for path in [*list_parts(self.parts), self.results] if move else ():
            if path.is_file():
                set_aside(path, self.path)
        return [path for path in self.sources() if move or not why_damaged(path)]

    def result_counts(self) -> bool:
        """Return whether there is a whole result, and none was begun anew since."""
        begun = self._begun()
        whole = bool(self._attribute("complete"))
        return whole and (not begun or begun == self._attribute("generation"))

    def generation(self) -> str:
        """Return which command began the present samples anew; empty if none did."""
        return self._begun() or str(self._attribute("generation") or "")

    def is_complete(self) -> bool:
        """Return whether there is a result that lacks no sample."""
        return bool(self._attribute("complete")) and not self._attribute("n_missing")

    def note_retried(self, command: str, index: int) -> None:
        """Note that a share has tried its failed samples again for this command."""
        self.parts.mkdir(parents=True, exist_ok=True)
        (self.parts / f"retried-{command}-{index}").touch()

    def retried(self, command: str) -> int:
        """Return how many shares have tried their failed samples again for this command."""
        return len(list(self.parts.glob(f"retried-{command}-*")))

    def merged_by(self) -> str:
        """Return the command that made the result; empty if there is none."""
        return str(self._attribute("merged_by") or "")

    def clear_parts(self) -> None:
        """Delete the parts; the result stays."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def chunks(self, pool: str, division: str) -> Claims:
        """Return the claims on the chunks of a pool's division of the samples."""
        return Claims(self._claims / f"chunks-{pool}-{division}")

    def _sweep_up(self, pool: str) -> None:
        """Delete what killed processes left half written, and claims of earlier commands."""
        for folder in (self.parts, self.path):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
        for path in self._claims.glob("chunks-*"):
            if pool in ("", ALL) or not path.name.startswith(f"chunks-{pool}-"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _begun(self) -> str:
        try:
            return str(json.loads(self._generation.read_text())["id"])
        except (OSError, ValueError, KeyError):
            return ""

    def _attribute(self, name: str) -> Any:
        """Return a root attribute of the result, or None if there is no such result."""
        if not self.results.is_file():
            return None
        try:
            with opened(self.results) as file:
                return file.attrs.get(name)
        except StoreError:  # damaged; `sources` says so and sets it aside
            return None


def _working(holder: Mapping[str, Any]) -> str:
    share = ""
    if holder.get("count", 1) > 1:
        share = f" (samples {holder['index'] + 1} of {holder['count']})"
    return f"{named(holder)} works here{share}"
