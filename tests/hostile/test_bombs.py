"""Small files that stand for more than a machine holds: each is one line, decided from its head."""

import os
import struct
import tracemalloc
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from interp_lab.datasets.audio import read_audio
from interp_lab.datasets.images import read_image
from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.qvhighlights_features import read_features
from interp_lab.errors import MissingInputError, SampleError
from interp_lab.identity.files import content_of


def png(width: int, height: int) -> bytes:
    """A valid PNG of one grey, whose pixels pack to a thousandth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(min(height, 3)))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", rows + packer.flush())
        + chunk(b"IEND", b"")
    )


def wav(rate: int, channels: int, data: int) -> bytes:
    """The head of a WAV file that claims this many bytes of 8-bit sound."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels, channels, 8)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", data)
    )


def npy(shape: tuple[int, ...]) -> bytes:
    """The head of an array of float32, without its numbers."""
    head = BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def peak_of(read: object, *given: object) -> tuple[str, int]:
    """The line that reading a file gives, and the most memory that Python took for it."""
    tracemalloc.start()
    try:
        with pytest.raises(SampleError) as caught:
            read(*given)  # type: ignore[operator]
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [(20_000, 5_001), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "x.png"
    head = png(8, 8)[:16] + struct.pack(">II", *size)
    path.write_bytes(png(*size) if max(size) < 10**6 else head)
    line, peak = peak_of(read_image, path)
    assert "\n" not in line and str(path) in line
    assert peak < 50 * 2**20


def test_a_large_picture_that_is_allowed(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "x.png"
    Image.new("L", (5000, 3000)).save(path)
    assert read_image(path)[0].size == (5000, 3000)


def test_a_sound(tmp_path: Path) -> None:
    """Half a gigabyte of channels, at a rate at which it lasts a second."""
    path = tmp_path / "x.wav"
    with open(path, "wb") as file:  # sparse: it takes no room on the disk
        file.write(wav(500_000, 1000, 500_000_000))
        file.truncate(44 + 500_000_000)
    line, peak = peak_of(read_audio, path)
    assert "claims 500,000 samples in 1000 channels" in line and peak < 2**20


@pytest.mark.parametrize("shape", [(2**40, 512), (2**20, 2**20), (3, 512)])
def test_an_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Its head claims more than the file holds, also where that would fit into memory."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(shape))
    line, peak = peak_of(read_features, path, None, None, "video")
    assert "claims float32" in line and peak < 2**20


def test_an_array_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of 16 MiB, so that the test writes little."""
    monkeypatch.setattr("interp_lab.datasets.limits.MOST_BYTES", 2**24)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", npy((20, 2**18)) + bytes(20 * 2**20))
    assert path.stat().st_size < 2**17
    line, peak = peak_of(read_features, path, "features", None, "video")
    assert "unpacks to" in line and peak < 2**20


def test_an_archive_whose_head_lies(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy((2**30, 2**10)) + bytes(64))
    line, peak = peak_of(read_features, path, "features", None, "video")
    assert "claims float32" in line and peak < 2**20


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    assert "no regular file" in peak_of(read_image, path)[0]
    assert content_of(path) == "unreadable (no regular file)"
    with pytest.raises(MissingInputError, match="no regular file"):
        read_json("dataset.path", str(path))


def test_json_of_absurd_depth(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" * 200_000)
    with pytest.raises(MissingInputError, match="not JSON") as caught:
        read_json("dataset.path", str(path))
    assert "\n" not in str(caught.value)
