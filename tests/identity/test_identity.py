"""What a run is: the same command over other pictures, records or weights gives other numbers.

Every number is compared with that of a run of its own in an empty directory, or with the number
that the same content had before it was moved. Numbers of one batch may differ from those of another
by rounding alone: 1e-5, where the contents differ by more than 0.01.
"""

import functools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from safetensors.numpy import load_file, save_file

from interp_lab.config.nodes import conf_dir, run_dir, run_id
from interp_lab.store.results import open_results
from interp_lab.zoo import weights_path

Command = Callable[..., Any]
QUICK = ("~visualization.figures", "output.exports=false", "device=cpu", "capture.live_check=false")
IMAGES = ("dataset=images", *QUICK)
NUMBER = "mean_cls_similarity"
ROUNDING, DIFFERENT = 1e-5, 1e-2


def draw(folder: Path, *seeds: int) -> Path:
    """Write a picture a seed; stripes of random widths, so that their numbers differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(seeds):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, :: seed + 2] = np.random.default_rng(seed).integers(0, 256, 3)
        pixels[: 8 * (seed % 5), :, seed % 3] = 250
        Image.fromarray(pixels).save(folder / f"{place}.png")
    return folder


def result_of(said: Any) -> Path:
    found = re.findall(r"^results: (.*)$", said.out, re.MULTILINE)
    assert found, said.out + said.err
    return Path(found[-1])


def numbers(said: Any) -> dict[str, float]:
    with open_results(result_of(said)) as results:
        return {name: float(results.read(NUMBER, name)) for name in results.sample_ids}


def anew(command: Command, tmp_path: Path, *arguments: str) -> dict[str, float]:
    """The numbers of a run in a directory of its own."""
    place = tmp_path / "anew"
    shutil.rmtree(place, ignore_errors=True)
    return numbers(command(*arguments, f"++output.dir={place}"))


def same(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found == pytest.approx(wanted, abs=ROUNDING)


def composed(*overrides: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def weights(folder: Path, factor: float = 1.0) -> Path:
    """Copy the tiny CLIP; its first layer's values times a factor."""
    shutil.copytree(weights_path("tiny_clip"), folder)
    scale(folder, factor)
    return folder


def scale(folder: Path, factor: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(
        n
        for n in sorted(tensors)
        if "vision" in n and "layers.0" in n and n.endswith("v_proj.weight")
    )
    tensors[name] = (tensors[name] * factor).astype(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# The five cases that gave old numbers as new.


def test_pictures_swapped_in_their_folder_have_their_own_numbers(
    command: Command, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "p", 1, 4, 7)
    before = numbers(command(*IMAGES, f"dataset.path={folder}"))
    assert abs(before["0.png"] - before["1.png"]) > DIFFERENT
    (folder / "0.png").rename(folder / "t")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "t").rename(folder / "1.png")
    said = command(*IMAGES, f"dataset.path={folder}")
    assert "2 samples changed since measured: measured again (0.png, 1.png)" in said.out
    swapped = {"0.png": before["1.png"], "1.png": before["0.png"], "2.png": before["2.png"]}
    assert same(numbers(said), swapped)
    # And a finished run whose pictures stay is not measured again.
    said = command(*IMAGES, f"dataset.path={folder}")
    assert "measured again" not in said.out and "loading" not in said.out
    assert same(numbers(said), swapped)


def test_failed_samples_tried_again_are_not_mixed_with_old_ones(
    command: Command, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "p", 1, 2, 3)
    (folder / "3.png").write_bytes(b"no picture")
    arguments = (*IMAGES, f"dataset.path={folder}", "batch_size=1", "output.part_size=1")
    assert command(*arguments).code == 3
    draw(folder, 5, 6, 7, 8)
    said = command(*arguments, "retry_failed=true")
    assert "4 samples changed since measured: measured again" in said.out
    wanted = anew(command, tmp_path, *arguments)
    assert len(wanted) == 4 and same(numbers(said), wanted)


def test_weights_replaced_in_their_folder_are_another_run(command: Command, tmp_path: Path) -> None:
    folder, pictures = weights(tmp_path / "w"), draw(tmp_path / "p", 1, 2)
    arguments = (*IMAGES, f"dataset.path={pictures}", f"model.checkpoint={folder}")
    first = command(*arguments)
    before = numbers(first)
    scale(folder, 4.0)
    second = command(*arguments)
    assert f"another run than {result_of(first).parent.name}: other weights.checkpoint.files." in (
        second.out
    )
    assert "model.safetensors" in second.out
    wanted = anew(command, tmp_path, *arguments)
    assert max(abs(before[n] - wanted[n]) for n in wanted) > DIFFERENT
    assert same(numbers(second), wanted)
    # The old numbers are still those of the old weights.
    scale(folder, 0.25)
    again = command(*arguments)
    assert result_of(again) == result_of(first) and same(numbers(again), before)


def test_weights_of_one_relative_path_in_two_folders_are_two_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = draw(tmp_path / "p", 1, 2)
    arguments = (*IMAGES, f"dataset.path={pictures}", "model.checkpoint=./w")
    said = []
    for place, factor in (("a", 1.0), ("b", 4.0), ("c", 1.0)):
        weights(tmp_path / place / "w", factor)
        monkeypatch.chdir(tmp_path / place)
        said.append(command(*arguments))
    first, other, copy = said
    assert result_of(first) != result_of(other)
    assert "another run than" in other.out and "weights.checkpoint.files" in other.out
    monkeypatch.chdir(tmp_path / "b")
    assert same(numbers(other), anew(command, tmp_path, *arguments))
    # The same weights in a third folder are the same run: nothing is measured again.
    assert result_of(copy) == result_of(first) and "loading" not in copy.out


def test_a_list_of_relative_paths_in_two_folders_is_two_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*IMAGES, "dataset.path=[i]")
    said = []
    for place, seed in (("a", 1), ("b", 4)):
        draw(tmp_path / place / "i", seed)
        monkeypatch.chdir(tmp_path / place)
        said.append(command(*arguments))
    assert result_of(said[0]) != result_of(said[1])
    assert "another run than" in said[1].out and "other dataset.path" in said[1].out
    assert same(numbers(said[1]), anew(command, tmp_path, *arguments))
    assert not same(numbers(said[0]), numbers(said[1]))


# What else is compared, and what is not.


def test_a_sample_that_vanished_is_left_out(command: Command, tmp_path: Path) -> None:
    folder = draw(tmp_path / "p", 1, 2, 3)
    before = numbers(command(*IMAGES, f"dataset.path={folder}"))
    (folder / "1.png").unlink()
    said = command(*IMAGES, f"dataset.path={folder}")
    assert "1 sample no longer in the data set: left out of the result (1.png)" in said.out
    assert "loading" not in said.out
    assert numbers(said) == {name: before[name] for name in ("0.png", "2.png")}


def test_a_failed_sample_whose_file_was_mended_is_measured_without_being_asked(
    command: Command, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "p", 1, 2)
    (folder / "2.png").write_bytes(b"no picture")
    assert command(*IMAGES, f"dataset.path={folder}").code == 3
    # What is still broken is not tried again.
    assert "measured again" not in command(*IMAGES, f"dataset.path={folder}").out
    draw(folder, 1, 2, 3)
    said = command(*IMAGES, f"dataset.path={folder}")
    assert said.code == 0 and len(numbers(said)) == 3


def test_a_sample_that_changed_since_its_part_is_measured_again_before_the_merge(
    command: Command, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "p", 1, 2, 3, 4)
    arguments = (*IMAGES, f"dataset.path={folder}", "batch_size=1", "output.part_size=1")
    half = command(*arguments, "shard.index=0", "shard.count=2")
    assert half.code == 0 and "results:" not in half.out
    draw(folder, 9)
    said = command(*arguments)
    assert "1 sample changed since measured" in said.out
    assert same(numbers(said), anew(command, tmp_path, *arguments))


def test_a_plan_counts_what_changed(command: Command, tmp_path: Path) -> None:
    folder = draw(tmp_path / "p", 1, 2, 3)
    command(*IMAGES, f"dataset.path={folder}")
    draw(folder, 8)
    said = command(*IMAGES, f"dataset.path={folder}", "mode=plan")
    assert re.search(r"\b1 to (do|measure)|1 left", said.out), said.out


def test_the_fingerprints_are_in_the_result(command: Command, tmp_path: Path) -> None:
    import h5py

    folder = draw(tmp_path / "p", 1, 2)
    path = result_of(command(*IMAGES, f"dataset.path={folder}"))
    with h5py.File(path) as file:
        found = list(file["samples/fingerprint"].asstr()[...])
        assert file.attrs["schema_version"] == 3
        assert len(set(found)) == 2 and all(re.fullmatch("[0-9a-f]{32}", f) for f in found)
        assert "interp_lab." not in file.attrs["config"].partition("figures")[2]
        assert "_target_: ClipVision" in file.attrs["config"]
    kept = json.loads((path.parent / "identity.json").read_text())
    assert kept["weights"]["checkpoint"]["files"].keys() >= {"config.json", "model.safetensors"}


def test_a_picture_replaced_while_others_are_measured_gives_no_result(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_lab.datasets.images import ImageFiles

    folder = draw(tmp_path / "p", 1, 2, 3)
    load = ImageFiles.load

    def load_and_replace(self: ImageFiles, index: int) -> Any:
        if index == 2:
            draw(folder, 9)
        return load(self, index)

    arguments = (*IMAGES, f"dataset.path={folder}", "batch_size=1")
    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "load", load_and_replace)
        said = command(*arguments)
    assert said.code == 1 and "results:" not in said.out
    assert (
        "1 sample changed, or lost all numbers, while the others were measured (0.png)" in said.err
    )
    again = command(*arguments)
    assert "1 sample changed since measured" in again.out
    assert same(numbers(again), anew(command, tmp_path, *arguments))


REEXPORT = """
from interp_lab.models.clip import ClipVision
from mine_inner import Mine
"""
MINE = """
class Mine:
    def __init__(self, size: int = 1) -> None:
        self.size = size{change}
"""


def test_a_class_is_the_same_from_another_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_reexport.py").write_text(REEXPORT)
    (tmp_path / "mine_inner.py").write_text(MINE.format(change=""))
    (tmp_path / "mine_changed.py").write_text(MINE.format(change=" + 1"))
    monkeypatch.syspath_prepend(tmp_path)
    allow = "allow_targets=[outside_reexport,mine_inner,mine_changed]"
    base = run_id(composed())
    assert run_id(composed(allow)) == base
    assert run_id(composed("model._target_=outside_reexport.ClipVision", allow)) == base
    mine = run_id(composed("dataset._target_=mine_inner.Mine", allow))
    assert mine != base
    assert run_id(composed("dataset._target_=outside_reexport.Mine", allow)) == mine
    # Another class of the same name is another class.
    assert run_id(composed("dataset._target_=mine_changed.Mine", allow)) != mine


def test_a_hub_checkpoint_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from interp_lab.identity.weights import commit_of
    from interp_lab.models.weights import Weights

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refs = tmp_path / "models--some--clip" / "refs"
    chosen = ("model.checkpoint=some/clip",)
    ids = []
    for commit in (None, "a" * 40, "b" * 40):
        commit_of.cache_clear()
        if commit:
            refs.mkdir(parents=True, exist_ok=True)
            (refs / "main").write_text(commit)
        ids.append(run_id(composed(*chosen)))
        # What is loaded is the commit that the identity names.
        assert Weights("some/clip").commit() == commit
    commit_of.cache_clear()
    assert len(set(ids)) == 3
    assert run_id(composed(*chosen, f"model.revision={'b' * 40}")) == ids[2]


def test_words_that_are_no_paths_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("task=scienceqa", "dataset.instruction='Is it A/B or C?'")
    ids = set()
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        ids.add(run_id(composed(*chosen)))
    assert len(ids) == 1


def test_a_checkpoint_that_is_not_there_is_told_by_who_loads_it(command: Command) -> None:
    said = command(*QUICK, "model.checkpoint=./nowhere")
    assert said.code == 1 and "model.checkpoint=./nowhere" in said.err
    assert run_dir(composed("model.checkpoint=./nowhere"))


def test_weights_replaced_while_they_are_loaded_stop_the_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_lab.models.clip import ClipVision

    folder, pictures = weights(tmp_path / "w"), draw(tmp_path / "p", 1)
    load = ClipVision.__init__

    @functools.wraps(load)
    def load_and_replace(self: ClipVision, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        scale(folder, 2.0)
        os.utime(folder / "model.safetensors")

    monkeypatch.setattr(ClipVision, "__init__", load_and_replace)
    said = command(*IMAGES, f"dataset.path={pictures}", f"model.checkpoint={folder}")
    assert said.code == 1 and "the weights changed since the command began" in said.err
