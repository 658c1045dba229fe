"""What is assumed of imageio's inside: where its writer of videos keeps the encoder's process.

`write_frames` neither says whether ffmpeg succeeded nor what it complained of: it lets ffmpeg write
to this process's standard error and drops its exit code. Without both, a video that a full disk cut
short would pass for a whole one.

GIF and WebP go through imageio's own writer, which hands them to the same program. Its Pillow
writer holds every picture of an animation in memory.
"""

import inspect
import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from imageio_ffmpeg import write_frames

STANDARD_ERROR = 2


def encoder(
    path: Path, size: tuple[int, int], fps: float, options: list[str], complaints: IO[bytes]
) -> Generator[None, Any, None]:
    """Start ffmpeg and return `write_frames`' generator, ready for pictures: `send` them.

    Args:
        path: of the video.
        size: width and height of the pictures, which are RGB with 8 bits.
        fps: pictures a second.
        options: for the output; they name the codec's settings.
        complaints: a file; ffmpeg writes its errors there.

    Raises:
        OSError: if ffmpeg cannot be started.
    """
    writer = write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=1,
        ffmpeg_log_level="error",
        # Early versions round the rate to two digits; a later option counts.
        input_params=["-r", str(Fraction(fps).limit_denominator(1001))],
        output_params=options,
    )
    with said_by(complaints):
        writer.send(None)  # it starts ffmpeg, which keeps what it is given here
    return writer


# Every picture has its own 256 colours, so none is held for another's palette; an animation begins
# again at its end. Lossy WebP has colours at half resolution, as the video has.
ANIMATIONS = {
    "gif": (
        {"codec": "gif", "pixelformat": "pal8"},
        "-vf split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none",
    ),
    "webp": ({"codec": "libwebp_anim", "pixelformat": "yuv420p"}, "-quality 90"),
}


@contextmanager
def animator(path: Path, fps: float, kind: str) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an animation and give a function that adds a picture (y, x, 3) uint8 to it.

    The first picture starts ffmpeg, which has the standard error of that moment for its words.
    imageio's ffmpeg plugin takes files by their suffix; with another's it writes what `-f` says.

    Args:
        path: of the file.
        fps: pictures a second.
        kind: gif or webp.

    Raises:
        OSError: if ffmpeg stops.
    """
    import imageio.v3 as imageio

    options, parameters = ANIMATIONS[kind]
    rate = str(Fraction(fps).limit_denominator(1001))
    with imageio.imopen(path, "wI", legacy_mode=True, plugin="FFMPEG", extension=".mkv") as file:  # type: ignore[call-overload]
        writer = file.legacy_get_writer(
            fps=fps,
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            input_params=["-r", rate],
            output_params=[*parameters.split(" ", 1), "-loop", "0", "-f", kind],
            **options,
        )
        try:
            yield writer.append_data
        finally:
            writer.close()


@contextmanager
def said_by(file: IO[bytes]) -> Iterator[None]:
    """Let a process that is started here have a file for its standard error."""
    kept = os.dup(STANDARD_ERROR)
    os.dup2(file.fileno(), STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)


def process_of(writer: Generator[None, Any, None]) -> "subprocess.Popen[bytes]":
    """Return ffmpeg's process: the writer's local variable `p`, until it is closed."""
    return inspect.getgeneratorlocals(writer)["p"]


def finished(writer: Generator[None, Any, None], process: "subprocess.Popen[bytes]") -> int:
    """Let ffmpeg finish the video, wait for that, and return its exit code.

    The writer leaves the pipe to an ffmpeg that has ended open, which is closed here.
    """
    writer.close()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    return process.wait()
