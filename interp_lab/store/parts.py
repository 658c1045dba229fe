"""Parts: finished samples, written atomically while a run goes on.

A part is a small HDF5 file that either is there whole or is not there. A kill at any moment loses
the samples since the last part and nothing else; what is left to do is decided by reading the
parts, never by counting.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from interp_lab.errors import StoreError, unwritable
from interp_lab.fields import Field
from interp_lab.store.checksum import sealed
from interp_lab.store.layout import (
    SAMPLE_AXIS,
    TEXT,
    as_stored,
    create_sample_axis,
    create_single,
    create_stacked,
    ragged_name,
    read_texts,
)
from interp_lab.store.opening import CHECKED_SINCE, opened

SUFFIX = ".part.h5"
PRINTS = "fingerprint"
# Columns of the table of failures; the last came with schema version 2.
FAILURE_TEXTS = ("sample_id", "stage", "reason", PRINTS)
# A part is made in memory, so samples that hold videos or long texts fill one early.
LARGEST_PART = 64 * 2**20


@dataclass(frozen=True)
class Failure:
    """A sample that could not be measured: where it stands, at which stage, and why.

    Its fingerprint says what it was made of then; empty if that was not kept.
    """

    index: int
    sample_id: str
    stage: str
    reason: str
    fingerprint: str = ""


@dataclass(frozen=True)
class Stored:
    """A sample as a part or a result holds it.

    Args:
        measured: or it has failed.
        fingerprint: of what it was made of; empty if that was not kept.
        started: when the process began that measured it, ISO 8601; empty if unknown.
        reason: why it failed; empty if it was measured.
    """

    measured: bool
    fingerprint: str
    started: str
    reason: str = ""


def sync_and_rename(temporary: Path, final: Path) -> None:
    """Make a file that was written whole appear under its name, also after a power cut."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class PartWriter:
    """Collects finished samples and writes them as parts.

    Args:
        folder: where the parts of this run lie; made if it is not there.
        fields: what a sample may hold, by name.
        size: samples a part; fewer if they are more than `LARGEST_PART` bytes.
        seconds: the longest that a finished sample waits for its part.
        about: returns what is to be known of the samples' making; written with every part, so that
            the result can be made without the process that measured.
    """

    def __init__(
        self,
        folder: Path,
        fields: Sequence[Field],
        size: int = 64,
        seconds: float = 30.0,
        about: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.folder = folder
        self.fields = {f.name: f for f in fields}
        self.size = size
        self.seconds = seconds
        self.about = about
        self._samples: list[tuple[int, str, dict[str, np.ndarray]]] = []
        self._failures: list[Failure] = []
        self._prints: dict[str, str] = {}
        self._oldest = 0.0
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    def note(self, sample_id: str, fingerprint: str) -> None:
        """Take the fingerprint of a sample that will be finished or fail."""
        self._prints[sample_id] = fingerprint

    def add(self, index: int, sample_id: str, values: Mapping[str, Any]) -> None:
        """Take one finished sample; see `add_batch`."""
        self.add_batch([(index, sample_id, values)])

    def add_batch(self, samples: Sequence[tuple[int, str, Mapping[str, Any]]]) -> None:
        """Take finished samples (place, id, values), which get into the same part: all or none.

        Raises:
            StoreError: if a value's name is not declared, or it does not fit its field.
            NotFiniteError: if a number of one of them is none.
        """
        taken = [(index, name, self.as_stored(name, values)) for index, name, values in samples]
        self._start_clock()
        self._samples += taken
        self._bytes += sum(value.nbytes for _, _, held in taken for value in held.values())
        self._flush_if_due()

    def as_stored(self, sample_id: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return a sample's values as they will be written; raises as `add_batch` does."""
        unknown = sorted(set(values) - set(self.fields))
        if unknown:
            raise StoreError(f"sample {sample_id!r}: undeclared fields {', '.join(unknown)}")
        return {name: as_stored(self.fields[name], value) for name, value in values.items()}

    def fail(self, failure: Failure) -> None:
        """Take one failed sample."""
        self._start_clock()
        printed = failure.fingerprint or self._prints.get(failure.sample_id, "")
        self._failures.append(replace(failure, fingerprint=printed))
        self._flush_if_due()

    @property
    def waiting(self) -> bool:
        """Whether samples were taken that are not on the disk yet."""
        return bool(self._samples or self._failures)

    def flush(self) -> Path | None:
        """Write what has been collected; return the part's path, or None if there was nothing.

        Raises:
            StoreError: if it cannot be written: the disk is full, or the folder is gone.
        """
        if not self._samples and not self._failures:
            return None
        first = min([i for i, _, _ in self._samples] + [f.index for f in self._failures])
        name = f"{first:08d}-{uuid.uuid4().hex[:8]}"
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        final = self.folder / f"{name}{SUFFIX}"
        try:
            temporary.write_bytes(self._image(name))
            sync_and_rename(temporary, final)
        except OSError as error:
            # Not an OSError: the loop over samples would take that for the sample's own failure.
            raise StoreError(unwritable(error, temporary)) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        for name in [s[1] for s in self._samples] + [f.sample_id for f in self._failures]:
            self._prints.pop(name, None)
        self._samples, self._failures, self._bytes = [], [], 0
        return final

    def _image(self, name: str) -> bytes:
        """Return the part as the bytes of its file.

        It is made in memory: HDF5 can neither close nor forget a file that the disk has no room
        for, and ends the process when it tries again at exit.
        """
        with h5py.File(name, "w", driver="core", backing_store=False) as file:
            self._write_samples(file)
            write_failures(file, self._failures)
            for key, value in self.about().items():
                file.attrs[key] = value
            file.attrs["schema_version"] = CHECKED_SINCE
            file.flush()
            return sealed(file.id.get_file_image())

    def _start_clock(self) -> None:
        if not self._samples and not self._failures:
            self._oldest = time.monotonic()

    def _flush_if_due(self) -> None:
        full = len(self._samples) + len(self._failures) >= self.size or self._bytes > LARGEST_PART
        if full or time.monotonic() - self._oldest >= self.seconds:
            self.flush()

    def _write_samples(self, file: h5py.File) -> None:
        group = file.create_group("samples")
        samples = sorted(self._samples, key=lambda s: s[0])
        names = [s[1] for s in samples]
        create_sample_axis(group, names, [s[0] for s in samples])
        write_prints(group, [self._prints.get(name, "") for name in names])
        ragged = file.create_group("ragged")
        for name, field in self.fields.items():
            held = [values[name] for _, _, values in samples if name in values]
            if not held:
                continue
            if field.ragged:
                self._write_ragged(ragged, field, samples)
                continue
            if len(held) != len(samples):
                raise StoreError(f"field {name!r} is missing in {len(samples) - len(held)} samples")
            self._check_shapes(name, samples)
            dataset = create_stacked(group, field, held[0].shape, len(held))
            dataset[...] = np.stack(held)

    @staticmethod
    def _check_shapes(name: str, samples: list[tuple[int, str, dict[str, np.ndarray]]]) -> None:
        first = samples[0][2][name].shape
        for _, sample_id, values in samples:
            if values[name].shape != first:
                raise StoreError(
                    f"sample {sample_id!r}: field {name!r} has shape {values[name].shape}, the "
                    f"samples before it {first}; declare it ragged"
                )

    @staticmethod
    def _write_ragged(
        parent: h5py.Group, field: Field, samples: list[tuple[int, str, dict[str, np.ndarray]]]
    ) -> None:
        for index, sample_id, values in samples:
            if field.name in values:
                group = parent.require_group(ragged_name(index))
                group.attrs["sample_id"] = sample_id
                create_single(group, field, values[field.name])


def write_failures(file: h5py.File, failures: Sequence[Failure]) -> None:
    """Write the table of failed samples."""
    group = file.create_group("failures")
    rows = sorted(failures, key=lambda f: f.index)
    group.create_dataset("index", data=np.array([f.index for f in rows], dtype=np.int64))
    for column in FAILURE_TEXTS:
        data = np.array([getattr(f, column) for f in rows], dtype=object)
        group.create_dataset(column, data=data, dtype=TEXT)


def read_failures(file: h5py.File) -> list[Failure]:
    """Return the table of failed samples."""
    group = file["failures"]
    columns = [group["index"][...].tolist()]
    columns += [read_texts(group[name]) for name in FAILURE_TEXTS if name in group]
    return [Failure(*row) for row in zip(*columns, strict=True)]


def write_prints(group: h5py.Group, prints: Sequence[str]) -> None:
    """Write the samples' fingerprints beside their ids, if there are any."""
    if any(prints):
        group.create_dataset(PRINTS, data=np.array(prints, dtype=object), dtype=TEXT)
        group[PRINTS].attrs["long_name"] = "fingerprint of what the sample was made of"
        group[PRINTS].dims[0].attach_scale(group[SAMPLE_AXIS])


def read_prints(group: h5py.Group) -> list[str]:
    """Return the samples' fingerprints; empty texts where none were kept."""
    if PRINTS in group:
        return read_texts(group[PRINTS])
    return [""] * len(group[SAMPLE_AXIS])


def list_parts(folder: Path) -> list[Path]:
    """Return the whole parts of a run, in the order of their names."""
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def finished_samples(sources: Sequence[Path]) -> dict[str, bool]:
    """Return the ids that parts or a result hold: True for measured, False for failed."""
    finished: dict[str, bool] = {}
    for path in sources:
        with opened(path) as file:
            finished.update(dict.fromkeys(read_texts(file["samples/sample"]), True))
            for failure in read_failures(file):
                finished.setdefault(failure.sample_id, False)
    return finished


def stored_samples(sources: Sequence[Path]) -> dict[str, list[Stored]]:
    """Return what parts or a result hold of each sample, in the order of the sources."""
    found: dict[str, list[Stored]] = {}
    for path in sources:
        with opened(path) as file:
            started = str(file.attrs.get("started", ""))
            names = read_texts(file["samples/sample"])
            for name, printed in zip(names, read_prints(file["samples"]), strict=True):
                found.setdefault(name, []).append(Stored(True, printed, started))
            for failure in read_failures(file):
                stored = Stored(False, failure.fingerprint, started, failure.reason)
                found.setdefault(failure.sample_id, []).append(stored)
    return found
