"""QVHighlights (Lei et al. 2021, arXiv 2107.09609): queries of videos, given as feature files.

One record is one measurement: a query, the video's features, the audio's features of the same
clips, and, except in test files, the moments that fit. A record without audio fails; nothing is
put in its place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp_lab.config.signature import Distinct
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.ondisk import spelling
from interp_lab.datasets.qvhighlights_features import read_features, unit_rows, with_time
from interp_lab.datasets.qvhighlights_records import (
    duration_of,
    moments_of,
    read_lines,
    text_of,
    video_of,
)
from interp_lab.datasets.records import distinct_names, is_storable
from interp_lab.datasets.streams import check_duration, common_length
from interp_lab.errors import ConfigError, MissingInputError, SampleError, did_you_mean

VIDEO_KEY = "features"


class QVHighlights:
    """Records of a QVHighlights annotation file with their features.

    A sample's id is its `qid`. Its parts: the query. Its facts: `query`, `vid`, `duration`
    (seconds), `clip_seconds`, `video` (clips, width), `audio` (the same clips, width), `text`
    (words, width), all float32 and ready for the network; `windows` ((start, end) each, in
    seconds) and `saliency` (clips,), sums of the annotators' scores, both None where the file does
    not say; `audio_kind` (the record's `audio`; None if it has none).

    Args:
        annotations: JSON lines.
        feature_root: holds the feature folders.
        max_samples: use the first so many; -1 = all.
        ids: only these `qid`s; null = all.
        video_features: folders of `{vid}.npz`; their columns are laid side by side.
        text_features: folder of `qid{qid}.npz`.
        audio_features: folder of `{vid}.npy`.
        video_widths, text_width, audio_width: expected columns; null = any.
        text_key: the array in a text file: last_hidden_state, or pooler_output (one row).
        ctx_mode: `video_tef` adds a clip's place in time to video and audio, `video` does not.
        normalise: give every row of every file the length 1.
        max_clips, max_words: rows used. What comes after them is cut; of a longer video only its
            beginning counts then: `duration`, `windows` and `saliency` are those of what is left.
        clip_seconds: how long a clip is.

    Raises:
        MissingInputError: if the file or a folder is not there.
        ConfigError: if the file is no JSON lines, or no record is left.
    """

    gives = ("text", "video")
    knows = ("query", "duration", "clip_seconds")

    def __init__(
        self,
        annotations: str,
        feature_root: str,
        max_samples: int = -1,
        ids: Distinct[str | int] | None = None,
        video_features: Distinct[str] = ["slowfast_features", "clip_features"],  # noqa: B006
        text_features: str = "clip_text_features",
        audio_features: str = "pann_features",
        video_widths: list[int] | None = None,
        text_width: int | None = None,
        audio_width: int | None = None,
        text_key: Literal["last_hidden_state", "pooler_output"] = "last_hidden_state",
        ctx_mode: Literal["video_tef", "video"] = "video_tef",
        normalise: bool = True,
        max_clips: int = 75,
        max_words: int = 32,
        clip_seconds: float = 2.0,
    ) -> None:
        if max_samples != -1 and max_samples < 1:
            raise ConfigError(f"dataset.max_samples={max_samples}: give -1 (all) or at least 1")
        if not video_features or (video_widths and len(video_widths) != len(video_features)):
            raise ConfigError("dataset.video_features and dataset.video_widths: one width a folder")
        if min(max_clips, max_words) < 1 or not clip_seconds > 0:
            raise ConfigError("dataset.max_clips, max_words and clip_seconds: should be above 0")
        root = existing_path("dataset.feature_root", feature_root)
        self._video = [_folder(root, "video_features", name) for name in video_features]
        self._text = _folder(root, "text_features", text_features)
        self._audio = _folder(root, "audio_features", audio_features)
        self._video_widths = video_widths or [None] * len(video_features)
        self._text_width, self._audio_width = text_width, audio_width
        self._text_key = text_key
        self._with_time = ctx_mode == "video_tef"
        self._normalise = normalise
        self._max_clips, self._max_words = max_clips, max_words
        self._clip_seconds = clip_seconds
        self._records = read_lines(annotations)
        self._names = distinct_names([_named(record) for record in self._records])
        chosen = self._chosen(ids)
        self._indices = chosen if max_samples == -1 else chosen[:max_samples]

    def ids(self) -> Sequence[str]:
        """Return the `qid`s in the file's order, as text."""
        return [self._names[n] for n in self._indices]

    def counts(self) -> dict[str, int]:
        """Return how many records do not say which moments fit."""
        records = [self._records[n] for n in self._indices]
        unknown = sum(isinstance(r, dict) and r.get("relevant_windows") is None for r in records)
        return {"without_windows": unknown} if unknown else {}

    def made_of(self, index: int) -> MadeOf:
        """Return the record and its feature files."""
        number = self._indices[index]
        record, name = self._records[number], self._names[number]
        try:
            if isinstance(record, SampleError):
                raise record
            _check_name(record, name)
            files = self._feature_files(video_of(record), name)
        except SampleError as error:
            return MadeOf([str(error), record if isinstance(record, dict) else None])
        return MadeOf(record, files)

    def load(self, index: int) -> Sample:
        """Return one query with its features.

        Raises:
            SampleError: if the record is malformed, or a feature file is missing, damaged, of
                another width or holds NaN.
        """
        number = self._indices[index]
        record, name = self._records[number], self._names[number]
        if isinstance(record, SampleError):
            raise record
        _check_name(record, name)
        query, vid, duration = text_of(record, "query"), video_of(record), duration_of(record)
        video, audio, n_clips = self._clips(vid)
        check_duration(n_clips, duration, self._clip_seconds)
        windows, saliency = moments_of(record, duration, n_clips, self._clip_seconds)
        if len(video) < n_clips:
            duration = len(video) * self._clip_seconds
            windows, saliency = _beginning(windows, saliency, duration, len(video))
        kind = record.get("audio")
        if kind is not None and (not isinstance(kind, str) or not is_storable(kind)):
            raise SampleError(f"audio={kind!r:.60}: should be a text or left out")
        facts: dict[str, Any] = {
            "query": query,
            "vid": vid,
            "duration": duration,
            "clip_seconds": self._clip_seconds,
            "video": video,
            "audio": audio,
            "text": self._words(name),
            "windows": windows,
            "saliency": saliency,
            "audio_kind": kind,
        }
        return Sample(name, (("text", query),), facts=facts)

    def _feature_files(self, vid: str, name: str) -> tuple[Path, ...]:
        seen = [folder / f"{vid}.npz" for folder in self._video]
        heard, read = spelling(self._audio, f"{vid}.npy"), spelling(self._text, f"qid{name}.npz")
        return (*(spelling(path.parent, path.name) for path in seen), heard, read)

    def _clips(self, vid: str) -> tuple[np.ndarray, np.ndarray, int]:
        """Return video and audio features of the same clips, and how many clips the files have."""
        tables: dict[str, np.ndarray] = {}
        for folder, width in zip(self._video, self._video_widths, strict=True):
            path = spelling(folder, f"{vid}.npz")
            tables[f"video features {path}"] = read_features(path, VIDEO_KEY, width, "video")
        path = spelling(self._audio, f"{vid}.npy")
        tables[f"audio features {path}"] = read_features(path, None, self._audio_width, "audio")
        n_clips = common_length({name: len(table) for name, table in tables.items()})
        n = min(self._max_clips, n_clips)
        *seen, heard = [self._rows(table[:n]) for table in tables.values()]
        video = np.concatenate(seen, axis=1)
        if self._with_time:
            video, heard = with_time(video), with_time(heard)
        return video, heard, n_clips

    def _words(self, name: str) -> np.ndarray:
        path = spelling(self._text, f"qid{name}.npz")
        rows = read_features(path, self._text_key, self._text_width, "text")
        return self._rows(rows[: self._max_words])

    def _rows(self, table: np.ndarray) -> np.ndarray:
        return unit_rows(table) if self._normalise else table

    def _chosen(self, ids: Sequence[str | int] | None) -> list[int]:
        if ids is None:
            return list(range(len(self._records)))
        wanted = {str(name) for name in ids}
        missing = sorted(wanted - set(self._names))
        if missing or not wanted:
            near = did_you_mean(missing[0], self._names) if missing else ""
            what = f"no qid {missing[0]!r} in the annotations.{near}" if missing else "is empty"
            raise ConfigError(f"dataset.ids: {what}")
        return [n for n, name in enumerate(self._names) if name in wanted]


def _beginning(
    windows: tuple[tuple[float, float], ...] | None,
    saliency: np.ndarray | None,
    seconds: float,
    n_clips: int,
) -> tuple[tuple[tuple[float, float], ...] | None, np.ndarray | None]:
    """Return moments and saliency of a video's beginning, to which `max_clips` has cut it."""
    saliency = None if saliency is None else saliency[:n_clips]
    if windows is None:
        return None, saliency
    kept = tuple((start, min(end, seconds)) for start, end in windows if start < seconds)
    if not kept:
        raise SampleError(
            f"relevant_windows: all begin after the {seconds:g} s that dataset.max_clips={n_clips} "
            "keeps; raise it"
        )
    return kept, saliency


def _folder(root: Path, key: str, name: str) -> Path:
    folder = existing_path(f"dataset.{key}", root / name)
    if not folder.is_dir():
        raise MissingInputError(f"dataset.{key}={name}: {folder} is not a folder")
    return folder


def _named(record: Any) -> dict[str, Any]:
    return {"id": record.get("qid")} if isinstance(record, dict) else {}


def _check_name(record: dict[str, Any], name: str) -> None:
    """Check that a record goes by its own `qid`: the name also finds its text features."""
    qid = record.get("qid")
    if isinstance(qid, bool) or not isinstance(qid, int | str) or not str(qid).strip():
        raise SampleError(f"qid={qid!r:.60}: should be a number or a text")
    if str(qid) != name:
        raise SampleError(f"qid {str(qid)!r:.60} cannot be used, or an earlier record has it")
    if Path(str(qid)).name != str(qid):
        raise SampleError(f"qid={qid!r:.60}: should not name a folder")
