"""Writes synthetic event videos in the layout of QVHighlights: annotations and feature folders.

Write the shipped ones again with `python -m interp_lab.zoo.events_qvhighlights`.
"""

import argparse
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interp_lab.zoo.events import Video, draw_videos
from interp_lab.zoo.tiny_avigate.model import record

DATA = Path(__file__).parent / "data" / "avigate"
DEMO_STREAM = (2, 0)  # trainings draw from stream 0, held-out measures from stream 1
DEMO_COUNT = 32
FIRST_QID = 1
VIDEO_FOLDERS = ("slowfast_features", "clip_features")
TEXT_FOLDER, AUDIO_FOLDER = "clip_text_features", "pann_features"


def write_videos(videos: Sequence[Video], folder: Path) -> Path:
    """Write annotations and features, fp16; return the path of the annotations."""
    for name in (*VIDEO_FOLDERS, TEXT_FOLDER, AUDIO_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for qid, video in enumerate(videos, FIRST_QID):
        entry = record(video, qid)
        for name, rows in zip(VIDEO_FOLDERS, np.split(video.seen, 2, axis=1), strict=True):
            _write_npz(folder / name / f"{entry['vid']}.npz", "features", rows)
        _write_npz(folder / TEXT_FOLDER / f"qid{qid}.npz", "last_hidden_state", video.words)
        np.save(folder / AUDIO_FOLDER / f"{entry['vid']}.npy", video.heard.astype(np.float16))
        lines.append(json.dumps(entry))
    path = folder / "annotations.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _write_npz(path: Path, key: str, rows: NDArray[np.float32]) -> None:
    """Write one array as np.load reads it; without the time of day, so that files stay the same."""
    buffer = io.BytesIO()
    np.save(buffer, rows.astype(np.float16))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def main() -> None:
    """Writes the videos that are shipped."""
    parser = argparse.ArgumentParser(description="Write the event videos of the package.")
    parser.add_argument("--output", type=Path, default=DATA)
    args = parser.parse_args()
    print(write_videos(draw_videos(DEMO_COUNT, DEMO_STREAM), args.output))


if __name__ == "__main__":
    main()
