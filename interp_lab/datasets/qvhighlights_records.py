"""Annotations of QVHighlights: JSON lines, one query of one video each, and what a record says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.datasets.base import existing_path
from interp_lab.datasets.records import is_storable
from interp_lab.errors import ConfigError, MissingInputError, SampleError

KEY = "dataset.annotations"


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise SampleError(f"duration={value!r:.60}: should be a number of seconds above 0")
    return float(value)


def windows_of(
    record: Mapping[str, Any], duration: float
) -> tuple[tuple[float, float], ...] | None:
    """Return the moments that fit the query in seconds, or None if the file does not say.

    Raises:
        SampleError: if they are not pairs of start < end that begin within the video.
    """
    windows = record.get("relevant_windows")
    if windows is None:
        return None
    try:
        values: Any = np.asarray(windows, dtype=np.float32)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise SampleError(f"relevant_windows={windows!r:.60}: should be a list of [start, end]")
    start, end = values[:, 0], values[:, 1]
    if not (np.isfinite(values).all() and (start >= 0).all() and (start < end).all()):
        raise SampleError(f"relevant_windows={windows!r:.60}: should be 0 <= start < end")
    if (start >= duration).any():
        raise SampleError(
            f"relevant_windows={windows!r:.60}: one begins after the video ends ({duration:g} s)"
        )
    return tuple((float(a), float(b)) for a, b in values)


def saliency_of(record: Mapping[str, Any], n_clips: int) -> np.ndarray | None:
    """Return each clip's saliency, the sum of the annotators' scores, or None if unknown.

    Three annotators give 0 to 4 to each clip of the moments; other clips have 0.

    Raises:
        SampleError: if clip ids and scores do not go together.
    """
    ids, scores = record.get("relevant_clip_ids"), record.get("saliency_scores")
    if ids is None or scores is None:
        return None
    try:
        places, sums = np.asarray(ids, dtype=int), np.asarray(scores, dtype=np.float32).sum(-1)
    except (TypeError, ValueError):
        places, sums = np.empty(1, int), np.empty(0)
    if places.ndim != 1 or places.shape != sums.shape or (places < 0).any():
        raise SampleError("relevant_clip_ids and saliency_scores do not go together")
    if not np.isfinite(sums).all():
        raise SampleError("saliency_scores: not all are numbers")
    values = np.zeros(n_clips, np.float32)
    there = places < n_clips
    values[places[there]] = sums[there]
    return values
