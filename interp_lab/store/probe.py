"""Reads a file from start to end in a process of its own: `-m interp_lab.store.probe FILE PID`.

HDF5's reader ends the process on some damaged files. Here that costs nothing.
"""

import resource
import sys
from pathlib import Path

import h5py

from interp_lab.errors import StoreError
from interp_lab.store.opening import SECONDS_TO_PROBE, check_file, check_ragged, reading
from interp_lab.store.orphans import killed_with

# Larger files are read in part: their descriptions and texts, which is where HDF5 fails.
READ_WHOLE = 2**26
MEMORY = 2**33


def look_through(path: Path) -> None:
    """Read what the reader of results may read.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise StoreError(f"{path}: not a readable HDF5 file ({why})") from error
    with file, reading(path):
        check_file(file, path)
        for name in file:
            for inner in file[name] if name != "ragged" else ():
                _read(file[name][inner], path)
            dict(file[name].attrs)
        for sample in file.get("ragged", ()):
            group = check_ragged(file["ragged"], sample, path)
            for inner in group or ():
                _read(group[inner], path)  # type: ignore[index]


def _read(dataset: h5py.Dataset, path: Path) -> None:
    dict(dataset.attrs)
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if is_text or path.stat().st_size < READ_WHOLE:
        for start in range(0, len(dataset) if dataset.shape else 0, 4096):
            dataset[start : start + 4096]


if __name__ == "__main__":
    killed_with(int(sys.argv[2]))
    # HDF5 can turn in circles; this ends it also where nobody waits any more.
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_TO_PROBE, SECONDS_TO_PROBE))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        look_through(Path(sys.argv[1]))
    except StoreError as error:
        sys.exit(str(error))
