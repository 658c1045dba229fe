"""From parts to the one result file: in the data set's order, however the work was divided.

The file is written under a temporary name and renamed when it is whole, so `results.h5` is either
the old result or the new one. What it holds depends on the samples alone, not on how many parts,
workers or interruptions there were.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from interp_lab.errors import StoreError
from interp_lab.fields import Field
from interp_lab.store.checksum import BLOCK, seal
from interp_lab.store.layout import (
    SCHEMA_VERSION,
    create_sample_axis,
    create_single,
    create_stacked,
    ragged_name,
    read_fields,
    read_texts,
)
from interp_lab.store.opening import check_ragged, opened
from interp_lab.store.parts import (
    Failure,
    read_failures,
    read_prints,
    sync_and_rename,
    write_failures,
    write_prints,
)
from interp_lab.store.results import Results

Aggregates = Sequence[tuple[Field, Any]]


def merge(
    sources: Sequence[Path],
    ids: Sequence[str],
    final: Path,
    attributes: Mapping[str, Any],
    compute: Callable[[Results], Aggregates],
    prints: Mapping[str, str] | None = None,
    trusted: Collection[str] = (),
) -> None:
    """Merge parts into the file `final`.

    Args:
        sources: parts, and an earlier result of the same run if there is one.
        ids: the data set's sample ids in its order; what is not among them is left out, and those
            that no source holds are counted in the attribute `n_missing`.
        final: the result's path; replaced at the end, not before.
        attributes: provenance, written at the root.
        compute: makes the aggregate fields from the merged samples, streaming.
        prints: id -> fingerprint of what each sample is made of now; what was measured of anything
            else is left out. None to take whatever is there.
        trusted: ids of samples without a fingerprint that count all the same.

    Raises:
        StoreError: if parts disagree on a field's shape, or the disk has no room for the result.
    """
    _check_room(sources, final)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    plan = _Plan(sources, ids, _Wanted(prints, frozenset(trusted)))
    try:
        with h5py.File(temporary, "w", userblock_size=BLOCK) as file:
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["complete"] = False
            _copy_samples(file, plan)
            write_failures(file, plan.failures)
            for key, value in attributes.items():
                file.attrs[key] = value
            file.attrs["n_samples"] = len(plan.ids)
            file.attrs["n_failed"] = len(plan.failures)
            file.attrs["n_missing"] = len(ids) - len(plan.ids) - len(plan.failures)
            aggregate = file.create_group("aggregate")
            for field, value in compute(Results(file)) if plan.ids else ():
                create_single(aggregate, field, value)
            file.flush()
            file.attrs["complete"] = True
        seal(temporary)
        sync_and_rename(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def recompute(
    path: Path, attributes: Mapping[str, Any], compute: Callable[[Results], Aggregates]
) -> None:
    """Make the aggregate fields of a result anew; its samples stay as they are.

    Args:
        path: the result; replaced at the end, not before.
        attributes: those that change, such as the configuration and definitions.
        compute: makes the aggregate fields, streaming.

    Raises:
        StoreError: if the disk has no room for a second copy.
    """
    _check_room([path], path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with opened(path) as old, h5py.File(temporary, "w", userblock_size=BLOCK) as file:
            for name in old:
                if name != "aggregate":
                    old.copy(name, file)
            changed = {**attributes, "complete": False, "schema_version": SCHEMA_VERSION}
            for key, value in {**dict(old.attrs), **changed}.items():
                file.attrs[key] = value
            aggregate = file.create_group("aggregate")
            for field, value in compute(Results(file)) if len(Results(file)) else ():
                create_single(aggregate, field, value)
            file.flush()
            file.attrs["complete"] = old.attrs["complete"]
        seal(temporary)
        sync_and_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_room(sources: Sequence[Path], final: Path) -> None:
    """Refuse to begin what the disk has no room for: HDF5 does not survive a full disk."""
    needed = sum(path.stat().st_size for path in sources)
    free = shutil.disk_usage(final.parent).free
    if free < needed:
        raise StoreError(
            f"{final}: the disk is full: the result needs about {needed / 2**20:.1f} MiB beside "
            f"its parts, {free / 2**20:.1f} are free; free some space and run the same command "
            "again, which goes on from the finished samples"
        )


class _Wanted(NamedTuple):
    """Which of the stored samples count; see `merge`."""

    prints: Mapping[str, str] | None
    trusted: frozenset[str]

    def takes(self, sample_id: str, printed: str) -> bool:
        if self.prints is None or (not printed and sample_id in self.trusted):
            return True
        return bool(printed) and self.prints.get(sample_id) == printed


class _Plan:
    """Which row of which source becomes which row of the result."""

    def __init__(self, sources: Sequence[Path], ids: Sequence[str], wanted: _Wanted) -> None:
        self.sources = sources
        place = {sample_id: index for index, sample_id in enumerate(ids)}
        owners: dict[int, tuple[int, int]] = {}
        failed: dict[int, Failure] = {}
        found: dict[int, str] = {}
        for number, path in enumerate(sources):
            with opened(path) as file:
                names = read_texts(file["samples/sample"])
                held = zip(names, read_prints(file["samples"]), strict=True)
                for row, (sample_id, printed) in enumerate(held):
                    if sample_id in place and wanted.takes(sample_id, printed):
                        owners.setdefault(place[sample_id], (number, row))
                        found.setdefault(place[sample_id], printed)
                for failure in read_failures(file):
                    name = failure.sample_id
                    if name in place and wanted.takes(name, failure.fingerprint):
                        index = place[name]
                        failed.setdefault(index, replace(failure, index=index))
        self.indices = sorted(owners)
        self.ids = [ids[i] for i in self.indices]
        # A sample that is trusted without a fingerprint gets the one that it is compared by later.
        now = wanted.prints or {}
        self.prints = [now.get(ids[i], found[i]) for i in self.indices]
        # A sample that failed once and was measured in a later run is measured.
        self.failures = [f for i, f in sorted(failed.items()) if i not in owners]
        self.rows: list[list[tuple[int, int]]] = [[] for _ in sources]
        for target, index in enumerate(self.indices):
            number, row = owners[index]
            self.rows[number].append((row, target))


def _copy_samples(file: h5py.File, plan: _Plan) -> None:
    group = file.create_group("samples")
    create_sample_axis(group, plan.ids, plan.indices)
    write_prints(group, plan.prints)
    ragged = file.create_group("ragged")
    ragged_fields: dict[str, Field] = {}
    first: tuple[str, set[str]] | None = None
    for path, rows in zip(plan.sources, plan.rows, strict=True):
        if not rows:
            continue
        with opened(path) as part:
            fields = read_fields(part["samples"])
            names = set(fields)
            first = first or (path.name, names)
            if names != first[1]:
                raise StoreError(
                    f"{path.name} and {first[0]} differ in the fields they hold "
                    f"({', '.join(sorted(names ^ first[1]))}); run again with resume=false"
                )
            _copy_stacked(part["samples"], fields, group, np.array(rows), len(plan.ids), path)
            old, held = part["samples/index"][...], set(part["ragged"])
            for row, target in rows if held else ():
                name = ragged_name(old[row])
                found = check_ragged(part["ragged"], name, path) if name in held else None
                if found is not None:
                    own = ragged.create_group(ragged_name(plan.indices[target]))
                    ragged_fields |= _copy_ragged(found, own)
    # A reader would open a group a sample to find them out.
    described = {name: field.attributes() for name, field in sorted(ragged_fields.items())}
    ragged.attrs["fields"] = json.dumps(described)


def _copy_stacked(
    source: h5py.Group,
    fields: Mapping[str, Field],
    target: h5py.Group,
    rows: np.ndarray,
    n: int,
    path: Path,
) -> None:
    for name, field in fields.items():
        shape = source[name].shape[1:]
        if name not in target:
            create_stacked(target, field, shape, n)
        if target[name].shape[1:] != shape:
            raise StoreError(
                f"{path.name}: field {name!r} has shape {shape}, other parts "
                f"{target[name].shape[1:]}; run again with resume=false"
            )
        for row, start, length in _stretches(rows):
            target[name][start : start + length] = source[name][row : row + length]


def _copy_ragged(source: h5py.Group, target: h5py.Group) -> dict[str, Field]:
    """Copy a sample's ragged fields; return them."""
    target.attrs["sample_id"] = source.attrs["sample_id"]
    fields = read_fields(source)
    for name, field in fields.items():
        value = source[name].asstr()[()] if field.dtype == "str" else source[name][()]
        create_single(target, field, value)
    return fields


def _stretches(rows: np.ndarray, longest: int = 1024) -> Iterator[tuple[int, int, int]]:
    """Yield (source row, target row, length) of what can be copied in one call.

    Both sides must be consecutive; a stretch is bounded so that memory is.
    """
    breaks = np.flatnonzero((np.diff(rows, axis=0) != 1).any(axis=1)) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    for first, end in itertools.pairwise(edges):
        for start in range(first, end, longest):
            row, target = rows[start].tolist()
            yield row, target, min(longest, end - start)
