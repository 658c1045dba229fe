"""How large what a file unpacks to may be: decided from its head, before anything is unpacked.

A few kilobytes can stand for more pixels, sound or numbers than a machine holds. Every reader of a
data set's files asks here first; what is larger is this sample's failure.
"""

import math
import stat
import zipfile
from pathlib import Path
from typing import IO

from numpy.lib import format as npy
from PIL import Image

from interp_lab.errors import SampleError

# 10,000 x 10,000 pixels: 300 MB as RGB, and a few times that while it is converted.
MOST_PIXELS = 100_000_000
# Values of a sound in all its channels: 30 s of 8 channels at 192 kHz are 46 million.
MOST_SOUND = 100_000_000
# Of an array of features: 2 hours of video at one row a second and 4,096 columns are 118 MB.
MOST_BYTES = 2**30


def check_regular(path: Path, what: str) -> None:
    """Refuse what is no file on a disk: reading a pipe or a device may never end.

    Raises:
        SampleError: if something else than a file or nothing lies there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # its reader says that it is not there
    if not stat.S_ISREG(mode):
        raise SampleError(f"{path}: no regular file, so no {what} is read from it")


def check_picture(image: Image.Image, file: Path) -> None:
    """Refuse a picture of more than `MOST_PIXELS`, opened and not yet decoded.

    Raises:
        SampleError: says how many it has.
    """
    if image.width * image.height > MOST_PIXELS:
        raise SampleError(
            f"{file}: {image.width}x{image.height} pixels, more than {MOST_PIXELS:,}; scale or cut "
            "it before use"
        )


def check_sound(frames: int, channels: int, path: Path) -> None:
    """Refuse a sound of more than `MOST_SOUND` values, opened and not yet decoded.

    Raises:
        SampleError: says how many its head claims.
    """
    if not 0 <= frames * channels <= MOST_SOUND:
        raise SampleError(
            f"{path}: claims {frames:,} samples in {channels} channels, more than {MOST_SOUND:,} "
            "values; cut it before use"
        )


def check_array(path: Path, key: str | None) -> None:
    """Refuse an array of more than `MOST_BYTES` in an `.npy` file, or under `key` in an `.npz`.

    Raises:
        SampleError: says what its head claims.
        OSError, ValueError, zipfile.BadZipFile: if the head cannot be read; its reader says so.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            _check_head(file, path, path.stat().st_size)
        return
    with zipfile.ZipFile(path) as archive:
        for name in (f"{key}.npy", str(key)):
            if name in archive.namelist():
                size = archive.getinfo(name).file_size
                if size > MOST_BYTES:
                    raise SampleError(f"{path}: {name} unpacks to {size:,} bytes, too many")
                with archive.open(name) as member:
                    _check_head(member, path, size)


def _check_head(file: IO[bytes], path: Path, size: int) -> None:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"format {version} of NumPy's files, which holds no table of numbers")
    shape, _, dtype = read[version](file)
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (claimed > MOST_BYTES or claimed > size):
        raise SampleError(
            f"{path}: claims {dtype} {tuple(shape)}, {claimed:,} bytes, and holds {size:,}; at "
            f"most {MOST_BYTES:,} are read"
        )
