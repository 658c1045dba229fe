"""Annotations of QVHighlights: JSON lines, one query of one video each, and what a record says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.datasets.base import existing_path
from interp_lab.datasets.records import is_storable
from interp_lab.datasets.streams import ROUNDING
from interp_lab.errors import ConfigError, MissingInputError, SampleError

KEY = "dataset.annotations"
# No time or score is so large; beyond it numbers overflow.
LARGEST = 1e9


def read_lines(annotations: str) -> list[Any]:
    """Return the record of each line; a line that is no JSON is kept as the error it raises.

    Raises:
        MissingInputError: if the file is not there or is no text.
        ConfigError: if it is a JSON list, holds no line, or no line is JSON.
    """
    path = existing_path(KEY, annotations)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(f"{KEY}={annotations}: cannot read it as text ({error})") from error
    if text.lstrip().startswith("["):
        raise ConfigError(
            f"{KEY}={annotations}: a JSON list; QVHighlights is JSON lines: one record a line, "
            "without brackets around them or commas between them"
        )
    records = [_record(line, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not any(isinstance(record, dict) for record in records):
        first = f" ({records[0]})" if records else ""
        raise ConfigError(f"{KEY}={annotations}: holds no record{first}")
    return records


def _record(line: str, number: int) -> Any:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return SampleError(f"line {number} of the annotations is not JSON ({error})")
    if not isinstance(record, dict):
        return SampleError(f"line {number} of the annotations is not a record: {line!r:.60}")
    return record


def text_of(record: Mapping[str, Any], key: str) -> str:
    """Return a text of a record.

    Raises:
        SampleError: if it is missing or cannot be stored.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or not is_storable(value):
        raise SampleError(f"{key}={value!r:.60}: should be a text")
    return value


def video_of(record: Mapping[str, Any]) -> str:
    """Return a record's video id, which names its feature files.

    Raises:
        SampleError: if it could lead out of the feature folders.
    """
    name = text_of(record, "vid")
    if Path(name).name != name or name in (".", ".."):
        raise SampleError(f"vid={name!r:.60}: should be the name of a file, without folders")
    return name


def duration_of(record: Mapping[str, Any]) -> float:
    """Return the video's length in seconds.

    Raises:
        SampleError: if it is no number above 0.
    """
    value = record.get("duration")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LARGEST:
        raise SampleError(f"duration={value!r:.60}: should be a number of seconds above 0")
    return float(value)


def moments_of(
    record: Mapping[str, Any], duration: float, n_clips: int, clip_seconds: float
) -> tuple[tuple[tuple[float, float], ...] | None, np.ndarray | None]:
    """Return the moments that fit the query and each clip's saliency; None if unknown.

    Args:
        record: of the annotations.
        duration: of the video, in seconds.
        n_clips: clips that the features have.
        clip_seconds: how long a clip is.

    Raises:
        SampleError: if they are malformed, lie more than two clips outside the video, or contradict
            each other.
    """
    rounding = ROUNDING * clip_seconds
    windows = windows_of(record, duration, rounding)
    saliency = saliency_of(record, n_clips)
    ids = record.get("relevant_clip_ids")
    if windows is not None and isinstance(ids, list):
        for clip in ids:
            start, end = clip * clip_seconds, (clip + 1) * clip_seconds
            if not any(a < end + rounding and start - rounding < b for a, b in windows):
                raise SampleError(
                    f"relevant_clip_ids: clip {clip} is {start:g} to {end:g} s, in none of "
                    f"relevant_windows={record['relevant_windows']!r:.60}; is "
                    f"dataset.clip_seconds={clip_seconds:g} right?"
                )
    return windows, saliency


def windows_of(
    record: Mapping[str, Any], duration: float, rounding: float = 0.0
) -> tuple[tuple[float, float], ...] | None:
    """Return the moments that fit the query in seconds, or None if the file does not say.

    Args:
        record: of the annotations.
        duration: of the video.
        rounding: seconds by which a moment may end after the video.

    Raises:
        SampleError: if they are not pairs of start < end within the video.
    """
    windows = record.get("relevant_windows")
    if windows is None:
        return None
    pairs = isinstance(windows, list) and all(isinstance(w, list) and len(w) == 2 for w in windows)
    if not pairs or not windows or not all(_is_number(v) for w in windows for v in w):
        raise SampleError(f"relevant_windows={windows!r:.60}: should be a list of [start, end]")
    if not all(0 <= start < end for start, end in windows):
        raise SampleError(f"relevant_windows={windows!r:.60}: should be 0 <= start < end")
    if any(start >= duration for start, _ in windows):
        raise SampleError(
            f"relevant_windows={windows!r:.60}: one begins after the video ends ({duration:g} s)"
        )
    last = max(end for _, end in windows)
    if last > duration + rounding:
        raise SampleError(
            f"relevant_windows={windows!r:.60}: one ends at {last:g} s, the video at {duration:g} s"
        )
    return tuple((float(a), float(b)) for a, b in windows)


def saliency_of(record: Mapping[str, Any], n_clips: int) -> np.ndarray | None:
    """Return each clip's saliency, the sum of the annotators' scores, or None if unknown.

    Three annotators give 0 to 4 to each clip of the moments; other clips have 0.

    Raises:
        SampleError: if clip ids and scores do not go together, or ids lie after the last clip by
            more than rounding explains.
    """
    ids, scores = record.get("relevant_clip_ids"), record.get("saliency_scores")
    if ids is not None:
        _check_ids(ids, n_clips)
    if ids is None or scores is None:
        return None
    values = np.zeros(n_clips, np.float32)
    if not isinstance(scores, list) or len(scores) != len(ids):
        raise SampleError("relevant_clip_ids and saliency_scores do not go together")
    for clip, given in zip(ids, scores, strict=True):
        if not isinstance(given, list) or not given or not all(_is_number(v) for v in given):
            raise SampleError(
                f"saliency_scores: not all are numbers, a list for each of relevant_clip_ids: "
                f"{given!r:.60}"
            )
        if clip < n_clips:
            values[clip] = sum(given)
    return values


def _check_ids(ids: Any, n_clips: int) -> None:
    whole = isinstance(ids, list) and all(type(clip) is int for clip in ids)
    if not whole or any(clip < 0 for clip in ids) or len(set(ids)) < len(ids):
        raise SampleError(
            f"relevant_clip_ids={ids!r:.60}: should be a list of clips, each once, from 0"
        )
    if ids and max(ids) >= n_clips + ROUNDING:
        raise SampleError(f"relevant_clip_ids: clip {max(ids)}, the features have {n_clips} clips")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST
