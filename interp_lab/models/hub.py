"""What goes wrong between a hub and this machine, as one line with what to do.

transformers wraps what the hub's client raises in errors of its own, whose text speaks to a
programmer; the client's error is looked for among the causes.
"""

import errno
from collections.abc import Iterator
from typing import Any

from huggingface_hub import constants, errors

from interp_lab.models.files import cause_of, first_line

# What a network that is down, or a server that does not answer, raises in the client's library.
NO_NETWORK = ("ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError", "ReadError")
NO_NETWORK += ("RemoteProtocolError", "NetworkError", "TimeoutException", "ConnectionError")
FULL = (errno.ENOSPC, errno.EDQUOT)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the newest first."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop(0)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]


def hub_line(key: str, checkpoint: str, revision: str | None, what: str, error: Exception) -> str:
    """Return the line for an id of the hub that cannot be had.

    Args:
        key: the option that names it, such as `model.checkpoint`.
        checkpoint: the id.
        revision: that was asked for.
        what: was loaded ("weights", "processor").
        error: what the loader raised.
    """
    where = f"{key}={checkpoint}"
    found = list(causes(error))

    def first(*kinds: Any) -> Any:
        return next((e for e in found if isinstance(e, kinds)), None)

    status = getattr(getattr(first(errors.HfHubHTTPError), "response", None), "status_code", None)
    if any(isinstance(e, OSError) and e.errno in FULL for e in found):
        return (
            f"{where}: the disk is full while the {what} are fetched to {constants.HF_HUB_CACHE}; "
            "free some space, or give HF_HOME=... another disk, and run the same command again"
        )
    if first(errors.GatedRepoError):
        return (
            f"{where}: is gated: its authors ask who uses it. Accept its licence on its page "
            f"of the hub ({constants.ENDPOINT}/{checkpoint}), then log in with `hf auth login` or "
            "set HF_TOKEN to a token that may read it"
        )
    if first(errors.RevisionNotFoundError):
        return (
            f"{where}: has no revision {revision or 'main'}; give model.revision a branch, tag or "
            "commit of it, or null for its newest"
        )
    if first(errors.DisabledRepoError):
        return f"{where}: was disabled on the hub; take another checkpoint"
    if first(errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"{where}: is no folder here, and the hub has no such model, or shows it to members "
            "alone: check the id; if it is private, log in with `hf auth login` or set HF_TOKEN"
        )
    return _not_reached(where, what, found, status, first, error)


def _not_reached(
    where: str,
    what: str,
    found: list[BaseException],
    status: int | None,
    first: Any,
    error: Exception,
) -> str:
    missing = first(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError)
    if constants.HF_HUB_OFFLINE and missing is not None:
        return (
            f"{where}: cannot load the {what}: it is no folder here and not (wholly) in the hub's "
            f"cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; fetch it once without "
            "it (`hf download` with the id), give a folder, or use model.init=random"
        )
    if status is not None and status >= 429:
        return (
            f"{where}: the hub answers {status}"
            f"{' (too many requests)' if status == 429 else ''}; wait a little and run the same "
            "command again"
        )
    down = [e for e in found if _is_down(e)]
    if down or first(errors.LocalEntryNotFoundError):
        return (
            f"{where}: is no folder here and not in the hub's cache, and the hub "
            f"({constants.ENDPOINT}) cannot be reached"
            f"{f' ({cause_of(down[-1])})' if down else ''}; check the network or the proxy, give a "
            "folder, or use model.init=random"
        )
    return (
        f"{where}: cannot load the {what}; it is no folder here and the hub does not give it, or "
        "it is damaged. Check the id and the network, give a folder, or use model.init=random. "
        f"Cause: {first_line(error)}"
    )


def _is_down(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & set(NO_NETWORK)) and not isinstance(error, errors.OfflineModeIsEnabled)
