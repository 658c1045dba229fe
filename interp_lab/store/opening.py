"""The one door to an HDF5 file: whole, made of plain numbers and texts, of a size that it holds.

A file may come from anybody. HDF5 can point into other files, run filters that are loaded from
disk, claim sizes that no disk holds and be damaged so that its own reader ends the process. All of
that is refused in one line before a value is read.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from interp_lab.errors import InterpLabError, StoreError
from interp_lab.store import checksum
from interp_lab.store.layout import OF_SCALES

log = logging.getLogger(__name__)
# The first version whose files have a checksum.
CHECKED_SINCE = 3
# The largest value that is read at once: a sample's, or one over all samples.
LARGEST_VALUE = 2**31
# Deflate makes a byte of at most this many.
MOST_PACKED = 1100
FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
LARGEST_ATTRIBUTE = 2**26
SECONDS_TO_PROBE = 120
WITHOUT = "no checksum, as earlier versions wrote it: damage to its numbers would go unnoticed"


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a part or result for reading; whatever fails below says that the file is damaged.

    Raises:
        StoreError: if it is not a regular HDF5 file, damaged, or of what is never written here.
    """
    file = open_file(path)
    try:
        with reading(path):
            yield file
    finally:
        file.close()


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what HDF5 raises for damaged files into one line.

    Raises:
        StoreError: names the file.
    """
    try:
        yield
    except InterpLabError:
        raise
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        MemoryError,
        OverflowError,
        IndexError,
    ) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise StoreError(f"{path}: damaged, or not written by interp_lab ({why})") from error


def open_file(path: Path, key: str = "") -> h5py.File:
    """Return an open HDF5 file that was checked; see `opened`. Errors begin with `key`."""
    try:
        look_at(path)
        file = h5py.File(path, "r")
    except StoreError as error:
        raise StoreError(f"{key}{error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise StoreError(f"{key}{path}: not a readable HDF5 file ({why})") from error
    try:
        with reading(f"{key}{path}"):
            check_file(file, path)
    except BaseException:
        file.close()
        raise
    return file


def look_at(path: Path) -> bool:
    """Check a file's bytes, once a process; return whether it has a checksum.

    Raises:
        StoreError: if it is not whole, or ends the process that reads it.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no regular file")
    stamp = checksum.stamp_of(path)
    has = checksum.known(stamp)
    if has is None:
        has = checksum.verify(path)
        if not has:
            probe(path)
            log.info("%s: %s", path, WITHOUT)
        checksum.trust(stamp, has)
    return has


def probe(path: Path) -> None:
    """Read a file without a checksum in another process, which HDF5 may end.

    Raises:
        StoreError: if it did.
    """
    command = [sys.executable, "-m", "interp_lab.store.probe", str(path.absolute())]
    command.append(str(os.getpid()))
    root = str(Path(__file__).parents[2])
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=SECONDS_TO_PROBE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"{path}: damaged: reading it does not end") from error
    if done.returncode < 0:
        raise StoreError(f"{path}: damaged: HDF5 cannot read it (signal {-done.returncode})")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise StoreError(lines[-1] if lines else f"{path}: damaged")


def check_file(file: h5py.File, path: Path) -> None:
    """Refuse what is never written here, without reading a value.

    Samples' own groups below `/ragged` are many; each is checked when it is read.

    Raises:
        StoreError: names the file and the place in it.
    """
    seen: set[Any] = set()
    size = path.stat().st_size
    version = file.attrs.get("schema_version", 0)
    if np.ndim(version) or not isinstance(version, int | np.integer):
        raise StoreError(f"{path}: its schema_version is no number")
    check_attributes(file, path)
    for name in file:
        group = _plain(file, name, path, seen)
        if not isinstance(group, h5py.Group):
            raise StoreError(f"{path}: {name} is no group; not written by interp_lab")
        check_attributes(group, path)
        if name == "ragged":
            continue
        for inner in group:
            dataset = _plain(group, inner, path, seen)
            if not isinstance(dataset, h5py.Dataset):
                raise StoreError(f"{path}: {name}/{inner} is no array; not written by interp_lab")
            check_dataset(dataset, path, size, stacked=name == "samples")


def check_ragged(
    parent: h5py.Group, name: str, path: Path, only: str | None = None
) -> h5py.Group | None:
    """Return a sample's own group, checked; None if there is none.

    Args:
        parent: of the samples' own groups.
        name: of the group.
        path: of the file.
        only: the one array that is going to be read, if it is one: a result is read field by
            field, and all of a sample's arrays for each of them would be their square.
    """
    if name not in parent:
        return None
    seen: set[Any] = set()
    group = _plain(parent, name, path, seen)
    if not isinstance(group, h5py.Group):
        raise StoreError(f"{path}: ragged/{name} is no group; not written by interp_lab")
    check_attributes(group, path)
    for inner in group if only is None else [only] if only in group else []:
        dataset = _plain(group, inner, path, seen)
        if not isinstance(dataset, h5py.Dataset):
            raise StoreError(f"{path}: ragged/{name}/{inner} is no array")
        check_dataset(dataset, path, path.stat().st_size, stacked=False)
    return group


def check_dataset(dataset: h5py.Dataset, path: Path, size: int, stacked: bool) -> None:
    """Refuse an array that lies elsewhere, is of odd values, or larger than its file can hold."""
    where, kept = f"{path}: {dataset.name}", dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external:
        raise StoreError(f"{where}: its values lie in another file, which is not read")
    check_type(dataset.dtype, where)
    for number in range(kept.get_nfilters()):
        if kept.get_filter(number)[0] not in FILTERS:
            raise StoreError(f"{where}: is packed by a filter that is not used here")
    if dataset.shape is None:
        raise StoreError(f"{where}: is empty; not written by interp_lab")
    item = max(dataset.id.get_type().get_size(), 1)
    claimed = int(np.prod([int(n) for n in dataset.shape], dtype=object)) * item
    stored = dataset.id.get_storage_size()
    packed = kept.get_nfilters() > 0
    if stored > size or claimed > stored * (MOST_PACKED if packed else 1):
        raise StoreError(
            f"{where}: claims {claimed} bytes and holds {stored}; damaged, or made to fill memory"
        )
    if dataset.chunks is not None and dataset.id.get_num_chunks() != _chunks_of(dataset):
        raise StoreError(f"{where}: lacks some of its values; damaged")
    rows = max(dataset.shape[0], 1) if stacked and dataset.shape else 1
    chunk = int(np.prod(dataset.chunks or (1,), dtype=object)) * item
    if claimed // rows > LARGEST_VALUE or chunk > LARGEST_VALUE:
        raise StoreError(f"{where}: a value of it takes more than {LARGEST_VALUE} bytes")
    check_attributes(dataset, path)


def _chunks_of(dataset: h5py.Dataset) -> int:
    pairs = zip(dataset.shape, dataset.chunks, strict=True)
    return int(np.prod([-(-int(n) // int(c)) for n, c in pairs], dtype=object))


def check_attributes(thing: h5py.Group | h5py.Dataset, path: Path) -> None:
    """Refuse attributes that hold references or are too large, without reading them."""
    for name in thing.attrs:
        if name in OF_SCALES:
            continue
        attribute = thing.attrs.get_id(name)
        where = f"{path}: {thing.name}, attribute {name}"
        check_type(attribute.dtype, where)
        if attribute.get_storage_size() > LARGEST_ATTRIBUTE:
            raise StoreError(f"{where}: takes more than {LARGEST_ATTRIBUTE} bytes")


def check_type(dtype: np.dtype, where: str) -> None:
    """Refuse a type of value other than numbers, truth values and texts."""
    if h5py.check_ref_dtype(dtype) is not None:
        raise StoreError(f"{where}: holds references, which are not followed")
    if dtype.kind in "biuf" or h5py.check_string_dtype(dtype) is not None:
        return
    raise StoreError(f"{where}: holds neither numbers nor texts ({dtype})")


def _plain(group: h5py.Group, name: str, path: Path, seen: set[Any]) -> Any:
    """Return what lies in a group under a name, if it lies there itself and once."""
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{where}: is a link to another place, which is not followed")
    found = group[name]
    address = h5py.h5o.get_info(found.id).addr
    if address in seen:
        raise StoreError(f"{where}: is in the file twice, or holds itself")
    seen.add(address)
    return found
