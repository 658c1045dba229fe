"""Reading a result: fields by name or kind, one sample, a stream of them, or the aggregates.

This is what figures, reports, exports and notebooks see of a run. It needs h5py and NumPy only.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from interp_lab.errors import StoreError, did_you_mean
from interp_lab.fields import Field, field_from_attributes
from interp_lab.store.layout import SCHEMA_VERSION, ragged_name, read_fields, read_texts
from interp_lab.store.opening import CHECKED_SINCE, check_ragged, look_at, open_file, reading
from interp_lab.store.parts import Failure, read_failures


class Results:
    """A read-only view of a result file.

    Args:
        file: an open HDF5 file in the layout of `store.merge`.

    Attributes:
        fields: the fields that samples hold, by name.
        aggregates: the fields over the whole run, by name.
        sample_ids: the measured samples, in the data set's order.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        with reading(file.filename):
            self.sample_ids: list[str] = read_texts(file["samples/sample"])
            self.fields: dict[str, Field] = read_fields(file["samples"])
            check_stacked(file["samples"], self.fields, len(self.sample_ids))
            self.fields.update(_ragged_fields(file["ragged"]))
        self._rows = {name: row for row, name in enumerate(self.sample_ids)}

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __contains__(self, sample_id: object) -> bool:
        """Return whether a sample of this id was measured."""
        return sample_id in self._rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self._file.filename)

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance: task_name, config (YAML), versions, device, times, complete, and more."""
        with reading(self.path):
            return dict(self._file.attrs)

    @property
    def has_checksum(self) -> bool:
        """Whether damage to the file would be noticed; those of earlier versions have none."""
        return look_at(self.path)

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know, such as random weights."""
        return self._stored_json("notes", list)

    @property
    def counts(self) -> dict[str, Any]:
        """What was counted on the way, by name, such as samples left out."""
        return self._stored_json("counts", dict)

    @property
    def definitions(self) -> dict[str, str]:
        """Name -> definition with its version, of what was measured and what was made of it."""
        return self._stored_json("definitions", dict)

    @property
    def prompts(self) -> dict[str, str]:
        """Name -> full text with its placeholders; none where none was stated or kept."""
        found = self._stored_json("prompts", dict)
        if not all(isinstance(text, str) for text in found.values()):
            raise StoreError(f"{self.path}: damaged, or not written by interp_lab (prompts)")
        return found

    @property
    def failures(self) -> list[Failure]:
        """The samples that could not be measured, with their reasons."""
        with reading(self.path):
            return read_failures(self._file)

    @cached_property
    def _indices(self) -> np.ndarray:
        with reading(self.path):
            return self._file["samples/index"][...]

    def _stored_json(self, name: str, kind: type) -> Any:
        with reading(self.path):
            found = json.loads(self._file.attrs.get(name, "[]" if kind is list else "{}"))
            if not isinstance(found, kind):
                raise TypeError(f"{name} is no {kind.__name__}")
            return found

    @cached_property
    def aggregates(self) -> dict[str, Field]:
        """The fields over the whole run, by name."""
        with reading(self.path):
            return read_fields(self._file["aggregate"]) if "aggregate" in self._file else {}

    def of_kind(self, *kinds: type[Field]) -> list[Field]:
        """Return the sample fields of these kinds, in the order of their names."""
        return [f for f in self.fields.values() if isinstance(f, kinds)]

    def read(self, name: str, sample: str | int, at: Any = ()) -> Any:
        """Return one sample's value: an array, a number or a text.

        Args:
            name: of the field.
            sample: its id, or its row.
            at: an index or slices: the part of a ragged array to read, all of it if not given.

        Raises:
            StoreError: if the field or the sample is not there.
        """
        field = self._field(name, self.fields)
        row = self._row(sample)
        if field.ragged:
            with reading(self.path):
                place = ragged_name(self._indices[row])
                group = check_ragged(self._file["ragged"], place, self.path, only=name)
                if group is None or name not in group:
                    raise StoreError(f"sample {self.sample_ids[row]!r} holds no field {name!r}")
                return _value(group[name], at)
        with reading(self.path):
            return _value(self._file["samples"][name], row)

    def holds(self, name: str, sample: str | int) -> bool:
        """Return whether a sample has a value of this field; a ragged one may be absent."""
        if name not in self.fields:
            return False
        index = ragged_name(self._indices[self._row(sample)])
        return not self.fields[name].ragged or name in self._file["ragged"].get(index, ())

    def stream(self, names: Sequence[str], chunk: int = 256) -> Iterator[dict[str, np.ndarray]]:
        """Yield the stacked fields in blocks of at most `chunk` samples: {name: (n, *axes)}.

        Memory is bounded by the block. Ragged fields are read with `read`.
        """
        for name in names:
            if self._field(name, self.fields).ragged:
                raise StoreError(f"field {name!r} is ragged: read it sample by sample")
        for start in range(0, len(self), chunk):
            rows = slice(start, start + chunk)
            with reading(self.path):
                block = {name: _value(self._file["samples"][name], rows) for name in names}
            yield block

    def aggregate(self, name: str) -> Any:
        """Return a field over the whole run.

        Raises:
            StoreError: if it is not there.
        """
        self._field(name, self.aggregates)
        with reading(self.path):
            return _value(self._file["aggregate"][name], ())

    def _row(self, sample: str | int) -> int:
        if isinstance(sample, int):
            return range(len(self))[sample]
        if sample not in self._rows:
            failed = {f.sample_id: f.reason for f in self.failures}
            why = f" It failed: {failed[sample]}" if sample in failed else ""
            near = did_you_mean(sample, self._rows)
            raise StoreError(f"{self.path}: no sample {sample!r}.{why}{near}")
        return self._rows[sample]

    def _field(self, name: str, known: dict[str, Field]) -> Field:
        if name not in known:
            raise StoreError(f"{self.path}: no field {name!r}.{did_you_mean(name, known)}")
        return known[name]


def _ragged_fields(group: h5py.Group) -> dict[str, Field]:
    """Return the ragged fields, which the merge has described in one place."""
    if "fields" in group.attrs:
        described = json.loads(group.attrs["fields"])
        return {name: field_from_attributes(name, about) for name, about in described.items()}
    found: dict[str, Field] = {}
    for sample in group.values():
        found |= read_fields(sample)
    return found


def _value(dataset: h5py.Dataset, selection: Any) -> Any:
    if h5py.check_string_dtype(dataset.dtype):
        return dataset.asstr()[selection]
    return dataset[selection]


def open_results(path: str | Path) -> Results:
    """Open a result: the file itself, or a run directory that holds `results.h5`.

    Raises:
        StoreError: if there is no result, it is not ours, or it is unfinished.
    """
    path = Path(path)
    file_path = path / "results.h5" if path.is_dir() else path
    if not file_path.is_file():
        raise StoreError(f"results={path}: no such file; give a results.h5 or a run directory")
    file = open_file(file_path, "results=")
    try:
        with reading(f"results={file_path}"):
            _check_whole(file, file_path)
            return Results(file)
    except BaseException:
        file.close()
        raise


def _check_whole(file: h5py.File, path: Path) -> None:
    version = file.attrs.get("schema_version")
    if version is None:
        raise StoreError(f"results={path}: not a result of interp_lab")
    if int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"results={path}: of schema version {version}, this interp_lab knows versions up to "
            f"{SCHEMA_VERSION}; open it with the version that wrote it, or a newer one"
        )
    if not file.attrs["complete"]:
        raise StoreError(f"results={path}: unfinished; run its command again to complete it")
    if version >= CHECKED_SINCE and not look_at(path):
        raise StoreError(
            f"results={path}: its checksum is gone: damaged, or written by another program; take "
            "a copy that is whole, or measure again"
        )


def check_stacked(group: h5py.Group, fields: dict[str, Field], n: int) -> None:
    """Check that what samples hold is what their fields say: axes, number and type of values.

    Raises:
        ValueError: names the field.
    """
    index = group["index"]
    if index.shape != (n,) or index.dtype.kind not in "iu":
        raise ValueError(f"index of shape {index.shape} for {n} samples")
    for name, field in fields.items():
        found = group[name]
        if found.ndim != len(field.axes) + 1 or found.shape[0] != n:
            raise ValueError(f"field {name!r} has shape {found.shape} for {n} samples")
        is_text = h5py.check_string_dtype(found.dtype) is not None
        if is_text != (field.dtype == "str") or not (is_text or found.dtype == field.dtype):
            raise ValueError(f"field {name!r} holds {found.dtype}, declared {field.dtype}")
