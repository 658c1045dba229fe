"""What `interp_lab.libraries.ffmpeg_inside` assumes of imageio_ffmpeg, one test an assumption."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from interp_lab.libraries.ffmpeg_inside import animator, encoder, finished, process_of, said_by

FRAME = np.zeros((32, 48, 3), np.uint8)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for ffmpeg: reads everything, complains, and ends with exit code 7."""
    path = tmp_path / "ffmpeg"
    path.write_text("#!/bin/sh\ncat > /dev/null\necho out of ideas >&2\nexit 7\n")
    path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    return path


def test_the_process_and_its_words_are_those_of_the_encoder(
    program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryFile() as complaints:
        writer = encoder(tmp_path / "f.mp4", (48, 32), 2.0, [], complaints)
        process = process_of(writer)
        assert isinstance(process, subprocess.Popen) and process.args[0] == str(program)
        writer.send(FRAME)
        os.write(2, b"ours\n")
        assert finished(writer, process) == 7 and process.stdin.closed
        complaints.seek(0)
        assert complaints.read() == b"out of ideas\n"
    assert capfd.readouterr().err == "ours\n", "standard error is back where it was"


def test_the_encoder_is_no_member_of_this_process_group(program: Path, tmp_path: Path) -> None:
    """Ctrl-C is for the process that was asked to draw; it ends this one."""
    with tempfile.TemporaryFile() as complaints:
        writer = encoder(tmp_path / "f.mp4", (48, 32), 2.0, [], complaints)
        assert os.getpgid(process_of(writer).pid) != os.getpgid(0)
        finished(writer, process_of(writer))


@pytest.mark.parametrize(("fps", "wanted"), [(2.0, 2), (23.976, 23.98), (0.5, 0.5), (12.5, 12.5)])
def test_a_video_has_its_size_and_rate(tmp_path: Path, fps: float, wanted: float) -> None:
    """ffmpeg prints rates with two digits."""
    with tempfile.TemporaryFile() as complaints:
        writer = encoder(tmp_path / "f.mp4", (48, 34), fps, [], complaints)
        for _ in range(5):
            writer.send(FRAME.repeat(2, axis=0)[:34])
        assert finished(writer, process_of(writer)) == 0
    about = next(imageio_ffmpeg.read_frames(str(tmp_path / "f.mp4")))
    assert about["size"] == (48, 34) and about["fps"] == wanted


@pytest.mark.parametrize(("kind", "begins"), [("gif", b"GIF89a"), ("webp", b"RIFF")])
def test_imageio_writes_an_animation_under_any_name(
    tmp_path: Path, kind: str, begins: bytes
) -> None:
    """Its plugin goes by a suffix that it is told, and ffmpeg by the kind."""
    with animator(tmp_path / "film.tmp", 2.0, kind) as append:
        for i in range(3):
            append(FRAME + 40 * i)
    assert (tmp_path / "film.tmp").read_bytes().startswith(begins)


def test_the_first_picture_starts_the_program_of_an_animation(
    program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryFile() as complaints:
        with animator(tmp_path / "film.gif", 2.0, "gif") as append:
            with said_by(complaints):
                append(FRAME)
            append(FRAME)
        complaints.seek(0)
        assert complaints.read() == b"out of ideas\n"
    assert "out of ideas" not in capfd.readouterr().err


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, interp_lab.libraries.ffmpeg_inside; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
