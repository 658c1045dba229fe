"""A film: pictures made one by one, saved as a video or animation, as numbered PNGs, or as one PNG.

Only the picture in hand is in memory. A file appears whole under its name or not at all, so a full
disk or a stop leaves what was there before.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo

from interp_lab import __version__
from interp_lab.errors import InterpLabError, MissingInputError
from interp_lab.libraries.ffmpeg_inside import animator, encoder, finished, process_of, said_by

VIDEO, FOLDER, PICTURE = "mp4", "frames", "png"
# What slides and web pages show by themselves, again and again.
GIF, WEBP = "gif", "webp"
FILM_FORMATS = (VIDEO, GIF, WEBP, FOLDER, PICTURE)
# What every browser plays: H.264 with colours at half resolution, in the colours of HD television.
ENCODER = (
    "-preset",
    "veryfast",
    "-crf",
    "18",
    "-g",
    "48",
    "-vf",
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
    "-colorspace",
    "bt709",
    "-color_primaries",
    "bt709",
    "-color_trc",
    "bt709",
    "-movflags",
    "+faststart",
    "-f",
    "mp4",
)
# Below this there is no room for a file: file systems keep a little back.
FULL_BYTES = 64 * 1024


class FilmError(InterpLabError):
    """A video or picture could not be written."""


@dataclass(frozen=True)
class Film:
    """Pictures in a row.

    Args:
        frames: returns a new iterator over them, each (height, width, 3) uint8 with even sides.
        n_frames: how many there are, at least 1.
        fps: pictures a second.
    """

    frames: Callable[[], Iterator[np.ndarray]]
    n_frames: int
    fps: float = 2.0


def save_film(film: Film, path: Path, kind: str, about: Mapping[str, str] | None = None) -> Path:
    """Write a film, whole or not at all.

    Args:
        film: what.
        path: where; of a folder of pictures, the folder. Folders above it are made.
        kind: one of `FILM_FORMATS`; png is for a film of one picture.
        about: `title` and `description`, stored in the file.

    Returns:
        The path.

    Raises:
        MissingInputError: if there is no ffmpeg.
        FilmError: if the place cannot be written, or the disk is full.
    """
    if film.n_frames < 1 or (kind == PICTURE and film.n_frames > 1):
        raise FilmError(f"{path}: a film of {film.n_frames} pictures cannot be a {kind}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writers = {VIDEO: _write_video, FOLDER: _write_folder, PICTURE: _write_picture}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in (GIF, WEBP):
            write_animation(film, temporary, kind)
        else:
            writers[kind](film, temporary, about or {})
        _put(temporary, path)
    except OSError as error:
        raise FilmError(_reason(path, error.strerror or str(error))) from error
    finally:
        _remove(temporary)
    return path


def find_ffmpeg() -> str:
    """Return the path of ffmpeg: `IMAGEIO_FFMPEG_EXE`, the package's own, or the system's.

    Raises:
        MissingInputError: if it is not there or cannot be run.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    remedy = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg"
    try:
        found = get_ffmpeg_exe()
    except RuntimeError as error:
        raise MissingInputError(f"video: there is no ffmpeg on this machine: {remedy}") from error
    program = shutil.which(found)
    if program is None:
        raise MissingInputError(f"video: {found} is no program that can be run: {remedy}")
    return program


def _write_video(film: Film, temporary: Path, about: Mapping[str, str]) -> None:
    frames = film.frames()
    first = next(frames)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise FilmError(f"{temporary}: H.264 needs even sides, the pictures are {width}x{height}")
    find_ffmpeg()
    told = [
        f"title={about.get('title', '')}",
        f"comment={about.get('description', '')}",
        f"encoding_tool=interp_lab {__version__}",
    ]
    options = [*ENCODER, *(part for text in told for part in ("-metadata", text))]
    with tempfile.TemporaryFile() as complaints:
        writer = encoder(temporary, (width, height), film.fps, options, complaints)
        process = process_of(writer)
        try:
            n_written = _feed(writer, first, frames)
        except BaseException:
            process.kill()  # the video is not wanted any more, and closing would wait for it
            raise
        finally:
            code = finished(writer, process)
        if code or n_written != film.n_frames:
            line = _last_line(complaints)
            raise OSError(line or "ffmpeg stopped before the end, without a word")


def write_animation(film: Film, path: Path, kind: str) -> None:
    """Write an animation that begins again at its end, picture by picture.

    What the file shows is read back: neither ffmpeg's exit code nor its words come through.

    Raises:
        OSError: if it could not be written whole.
    """
    find_ffmpeg()
    with tempfile.TemporaryFile() as complaints:
        try:
            with animator(path, film.fps, kind) as append:
                is_still = _append_all(append, film.frames(), complaints)
            missing = shown_seconds(path) - film.n_frames / film.fps
        except OSError as error:
            raise OSError(_last_line(complaints) or "ffmpeg stopped before the end") from error
        # Both formats round times: a GIF to hundredths of a second, WebP to thousandths.
        # Of equal pictures WebP makes one, and of a film of these a picture without a duration.
        if abs(missing) > 0.01 and not is_still:
            raise OSError(_last_line(complaints) or "ffmpeg left pictures out, without a word")


def _append_all(
    append: Callable[[np.ndarray], None], frames: Iterator[np.ndarray], complaints: IO[bytes]
) -> bool:
    """Add pictures one by one, the first of which starts ffmpeg; return whether all are equal."""
    first = next(frames)
    with said_by(complaints):
        append(np.ascontiguousarray(first))
    is_still = True
    for frame in frames:
        append(np.ascontiguousarray(frame))
        is_still = is_still and np.array_equal(frame, first)
    return is_still


def shown_seconds(path: Path) -> float:
    """Return how long an animation takes: the sum of its pictures' durations; 0 of a still."""
    with path.open("rb") as file:
        if file.read(4) == b"RIFF":
            return sum(_webp_durations(file)) / 1000
    with Image.open(path) as animation:
        frames = ImageSequence.Iterator(animation)
        return sum(frame.info.get("duration", 0) for frame in frames) / 1000


def _webp_durations(file: IO[bytes]) -> Iterator[int]:
    """Yield the milliseconds of each picture; Pillow would hold the whole file for them.

    A WebP is a list of chunks: a name of four letters, a length, and so many bytes, made even. A
    picture's chunk begins with its place and size in 12 bytes, then its duration in 3.
    """
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        end = file.tell() + size + size % 2
        if head[:4] == b"ANMF":
            yield int.from_bytes(file.read(15)[12:], "little")
        file.seek(end)


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _feed(writer: Generator[None, Any, None], first: np.ndarray, rest: Iterator[np.ndarray]) -> int:
    """Give pictures to the encoder one by one; return how many it took, -1 if it stopped."""
    n = 0
    for frame in itertools.chain([first], rest):
        if frame.shape != first.shape:
            raise FilmError(f"picture {n} is {frame.shape}, the first one {first.shape}")
        try:
            writer.send(np.ascontiguousarray(frame))
        except OSError:  # ffmpeg's own words, which follow, say why it stopped
            return -1
        n += 1
    return n


def _write_folder(film: Film, temporary: Path, about: Mapping[str, str]) -> None:
    temporary.mkdir()
    digits = max(4, len(str(film.n_frames)))
    for number, frame in enumerate(film.frames(), 1):
        one = {**about, "title": f"{about.get('title', '')}, frame {number} of {film.n_frames}"}
        _write_png(frame, temporary / f"{number:0{digits}d}.png", one)


def _write_picture(film: Film, temporary: Path, about: Mapping[str, str]) -> None:
    _write_png(next(film.frames()), temporary, about)


def _write_png(frame: np.ndarray, path: Path, about: Mapping[str, str]) -> None:
    info = PngInfo()
    info.add_text("Software", f"interp_lab {__version__}")
    for key in ("title", "description"):
        info.add_itxt(key.capitalize(), about.get(key, ""))
    Image.fromarray(frame).save(path, format="png", pnginfo=info, compress_level=6)


def _put(temporary: Path, path: Path) -> None:
    """Give the finished file or folder its name; a folder of an earlier drawing makes room."""
    if not (path.is_dir() and temporary.is_dir()):
        os.replace(temporary, path)
        return
    earlier = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, earlier)
    os.replace(temporary, path)
    shutil.rmtree(earlier)


def _remove(path: Path) -> None:
    """Remove what is left of a drawing, if anything; that it cannot be must not hide why."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        with contextlib.suppress(OSError):
            path.unlink()


def _reason(path: Path, why: str) -> str:
    """Return one line that says what is wrong and what to do."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    full = shutil.disk_usage(folder).free < FULL_BYTES
    if full or "No space left" in why:
        return f"{path}: the disk is full; free some space and draw again with mode=render"
    if not os.access(folder, os.W_OK):
        return f"{path}: the folder {folder} cannot be written to; give another output.dir"
    return f"{path}: cannot be written ({why}); what was there before is untouched"
