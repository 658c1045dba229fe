"""From the finished samples to the result and its exports, without a model.

What the result says of its making (device, notes, checks) is in the parts, written there by the
processes that measured; whoever merges only collects it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from interp_lab.config.nodes import build, identity_nodes, node_name, plain
from interp_lab.datasets.base import stated_prompts
from interp_lab.datasets.prints import SamplePrints
from interp_lab.errors import StoreError, TooManyFailuresError
from interp_lab.identity.run import identity_of_run, kept_identity, run_id_of
from interp_lab.run.going_on import (
    Standing,
    check_failed_share,
    count,
    keep_digests,
    known_digests,
    standing_of,
)
from interp_lab.run.numbers import stored_text, write_exports
from interp_lab.store.merge import merge
from interp_lab.store.opening import opened
from interp_lab.store.parts import list_parts, read_failures, stored_samples
from interp_lab.store.provenance import now, provenance
from interp_lab.store.rundir import RunDirectory

log = logging.getLogger(__name__)
INCOMPLETE = "INCOMPLETE: "


def conclude(
    cfg: DictConfig,
    place: RunDirectory,
    dataset: Any,
    standing: Standing,
    command: str,
    partial: bool = False,
) -> None:
    """Merge what is finished into the result, and write the exports; the directory is held.

    Args:
        cfg: the configuration.
        place: the run's directory.
        dataset: for its order and counts.
        standing: which of the stored samples count.
        command: identity of the command or sweep that merges.
        partial: some samples are not finished; the parts stay, and the result says so.

    Raises:
        TooManyFailuresError: if no sample could be measured.
    """
    ids = list(dataset.ids())
    sources = place.sources()
    done = standing.done
    if not any(done.values()):
        raise TooManyFailuresError(
            f"{none_measured(sources, ids)}; once that is mended the same command with "
            "retry_failed=true tries them again"
        )
    analysis = build(cfg, "analysis", seed=cfg.seed, batch_size=cfg.batch_size)
    numbers = build(cfg, "numbers", seed=cfg.seed)
    attributes = made_by(sources, plain(cfg.capture)["interventions"])
    missing = sum(name not in done for name in ids)
    notes = [*notes_on(standing, missing, len(ids)), *json.loads(attributes["notes"])]
    attributes |= {
        "task_name": cfg.task_name,
        "model": node_name(cfg, "model"),
        "dataset": node_name(cfg, "dataset"),
        "run_id": run_id_of(kept_identity(place.path) or identity_of_run(identity_nodes(cfg))),
        "config": stored_text(cfg),
        "definitions": json.dumps({**analysis.definitions, **numbers.definitions}),
        "prompts": json.dumps(stated_prompts(dataset)),
        "counts": json.dumps(dict(dataset.counts())),
        "notes": json.dumps(notes),
        "finished": now(),
        "generation": place.generation(),
        "merged_by": command,
    }
    attributes |= provenance()
    compute = numbers.compute
    merge(sources, ids, place.results, attributes, compute, standing.prints, standing.trusted)
    if cfg.output.exports:
        write_exports(cfg, numbers, place.results)
    if not partial:
        place.clear_parts()


def none_measured(sources: Sequence[Path], ids: Sequence[str]) -> str:
    """Return what to say of a run without one measured sample: how many, the first and why."""
    if not ids:
        return "the data set has no samples; check what dataset names and what it leaves out"
    place = {name: i for i, name in enumerate(ids)}
    failures = []
    for path in sources:
        with opened(path) as file:
            failures += [f for f in read_failures(file) if f.sample_id in place]
    first = min(failures, key=lambda f: place[f.sample_id], default=None)
    why = f"the first, {first.sample_id}: {first.reason}" if first else "see the log"
    return f"none of {len(ids)} samples could be measured; {why}"


def notes_on(standing: Standing, missing: int, total: int) -> list[str]:
    """Return what a reader must know of which samples are in a result."""
    notes = []
    if missing:
        notes.append(f"{INCOMPLETE}{missing} of {total} samples are not measured yet")
    if standing.trusted:
        notes.append(
            f"{count(len(standing.trusted))} measured by a version without fingerprints, taken as "
            "unchanged because their files are older"
        )
    return notes


def merge_by_hand(cfg: DictConfig, place: RunDirectory, dataset: Any, command: str) -> int:
    """Merge what is there; return how many samples are missing. The directory is held.

    Raises:
        StoreError: if processes still work there, nothing is finished, or a complete result would
            be replaced by an incomplete one.
    """
    workers = place.workers()
    if workers:
        raise StoreError(
            f"{place.path}: process {workers[0].get('pid')} on {workers[0].get('host')} still "
            "works here; the last job merges by itself"
        )
    ids = list(dataset.ids())
    stored = stored_samples(place.whole_sources(move=True))
    prints = SamplePrints(dataset, known_digests(place))
    standing = standing_of(cfg, stored, ids, prints, range(len(ids)))
    standing.say()
    missing = sum(name not in standing.done for name in ids)
    if not stored:
        raise StoreError(f"{place.path}: no finished samples there; has this command run before?")
    if missing and place.is_complete():
        raise StoreError(
            f"{place.results} is complete, and what could be merged now lacks {missing} of "
            f"{len(ids)} samples; finish the run, or move that file away"
        )
    check_failed_share(cfg.max_failed_share, standing, len(standing.done), place.path)
    if list_parts(place.parts) or not place.result_counts() or standing.gone:
        conclude(cfg, place, dataset, standing, command, partial=missing > 0)
    keep_digests(place, prints.digests)
    return missing


def made_by(sources: Sequence[Path], interventions: Sequence[Any]) -> dict[str, str]:
    """Return what the sources say of their making, put together: JSON texts by attribute name."""
    notes: dict[str, None] = {}
    devices: dict[str, None] = {}
    dtypes: dict[str, None] = {}
    capture: dict[str, dict[str, None]] = {"paths": {}, "kernels": {}, "notes": {}}
    checks: dict[str, dict[str, float | str]] = {}
    started: list[str] = []
    for path in sources:
        with opened(path) as file:
            about: Mapping[str, str] = dict(file.attrs)
        notes |= dict.fromkeys(json.loads(about.get("notes", "[]")))
        devices |= dict.fromkeys(filter(None, about.get("device", "").split(", ")))
        dtypes |= dict.fromkeys(filter(None, about.get("dtype", "").split(", ")))
        for key, names in capture.items():
            names |= dict.fromkeys(json.loads(about.get("capture", "{}")).get(key, ()))
        for check, values in json.loads(about.get("checks", "{}")).items():
            worst = checks.setdefault(check, {})
            for name, value in values.items():
                worst[name] = worse_of(check, value, worst.get(name))
        started += [about["started"]] if "started" in about else []
    return {
        "notes": json.dumps([note for note in notes if not note.startswith(INCOMPLETE)]),
        "device": ", ".join(sorted(devices)),
        "dtype": ", ".join(sorted(dtypes)),
        "capture": json.dumps(
            {**{key: list(names) for key, names in capture.items()}, "interventions": interventions}
        ),
        "checks": json.dumps(checks),
        "started": min(started, default=now()),
    }


def worse_of(check: str, first: float | str, second: float | str | None) -> float | str:
    """Return the worse of two findings of a check; the second may not be there.

    It is the largest difference, the smallest change of the logits; a text says that there is
    none, which is worse than any.
    """
    if second is None or isinstance(first, str):
        return first
    if isinstance(second, str):
        return second
    return min(first, second) if check == "live_check" else max(first, second)
