"""Fingerprints of files: what a file holds, as a short text that changes with it.

A file that was read before is not read again while the file system says that it is the same:
size, times of writing and of change, and inode. A file that was written within the last seconds is
not trusted in this way, because its times may not tell two writings apart.
"""

import hashlib
import json
import os
import random
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

ABSENT = "absent"
# Times of a file system may be as coarse as this (FAT: two seconds).
TIMES_ARE_COARSE = 2.5e9
READ_AT_ONCE = 2**20
# A larger file of weights is sampled: a block in each stretch, at a place that does not repeat.
LARGEST_WHOLE = 64 * 2**20
STRETCH = 256 * 2**10
BLOCK = 4 * 2**10
READERS = 8

# Size, time of writing, time of change (both in ns), inode.
Stamp = tuple[int, int, int, int]


def stamp_of(path: str | Path) -> Stamp | None:
    """Return what the file system says of a file; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def hash_of(*texts: str | bytes) -> str:
    """Return a hash of texts, 32 hexadecimal digits."""
    hashed = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def content_of(path: str | Path) -> str:
    """Return the fingerprint of all bytes of a file, or a word that says why there is none."""
    hashed = hashlib.blake2b(digest_size=16)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return "unreadable (no regular file)"  # reading a pipe might never end
        with open(path, "rb") as file:
            while data := file.read(READ_AT_ONCE):
                hashed.update(data)
    except OSError as error:
        return ABSENT if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
    return hashed.hexdigest()


def sampled(path: Path) -> str:
    """Return the fingerprint of a large file of weights, of which a part is read.

    That part is: the size; of a safetensors file the header and every tensor of at most 64 KiB;
    and 4 KiB out of each 256 KiB. So a change of any small tensor, of a shape or a name, or of any
    512 KiB in a row is seen; a change of single numbers within a large tensor may not be.
    """
    size = path.stat().st_size
    places = random.Random(size)
    spans = [*_small_tensors(path, size)]
    for start in range(0, size, STRETCH):
        room = max(1, min(STRETCH, size - start) - BLOCK)
        spans.append((start + places.randrange(room), BLOCK))
    shares = [spans[i : i + 512] for i in range(0, len(spans), 512)]
    with open(path, "rb") as file, ThreadPoolExecutor(READERS) as pool:
        number = file.fileno()
        parts = pool.map(lambda share: _hash_of_spans(number, share), shares)
        return hash_of(str(size), *parts)


def _hash_of_spans(file: int, spans: Sequence[tuple[int, int]]) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for start, length in spans:
        hashed.update(os.pread(file, length, start))
    return hashed.digest()


def _small_tensors(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of a safetensors file's header and its small tensors."""
    if path.suffix != ".safetensors":
        return
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size, LARGEST_WHOLE):
            return
        yield 0, 8 + length
        try:
            header = json.loads(file.read(length))
            places = [v["data_offsets"] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # damaged; loading it says so
    for start, end in sorted(places):
        if end - start <= LARGEST_WHOLE // 1024:
            yield 8 + length + start, end - start


def weights_content(path: Path) -> str:
    """Return the fingerprint of a file of weights: of all of it up to 64 MiB, else sampled."""
    stamp = stamp_of(path)
    return ABSENT if stamp is None else _weights_content(path.absolute(), stamp)


@lru_cache(maxsize=4096)
def _weights_content(path: Path, stamp: Stamp) -> str:
    return content_of(path) if stamp[0] <= LARGEST_WHOLE else f"sampled {sampled(path)}"


@dataclass
class Digests:
    """Fingerprints of files by their path, with what the file system said of each when it was read.

    Args:
        known: path -> (stamp, fingerprint), from an earlier process.
        read: how many files were read because their stamp was not known.
    """

    known: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    read: int = 0

    def of(self, path: str | Path) -> str:
        """Return the fingerprint of a file, which is read only if it may have changed."""
        key, stamp = str(path), stamp_of(path)
        if stamp is None:
            self.known.pop(key, None)
            return ABSENT
        if key in self.known and self.known[key][0] == stamp:
            return self.known[key][1]
        self.read += 1
        digest = content_of(path)
        if time.time_ns() - max(stamp[1], stamp[2]) > TIMES_ARE_COARSE and stamp_of(path) == stamp:
            self.known[key] = stamp, digest
        else:
            self.known.pop(key, None)
        return digest

    def as_json(self) -> str:
        """Return what is known as text, for a file."""
        return json.dumps({k: [*s, d] for k, (s, d) in self.known.items()})

    def add(self, text: str) -> None:
        """Add what an earlier process knew; nothing of a text that is damaged."""
        try:
            found: Mapping[str, Any] = json.loads(text)
            self.known |= {k: ((v[0], v[1], v[2], v[3]), v[4]) for k, v in found.items()}
        except (ValueError, IndexError, TypeError, AttributeError):
            return
