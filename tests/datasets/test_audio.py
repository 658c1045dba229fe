"""Sounds on disk: what the model hears of each kind of file, and which are refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from interp_lab.datasets.audio import RATE, read_audio, trim_silence
from interp_lab.errors import SampleError


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """A sine of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_samples_are_what_was_written(tmp_path: Path, name: str) -> None:
    waveform, rate = read_audio(write(tmp_path / name, tone(0.5)))
    assert (waveform.dtype, waveform.shape, rate) == (np.float32, (8000,), RATE)
    assert waveform == pytest.approx(tone(0.5), abs=2**-15)


def test_48_khz_stereo_becomes_16_khz_mono(tmp_path: Path) -> None:
    left, right = tone(1.0, 48_000), tone(1.0, 48_000, hertz=1000)
    stereo = np.stack([left, right], axis=1)
    waveform, rate = read_audio(write(tmp_path / "a.wav", stereo, 48_000))
    assert (waveform.shape, rate) == ((16_000,), RATE)
    expected = (tone(1.0) + tone(1.0, hertz=1000)) / 2
    inner = slice(800, -800)  # the filter rings at both ends
    assert waveform[inner] == pytest.approx(expected[inner], abs=1e-3)


def test_a_frequency_above_half_the_rate_is_no_other_frequency(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.5, 48_000, hertz=12_000), 48_000)
    assert np.abs(read_audio(path)[0][800:-800]).max() < 1e-3


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (np.zeros(0), "holds no sound"),
        (tone(0.03), "30 ms; one audio token takes 40 ms"),
        (tone(301.0), "301 s; no model here hears more than 300 s"),
        (np.zeros(RATE), "silent"),
        (np.stack([tone(0.5), -tone(0.5)], axis=1), "silent: the mean of its channels"),
        (np.stack([tone(0.5), 3e-5 - tone(0.5)], axis=1), "channels cancel each other"),
        (np.stack([tone(0.5), -0.99994 * tone(0.5)], axis=1), "channels cancel each other"),
        (tone(0.5) * 3e-5, "silent: its peak is 1.5e-05"),
        (np.full(8000, 0.5), "silent: its peak is 0"),
        (np.where(np.arange(8000) == 4000, np.nan, tone(0.5)), "NaN or infinite"),
        (np.where(np.arange(8000) == 4000, np.inf, tone(0.5)), "NaN or infinite"),
        (tone(0.5) * 32768, "peak 1.638e+04; samples should be scaled"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, wave: np.ndarray, says: str) -> None:
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    with pytest.raises(SampleError) as refused:
        read_audio(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


def test_files_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    missing, folder = tmp_path / "a.wav", tmp_path / "b.wav"
    empty, text = tmp_path / "c.wav", tmp_path / "d.wav"
    folder.mkdir()
    empty.touch()
    text.write_text("no sound")
    for path, says in ((missing, "no such"), (folder, "no such"), (empty, "cannot be read")):
        with pytest.raises(SampleError, match=says):
            read_audio(path)
    with pytest.raises(SampleError, match="cannot be read as audio"):
        read_audio(text)


def test_a_cut_file_is_not_read_as_a_whole_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 8000))
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(SampleError):
        read_audio(path)


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.aiff", "a.au", "a.w64", "a.caf"]
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_lost_its_end_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE)
    soundfile.write(path, noise, RATE)
    assert len(read_audio(path)[0]) >= 2 * RATE  # whole, it is read
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SampleError, match=r"cut off|cannot be read"):
        read_audio(path)


def test_a_large_wav_that_lost_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0), RATE, format="RF64")
    assert read_audio(path)[0].shape == (RATE,)
    path.write_bytes(path.read_bytes()[:16_000])
    with pytest.raises(SampleError, match="cut off: 15896 of 32000 bytes"):
        read_audio(path)


def test_gsm_is_read_though_it_cannot_be_sought_in(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 8000), 8000, "GSM610")
    assert abs(len(read_audio(path)[0]) - RATE) <= 640  # whole frames of 320 samples at 8 kHz


def test_a_stream_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.5))
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff" * 4
    path.write_bytes(bytes(data))
    assert len(read_audio(path)[0]) == 8000


def test_one_silent_channel_of_two_is_heard(tmp_path: Path) -> None:
    stereo = np.stack([tone(0.5), np.zeros(8000)], axis=1)
    assert np.abs(read_audio(write(tmp_path / "a.wav", stereo))[0]).max() > 0.2


def test_silence_is_cut_off_both_ends() -> None:
    clip = np.concatenate([np.zeros(4000), tone(0.5), np.zeros(1600)]).astype(np.float32)
    kept, (start, end) = trim_silence(clip, RATE)
    assert (start, end) == pytest.approx((0.25, 0.75), abs=0.011)
    assert len(kept) == round((end - start) * RATE)
    assert (kept == clip[round(start * RATE) : round(end * RATE)]).all()
    # 40 dB is a factor of 100 in amplitude.
    faint, loud = clip + 0.003 * np.sign(clip + 1e-9), clip + 0.006 * np.sign(clip + 1e-9)
    assert len(trim_silence(faint, RATE)[0]) == len(kept)
    assert len(trim_silence(loud, RATE)[0]) == len(clip)


def test_a_click_keeps_one_audio_token() -> None:
    for at in (0, 5000, 7999):
        clip = np.zeros(8000, dtype=np.float32)
        clip[at] = 1.0
        kept, (start, end) = trim_silence(clip, RATE)
        assert len(kept) == 640
        assert kept.max() == 1
        assert end - start == pytest.approx(0.04)


def test_a_missing_package_is_one_line_that_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['soxr'] = None\n"
        "from pathlib import Path\n"
        "from interp_lab.datasets.audio import read_audio\n"
        "from interp_lab.errors import ConfigError\n"
        "try: read_audio(Path('a.wav'))\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'interp-lab[audio]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_data_sets_of_words_import_no_torch() -> None:
    code = (
        "import sys, interp_lab.datasets.semdim, interp_lab.studies.semdim.shares\n"
        "print([m for m in ('torch', 'transformers', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
