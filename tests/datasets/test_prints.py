"""What a sample is made of, for every data set: its own bytes and record, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp_lab.datasets.base import Sample
from interp_lab.datasets.images import ImageFiles
from interp_lab.datasets.prints import SamplePrints, loaded_with_print
from interp_lab.datasets.qvhighlights import QVHighlights
from interp_lab.datasets.scienceqa import ScienceQA
from interp_lab.datasets.semdim import SemanticDimensions
from interp_lab.datasets.trajectory import TrajectoryFile
from interp_lab.errors import SampleError
from interp_lab.identity.files import Digests

DATA = Path(__file__).parents[2] / "interp_lab" / "zoo" / "data"


def prints(dataset: Any) -> dict[str, str]:
    found = SamplePrints(dataset, Digests())
    return {name: found.of(i) for i, name in enumerate(dataset.ids())}


def changed(make: Callable[[], Any], change: Callable[[], object]) -> set[str]:
    """The ids whose fingerprints differ after a change; all stay without one."""
    before = prints(make())
    assert prints(make()) == before
    change()
    after = prints(make())
    return {name for name in before if after.get(name) != before[name]}


def damage(path: Path) -> None:
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


def test_pictures(pictures: Callable[..., Path]) -> None:
    folder = pictures(3)
    found = changed(lambda: ImageFiles(str(folder)), lambda: damage(folder / "good_0001.png"))
    assert found == {"good_0001.png"}


def test_scienceqa(tmp_path: Path) -> None:
    root = tmp_path / "a"
    shutil.copytree(DATA / "scienceqa" / "layout_a", root)
    file = root / "questions.json"

    def make() -> ScienceQA:
        return ScienceQA(str(file), str(root / "images"), max_samples=4)

    records = json.loads(file.read_text())
    names = list(make().ids())
    picture = next(r["image"] for r in records if str(r["id"]) == names[1])
    sharing = {str(r["id"]) for r in records if r.get("image") == picture} & set(names)
    assert changed(make, lambda: damage(root / "images" / picture)) == sharing

    def reword(records: Any) -> None:
        turn = next(r for r in records if str(r["id"]) == names[2])["conversations"][0]
        turn["value"] += " "

    assert changed(make, lambda: edit(file, reword)) == {names[2]}


def test_trajectory(tmp_path: Path) -> None:
    root = tmp_path / "t"
    shutil.copytree(DATA / "trajectory", root)
    file = root / "maps.json"

    def make() -> TrajectoryFile:
        return TrajectoryFile(str(file))

    first = json.loads(file.read_text())[0]
    picture = first["image"] if isinstance(first["image"], str) else first["image"][0]
    assert str(first["id"]) in changed(make, lambda: damage(root / picture))
    found = changed(make, lambda: edit(file, lambda rs: rs[1].update(answer="[1, 2]")))
    assert found == {make().ids()[1]}


def test_qvhighlights(tmp_path: Path) -> None:
    root = tmp_path / "q"
    shutil.copytree(DATA / "avigate", root)
    file = root / "annotations.jsonl"

    def make() -> QVHighlights:
        return QVHighlights(
            str(file), str(root), video_widths=[16, 16], text_width=16, audio_width=16
        )

    records = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    vid = records[0]["vid"]
    sharing = {str(r["qid"]) for r in records if r["vid"] == vid}
    for folder, suffix in (("slowfast_features", "npz"), ("pann_features", "npy")):
        assert changed(make, lambda f=folder, s=suffix: damage(root / f / f"{vid}.{s}")) == sharing
    qid = str(records[1]["qid"])
    text = root / "clip_text_features" / f"qid{qid}.npz"
    assert changed(make, lambda: damage(text)) == {qid}
    lines = file.read_text().replace(json.dumps(records[2]["query"]), '"another"', 1)
    assert str(records[2]["qid"]) in changed(make, lambda: file.write_text(lines))


def test_semdim(tmp_path: Path) -> None:
    root = tmp_path / "s"
    shutil.copytree(DATA / "semdim", root)
    file = root / "words.json"

    def make() -> SemanticDimensions:
        return SemanticDimensions(
            str(file),
            "audio",
            "en",
            audio_root=str(root / "audio"),
            alignment_dir=str(root / "alignment"),
            max_samples=3,
        )

    word = json.loads(file.read_text())["en"][0]["word"]
    own = {name for name in make().ids() if name.startswith(f"en/{word}/")}
    (sound,) = [p for p in (root / "audio" / "en").iterdir() if p.stem == word]
    assert changed(make, lambda: damage(sound)) == own
    (aligned,) = [p for p in (root / "alignment").rglob("*.json") if p.stem == word]
    assert own <= changed(make, lambda: damage(aligned))
    # One pair's answer is one pair's record, in both orders.
    pair = next(iter(json.loads(file.read_text())["en"][0]["dimensions"]))

    def other_answer(words: Any) -> None:
        sides = pair.split("-")
        value = words["en"][0]["dimensions"][pair]
        value["answer"] = sides[1 - sides.index(value["answer"])]

    found = changed(make, lambda: edit(file, other_answer))
    assert found == {n for n in own if f"/{pair}/" in n}


class Slow(ImageFiles):
    """Pictures of which one is replaced while it is read."""

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        Image.new("RGB", (9, 9)).save(self._files[index][0])
        return sample


def test_a_picture_that_changes_while_it_is_read_is_a_failed_sample(
    pictures: Callable[..., Path],
) -> None:
    folder = pictures(1)
    quiet = ImageFiles(str(folder))
    assert isinstance(loaded_with_print(quiet, SamplePrints(quiet, Digests()), 0)[0], Sample)
    dataset = Slow(str(folder))
    found, printed = loaded_with_print(dataset, SamplePrints(dataset, Digests()), 0)
    assert isinstance(found, SampleError) and "changed while it was read" in str(found)
    # Its fingerprint is the old one, so the next command measures it.
    assert printed != SamplePrints(dataset, Digests()).of(0)


class Silent:
    """A data set that does not say what its samples are made of."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def ids(self) -> list[str]:
        return [str(i) for i in range(len(self.values))]

    def load(self, index: int) -> Sample:
        if self.values[index] < 0:
            raise SampleError("negative")
        facts = {"array": np.full(3, self.values[index], np.float32), "none": None}
        return Sample(str(index), (("text", "x"),), facts=facts)


@pytest.mark.parametrize("second", [2.0, -1.0])
def test_a_data_set_that_does_not_say_goes_by_what_is_loaded(second: float) -> None:
    before, after = prints(Silent([1.0, 1.5])), prints(Silent([1.0, second]))
    assert before["0"] == after["0"] and before["1"] != after["1"]
