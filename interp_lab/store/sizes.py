"""How large a result will be: measured on finished parts, or from the shapes fields declare."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import prod
from pathlib import Path

import h5py
import numpy as np

from interp_lab.fields import Category, Field
from interp_lab.store.layout import create_sample_axis, create_stacked, read_fields
from interp_lab.store.opening import opened

# A word in HDF5: a reference of 16 bytes, and an entry of the heap that it points to.
BYTES_OF_A_WORD = 48
# The newest parts tell enough, and a run of many thousands of parts is looked at in no time.
MOST_PARTS = 50


def measured_bytes(sources: Sequence[Path]) -> tuple[float, int]:
    """Return the bytes a sample takes in finished parts, and how many samples say so.

    What a file holds once, whatever the number of its samples, is left out: a part of few samples
    is mostly that. (0.0, 0) if no part holds a measured sample.
    """
    total, samples = 0.0, 0
    for path in sources[-MOST_PARTS:]:
        with opened(path) as file:
            samples += len(file["samples/sample"])
            if len(file["ragged"]):
                # A group a sample: its description takes as much as its numbers.
                total += path.stat().st_size - _bytes_held_once(file)
            elif len(file["samples/sample"]):
                total += _stacked_bytes(file["samples"])
    return (total / samples, samples) if samples else (0.0, 0)


def _stacked_bytes(group: h5py.Group) -> int:
    """Return the bytes of what is stacked along the samples, texts in the heap included."""
    total = 0
    for name in ("sample", "index", *read_fields(group)):
        dataset = group[name]
        total += dataset.id.get_storage_size()
        if h5py.check_string_dtype(dataset.dtype):
            # Each text has a head of 16 bytes and is filled up to a multiple of 8.
            total += sum(16 + (len(text) + 7) // 8 * 8 for text in dataset[...])
    return total


def _bytes_held_once(part: h5py.File) -> int:
    """Return the size of a file with the fields of `part` and no sample, and its aggregates."""
    memory = BytesIO()
    with h5py.File(memory, "w") as file:
        group = file.create_group("samples")
        create_sample_axis(group, [], [])
        for name, field in read_fields(part["samples"]).items():
            create_stacked(group, field, part["samples"][name].shape[1:], 0)
    aggregates = part.get("aggregate", {}).values()
    return len(memory.getvalue()) + sum(d.id.get_storage_size() for d in aggregates)


def declared_bytes(
    fields: Sequence[Field], lengths: Mapping[str, int]
) -> tuple[int, list[str], list[str]]:
    """Return the bytes a sample takes by declaration; the fields that are known, and those not.

    Args:
        fields: what the analysis declares.
        lengths: how long each axis is, as far as the model's configuration tells.

    Compressed fields are counted without compression, a `Category` as one word. Ragged fields,
    texts and axes of unknown length are not known.
    """
    total, known, unknown = 0, [], []
    for field in fields:
        shape = [lengths.get(axis) for axis in field.axes]
        if isinstance(field, Category):
            size: int | None = BYTES_OF_A_WORD
        elif field.ragged or field.dtype == "str" or None in shape:
            size = None
        else:
            size = prod(n for n in shape if n is not None) * np.dtype(field.dtype).itemsize
        if size is None:
            unknown.append(field.name)
        else:
            known.append(field.name)
            total += size
    # The sample's id and its place in the data set.
    return total + BYTES_OF_A_WORD + 8, known, unknown


def readable(size: float) -> str:
    """Return a number of bytes as text: 512 B, 13.2 GiB."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
