"""Spoken words from disk: one mono waveform at one rate, or a reason why not.

A model hears whatever array it is given, also zeros and noise. So a file that does not hold a
sound that can be measured is refused here; nothing is put in its place.
"""

from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.datasets.audio_files import cut_off
from interp_lab.datasets.limits import check_sound
from interp_lab.errors import ConfigError, SampleError

RATE = 16_000
# A stream of unknown length promises more samples than any file has.
SEEKLESS = 2**40
# What the released Qwen2.5-Omni hears; a model that hears less says so itself.
MAX_SECONDS = 300.0
# One audio token of Qwen2.5-Omni: a shorter clip has none.
MIN_SECONDS = 0.04
# Below this, three steps of 16 bits, there is noise of a converter and no word.
MIN_PEAK = 1e-4
# A mean of channels below this share of them is what was left when they cancelled each other.
CANCELLED = 0.1
# Samples run from -1 to 1; float files may exceed it a little, but not by this factor.
MAX_PEAK = 8.0
SILENCE_DB = -40.0
SILENCE_FRAME = 0.01


def require_audio() -> tuple[Any, Any]:
    """Return the modules soundfile and soxr.

    Raises:
        ConfigError: if they are not installed; names the extra that brings them.
    """
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: soundfile finds no libsndfile
        raise ConfigError(
            f"audio needs soundfile and soxr ({error}): pip install 'interp-lab[audio]'"
        ) from error
    return soundfile, soxr


def read_audio(path: Path, rate: int = RATE) -> tuple[np.ndarray, int]:
    """Return a sound as one channel at one rate.

    Channels are averaged; another rate is converted by soxr (quality HQ). Amplitudes stay as they
    are: integers are scaled to -1..1, nothing is normalised.

    Args:
        path: a file that libsndfile reads: wav, flac, ogg and others.
        rate: of the result, in Hz.

    Returns:
        (waveform (samples,) float32, rate).

    Raises:
        SampleError: if the file is missing, damaged, empty, shorter than 40 ms, longer than 5 min,
            cut off, silent, of channels that cancel each other, holds a sample that is no finite
            number, or is not scaled to -1..1.
        ConfigError: if the packages that read audio are not installed.
    """
    soundfile, soxr = require_audio()
    if not path.is_file():
        raise SampleError(f"{path}: no such audio file")
    try:
        missing = cut_off(path)
        if missing:
            raise SampleError(f"{path}: cut off: {missing}; copy it again")
        with soundfile.SoundFile(path) as file:
            own_rate = int(file.samplerate)
            promised = int(file.frames)
            check_sound(promised, file.channels, path)
            _check_length(path, promised / own_rate)
            # A format that cannot be sought in, such as GSM, wants to be told how much to read.
            wanted = -1 if file.seekable() else promised
            waves = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise SampleError(f"{path}: cannot be read as audio ({error})") from error
    if promised < SEEKLESS and len(waves) < promised:
        raise SampleError(f"{path}: cut off: {len(waves)} of {promised} samples can be read")
    _check_length(path, len(waves) / own_rate)
    if not np.isfinite(waves).all():
        raise SampleError(f"{path}: holds samples that are NaN or infinite")
    mono = waves.mean(axis=1, dtype=np.float32)
    _check_level(path, waves, mono)
    if own_rate != rate:
        mono = soxr.resample(mono, own_rate, rate, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32), rate


def trim_silence(waveform: np.ndarray, rate: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Return a waveform without the silence at both ends, and what was kept.

    Silent is a frame of 10 ms whose root mean square lies more than 40 dB below that of the
    loudest frame. A clip that would become shorter than 40 ms keeps 40 ms from where it begins.

    Args:
        waveform: (samples,), not all zeros.
        rate: in Hz.

    Returns:
        (kept (samples,), (start, end) of it in the given waveform, in seconds).
    """
    size = max(1, round(rate * SILENCE_FRAME))
    padded = np.pad(waveform.astype(np.float64), (0, -len(waveform) % size))
    power = np.square(padded.reshape(-1, size)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SILENCE_DB / 10))
    first, end = int(loud[0]) * size, (int(loud[-1]) + 1) * size
    end = min(len(waveform), max(end, first + round(rate * MIN_SECONDS)))
    first = max(0, min(first, end - round(rate * MIN_SECONDS)))
    return waveform[first:end], (first / rate, end / rate)


def _check_level(path: Path, waves: np.ndarray, mono: np.ndarray) -> None:
    """Check that there is a sound, also after channels were averaged; a constant is none."""
    peak = float(np.abs(mono).max())
    loudest = float(np.ptp(waves, axis=0).max()) / 2
    if loudest < MIN_PEAK:
        raise SampleError(f"{path}: silent: its peak is {loudest:.2g}")
    own = float(waves.std(axis=0).max())
    if float(mono.std()) < CANCELLED * own:
        raise SampleError(
            f"{path}: its channels cancel each other, silent: the mean of its channels has "
            f"{mono.std() / own:.2g} of their level; save one channel"
        )
    if peak > MAX_PEAK:
        raise SampleError(f"{path}: peak {peak:.4g}; samples should be scaled to -1..1")


def _check_length(path: Path, seconds: float) -> None:
    if seconds == 0:
        raise SampleError(f"{path}: holds no sound (0 samples)")
    if seconds < MIN_SECONDS:
        raise SampleError(
            f"{path}: {seconds * 1000:.3g} ms; one audio token takes {MIN_SECONDS * 1000:.0f} ms"
        )
    if seconds > MAX_SECONDS:
        raise SampleError(
            f"{path}: {seconds:.4g} s; no model here hears more than {MAX_SECONDS:.0f} s: cut the "
            "file"
        )
