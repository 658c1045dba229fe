"""The phones of a word: where each stands in its IPA text, or when it sounds in its audio.

A phone such as `t͡ʃ` or `ɯː` has several code points, so the data's own spaces and runs are what
separates phones, never the code points.
"""

import re
from pathlib import Path
from typing import Any

from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.records import is_storable
from interp_lab.datasets.semdim_words import nfc
from interp_lab.errors import MissingInputError, SampleError

# Frames by which an alignment and its audio may differ.
ROUNDING = 2
# (label, start, end); half-open, in characters or in seconds.
Phone = tuple[str, float, float]


def ipa_phones(written: str) -> tuple[Phone, ...]:
    """Return the phones of an IPA text that spaces separate: (label, start, end) in characters."""
    return tuple((m[0], m.start(), m.end()) for m in re.finditer(r"\S+", written))


def read_alignment(path: Path, seconds: float) -> tuple[Phone, ...]:
    """Return the phones of an alignment file: (label, start, end) in seconds.

    The file has one label a frame, null for silence. A run of equal labels is one phone, so two
    equal phones with no silence between them count as one.

    Args:
        path: JSON with `phones` (list of text or null) and `frame_duration_ms`.
        seconds: length of the audio; the last phone may end a frame after it, and the frames may
            be two fewer or more.

    Raises:
        SampleError: if the file cannot be read, is malformed, or belongs to another audio.
    """
    try:
        found = read_json("dataset.alignment_dir", str(path))
    except MissingInputError as error:
        raise SampleError(str(error)) from error
    labels, frame = _frames(path, found)
    phones: list[Phone] = []
    before = None
    for number, label in enumerate(labels):
        end = (number + 1) * frame
        if label and label == before:
            phones[-1] = (label, phones[-1][1], end)
        elif label:
            phones.append((label, number * frame, end))
        before = label
    # The extractor rounds the number of frames: the last one may be a part of a frame.
    if phones and phones[-1][2] > seconds + 1.01 * frame:
        raise SampleError(
            f"{path}: the last phone ends at {phones[-1][2]:.2f} s, the audio at {seconds:.2f} s: "
            "not the alignment of this audio"
        )
    aligned = len(labels) * frame
    if abs(aligned - seconds) > ROUNDING * frame + 1e-6:
        raise SampleError(
            f"{path}: {len(labels)} frames are {aligned:.2f} s, the audio has {seconds:.2f} s: not "
            "the alignment of this audio"
        )
    return tuple(phones)


def cut_phones(phones: tuple[Phone, ...], start: float, end: float) -> tuple[Phone, ...]:
    """Return the phones within [start, end) of a clip, in seconds from `start`."""
    moved = ((label, max(a, start) - start, min(b, end) - start) for label, a, b in phones)
    return tuple(phone for phone in moved if phone[1] < phone[2])


def _frames(path: Path, found: Any) -> tuple[list[str | None], float]:
    """Return one label a frame and the frame's seconds."""
    phones = found.get("phones") if isinstance(found, dict) else None
    if not isinstance(phones, list):
        raise SampleError(f"{path}: phones should be a list of texts and nulls")
    for phone in phones:
        if phone is not None and not (isinstance(phone, str) and is_storable(phone)):
            raise SampleError(f"{path}: phone {phone!r} is neither a text nor null")
    duration = found.get("frame_duration_ms")
    if (
        isinstance(duration, bool)
        or not isinstance(duration, int | float)
        or not 0 < duration < 1e9
    ):
        raise SampleError(f"{path}: frame_duration_ms={duration!r}: should be a positive number")
    return [nfc(phone) or None if phone else None for phone in phones], duration / 1000
