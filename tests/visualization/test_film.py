"""A film as a file: the video that a player sees, pictures, and what happens when writing fails."""

import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from known_trajectories import decoded
from PIL import Image

from interp_lab.errors import ConfigError, InterpLabError, MissingInputError
from interp_lab.studies.trajectory.figures.film_colors import (
    color_function,
    mixed,
    red_green,
    scaled,
)
from interp_lab.studies.trajectory.figures.film_images import (
    CellImage,
    Marker,
    Slot,
    arranged,
    cell_edges,
)
from interp_lab.visualization.film import Film, FilmError, find_ffmpeg, save_film, shown_seconds

SIDES = (64, 96)


def gray_film(n: int, sides: tuple[int, int] = SIDES) -> Film:
    """Frame i has the brightness 20 * i + 20."""

    def frames() -> Iterator[np.ndarray]:
        for i in range(n):
            yield np.full((*sides, 3), 20 * i + 20, dtype=np.uint8)

    return Film(frames, n, 4.0)


def noise_film(n: int) -> Film:
    """Frames that no encoder can make small."""

    def frames() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(n):
            yield rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)

    return Film(frames, n)


def own_words(length: np.ndarray) -> np.ndarray:
    """A user's colour function: blue by weight."""
    zero = np.zeros_like(length)
    return np.stack([zero, zero, 255 * length], axis=-1).astype(np.uint8)


def grows_wrong(weights: np.ndarray) -> np.ndarray:
    """A user's colour function that gives floats."""
    return np.zeros((len(weights), 3))


def test_a_video_has_every_frame_in_a_format_that_browsers_play(tmp_path: Path) -> None:
    path = save_film(gray_film(7), tmp_path / "a" / "film.mp4", "mp4", {"title": "t"})
    about, frames = decoded(path)
    assert (about["codec"], about["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    assert about["size"] == (96, 64) and about["fps"] == 4
    assert len(frames) == 7 and frames[0].shape == (64, 96, 3)
    # Lossy, but a plain gray comes back within two of 255 steps.
    for i, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - (20 * i + 20)).max() <= 2
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is loaded whole"
    assert [p.name for p in path.parent.iterdir()] == ["film.mp4"]


def turning_film(n: int, fps: float = 4.0) -> Film:
    """A red square that goes from left to right over a gray that grows brighter."""

    def frames() -> Iterator[np.ndarray]:
        for i in range(n):
            frame = np.full((64, 96, 3), 20 * i + 20, dtype=np.uint8)
            frame[16:48, 8 * i : 8 * i + 16] = (230, 30, 30)
            yield frame

    return Film(frames, n, fps)


@pytest.mark.parametrize("kind", ["gif", "webp"])
@pytest.mark.parametrize("fps", [2.0, 3.0])
def test_an_animation_has_the_frames_times_and_pixels_of_the_video(
    tmp_path: Path, kind: str, fps: float
) -> None:
    film = turning_film(7, fps)
    _, frames = decoded(save_film(film, tmp_path / "film.mp4", "mp4"))
    path = save_film(film, tmp_path / f"film.{kind}", kind)
    with Image.open(path) as animation:
        assert animation.format == kind.upper()
        assert (animation.n_frames, animation.size) == (7, (96, 64))
        assert animation.info["loop"] == 0, "for ever"
        lengths = []
        for i, (true, video) in enumerate(zip(film.frames(), frames, strict=True)):
            animation.seek(i)
            shown = np.asarray(animation.convert("RGB")).astype(int)
            lengths.append(animation.info["duration"])
            # Within the squares: at borders colours are coarser in lossy formats.
            for here in (np.s_[20:44, 8 * i + 4 : 8 * i + 12], np.s_[:8, :]):
                assert np.abs(shown[here] - true[here]).max() <= 10, (kind, i)
                assert np.abs(shown[here] - video[here]).max() <= 12, (kind, i)
    # Hundredths of a second in a GIF, thousandths in WebP, and none lost over the whole.
    assert all(abs(one - 1000 / fps) <= 10 for one in lengths), lengths
    assert abs(sum(lengths) - 7000 / fps) <= 10
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["film.mp4", path.name])


def test_equal_pictures_of_an_animation_take_their_time(tmp_path: Path) -> None:
    """WebP keeps one of them and shows it as long."""
    frame = np.full((64, 96, 3), 90, dtype=np.uint8)
    for kind in ("gif", "webp"):
        film = Film(lambda: iter([frame] * 3 + [frame + 9] * 3), 6)
        path = save_film(film, tmp_path / f"film.{kind}", kind)
        assert shown_seconds(path) == pytest.approx(3.0, abs=0.01)
        still = save_film(Film(lambda: iter([frame]), 1), tmp_path / f"still.{kind}", kind)
        assert np.abs(np.asarray(Image.open(still).convert("RGB")).astype(int) - frame).max() <= 2


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_that_is_cut_short_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = save_film(turning_film(2), tmp_path / f"film.{kind}", kind)
    before = path.read_bytes()
    fewer = Film(turning_film(3).frames, 5, 4.0)
    with pytest.raises(FilmError, match="left pictures out"):
        save_film(fewer, path, kind)
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no room here >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(FilmError, match="no room here.*untouched"):
        save_film(turning_film(3), path, kind)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ffmpeg", path.name]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_memory_of_an_animation_does_not_grow_with_its_pictures(tmp_path: Path, kind: str) -> None:
    """Python's own; thirty more pictures of 0.7 MB each would be 20 MB."""

    def bands(n: int) -> Iterator[np.ndarray]:
        for i in range(n):
            frame = np.full((360, 640, 3), 40, dtype=np.uint8)
            frame[10 * i : 10 * i + 10] = 200
            yield frame

    def peak(n: int) -> int:
        tracemalloc.start()
        save_film(Film(lambda: bands(n), n), tmp_path / f"film.{kind}", kind)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(34) - peak(4) < 3e6


def test_frames_become_numbered_pngs_and_replace_an_earlier_folder(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    save_film(gray_film(5), folder, "frames")
    save_film(gray_film(3), folder, "frames")
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["0001.png", "0002.png", "0003.png"]
    assert (np.asarray(Image.open(folder / "0002.png")) == 40).all()
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_picture_is_a_film_of_one_frame(tmp_path: Path) -> None:
    path = save_film(gray_film(1), tmp_path / "p.png", "png", {"title": "한국", "description": "d"})
    image = Image.open(path)
    assert (np.asarray(image) == 20).all() and image.info["Title"] == "한국"
    with pytest.raises(FilmError, match="a film of 2 pictures cannot be a png"):
        save_film(gray_film(2), path, "png")


def test_odd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FilmError, match="even sides, the pictures are 95x64"):
        save_film(gray_film(2, (64, 95)), tmp_path / "film.mp4", "mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["/no/such/ffmpeg", "{tmp}/not_executable"])
def test_a_missing_ffmpeg_is_one_line_and_leaves_the_earlier_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / "not_executable").write_text("x")
    path = save_film(gray_film(2), tmp_path / "film.mp4", "mp4")
    before = path.read_bytes()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program.format(tmp=tmp_path))
    with pytest.raises(MissingInputError, match="no program that can be run: pip install") as e:
        save_film(gray_film(3), path, "mp4")
    assert "\n" not in str(e.value) and path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4", "not_executable"]


@pytest.mark.filterwarnings("error")
def test_an_encoder_that_fails_gives_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho first >&2\necho Unknown encoder libx264 >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(FilmError, match="Unknown encoder libx264.*untouched") as caught:
        save_film(noise_film(30), tmp_path / "film.mp4", "mp4")
    assert "\n" not in str(caught.value)
    assert not [r for r in caplog.records if r.name.startswith("imageio")], "one line, not two"


@pytest.mark.parametrize("signal", ["KILL", "XFSZ"])
def test_an_encoder_that_ends_without_a_word_leaves_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    """It has taken every picture, so only its exit code tells."""
    path = save_film(gray_film(2), tmp_path / "film.mp4", "mp4")
    before = path.read_bytes()
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\nkill -{signal} $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(FilmError, match="without a word.*untouched"):
        save_film(gray_film(3), path, "mp4")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ffmpeg", "film.mp4"]


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
def test_a_picture_that_cannot_be_drawn_ends_the_encoder(tmp_path: Path, kind: str) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from noise_film(3).frames()
        raise ValueError("no ink")

    with pytest.raises(ValueError, match="no ink"):
        save_film(Film(frames, 5), tmp_path / f"film.{kind}", kind)
    assert not list(tmp_path.iterdir()) and not encoders_at_work()


def encoders_at_work() -> list[str]:
    """Command lines of this process's children that run ffmpeg."""
    names = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    return [name for name in names if "ffmpeg" in name]


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp", "png", "frames"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, kind: str) -> None:
    """A file in the folder's place stops root as well, whom permissions do not stop."""
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(FilmError, match=r"figures/film.*(Not a directory|File exists)") as caught:
        save_film(gray_film(1), tmp_path / "figures" / "film", kind)
    assert "\n" not in str(caught.value)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["mp4", "frames"])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_file(mounted: Path, kind: str) -> None:
    path = mounted / f"film.{kind}"
    save_film(gray_film(2), path, kind)
    before = path.read_bytes() if kind == "mp4" else len(list(path.iterdir()))
    with pytest.raises(FilmError, match="the disk is full; free some space") as caught:
        save_film(noise_film(40), path, kind)
    assert "\n" not in str(caught.value)
    assert before == (path.read_bytes() if kind == "mp4" else len(list(path.iterdir())))
    assert [p.name for p in mounted.iterdir()] == [path.name], "nothing half-written is left"


def test_a_file_larger_than_allowed_is_a_reason_not_a_video(tmp_path: Path) -> None:
    """Stands in for a full disk where no file system can be mounted: writing stops part way."""
    path = save_film(gray_film(2), tmp_path / "film.mp4", "mp4")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(FilmError, match="untouched|full"):
            save_film(noise_film(40), path, "mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_a_read_only_file_system_is_one_line(mounted: Path) -> None:
    save_film(gray_film(2), mounted / "film.mp4", "mp4")
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(InterpLabError, match="cannot be written") as caught:
        save_film(gray_film(3), mounted / "film.mp4", "mp4")
    assert "\n" not in str(caught.value) and len(list(mounted.iterdir())) == 1


def test_weights_are_min_max_scaled_and_raised() -> None:
    values = np.array([0.1, 0.2, 0.5])
    np.testing.assert_allclose(scaled(values, 0.5), [0, 0.25**0.5, 1], atol=1e-12)
    assert (scaled(np.array([0.3, 0.3]), 0.4) == 0).all()
    assert scaled(np.array([]), 0.4).shape == (0,)


def test_colors_by_name_by_colormap_and_by_dotted_path() -> None:
    weights = np.array([0.0, 0.5, 1.0])
    assert red_green(weights).tolist() == [[255, 0, 0], [128, 128, 0], [0, 255, 0]]
    assert color_function("gray")(weights)[[0, 2]].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert color_function(f"{__name__}.own_words")(weights)[:, 2].tolist() == [0, 127, 255]
    assert color_function(own_words)(weights).tolist() == own_words(weights).tolist()


@pytest.mark.parametrize(
    ("colors", "why"),
    [
        ("virids", "Did you mean 'viridis'"),
        ("no_such_module.colors", "cannot import no_such_module"),
        (
            "interp_lab.studies.trajectory.figures.film_colors.red_gren",
            "no function 'red_gren'. Did you mean",
        ),
    ],
)
def test_colors_that_there_are_not(colors: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        color_function(colors)


def test_a_colour_function_that_returns_something_else_is_named() -> None:
    with pytest.raises(ConfigError, match=r"grows_wrong: .* returned float64 of shape \(4, 3\)"):
        color_function(grows_wrong)(np.zeros(4))


@pytest.mark.parametrize(("n", "length"), [(1, 1), (6, 494), (7, 100), (30, 31), (50, 560), (9, 4)])
def test_cells_cover_a_length_exactly(n: int, length: int) -> None:
    edges = cell_edges(n, length)
    assert edges[0] == 0 and edges[-1] == length and (np.diff(edges) >= 0).all()
    assert edges.tolist() == [round(i * length / n) for i in range(n + 1)]


@pytest.mark.parametrize("size", [(61, 83), (7, 9), (1, 1), (3, 200)])
def test_every_pixel_has_the_colour_of_its_cell(size: tuple[int, int]) -> None:
    """Hand arithmetic: half of the picture's value, half of the cell's, rounded half up."""
    grid, strength = (3, 4), 0.5
    picture = np.full((10, 10, 3), 101, np.uint8)
    image = CellImage(picture, grid, Slot(0, 0, size[1], size[0]), [], 9)
    colors = np.arange(36, dtype=np.uint8).reshape(12, 3) * 7
    out = np.zeros((*size, 3), np.uint8)
    image.draw(out, colors, np.full(12, strength))
    down, across = cell_edges(3, size[0]), cell_edges(4, size[1])
    lined = {0: np.diff(down).min() >= 6, 1: np.diff(across).min() >= 6}
    for y, x in np.ndindex(*size):
        if (lined[0] and y in down[1:-1]) or (lined[1] and x in across[1:-1]):
            continue
        row = int(np.searchsorted(down, y, side="right")) - 1
        col = int(np.searchsorted(across, x, side="right")) - 1
        expected = [(101 + int(c) + 1) // 2 for c in colors[row * 4 + col]]
        assert out[y, x].tolist() == expected, (y, x)


@pytest.mark.parametrize("point", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25), (1.4, -2.0)])
def test_a_marker_stays_on_its_picture(point: tuple[float, float]) -> None:
    marker = Marker(0, *point, "reference")
    image = CellImage(None, (1, 1), Slot(0, 0, 80, 60), [marker], 21)
    out = np.zeros((60, 80, 3), np.uint8)
    image.draw(out, np.zeros((1, 3), np.uint8), np.ones(1))
    y = min(59, max(0, int(point[1] * 60)))
    x = min(79, max(0, int(point[0] * 80)))
    assert (out[y, x] < 40).all(), "the middle of a cross is its dark ink"


@pytest.mark.parametrize(
    "sides",
    [
        [(1, 1)],
        [(50, 10_000)],
        [(10_000, 50)],
        [(300, 500), (400, 260)],
        [(224, 224)] * 5,
        [(6, 1280), (300, 300), (64, 64)],
    ],
)
def test_pictures_lie_apart_inside_the_panel(sides: list[tuple[int, int]]) -> None:
    room = (494, 561)
    slots = arranged(sides, room, 12)
    taken = np.zeros(room, dtype=int)
    for slot, (height, width) in zip(slots, sides, strict=True):
        assert slot.top + slot.height <= room[0] and slot.left + slot.width <= room[1]
        taken[slot.top : slot.top + slot.height, slot.left : slot.left + slot.width] += 1
        assert slot.stretched == (max(width / height, height / width) > 12)
        assert min(slot.width, slot.height) >= 20
        if not slot.stretched:
            assert abs(slot.width / slot.height - width / height) < 0.03 * width / height
    assert taken.max() == 1


def test_mixing_is_rounded() -> None:
    assert mixed(np.array([255, 0, 100]), 255, 0.55).tolist() == [255, 115, 170]


def test_find_ffmpeg_finds_the_one_that_comes_with_the_package() -> None:
    assert os.access(find_ffmpeg(), os.X_OK)


def test_films_need_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, json, interp_lab.studies.trajectory.figures.film,"
        "interp_lab.studies.trajectory.figures.strip, interp_lab.studies.trajectory.figures.curves;"
        "print(json.dumps([m for m in ('torch', 'transformers', 'matplotlib.pyplot')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
