"""How fields lie in an HDF5 group: one dataset a field, its axes as dimension scales.

Dimension scales are what netCDF calls dimensions, so h5py, xarray with h5netcdf and every other
HDF5 reader find axes, coordinates and units by themselves.
"""

from collections.abc import Iterable, Mapping

import h5py
import numpy as np

from interp_lab.errors import NotFiniteError, StoreError
from interp_lab.fields import Field, field_from_attributes

# References that HDF5's dimension scales are made of; they are never followed.
OF_SCALES = ("DIMENSION_LIST", "REFERENCE_LIST")
TEXT = h5py.string_dtype("utf-8")
SAMPLE_AXIS = "sample"
TEXTS_AT_ONCE = 64
# 2: samples have fingerprints, and the configuration names classes and figures without paths.
# 3: a checksum of the file stands in front of it (`store.checksum`).
SCHEMA_VERSION = 3


def storage_type(field: Field) -> np.dtype:
    """Return the NumPy type that the field has in a file."""
    return TEXT if field.dtype == "str" else np.dtype(field.dtype)


def as_stored(field: Field, value: object) -> np.ndarray:
    """Return one sample's value in the field's type, checked against its axes.

    Raises:
        StoreError: if the number of axes differs from the field's.
        NotFiniteError: if a float is not finite; says where.
    """
    dtype = object if field.dtype == "str" else np.dtype(field.dtype)
    array = np.asarray(value, dtype=dtype)
    if array.ndim != len(field.axes):
        raise StoreError(
            f"field {field.name!r} has axes ({', '.join(field.axes)}) but got shape {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NotFiniteError(not_finite(field, array))
    return array


def not_finite(field: Field, array: np.ndarray) -> str:
    """Return which numbers of a field are none: how many, and by its axes where the first is."""
    bad = np.argwhere(~np.isfinite(array))
    first = array[tuple(bad[0])]
    kind = "NaN" if np.isnan(first) else "infinity"
    where = ", ".join(f"{axis} {n}" for axis, n in zip(field.axes, bad[0].tolist(), strict=True))
    count = f" ({len(bad)} of its {array.size} numbers are not finite)" if array.size > 1 else ""
    return f"field {field.name!r} holds {kind}{f' at {where}' if where else ''}{count}"


def create_stacked(group: h5py.Group, field: Field, shape: tuple[int, ...], n: int) -> h5py.Dataset:
    """Create an empty dataset of `n` samples of `shape`, with its axes.

    The group needs its `sample` scale first (`create_sample_axis`).
    """
    options = {}
    if field.compressed and n and 0 not in shape:
        options = {"chunks": (1, *shape), "compression": "gzip", "compression_opts": 4}
    dataset = group.create_dataset(field.name, (n, *shape), storage_type(field), **options)
    _describe(group, dataset, field, (SAMPLE_AXIS, *field.axes))
    return dataset


def create_single(group: h5py.Group, field: Field, value: object) -> h5py.Dataset:
    """Write a field that has no sample axis: an aggregate, or a ragged sample's own."""
    array = as_stored(field, value)
    options = {}
    if field.compressed and array.size:
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    dataset = group.create_dataset(field.name, data=array, dtype=storage_type(field), **options)
    _describe(group, dataset, field, field.axes)
    return dataset


def create_sample_axis(group: h5py.Group, ids: Iterable[str], indices: Iterable[int]) -> None:
    """Write the sample axis: its ids as the coordinate, and each one's place in the data set."""
    names = np.array(list(ids), dtype=object)
    scale = group.create_dataset(SAMPLE_AXIS, data=names, dtype=TEXT)
    scale.make_scale(SAMPLE_AXIS)
    scale.attrs["long_name"] = "sample id"
    index = group.create_dataset("index", data=np.fromiter(indices, dtype=np.int64))
    index.dims[0].attach_scale(scale)
    index.attrs["long_name"] = "position in the data set"


def read_fields(group: h5py.Group) -> dict[str, Field]:
    """Return the fields of a group, in the order of their names; axes and ids are left out."""
    return {
        name: field_from_attributes(name, plain_attributes(dataset))
        for name, dataset in group.items()
        if isinstance(dataset, h5py.Dataset) and "kind" in dataset.attrs
    }


def plain_attributes(dataset: h5py.Dataset) -> dict[str, object]:
    """Return a dataset's attributes without those that dimension scales are made of."""
    return {name: dataset.attrs[name] for name in dataset.attrs if name not in OF_SCALES}


def read_texts(dataset: h5py.Dataset) -> list[str]:
    """Return all texts of a column.

    Raises:
        StoreError: if they are more bytes than their file has, as entries that share one can be.
    """
    texts: list[str] = []
    left = dataset.file.id.get_filesize()
    for start in range(0, len(dataset), TEXTS_AT_ONCE):
        block = list(dataset.asstr()[start : start + TEXTS_AT_ONCE])
        left -= sum(map(len, block))
        if left < 0:
            raise StoreError(f"{dataset.file.filename}: {dataset.name} holds more than its file")
        texts += block
    return texts


def ragged_name(index: int) -> str:
    """Return the name of a sample's own group below `/ragged`."""
    return f"{int(index):08d}"


def _describe(
    group: h5py.Group, dataset: h5py.Dataset, field: Field, axes: tuple[str, ...]
) -> None:
    attributes: Mapping[str, object] = field.attributes()
    for key, value in attributes.items():
        dataset.attrs[key] = value
    for position, axis in enumerate(axes):
        dataset.dims[position].label = axis
        # Ragged fields of one sample may differ in length: two blocks have two query axes.
        name = f"{field.name}_{axis}" if field.ragged else axis
        dataset.dims[position].attach_scale(_scale(group, name, dataset.shape[position]))


def _scale(group: h5py.Group, axis: str, length: int) -> h5py.Dataset:
    if axis in group:
        scale = group[axis]
        if len(scale) != length:
            raise StoreError(
                f"axis {axis!r} has length {len(scale)} and {length} in {group.name}: samples of "
                "different shapes need a ragged field"
            )
        return scale
    # An edge lies between two cells, so its coordinate does too.
    coordinate = np.arange(length) + 0.5 if axis.endswith("_edge") else np.arange(length)
    scale = group.create_dataset(axis, data=coordinate)
    scale.make_scale(axis)
    return scale
