"""Pictures of every kind: each is read as what it shows, or refused with a reason."""

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp_lab.datasets.images import ImageFiles, read_image
from interp_lab.errors import ConfigError, MissingInputError, SampleError

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)[0])


def test_plain_rgb_is_unchanged(tmp_path: Path) -> None:
    assert (pixels(saved(tmp_path / "a.png", Image.fromarray(RGB))) == RGB).all()


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 65535, 32896]], dtype=np.uint16)
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(grey)))
    assert got[0, :, 0].tolist() == [0, 1, 255, 128]


def test_palette_and_transparency_are_laid_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(8)
    expected = np.asarray(image.convert("RGB"))
    assert (pixels(saved(tmp_path / "p.png", image)) == expected).all()
    clear = Image.new("RGBA", (3, 2), (255, 0, 0, 0))
    assert (pixels(saved(tmp_path / "t.png", clear)) == 255).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    got = pixels(saved(tmp_path / "c.jpg", image, quality=95)).mean((0, 1))
    assert got[0] > 200 and got[1] < 60 and got[2] < 60


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate 270 degrees to look at it
    got = pixels(saved(tmp_path / "e.png", image, exif=exif))
    assert (got == np.rot90(RGB, k=-1)).all()


def test_an_animation_gives_its_first_frame_and_a_note(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    image, note = read_image(path)
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert "first frame" in note


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_pages_and_views_are_no_animation(tmp_path: Path, name: str) -> None:
    pages = [Image.new("RGB", (8, 8), c) for c in ("red", "blue", "green")]
    kind = "TIFF" if name == "a.tif" else "MPO"
    path = saved(tmp_path / name, pages[0], format=kind, save_all=True, append_images=pages[1:])
    image, note = read_image(path)
    red, green, blue = np.asarray(image)[0, 0].astype(int)
    assert red > 240 and green < 15 and blue < 15
    assert note == "first of 3 pictures in one file"


def png(path: Path, depth: int, color: int, rows: list[bytes], clear: bytes) -> Path:
    """A PNG written byte by byte: Pillow writes neither 16-bit colours nor 2-bit greys."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    width = len(rows[0]) * 8 // (depth * (3 if color == 2 else 1))
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", data)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b""))
    return path


def test_transparency_is_white_at_every_depth(tmp_path: Path) -> None:
    grey = struct.pack(">4H", 0, 5, 40000, 65535)
    got = pixels(png(tmp_path / "a.png", 16, 0, [grey], struct.pack(">H", 0)))
    assert got[0, :, 0].tolist() == [255, 0, 155, 255]
    got = pixels(png(tmp_path / "b.png", 16, 0, [grey], struct.pack(">H", 40000)))
    assert got[0, :, 0].tolist() == [0, 0, 255, 255]
    colors = struct.pack(">6H", 300, 300, 300, 65535, 0, 0)
    got = pixels(png(tmp_path / "c.png", 16, 2, [colors], struct.pack(">3H", 300, 300, 300)))
    assert got[0].tolist() == [[255, 255, 255], [255, 0, 0]]
    two = bytes([0b00_01_10_11])
    got = pixels(png(tmp_path / "d.png", 2, 0, [two], struct.pack(">H", 1)))
    assert got[0, :, 0].tolist() == [0, 255, 170, 255]
    one = bytes([0b01010101])
    got = pixels(png(tmp_path / "e.png", 1, 0, [one], struct.pack(">H", 0)))
    assert (got == 255).all()


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    assert pixels(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), "red"))).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.png", b"not a picture", "not a picture"),
        ("empty.jpg", b"", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=says):
        read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8))
    path = saved(tmp_path / f"a.{suffix}", image)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SampleError, match="damaged"):
        read_image(path)


def test_a_sliver_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="times as long"):
        read_image(saved(tmp_path / "a.png", Image.new("RGB", (5000, 2))))


def test_a_folder_is_searched_at_every_depth(pictures: Callable[..., Path]) -> None:
    folder = pictures(2)
    (folder / "deep").mkdir()
    Image.fromarray(RGB).save(folder / "deep" / "c.png")
    (folder / "notes.txt").write_text("no picture")
    assert list(ImageFiles(str(folder)).ids()) == ["deep/c.png", "good_0000.png", "good_0001.png"]


def test_what_is_left_out_of_a_folder_is_counted_and_said(tmp_path: Path, caplog) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "b.jfif", format="JPEG")
    Image.fromarray(RGB).save(tmp_path / "c", format="PNG")
    for name in ("x.HEIC", "y.heic", "notes", "z.txt"):
        (tmp_path / name).write_text("no picture to Pillow")
    with caplog.at_level(logging.WARNING):
        data = ImageFiles(str(tmp_path))
    assert list(data.ids()) == ["a.png", "b.jfif", "c"]
    counts = {"left_out .heic": 2, "left_out .txt": 1, "left_out without an ending": 1}
    assert data.counts() == counts
    assert "4 files are left out" in caplog.text and "2 .heic" in caplog.text
    for i in range(3):
        assert data.load(i).images[0].size == (20, 12)


def test_a_glob_and_a_single_file(pictures: Callable[..., Path]) -> None:
    folder = pictures(3)
    assert list(ImageFiles(f"{folder}/*_000[12].png").ids()) == ["good_0001.png", "good_0002.png"]
    assert list(ImageFiles(f"{folder}/good_0000.png").ids()) == ["good_0000.png"]
    assert list(ImageFiles(str(folder), max_samples=2).ids()) == ["good_0000.png", "good_0001.png"]


@pytest.mark.parametrize("typed", ["\u00e9te\u0301", "e\u0301t\u00e9", "\u00e9t\u00e9"])
def test_a_path_is_found_however_it_is_composed(tmp_path: Path, typed: str) -> None:
    (tmp_path / "\u00e9te\u0301").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "\u00e9te\u0301" / "\u00e9t\u00e9.png")
    for path in (tmp_path / typed / f"{typed}.png", tmp_path / typed):
        assert ImageFiles(str(path)).load(0).images[0].size == (3, 3)


def test_the_same_name_in_two_folders_stays_two_samples(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(RGB).save(tmp_path / name / "x.png")
    ids = list(ImageFiles([f"{tmp_path}/a", f"{tmp_path}/b"]).ids())
    assert len(set(ids)) == 2


def test_nothing_found_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no picture"):
        ImageFiles(str(tmp_path))
    with pytest.raises(MissingInputError, match="no picture"):
        ImageFiles(f"{tmp_path}/*.png")
    with pytest.raises(MissingInputError, match="no such file"):
        ImageFiles(f"{tmp_path}/x.png")
    with pytest.raises(ConfigError, match="max_samples"):
        ImageFiles(str(tmp_path), max_samples=-2)
