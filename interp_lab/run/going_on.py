"""Going on with a run: what of its finished samples still is what would be measured now.

A sample counts as finished if what it is made of has the fingerprint that was stored with its
numbers. One that has changed is measured again, one that has vanished is left out, and the merge
never mixes: it takes by the same fingerprints. Numbers of schema version 1 have none; they count if
every file that they come from was last written before they were measured.
"""

import contextlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from interp_lab.config.nodes import identity_nodes, node_name, place_before, plain
from interp_lab.datasets.prints import SamplePrints
from interp_lab.errors import StoreError, TooManyFailuresError
from interp_lab.identity.files import Digests, stamp_of
from interp_lab.identity.run import KEPT_IN, differences, identity_of_run, kept_identity, seconds_of
from interp_lab.identity.weights import weights_identity
from interp_lab.store.parts import Stored, list_parts, stored_samples
from interp_lab.store.rundir import RunDirectory

log = logging.getLogger(__name__)
DIGESTS = "fingerprints.json"
# Names that a log line lists.
NAMED = 3
# So many failures are needed before their share can stop a run.
FEWEST_FAILURES = 10


@dataclass
class Standing:
    """How stored samples compare with what their data set holds now.

    Attributes:
        done: id -> measured, or failed; of the samples that still are what they were.
        prints: id -> fingerprint now, of those that are stored.
        changed: ids of samples that are made of something else now.
        unproven: ids without a stored fingerprint whose files may have been written since.
        trusted: ids without a stored fingerprint whose files were not.
        gone: stored ids that the data set no longer has.
        reasons: id -> why it failed, of those that did.
    """

    done: dict[str, bool] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    trusted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def say(self) -> None:
        """Tell in the log what is measured again, left out, or trusted, and why."""
        for names, text in (
            (self.changed, "%s changed since measured: measured again (%s)"),
            (self.gone, "%s no longer in the data set: left out of the result (%s)"),
            (
                self.unproven,
                "%s of an earlier version without fingerprints, and their files may "
                "have been written since: measured again (%s)",
            ),
            (
                self.trusted,
                "%s of an earlier version without fingerprints, their files older than "
                "the measurement: taken as they are (%s)",
            ),
        ):
            if names:
                log.info(text, count(len(names)), listed(names))


def standing_of(
    cfg: DictConfig,
    stored: Mapping[str, Sequence[Stored]],
    ids: Sequence[str],
    prints: SamplePrints,
    places: Sequence[int],
) -> Standing:
    """Compare what is stored of some samples with what they are made of now.

    Args:
        cfg: the configuration.
        stored: what parts and result hold.
        ids: of all samples.
        prints: of the data set.
        places: which samples to compare.
    """
    found = Standing()
    found.gone = sorted(set(stored) - set(ids))
    own_files = newest(files_named(plain(cfg.dataset)))
    for place in places:
        name = ids[place]
        if name not in stored:
            continue
        now = found.prints[name] = prints.of(place)
        same = [one.measured for one in stored[name] if one.fingerprint == now]
        old = [one for one in stored[name] if not one.fingerprint]
        if same:
            found.done[name] = any(same)
        elif old and prints.says and _older(old, max(own_files, newest(prints.files(place)))):
            found.done[name] = any(one.measured for one in old)
            found.trusted.append(name)
        else:
            (found.unproven if old else found.changed).append(name)
        if found.done.get(name) is False:
            found.reasons[name] = next(one.reason for one in stored[name] if not one.measured)
    return found


def say_failed_before(standing: Standing, retry: bool) -> None:
    """Tell in the log how many samples failed before and why, and how they are tried again."""
    if not standing.reasons:
        return
    again = "they are tried again" if retry else "retry_failed=true tries them again"
    failed = count(len(standing.reasons))
    log.warning("%s failed before; %s (%s)", failed, again, main_reason(standing.reasons))


def check_failed_share(allowed: float, standing: Standing, total: int, path: Path) -> None:
    """Check how many samples of a result have failed, whichever command measured them.

    Args:
        allowed: `max_failed_share`.
        standing: of what is finished.
        total: samples of which the share is taken: those of the result, or of the data set while
            some are left; what has failed is then more than allowed whatever becomes of the others.
        path: the run's directory.

    Raises:
        TooManyFailuresError: if more than allowed have failed. A few of a small data set never
            stop it.
    """
    failed = len(standing.reasons)
    if failed < FEWEST_FAILURES or failed <= allowed * total:
        return
    needed = math.ceil(100 * failed / total) / 100
    raise TooManyFailuresError(
        f"{path}: {failed} of {total} samples failed, more than max_failed_share={allowed:g} "
        f"allows ({main_reason(standing.reasons)}); mend their cause and give retry_failed=true, "
        f"or accept them with max_failed_share={needed:g}"
    )


def main_reason(reasons: Mapping[str, str]) -> str:
    """Return what most of the failed samples say, by the first of them: `3 as a.png: too small`.

    Args:
        reasons: id -> why it failed.
    """
    alike: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault(reason.replace(name, "..."), []).append(name)
    names = max(alike.values(), key=len)
    reason = reasons[names[0]]
    said = reason if names[0] in reason else f"{names[0]}: {reason}"
    if len(reasons) == 1:
        return said
    return f"all as {said}" if len(names) == len(reasons) else f"{len(names)} as {said}"


def finished_now(
    cfg: DictConfig, place: RunDirectory, dataset: Any, sources: Sequence[Path]
) -> dict[str, bool]:
    """Return which samples of these parts and result still count: id -> measured, or failed."""
    ids, prints = list(dataset.ids()), SamplePrints(dataset, known_digests(place))
    return standing_of(cfg, stored_samples(sources), ids, prints, range(len(ids))).done


def _older(stored: Sequence[Stored], seconds: float) -> bool:
    """Return whether files whose newest was written at `seconds` are older than these numbers."""
    try:
        return all(seconds < seconds_of(one.started) for one in stored)
    except ValueError:  # no time was kept
        return False


def newest(files: Sequence[Path]) -> float:
    """Return when the last of these files was written or put there, as Unix time."""
    stamps = [stamp for path in files if (stamp := stamp_of(path)) is not None]
    return max((max(s[1], s[2]) / 1e9 for s in stamps), default=0.0)


def files_named(value: Any) -> list[Path]:
    """Return the files that nested values name: annotations, prompts."""
    if isinstance(value, Mapping):
        return [path for v in value.values() for path in files_named(v)]
    if isinstance(value, list):
        return [path for v in value for path in files_named(v)]
    try:
        path = Path(value).expanduser() if isinstance(value, str) else None
        return [path] if path is not None and path.is_file() else []
    except (OSError, ValueError):  # a text that no path can be
        return []


def known_digests(place: RunDirectory) -> Digests:
    """Return what earlier processes knew of the files of a run."""
    digests = Digests()
    with contextlib.suppress(OSError):
        digests.add((place.path / DIGESTS).read_text(encoding="utf-8"))
    return digests


def keep_digests(place: RunDirectory, digests: Digests) -> None:
    """Keep what is known of a run's files beside what others have kept; the directory is held."""
    together = known_digests(place)
    if together.known == digests.known:
        return
    together.known |= digests.known
    _write(place.path / DIGESTS, together.as_json())


def say_which_run(cfg: DictConfig, place: RunDirectory) -> None:
    """Keep a new run's identity, and say in what it differs from the runs that lie beside it.

    The directory is held.
    """
    if kept_identity(place.path) is not None:
        return
    identity = json.loads(json.dumps(identity_of_run(identity_nodes(cfg)), default=str))
    _write(place.path / KEPT_IN, json.dumps(identity, indent=1, sort_keys=True))
    before = place_before(cfg)
    if list_parts(place.parts) or place.results.is_file():
        log.info("going on with a run of an earlier version in %s", place.path)
    elif before.absolute() != place.path and before.is_dir() and kept_identity(before) is None:
        log.info(
            "another run than %s of an earlier version: the weights were written after it began, "
            "or cannot be compared",
            before.name,
        )
    stem = f"{node_name(cfg, 'model')}-{node_name(cfg, 'dataset')}-"
    others = [p for p in place.path.parent.glob(f"{_literal(stem)}*") if p != place.path]
    known = {p.name: found for p in others if (found := kept_identity(p)) is not None}
    if known:
        differ = {name: differences(other, identity) for name, other in known.items()}
        nearest = min(differ, key=lambda name: (len(differ[name]), name))
        log.info("another run than %s: other %s", nearest, listed(differ[nearest], " and "))


def check_identity(cfg: DictConfig, place: RunDirectory) -> None:
    """Check that the weights still are those that the run directory is named after.

    Raises:
        StoreError: if they were replaced since the command began.
    """
    kept = kept_identity(place.path) or {}
    changed = differences(kept.get("weights", {}), weights_identity(plain(cfg.model)))
    if kept and changed:
        raise StoreError(
            f"{place.path}: the weights changed since the command began "
            f"({listed(changed)}); run it again, which begins another run"
        )


def count(number: int) -> str:
    """Return a number of samples in words."""
    return "1 sample" if number == 1 else f"{number} samples"


def listed(names: Sequence[str], joint: str = ", ") -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return joint.join(names[:NAMED]) + more


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "[]*?" else c for c in text)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
