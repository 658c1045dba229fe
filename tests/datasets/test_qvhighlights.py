"""QVHighlights: what a record becomes, and what each kind of damage says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_lab.datasets.qvhighlights import QVHighlights
from interp_lab.errors import ConfigError, MissingInputError, SampleError

VIDEO, TEXT, AUDIO = (["slowfast_features", "clip_features"], "clip_text_features", "pann_features")
WIDTHS: dict[str, Any] = {"video_widths": [6, 4], "text_width": 5, "audio_width": 3}
RECORD = {
    "qid": 8737,
    "query": "a dog barks",
    "duration": 14,
    "vid": "bP5Kf_660.0_810.0",
    "relevant_windows": [[2, 6], [8, 10]],
    "relevant_clip_ids": [1, 2, 4],
    "saliency_scores": [[4, 1, 1], [2, 3, 4], [0, 0, 1]],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Feature folders with one video of 8, 7 and 9 clips and one query of 4 words."""
    rng = np.random.default_rng(0)
    for name in (*VIDEO, TEXT, AUDIO):
        (tmp_path / name).mkdir()
    for name, clips, width in ((VIDEO[0], 8, 6), (VIDEO[1], 7, 4)):
        rows = rng.normal(size=(clips, width)).astype(np.float16)
        np.savez(tmp_path / name / f"{RECORD['vid']}.npz", features=rows)
    np.save(tmp_path / AUDIO / f"{RECORD['vid']}.npy", rng.normal(size=(9, 3)))
    words = rng.normal(size=(4, 5)).astype(np.float32)
    np.savez(tmp_path / TEXT / "qid8737.npz", last_hidden_state=words, pooler_output=words[0])
    return tmp_path


@pytest.fixture
def read(root: Path) -> Callable[..., QVHighlights]:
    def call(*records: Any, text: str | None = None, **values: Any) -> QVHighlights:
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records or (RECORD,)]
        (root / "val.jsonl").write_text(text or "\n".join(lines) + "\n", encoding="utf-8")
        return QVHighlights(str(root / "val.jsonl"), str(root), **{**WIDTHS, **values})

    return call


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5)


def test_a_record_becomes_what_the_published_loader_makes_of_it(
    read: Callable[..., QVHighlights], root: Path
) -> None:
    data = read()
    facts = data.load(0).facts
    tables = [np.load(root / n / f"{RECORD['vid']}.npz")["features"].astype(float) for n in VIDEO]
    audio = np.load(root / AUDIO / f"{RECORD['vid']}.npy")
    starts = np.arange(7) / 7
    time = np.stack([starts, starts + 1 / 7], 1)
    seen = np.concatenate([unit(tables[0][:7]), unit(tables[1]), time], 1)
    assert facts["video"] == pytest.approx(seen, abs=1e-6)
    assert facts["audio"] == pytest.approx(np.concatenate([unit(audio[:7]), time], 1), abs=1e-6)
    words = np.load(root / TEXT / "qid8737.npz")["last_hidden_state"]
    assert facts["text"] == pytest.approx(unit(words), abs=1e-6)
    assert facts["windows"] == ((2.0, 6.0), (8.0, 10.0))
    assert facts["saliency"].tolist() == [0, 6, 9, 0, 1, 0, 0]
    assert (facts["duration"], facts["clip_seconds"], facts["audio_kind"]) == (14.0, 2.0, None)
    assert {facts[n].dtype for n in ("video", "audio", "text")} == {np.dtype(np.float32)}
    assert (list(data.ids()), data.counts()) == (["8737"], {})
    assert data.load(0).parts == (("text", "a dog barks"),)


def test_time_normalisation_lengths_and_text_can_be_chosen(
    read: Callable[..., QVHighlights], root: Path
) -> None:
    data = read(ctx_mode="video", normalise=False, max_clips=3, text_key="pooler_output")
    facts = data.load(0).facts
    rows = np.load(root / AUDIO / f"{RECORD['vid']}.npy")
    assert facts["audio"] == pytest.approx(rows[:3], abs=1e-6)
    assert facts["video"].shape == (3, 10)
    assert facts["text"].shape == (1, 5)
    assert facts["saliency"].tolist() == [0, 6, 9]
    # The network sees 6 s: its spans are shares of those, and what comes after them is not asked.
    assert (facts["duration"], facts["windows"]) == (6.0, ((2.0, 6.0),))
    with pytest.raises(SampleError, match="all begin after the 2 s that dataset.max_clips=1 keeps"):
        read(max_clips=1).load(0)
    assert read(max_words=2).load(0).facts["text"].shape == (2, 5)


def test_files_without_labels_and_with_a_kind_of_audio(read: Callable[..., QVHighlights]) -> None:
    bare = {k: RECORD[k] for k in ("qid", "query", "duration", "vid")}
    data = read(bare, {**RECORD, "qid": "7", "audio": "misleading"})
    facts = data.load(0).facts
    assert facts["windows"] is None and facts["saliency"] is None
    assert data.counts() == {"without_windows": 1}
    assert list(data.ids()) == ["8737", "7"]
    assert list(read(bare, {**RECORD, "qid": "7"}, max_samples=1).ids()) == ["8737"]
    assert list(read(bare, {**RECORD, "qid": "7"}, ids=[7]).ids()) == ["7"]


def spoil(root: Path, what: str) -> None:
    vid = RECORD["vid"]
    audio = root / AUDIO / f"{vid}.npy"
    if what == "missing audio":
        audio.unlink()
    elif what == "NaN":
        rows = np.ones((9, 3))
        rows[4, 1] = np.nan
        np.save(audio, rows)
    elif what == "audio width":
        np.save(audio, np.ones((9, 2048)))
    elif what == "video width":
        np.savez(root / VIDEO[1] / f"{vid}.npz", features=np.ones((7, 512)))
    elif what == "key":
        np.savez(root / VIDEO[1] / f"{vid}.npz", feature=np.ones((7, 4)))
    elif what == "cut off":
        path = root / VIDEO[0] / f"{vid}.npz"
        path.write_bytes(path.read_bytes()[:90])
    elif what == "empty file":
        audio.write_bytes(b"")
    elif what == "no rows":
        np.save(audio, np.ones((0, 3)))
    elif what == "objects":
        np.save(audio, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif what == "missing text":
        (root / TEXT / "qid8737.npz").unlink()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing audio", ["no audio features", "bP5Kf_660.0_810.0.npy is missing"]),
        ("NaN", ["audio", "1 of 9 rows hold NaN", "row 4"]),
        ("audio width", ["audio", "2048 columns, expected 3"]),
        ("video width", ["video", "512 columns, expected 4"]),
        ("key", ["no array 'features'", "it holds feature", "'feature'"]),
        ("cut off", ["cannot be read"]),
        ("empty file", ["cannot be read"]),
        ("no rows", ["not a table of rows"]),
        ("objects", ["cannot be read"]),
        ("missing text", ["no text features", "qid8737.npz"]),
    ],
)
def test_damaged_features_fail_the_sample_and_say_which_file(
    read: Callable[..., QVHighlights], root: Path, what: str, says: list[str]
) -> None:
    data = read()
    spoil(root, what)
    with pytest.raises(SampleError) as error:
        data.load(0)
    assert "\n" not in str(error.value)
    for words in [*says, str(root)]:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vid": "../other"}, "without folders"),
        ({"vid": None}, "vid=None"),
        ({"query": " "}, "query"),
        ({"duration": -1}, "duration=-1"),
        ({"duration": "14"}, "duration='14'"),
        ({"relevant_windows": [[6, 2]]}, "0 <= start < end"),
        ({"relevant_windows": [[14, 20]]}, "begins after the video ends"),
        ({"relevant_windows": [2, 6]}, r"list of \[start, end\]"),
        ({"relevant_windows": [["a", 6]]}, r"list of \[start, end\]"),
        ({"saliency_scores": [[1, 1, 1]]}, "do not go together"),
        ({"relevant_windows": [[2, 9999]]}, "ends at 9999 s, the video at 14 s"),
        ({"relevant_windows": [[2, True]]}, r"list of \[start, end\]"),
        ({"relevant_clip_ids": [1, 2, 40]}, "clip 40, the features have 7 clips"),
        ({"relevant_clip_ids": [1, 1, 2]}, "each once"),
        ({"relevant_clip_ids": [1.5, 2, 4]}, "relevant_clip_ids"),
        (
            {"relevant_windows": [[2, 6]], "relevant_clip_ids": [1, 2, 6]},
            "clip 6 is 12 to 14 s, in none of relevant_windows",
        ),
        ({"duration": 42}, "7 clips of 2 s are 14 s, the record's duration is 42 s"),
        ({"duration": 5}, "7 clips of 2 s are 14 s, the record's duration is 5 s"),
        ({"audio": 3}, "audio=3"),
        ({"qid": None}, "qid=None"),
        ({"qid": "a/b"}, "should not name a folder"),
    ],
)
def test_a_malformed_record_fails_alone(
    read: Callable[..., QVHighlights], change: dict[str, Any], says: str
) -> None:
    data = read({**RECORD, **change})
    with pytest.raises(SampleError, match=says):
        data.load(0)


def test_a_broken_line_and_a_repeated_qid_fail_alone(read: Callable[..., QVHighlights]) -> None:
    data = read(RECORD, '{"qid": 1, "query"', RECORD)
    assert len(set(data.ids())) == 3
    assert data.load(0).id == "8737"
    with pytest.raises(SampleError, match="line 2 of the annotations is not JSON"):
        data.load(1)
    with pytest.raises(SampleError, match="an earlier record has it"):
        data.load(2)


def test_a_json_list_is_said_to_be_one(read: Callable[..., QVHighlights]) -> None:
    with pytest.raises(ConfigError, match="a JSON list; QVHighlights is JSON lines"):
        read(text=json.dumps([RECORD], indent=1))


@pytest.mark.parametrize("text", ["\n\n", "no json\nat all\n", '"a text"\n'])
def test_a_file_without_records_is_refused(read: Callable[..., QVHighlights], text: str) -> None:
    with pytest.raises(ConfigError, match="holds no record"):
        read(text=text)


def test_missing_places_name_their_neighbours(
    read: Callable[..., QVHighlights], root: Path
) -> None:
    with pytest.raises(MissingInputError, match=r"dataset\.audio_features.*'pann_features'"):
        read(audio_features="umt_pann_features")
    with pytest.raises(MissingInputError, match=r"dataset\.annotations"):
        QVHighlights(str(root / "no.jsonl"), str(root))
    for values in ({"max_samples": 0}, {"ids": [1]}, {"video_widths": [1]}, {"max_clips": 0}):
        with pytest.raises(ConfigError, match=r"dataset\."):
            read(**values)


@pytest.mark.parametrize(
    ("rows", "says"), [(4, "has 4 rows"), (1, "has 1 rows"), (14, "has 7 rows")]
)
def test_streams_of_other_lengths_fail_and_say_both(
    read: Callable[..., QVHighlights], root: Path, rows: int, says: str
) -> None:
    np.save(root / AUDIO / f"{RECORD['vid']}.npy", np.ones((rows, 3)))
    with pytest.raises(SampleError) as error:
        read().load(0)
    assert says in str(error.value) and f"{max(rows, 8)}: one of them is cut" in str(error.value)


def test_features_of_another_clip_length_fail(read: Callable[..., QVHighlights]) -> None:
    with pytest.raises(SampleError, match="7 clips of 1 s are 7 s, the record's duration is 14 s"):
        read(clip_seconds=1).load(0)
    assert read({**RECORD, "duration": 17}).load(0).facts["duration"] == 17.0  # rounding
