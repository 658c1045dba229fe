"""The errors that a user can cause: one line each, saying what is wrong, where, and what to do.

Everything that is raised on purpose derives from `InterpLabError`; the command line prints such an
error as one line. Any other exception is a fault of the program and keeps its traceback.
"""

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

# Exit codes of the command line, beside 0 (all well) and 1 (an error).
FAILED_SAMPLES = 3
STOPPED = 130


class InterpLabError(Exception):
    """An error that the user can mend; its text is one line."""


class ConfigError(InterpLabError):
    """A key, a value or a combination in the configuration is wrong."""


class OldOptionError(InterpLabError):
    """An option of a tool that this package replaces was given; the text says what to type."""


class MissingInputError(InterpLabError):
    """A file or folder that the configuration names is not there or cannot be read."""


class SampleError(InterpLabError):
    """One record cannot be measured; it is recorded with this reason and the run goes on."""


class UnsupportedModelError(InterpLabError):
    """The model lacks what the analysis needs."""


class DeviceError(InterpLabError):
    """The device that was asked for is not there, or has no memory left."""


class MachineError(InterpLabError):
    """Something that the package promises does not hold on this machine (`mode=doctor`)."""


class StoreError(InterpLabError):
    """A result file or run directory cannot be read, written or continued."""


class NotFiniteError(SampleError, StoreError):
    """A number of one sample is NaN or infinite; it says of which field, and where in it."""


class StoppedByUserError(InterpLabError):
    """The user stopped the run; what is finished is kept."""


class FinishedWithFailuresError(InterpLabError):
    """The run is complete, but some samples could not be measured."""


class TooManyFailuresError(InterpLabError):
    """More samples failed than `max_failed_share` allows."""


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ` Did you mean ...?` for the known names nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, sorted(set(known)), n=limit, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


# What the operating system refuses, in plain words: the place, what is wrong, what to do.
GO_ON = "run the same command again, which goes on from the finished samples"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def unwritable(error: OSError, place: Path | str) -> str:
    """Return one line for a file or folder that could not be written.

    Args:
        error: what was raised.
        place: what was to be written; a full disk does not name the file.
    """
    if error.errno in _FULL:
        return f"{place}: the disk is full; free some space and {GO_ON}"
    if error.errno in _READ_ONLY:
        reason = errno.errorcode[error.errno]
        return f"{place}: cannot be written ({reason}); give output.root=... a folder that can"
    if error.errno == errno.ENOENT:
        return (
            f"{place}: its folder is gone: it was deleted or moved while the run went on; run the "
            "same command again, which measures what is no longer there"
        )
    return f"{place}: cannot be written ({reason_of(error)}); give output.root=... another disk"


def unlockable(error: OSError | NotImplementedError, folder: Path) -> str:
    """Return one line for a folder in which no lock can be taken."""
    if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
        return (
            f"{folder}: this file system has no file locks ({reason_of(error)}), by which "
            "processes keep off each other's samples; give output.root=... a folder on another "
            "disk, or have locking turned on for this one"
        )
    if error.errno in _FULL:
        return unwritable(error, folder)
    return f"{folder}: cannot write there ({reason_of(error)})"


def reason_of(error: BaseException) -> str:
    """Return what the system says, with the name of its code; else the error's own text."""
    number = getattr(error, "errno", None)
    if not number:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
