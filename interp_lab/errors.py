"""The errors that a user can cause: one line each, saying what is wrong, where, and what to do.

Everything that is raised on purpose derives from `InterpLabError`; the command line prints such an
error as one line. Any other exception is a fault of the program and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

# Exit codes of the command line, beside 0 (all well) and 1 (an error).
FAILED_SAMPLES = 3
STOPPED = 130


class InterpLabError(Exception):
    """An error that the user can mend; its text is one line."""


class ConfigError(InterpLabError):
    """A key, a value or a combination in the configuration is wrong."""


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
