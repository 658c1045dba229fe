"""Results and run directories of schema version 1 open, are listed, drawn and gone on with.

`tests/golden/README.md` says how they were made.
"""

import datetime
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from interp_lab.config.nodes import conf_dir, place_before
from interp_lab.errors import StoreError
from interp_lab.identity.names import BEFORE, OF_USERS, before, name_of, registered, target_of_name
from interp_lab.store.results import open_results

Command = Callable[..., Any]
GOLDEN = Path(__file__).parents[1] / "golden"
SAMPLES = {"clip_similarity": 2, "scienceqa": 4, "semdim": 8, "trajectory": 2, "avigate": 4}
SCENES = ("dataset=scenes", "dataset.max_samples=4", "batch_size=1", "device=cpu")
QUICK = ("~visualization.figures", "output.exports=false", "capture.live_check=false")


def composed(*overrides: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("study", SAMPLES)
def test_a_result_of_before_is_listed(command: Command, tmp_path: Path, study: str) -> None:
    # A copy: the command keeps its log beside the result.
    path = tmp_path / "run" / "results.h5"
    path.parent.mkdir()
    shutil.copy(GOLDEN / study / "results.h5", path)
    said = command("mode=summary", f"results={path}")
    assert said.code == 0, said.err
    assert f"{SAMPLES[study]} samples measured, 0 failed" in said.out
    with open_results(path) as results:
        assert results.attributes["schema_version"] == 1 and len(results) == SAMPLES[study]
        assert "interp_lab.visualization." in results.attributes["config"]
        assert results.prompts == {}


@pytest.mark.parametrize("study", SAMPLES)
def test_a_result_of_before_is_drawn(command: Command, tmp_path: Path, study: str) -> None:
    copy = tmp_path / "run" / "results.h5"
    copy.parent.mkdir()
    shutil.copy(GOLDEN / study / "results.h5", copy)
    quick = ["visualization.max_samples=1", "visualization.dpi=50", "visualization.workers=0"]
    if study == "trajectory":  # a film takes long, and is drawn by the same code as its poster
        quick += [
            f"visualization.figures.{name}.enabled=false"
            for name, node in composed("task=trajectory").visualization.figures.items()
            if str(node["_target_"]).endswith("attention_video")
        ]
    said = command("mode=render", f"results={copy}", *quick)
    assert said.code == 0, said.err + said.out
    assert any((copy.parent / "figures").rglob("*.png"))


# Directories that commit 9624336 made, whose data sets lay in /tmp/oldcode.
OLD = "/tmp/oldcode/interp_lab/zoo"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((f"dataset.path={OLD}/photos/scenes", *SCENES), "tiny_clip-scenes-f204a5145f"),
        (
            (
                "task=scienceqa",
                "dataset.max_samples=4",
                f"dataset.question_file={OLD}/data/scienceqa/layout_a/questions.json",
                f"dataset.image_folder={OLD}/data/scienceqa/layout_a/images",
            ),
            "tiny_llava-scienceqa_tiny-178590377e",
        ),
        (
            (
                "task=avigate",
                "dataset.max_samples=4",
                f"dataset.feature_root={OLD}/data/avigate",
                f"dataset.annotations={OLD}/data/avigate/annotations.jsonl",
            ),
            "tiny_avigate_global-qvhighlights_tiny-c80ea20dcb",
        ),
    ],
)
def test_directories_of_before_are_found_by_their_names(
    overrides: tuple[str, ...], name: str
) -> None:
    assert place_before(composed(*overrides)).name == name


def old_run(tmp_path: Path, started: str = "") -> Path:
    """Put the golden run directory where this checkout's paths would have had it."""
    cfg = composed(*SCENES, *QUICK, f"output.root={tmp_path}/outputs")
    place = place_before(cfg)
    shutil.copytree(GOLDEN / "rundir_v1", place)
    for part in (place / "parts").glob("*.part.h5"):
        with h5py.File(part, "r+") as file:
            file.attrs["started"] = started or file.attrs["started"]
    return place


def numbers(path: Path) -> dict[str, float]:
    with open_results(path) as results:
        return {n: float(results.read("mean_cls_similarity", n)) for n in results.sample_ids}


def test_a_run_of_before_goes_on_if_its_files_are_older(command: Command, tmp_path: Path) -> None:
    place = old_run(tmp_path, "2100-01-01T00:00:00+00:00")
    said = command(*SCENES, *QUICK)
    assert "going on with a run of an earlier version" in said.out
    assert (
        "2 samples of an earlier version without fingerprints, their files older than the "
        "measurement: taken as they are (scene_0.png, scene_2.png)"
    ) in said.out
    assert "2 of 4 samples were measured before" in said.out
    path = place / "results.h5"
    assert f"results: {path}" in said.out
    found = numbers(path)
    assert list(found) == [f"scene_{i}.png" for i in range(4)]
    with h5py.File(path) as file:
        assert all(file["samples/fingerprint"].asstr()[...])
        assert "2 samples measured by a version without fingerprints" in file.attrs["notes"]
    # The old numbers are kept, and are those that this version measures: rounding only.
    anew = command(*SCENES, *QUICK, f"output.dir={tmp_path}/anew")
    assert anew.code == 0 and found == pytest.approx(numbers(tmp_path / "anew"), abs=1e-5)
    # From now on it is a run like others: the second command finds it again and measures nothing.
    again = command(*SCENES, *QUICK)
    assert f"results: {path}" in again.out and "loading" not in again.out
    assert "earlier version" not in again.out


def test_a_run_of_before_whose_pictures_may_be_newer_is_measured_again(
    command: Command, tmp_path: Path
) -> None:
    """The weights are older than the run, the pictures are not."""
    from interp_lab.zoo import weights_path

    pictures = tmp_path / "p"
    shutil.copytree(Path(str(composed(*SCENES).dataset.path)), pictures)
    node = (*SCENES, f"dataset.path={pictures}", *QUICK)
    place = place_before(composed(*node, f"output.root={tmp_path}/outputs"))
    shutil.copytree(GOLDEN / "rundir_v1", place)
    newest = max(p.stat().st_ctime for p in weights_path("tiny_clip").iterdir())
    between = datetime.datetime.fromtimestamp(newest + 1, datetime.timezone.utc).isoformat()
    for part in (place / "parts").glob("*.part.h5"):
        with h5py.File(part, "r+") as file:
            file.attrs["started"] = between
    said = command(*node)
    assert "2 samples of an earlier version without fingerprints, and their files may" in said.out
    assert said.code == 0 and f"results: {place / 'results.h5'}" in said.out
    assert len(numbers(place / "results.h5")) == 4


def test_a_run_of_before_with_newer_weights_is_another_run(
    command: Command, tmp_path: Path
) -> None:
    place = old_run(tmp_path, "2001-01-01T00:00:00+00:00")
    said = command(*SCENES, *QUICK)
    assert f"another run than {place.name} of an earlier version" in said.out
    (found,) = re.findall(r"^results: (.*)$", said.out, re.MULTILINE)
    assert Path(found).parent != place and len(numbers(Path(found))) == 4
    assert not (place / "results.h5").exists()


def test_every_name_of_before_has_a_place_today() -> None:
    for module, names in BEFORE.items():
        for name in names:
            target = f"{module}.{name}"
            assert name_of(target_of_name(target)) == name
            assert target_of_name(name) == target_of_name(target)
            assert before(target_of_name(target)) == target


def test_names_differ_and_cover_every_yaml() -> None:
    paths = set()
    for file in sorted(conf_dir().rglob("*.yaml")):
        paths |= set(re.findall(r"_target_:\s*(interp_lab\.[\w.]+)", file.read_text()))
    assert len({name_of(p) for p in paths}) == len(paths)
    assert set(registered().values()) == paths | set(OF_USERS.values())


def test_a_name_that_is_not_known_says_so() -> None:
    with pytest.raises(StoreError, match="no class or figure 'combind'.*'combined'"):
        target_of_name("combind")
    # A mistyped path, or one of the user's own, is left to whoever imports it.
    assert target_of_name("interp_lab.no_such.combined") == "interp_lab.no_such.combined"
    assert target_of_name("mine.draw") == "mine.draw"


def test_a_result_of_today_holds_names_and_is_drawn_by_them(
    command: Command, tmp_path: Path
) -> None:
    said = command("device=cpu", "output.exports=false", "visualization.dpi=50")
    (path,) = re.findall(r"^results: (.*)$", said.out, re.MULTILINE)
    with open_results(path) as results:
        figures = OmegaConf.create(results.attributes["config"]).visualization.figures
    assert {str(node["_target_"]) for node in figures.values()} >= {"combined", "individual"}
    again = command("mode=render", f"results={path}", "visualization.dpi=50")
    assert again.code == 0, again.err
