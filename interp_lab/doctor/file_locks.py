"""Do locks on `output.root` lock? On a network folder without them two jobs would do one's work.

A lock is taken in earnest, and a second process tries to take it too.
"""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from interp_lab.doctor.findings import Finding
from interp_lab.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

GROUP = "files"
NAME = "file locks"
CONSEQUENCE = (
    "two jobs could measure the same samples and write over each other; give output.root=... a "
    "folder of a local disk, or have the file system mounted with locks"
)
# The second process; it exits with 0 if it got the lock, 3 if it was refused.
TRY = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""
REFUSED = 3


@contextmanager
def scratch_file(root: Path) -> Iterator[Path]:
    """Give an empty file on the file system of `root`, which need not exist yet; delete it.

    Raises:
        StoreError: if nothing can be written there.
    """
    folder = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    try:
        number, name = tempfile.mkstemp(prefix=".interp_lab-doctor-", dir=folder)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise StoreError(
            f"{folder}: cannot be written ({why}); give output.root=... a folder that can"
        ) from error
    os.close(number)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):
            os.unlink(name)


def lock_finding(root: Path) -> Finding:
    """Return whether an flock on the file system of `root` keeps another process out."""
    kind, options = file_system(root)
    details = {"root": str(root.absolute()), "file_system": kind, "options": options}
    if fcntl is None:
        text = f"{kind}: this system has no flock; locks were not tried"
        return Finding(GROUP, NAME, "warning", text, details)
    try:
        with scratch_file(root) as path:
            problem = try_lock(path)
    except StoreError as error:
        return Finding(GROUP, NAME, "failure", str(error), details)
    local = {"nolock", "local_lock=all", "local_lock=flock"} & set(options.split(","))
    if not problem and kind.startswith("nfs") and local:
        problem = f"it is mounted with {min(local)}, so a lock holds on this host alone"
    if problem:
        text = f"{root.absolute()} ({kind}) has no working locks: {problem}: {CONSEQUENCE}"
        return Finding(GROUP, NAME, "failure", text, details)
    text = f"{kind}: a second process is kept out, and let in afterwards"
    return Finding(GROUP, NAME, "ok", text, details)


def try_lock(path: Path) -> str:
    """Lock a file here and from a second process; return what is wrong, or nothing."""
    assert fcntl is not None
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return f"the file system refuses locks ({errno.errorcode[error.errno]})"
            return f"a lock that nobody holds cannot be taken ({error})"
        if second_process_gets(path):
            return "a second process took a lock that was held"
        fcntl.flock(file, fcntl.LOCK_UN)
        if not second_process_gets(path):
            return "a second process cannot take a lock that was let go"
    return ""


def second_process_gets(path: Path) -> bool:
    """Return whether another process can lock the file now.

    Raises:
        StoreError: if that process ends in any other way.
    """
    done = subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True)
    if done.returncode not in (0, REFUSED):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise StoreError(f"{path.parent}: locks were not tried, the second process ended: {last}")
    return done.returncode == 0


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> tuple[str, str]:
    """Return type and mount options of the file system of a path; "unknown" where it is not told.

    Args:
        path: need not exist.
        mounts: the table of mounts as Linux writes it.
    """
    best, found = -1, ("unknown file system", "")
    with suppress(OSError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            _, place, kind, options, *_ = line.split()
            place = place.replace("\\040", " ")
            if path.absolute().is_relative_to(place) and len(place) >= best:
                best, found = len(place), (kind, options)
    return found
