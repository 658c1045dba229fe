"""Whether a sound file holds all the bytes that it promises.

Decoders read a file that was cut while it was copied up to the cut and call it whole. What its
container says of its length tells: a size in the header, or a mark on the last page or frame.
"""

import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path

# A writer that could not go back leaves these sizes: the length is not known.
UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFFFFF, 2**64 - 1)
# Names of chunks in Sony's Wave64: the file, and its samples.
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
# Tables of MPEG audio, layer III: kbit/s by index, Hz by index, for MPEG 1 and for 2 and 2.5.
BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def cut_off(path: Path) -> str:
    """Return what a file lacks of what it promises; empty if nothing, or if it does not say.

    The file is mapped, not read: a large one takes no memory.
    """
    if path.stat().st_size == 0:
        return ""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return _missing(data)


def _missing(data: mmap) -> str:
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        return _chunks(data, "<" if data[:4] == b"RIFF" else ">", b"data")
    if data[:4] == b"RF64" and data[12:16] == b"ds64" and len(data) >= 36:
        return _chunks(data, "<", b"data", struct.unpack("<Q", data[28:36])[0])
    if data[:16] == W64_RIFF:
        return _wide_chunks(data, 40, 16, "<Q", W64_DATA)
    if data[:4] == b"caff":
        return _wide_chunks(data, 8, 4, ">Q", b"data")
    if data[:4] == b"FORM":
        return _chunks(data, ">", b"SSND")
    if data[:4] == b".snd" and len(data) >= 12:
        start, size = struct.unpack(">II", data[4:12])
        return _short(size, len(data) - start)
    if data[:4] == b"OggS":
        return _pages(data)
    if data[:3] == b"ID3" or (len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return _frames(data)
    return ""


def _short(promised: int, there: int) -> str:
    if promised in UNKNOWN or there >= promised:
        return ""
    return f"{max(there, 0)} of {promised} bytes of sound are there"


def _chunks(data: mmap, order: str, wanted: bytes, long: int | None = None) -> str:
    """Look at the chunk of samples in a WAV or AIFF file; `long` is its size if stated apart."""
    at = 12
    while at + 8 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])
        if name == wanted:
            return _short(size if long is None else long, len(data) - at - 8)
        at += 8 + size + size % 2
    return ""


def _wide_chunks(data: mmap, at: int, name: int, size: str, wanted: bytes) -> str:
    """Look at the chunk of samples in a file whose chunks have sizes of 8 bytes.

    Args:
        data: the file.
        at: where its first chunk begins.
        name: bytes of a chunk's name.
        size: how its size is written; Wave64 counts name and size too, and pads to 8 bytes.
        wanted: the name of the chunk of samples.
    """
    head = name + 8
    counted = head if wanted == W64_DATA else 0
    while at + head <= len(data):
        (long,) = struct.unpack(size, data[at + name : at + head])
        body = long - counted
        if data[at : at + name] == wanted:
            return "" if long in UNKNOWN else _short(body, len(data) - at - head)
        if body < 0:
            return ""
        at += head + body + (-long % 8 if counted else 0)
    return ""


def _pages(data: mmap) -> str:
    """Look at the last page of an Ogg file: it is whole and says that it is the last."""
    at = data.rfind(b"OggS")
    header = data[at : at + 27]
    if len(header) < 27:
        return "its last page is not whole"
    n_segments = header[26]
    table = data[at + 27 : at + 27 + n_segments]
    if len(table) < n_segments or len(data) < at + 27 + n_segments + sum(table):
        return "its last page is not whole"
    return "" if header[5] & 4 else "its last page is not there"


def _frames(data: mmap) -> str:
    """Walk the frames of an MP3: the last is whole, and all that its header counts are there."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        a, b, c, d = data[6:10]
        at = 10 + (a << 21 | b << 14 | c << 7 | d)
    count, promised = -1, None
    while at + 4 <= len(data):
        size = _frame_size(data[at : at + 4])
        if not size:
            break  # a tag, or what is no frame: the end of the sound
        if count < 0:
            promised = _counted(data[at : at + size])
            count = 0 if promised is not None else 1
        else:
            count += 1
        if at + size > len(data):
            return f"its last frame has {len(data) - at} of {size} bytes"
        at += size
    if promised is not None and count < promised:
        return f"{count} of {promised} frames are there"
    return ""


def _counted(frame: bytes) -> int | None:
    """Return how many frames the first one says that there are, if it does."""
    for mark in (b"Xing", b"Info"):
        at = frame.find(mark, 4, 60)
        if at >= 0 and len(frame) >= at + 12 and frame[at + 7] & 1:
            return int(struct.unpack(">I", frame[at + 8 : at + 12])[0])
    return None


def _frame_size(header: bytes) -> int:
    """Return the bytes of a frame of layer III, 0 if this is no such frame."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if header[0] != 0xFF or header[1] & 0xE0 != 0xE0 or layer != 1 or version == 1:
        return 0
    if bits in (0, 15) or rate == 3:
        return 0
    first = version == 3
    kilobits, hertz = BITRATES[0 if first else 1][bits], RATES[version][rate]
    return (144 if first else 72) * kilobits * 1000 // hertz + (header[2] >> 1 & 1)
