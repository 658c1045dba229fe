"""Any record at all gives a sample or a named error, in every data set: never another exception."""

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from interp_lab.datasets.answers import declared_letter, parse_letter
from interp_lab.datasets.audio import RATE, read_audio
from interp_lab.datasets.base import Dataset, MadeOf, Sample
from interp_lab.datasets.images import ImageFiles
from interp_lab.datasets.points import parse_point
from interp_lab.datasets.qvhighlights import QVHighlights
from interp_lab.datasets.scienceqa import ScienceQA
from interp_lab.datasets.semdim import SemanticDimensions
from interp_lab.datasets.trajectory import TrajectoryFile
from interp_lab.errors import InterpLabError, SampleError

FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "a.png",
        "../x",
        "/etc/passwd",
        "\0",
        "\ud800",
        "e\u0301",
        "a" * 300,
        " ",
        ".",
        "A",
        "1",
        "big",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from([10**400, -1, 0, 1e308])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)

TRAJECTORY = {"id": "a", "image": "a.png", "problem": "where?", "answer": "(1,2)", "solution": "x"}
TURNS = [
    {"from": "human", "value": "<image>\nWhat?\nA. x\nB. y"},
    {"from": "gpt", "value": "The answer is A."},
]
SCIENCE = {"id": "a", "image": "a.png", "conversations": TURNS}
PROBLEM = {
    "question": "What?",
    "choices": ["x", "y"],
    "answer": 0,
    "hint": "",
    "image": None,
    "split": "test",
}
WORD = {
    "word": "a",
    "ipa": "a b",
    "romanization": "a",
    "word_group": "common",
    "dimensions": {"big-small": {"answer": "big"}},
}
MOMENT = {
    "qid": 1,
    "query": "a dog",
    "duration": 4,
    "vid": "v",
    "relevant_windows": [[0, 2]],
    "relevant_clip_ids": [0],
    "saliency_scores": [[1, 2, 3]],
    "audio": "x",
}


def changed(record: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The record with some of its values replaced by anything, or anything instead of it."""
    keys = st.sampled_from(sorted(record))
    return st.dictionaries(keys, JSON, max_size=3).map(lambda new: record | new) | JSON


def deeper(record: dict[str, Any], key: str) -> st.SearchStrategy[Any]:
    """The record with something odd within one of its lists or objects."""
    old = record[key]
    inner = (
        st.lists(changed(old[0]) if isinstance(old[0], dict) else JSON, max_size=4)
        if isinstance(old, list)
        else changed(old)
    )
    return inner.map(lambda new: record | {key: new})


def holds(make: Callable[[], Dataset]) -> None:
    """Every sample of a data set loads, or says in one line why not."""
    try:
        data = make()
    except InterpLabError as error:
        assert "\n" not in str(error) or "\\n" in repr(str(error))
        return
    ids = list(data.ids())
    assert len(set(ids)) == len(ids)
    for i, name in enumerate(ids):
        name.encode("utf-8")
        assert isinstance(data.made_of(i), MadeOf)
        try:
            sample = data.load(i)
        except SampleError as error:
            assert str(error)
            continue
        assert isinstance(sample, Sample) and sample.id == name


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        Image.new("RGB", (8, 8), "red").save(root / "a.png")
        for kind, width in (("slowfast_features", 3), ("clip_features", 2)):
            (root / kind).mkdir()
            np.savez(root / kind / "v.npz", features=np.ones((2, width)))
        for kind in ("clip_text_features", "pann_features"):
            (root / kind).mkdir()
        np.savez(root / "clip_text_features" / "qid1.npz", last_hidden_state=np.ones((2, 2)))
        np.save(root / "pann_features" / "v.npy", np.ones((2, 2)))
        (root / "en").mkdir()
        soundfile.write(root / "en" / "a.wav", np.sin(np.arange(8000) / 9), RATE)
        yield root


def test_the_records_that_are_changed_below_are_good(folder: Path) -> None:
    file = folder / "good.json"
    file.write_text(json.dumps([TRAJECTORY]))
    assert TrajectoryFile(str(file)).load(0).facts["reference_point"] == (0.001, 0.002)
    file.write_text(json.dumps([SCIENCE]))
    assert ScienceQA(str(file), str(folder)).load(0).answer == "A"
    file.write_text(json.dumps({"en": [WORD]}))
    for kind in ("ipa", "audio"):
        data = SemanticDimensions(str(file), kind, audio_root=str(folder))  # pyright: ignore
        assert data.load(0).answer == "1"
    file.write_text(json.dumps(MOMENT))
    assert QVHighlights(str(file), str(folder)).load(0).facts["windows"] == ((0.0, 2.0),)


@FEW
@given(records=st.lists(changed(TRAJECTORY), max_size=3) | JSON)
def test_trajectory(folder: Path, records: Any) -> None:
    file = folder / "trajectory.json"
    file.write_text(json.dumps(records))
    holds(lambda: TrajectoryFile(str(file)))


@FEW
@given(
    records=st.lists(changed(SCIENCE) | deeper(SCIENCE, "conversations"), max_size=3)
    | st.dictionaries(TEXTS, changed(PROBLEM), max_size=3)
    | JSON,
    split=st.none() | st.just("test"),
)
def test_scienceqa(folder: Path, records: Any, split: str | None) -> None:
    file = folder / "scienceqa.json"
    file.write_text(json.dumps(records))
    holds(lambda: ScienceQA(str(file), str(folder), text_only="include", split=split))


@FEW
@given(
    words=st.dictionaries(
        st.just("en") | TEXTS,
        st.lists(changed(WORD) | deeper(WORD, "dimensions"), max_size=3),
        max_size=2,
    )
    | JSON,
    kind=st.sampled_from(["original", "romanized", "ipa", "audio"]),
)
def test_semdim(folder: Path, words: Any, kind: Any) -> None:
    file = folder / "semdim.json"
    file.write_text(json.dumps(words))
    holds(lambda: SemanticDimensions(str(file), kind, audio_root=str(folder)))


@FEW
@given(alignment=changed({"phones": [None] * 12, "frame_duration_ms": 40}))
def test_semdim_alignment(folder: Path, alignment: Any) -> None:
    (folder / "words.json").write_text(json.dumps({"en": [WORD]}))
    aligned = folder / "aligned"
    aligned.mkdir(exist_ok=True)
    (aligned / "a.json").write_text(json.dumps(alignment))
    holds(
        lambda: SemanticDimensions(
            str(folder / "words.json"),
            "audio",
            audio_root=str(folder),
            alignment_dir=str(aligned),
        )
    )


@FEW
@given(
    records=st.lists(
        changed(MOMENT)
        | deeper(MOMENT, "relevant_windows")
        | deeper(MOMENT, "relevant_clip_ids")
        | deeper(MOMENT, "saliency_scores"),
        max_size=3,
    )
)
def test_qvhighlights(folder: Path, records: list[Any]) -> None:
    file = folder / "moments.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    holds(lambda: QVHighlights(str(file), str(folder)))


@FEW
@given(
    dtype=st.sampled_from(["f4", "f2", "i8", "c8", "U3", "?", "M8[s]", "O"]),
    shape=st.lists(st.integers(0, 4), max_size=4),
)
def test_features_of_any_shape_and_type(folder: Path, dtype: str, shape: list[int]) -> None:
    file = folder / "one.jsonl"
    file.write_text(json.dumps(MOMENT | {"vid": "w"}))
    for kind, name in (("slowfast_features", "v"), ("clip_features", "v")):
        (folder / kind / "w.npz").write_bytes((folder / kind / f"{name}.npz").read_bytes())
    np.save(folder / "pann_features" / "w.npy", np.zeros(shape, dtype), allow_pickle=True)
    holds(lambda: QVHighlights(str(file), str(folder)))


def cut_or_flipped(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, or cut, or anything."""

    def spoil(changes: list[tuple[int, int]], end: int) -> bytes:
        data = bytearray(whole)
        for at, value in changes:
            data[at % len(data)] = value
        return bytes(data[:end])

    places = st.integers(0, 200) | st.integers(0, len(whole))
    changes = st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)
    return st.builds(spoil, changes, st.integers(0, len(whole))) | st.binary(max_size=60)


def encoded(kind: str) -> bytes:
    """A small picture or sound in a format."""
    buffer = io.BytesIO()
    if kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format=kind)
    else:
        soundfile.write(buffer, np.random.default_rng(0).uniform(-1, 1, 4000), RATE, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["slowfast_features/v.npz", "pann_features/v.npy"])
def test_damaged_features(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    file = folder / "damaged.jsonl"
    file.write_text(json.dumps(MOMENT))

    @FEW
    @given(data=cut_or_flipped(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        holds(lambda: QVHighlights(str(file), str(folder)))

    try:
        check()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_pictures(folder: Path, kind: str) -> None:
    (folder / "pictures").mkdir(exist_ok=True)

    @FEW
    @given(data=cut_or_flipped(encoded(kind)))
    def check(data: bytes) -> None:
        (folder / "pictures" / "x.png").write_bytes(data)
        holds(lambda: ImageFiles(str(folder / "pictures")))

    check()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_sounds(folder: Path, kind: str) -> None:
    @FEW
    @given(data=cut_or_flipped(encoded(kind)))
    def check(data: bytes) -> None:
        path = folder / "x.sound"
        path.write_bytes(data)
        with suppress(SampleError):
            waveform, rate = read_audio(path)
            assert rate == RATE and np.isfinite(waveform).all()

    check()


@FEW
@given(text=st.text(max_size=60) | st.text("ABC abcisno,.()answer답", max_size=60))
def test_answers_of_any_text(text: str) -> None:
    assert parse_letter(text, ["A", "B"]) in (None, "A", "B")
    declared_letter(text)


@FEW
@given(
    answer=JSON | st.text("0123456789.,()[] <answer>", max_size=40),
    unit=st.sampled_from(["thousandths", "pixels", "shares"]),
)
def test_points_of_any_answer(answer: Any, unit: Any) -> None:
    point = parse_point(answer, unit, (64, 48))
    assert point is None or all(0 <= value <= 1 for value in point)
