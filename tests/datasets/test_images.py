"""Pictures of every kind: each is read as what it shows, or refused with a reason."""

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


def test_a_glob_and_a_single_file(pictures: Callable[..., Path]) -> None:
    folder = pictures(3)
    assert list(ImageFiles(f"{folder}/*_000[12].png").ids()) == ["good_0001.png", "good_0002.png"]
    assert list(ImageFiles(f"{folder}/good_0000.png").ids()) == ["good_0000.png"]
    assert list(ImageFiles(str(folder), max_samples=2).ids()) == ["good_0000.png", "good_0001.png"]


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
