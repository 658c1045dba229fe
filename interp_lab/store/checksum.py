"""A checksum of a whole HDF5 file, in front of it: damage is found before HDF5 reads a byte.

HDF5 lets 512 bytes stand before its own, for whatever a user needs (the user block); every reader
skips them. There stands the SHA-256 of all that follows. A flipped bit can then neither become a
number that nobody stored nor meet HDF5's own reader, which ends the process on some damaged files.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from interp_lab.errors import StoreError

BLOCK = 512
MAGIC = b"interp_lab checksum 1\n"
_CHUNK = 1 << 22


class Stamp(NamedTuple):
    """What the file system says of a file; as long as it is the same, so is the file."""

    path: str
    size: int
    inode: int
    written: int


# Files that this process has looked at: a run reads its result many times.
_known: dict[Stamp, bool] = {}


def block_of(digest: bytes, size: int) -> bytes:
    """Return the 512 bytes in front of an HDF5 file of `size` bytes."""
    text = MAGIC + f"sha256 {digest.hex()}\nbytes {size}\n".encode()
    return text.ljust(BLOCK, b"\0")


def sealed(image: bytes) -> bytes:
    """Return an HDF5 file in memory, made without a user block, with its checksum in front."""
    return block_of(hashlib.sha256(image).digest(), len(image)) + image


def seal(path: Path) -> None:
    """Write the checksum of a file that is whole, made with a user block of `BLOCK` bytes."""
    digest, size = _digest(path)
    with open(path, "r+b") as file:
        file.write(block_of(digest, size))


def stamp_of(path: Path) -> Stamp:
    """Return what the file system says of a file."""
    found = os.stat(path)
    return Stamp(str(path.absolute()), found.st_size, found.st_ino, found.st_mtime_ns)


def trust(stamp: Stamp, has_checksum: bool) -> None:
    """Take it from another process of ours that this file is whole."""
    _known[stamp] = has_checksum


def known(stamp: Stamp) -> bool | None:
    """Return whether a file that was looked at has a checksum; None if it was not."""
    return _known.get(stamp)


def verify(path: Path) -> bool:
    """Check a file against its checksum; return whether it has one.

    Raises:
        StoreError: if the file is not what was written.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(BLOCK)
    if not head.startswith(MAGIC):
        return False
    digest, size = _digest(path)
    if head != block_of(digest, size):
        raise StoreError(
            f"{path}: damaged or changed since it was written (its checksum differs); take a copy "
            "that is whole, or measure again"
        )
    return True


def _digest(path: Path) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        file.seek(BLOCK)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.digest(), size
