"""The user's own YAML files in ./conf and ./studies: found, listed, and never mixed up."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import interp_lab
from interp_lab.config.folders import all_folders, found_folders
from interp_lab.config.nodes import conf_dir
from interp_lab.libraries.hydra_inside import search_in
from interp_lab.store.results import open_results

QUICK = ("visualization.max_samples=0",)
MODEL = (conf_dir() / "model" / "tiny_clip.yaml").read_text(encoding="utf-8")
SMALL = MODEL.replace("name: tiny_clip", "name: mine")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what was looked in is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    search_in([])


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def error_of(said: Any) -> str:
    (line,) = [x for x in said.err.splitlines() if x.startswith("error: ")]
    assert said.code == 1
    return line.removeprefix("error: ")


@pytest.mark.parametrize("name", ["conf", "studies"])
def test_config_name_and_options_are_found_in_the_current_folder(
    command: Callable[..., Any], here: Path, name: str
) -> None:
    put(here / name / "my_config.yaml", "defaults: [config, _self_]\nseed: 7\n")
    put(here / name / "model" / "mine.yaml", SMALL)
    said = command("--config-name=my_config", "model=mine", "--cfg", "job")
    cfg = OmegaConf.create(said.out)
    assert cfg.seed == 7 and cfg.model.name == "mine"


def test_a_run_with_own_files_is_the_run_of_the_same_settings(
    command: Callable[..., Any], here: Path
) -> None:
    """Where a setting stands is no part of what a run is."""
    put(here / "studies" / "my_config.yaml", "defaults: [config, _self_]\nseed: 7\n")
    own = command("--config-name=my_config", *QUICK).out.split()[-1]
    assert own == command("seed=7", *QUICK).out.split()[-1]


def test_workers_of_a_sweep_find_them(command: Callable[..., Any], here: Path) -> None:
    put(here / "conf" / "model" / "mine.yaml", SMALL)
    said = command("--multirun", "model=mine,tiny_clip", *QUICK)
    assert said.code == 0, said.err
    names = {Path(x.split()[-1]).parent.name.split("-")[0] for x in said.out.splitlines()}
    assert {"mine", "tiny_clip"} <= names


def test_plan_and_help_know_them(command: Callable[..., Any], here: Path) -> None:
    own = put(here / "conf" / "my_config.yaml", "defaults: [config, _self_]\n")
    put(here / "studies" / "model" / "mine.yaml", SMALL)
    assert "324,288 parameters" in command("mode=plan", "model=mine").out
    shown = command("--help", "model=mine").out
    assert " mine, " in shown and f"my_config      {own}" in shown
    assert "name: mine" in shown


def test_completion_offers_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(here / "studies" / "model" / "mine.yaml", SMALL)
    monkeypatch.setenv("COMP_LINE", "interp-lab model=mi")
    monkeypatch.setenv("COMP_POINT", "19")
    from interp_lab.cli.command import run

    assert run(["-sc", "query=bash"]) == 0
    assert "model=mine" in capfd.readouterr().out.split()


def test_a_folder_that_is_given_is_looked_in_besides(
    command: Callable[..., Any], here: Path
) -> None:
    put(here / "conf" / "model" / "mine.yaml", SMALL)
    put(here / "more" / "model" / "other.yaml", SMALL.replace("name: mine", "name: other"))
    said = command("--config-dir=more", "--multirun", "model=mine,other", "mode=plan")
    assert said.code == 0 and "mine-photo" in said.out and "other-photo" in said.out
    assert [f.name for f in all_folders([Path("conf"), Path("more")])] == ["conf", "more"]


def test_the_packages_own_folder_is_no_folder_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(conf_dir().parent)
    assert found_folders() == []


@pytest.mark.parametrize("given", [[], ["model=tiny_clip"], ["model=tiny_clip", "--cfg", "job"]])
def test_a_file_with_the_name_of_a_packaged_one_is_refused(
    command: Callable[..., Any], here: Path, given: list[str]
) -> None:
    path = put(here / "conf" / "model" / "tiny_clip.yaml", MODEL + "seed: 3\n")
    assert error_of(command(*given)) == (
        f"{path}: has the name of interp_lab's own, which would be used in its place; rename it, "
        "such as to my_tiny_clip.yaml, and give model=my_tiny_clip"
    )


def test_a_file_that_is_not_used_or_is_equal_stops_nobody(
    command: Callable[..., Any], here: Path
) -> None:
    put(here / "conf" / "model" / "llava_1_5_7b.yaml", "other: project\n")
    put(here / "conf" / "model" / "tiny_clip.yaml", MODEL)
    assert command(*QUICK).code == 0


def test_two_files_of_ones_own_with_one_name_are_refused(
    command: Callable[..., Any], here: Path
) -> None:
    put(here / "conf" / "model" / "mine.yaml", SMALL)
    path = put(here / "studies" / "model" / "mine.yaml", SMALL + "dtype: float16\n")
    line = error_of(command("model=mine"))
    assert line.startswith(f"{path}: has the name of {here}/conf/model/mine.yaml")


def test_a_file_in_the_place_of_a_registered_node_is_refused(
    command: Callable[..., Any], here: Path
) -> None:
    """Hydra looks for these last, so a file of the name would be used without a word."""
    path = put(here / "conf" / "base_config.yaml", "seed: 3\n")
    assert error_of(command()).startswith(f"{path}: has the name of one of Hydra's")


def test_anothers_config_yaml_is_said_to_be_unread(
    command: Callable[..., Any], here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(here / "conf" / "config.yaml", "lr: 0.1\n")
    said = command(*QUICK)
    assert said.code == 0
    assert f"{path} is not read" in said.out + said.err + caplog.text
    assert "has the name of interp_lab's own" in error_of(command("--config-dir=conf"))
    assert "has the name of interp_lab's own" in error_of(command("--config-name=config"))


def test_python_finds_them_too(here: Path) -> None:
    put(here / "conf" / "model" / "mine.yaml", SMALL)
    with interp_lab.run(["model=mine", *QUICK]) as results:
        assert Path(results.path).parent.name.startswith("mine-photo")


def test_looking_at_a_result_leaves_no_log_beside_it(
    command: Callable[..., Any], here: Path
) -> None:
    """`mode=summary results=results.h5` once left an empty interp_lab.log where it was typed."""
    path = Path(command(*QUICK).out.split()[-1])
    assert (path.parent / "interp_lab.log").stat().st_size > 0
    (here / "copy.h5").write_bytes(path.read_bytes())
    assert command("mode=summary", "results=copy.h5").code == 0
    assert not (here / "interp_lab.log").exists()
    with open_results(here / "copy.h5") as results:
        assert len(results) == 1
