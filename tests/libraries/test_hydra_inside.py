"""What `interp_lab.libraries.hydra_inside` assumes of Hydra, one test an assumption."""

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import OmegaConf

import interp_lab.run.sweep.record  # noqa: F401  as the command does
from interp_lab.libraries.hydra_inside import (
    ForeignTargetError,
    check_flags,
    composed,
    guard_targets,
    open_node,
    packaged_folder,
    parsed,
    recorded_settings,
    registered_options,
    search_in,
    sweep_record,
    swept_overrides,
)

APP = """
import json, sys
import hydra
from hydra.core.hydra_config import HydraConfig
from interp_lab.libraries import hydra_inside as inside

@hydra.main(version_base=inside.VERSION_BASE, config_path=None, config_name="config")
def job(cfg):
    own = inside.own_settings()
    print(json.dumps({
        "sweep": inside.in_sweep(own),
        "typed": inside.typed_overrides(own),
        "number": inside.job_number(own) if inside.in_sweep(own) else None,
        "folder": str(inside.sweep_folder(own)),
        "output": str(inside.output_folder(own)),
        "configs": [str(f) for f in inside.config_folders(own)],
        "beside": [t.values for t in inside.parsed(["size=glob(*)"])],
    }))

job()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "size").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [size: small, _self_]\na: 1\nb: x\n")
    for name in ("small", "large"):
        (tmp_path / "conf" / "size" / f"{name}.yaml").write_text(f"n: {len(name)}\n")
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def said(folder: Path, *arguments: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, str(folder / "app.py"), f"--config-path={folder}/conf", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_the_parser_reads_overrides_as_hydra_types_them() -> None:
    plain, added, gone, swept, quoted = parsed(
        ["a.b=3", "+c@here=[1,2]", "~d", "e=1,2,'x y'", "f='x, y'"]
    )
    assert (plain.key, plain.marked_key, plain.value, plain.values) == ("a.b", "a.b", 3, ["3"])
    assert (added.key, added.marked_key, added.value) == ("c", "+c@here", [1, 2])
    assert gone.deletes and not plain.deletes
    assert swept.values == ["1", "2", "'x y'"]
    assert quoted.text == "f='x, y'"


def test_what_is_no_override_is_told_apart() -> None:
    with pytest.raises(OverrideParseException):
        parsed(["no equals sign"])


def test_composing_forgets_the_folder_before(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("z: 9\n")
    assert composed(folder / "conf", ["a=2", "size=large"]) == {"size": {"n": 5}, "a": 2, "b": "x"}
    assert composed(other) == {"z": 9}
    assert composed(folder / "conf").size.n == 5


def test_a_job_alone_knows_what_was_typed_and_looks_up_globs(folder: Path) -> None:
    (job,) = said(folder, "a=2", "hydra.run.dir=here")
    assert job["sweep"] is False and job["typed"] == ["a=2"]
    assert Path(job["output"]).name == "here"
    assert str(folder / "conf") in job["configs"]
    assert sorted(job["beside"][0]) == ["large", "small"]


def test_jobs_of_a_sweep_are_numbered_as_their_product_and_leave_a_record(folder: Path) -> None:
    jobs = said(folder, "--multirun", "a=1,2", "b=x,y", f"hydra.sweep.dir={folder}/swept")
    assert [job["typed"] for job in jobs] == [
        ["a=1", "b=x"],
        ["a=1", "b=y"],
        ["a=2", "b=x"],
        ["a=2", "b=y"],
    ]
    assert [job["number"] for job in jobs] == [0, 1, 2, 3]
    assert all(job["sweep"] and job["folder"] == f"{folder}/swept" for job in jobs)
    assert swept_overrides(recorded_settings(sweep_record(folder / "swept"))) == ["a=1,2", "b=x,y"]


@pytest.mark.parametrize("typed", ["size.m=3", "size.deep.m=3", "+size.m=3"])
def test_an_open_node_takes_a_key_that_no_yaml_lists(folder: Path, typed: str) -> None:
    """The node's own flag stands through composition; the rest of the tree stays strict."""
    ConfigStore.instance().store(name="open_base", node={"size": open_node()})
    text = "defaults: [open_base, size: small, _self_]\na: 1\nb: x\n"
    (folder / "conf" / "opened.yaml").write_text(text)
    cfg = composed(folder / "conf", [typed], "opened")
    assert cfg.size.n == 5 and OmegaConf.select(cfg, typed.strip("+").partition("=")[0]) == 3
    for refused in ("c=3", "sise.m=3"):
        with pytest.raises(ConfigCompositionException):
            composed(folder / "conf", [refused], "opened")


def test_an_open_node_that_nothing_fills_is_missing(folder: Path) -> None:
    ConfigStore.instance().store(name="open_base", node={"size": open_node()})
    (folder / "conf" / "unfilled.yaml").write_text("defaults: [open_base, _self_]\na: 1\n")
    assert OmegaConf.is_missing(composed(folder / "conf", [], "unfilled"), "size")


@pytest.mark.parametrize("flags", [["--nope"], ["--cfg", "x"], ["--cfg"]])
def test_a_flag_that_hydra_does_not_know_raises_and_prints_nothing(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArgumentTypeError):
        check_flags(flags)
    assert capsys.readouterr() == ("", "")
    check_flags(["--multirun", "--cfg", "job"])


def test_a_sweep_is_told_from_one_value() -> None:
    assert [typed.is_sweep for typed in parsed(["seed=1,2", "seed=[1,2]", "seed='1,2'"])] == [
        True,
        False,
        False,
    ]


def test_hydra_makes_no_class_of_anybody_else() -> None:
    """Every `_target_` of Hydra's own nodes is found by the name `_instantiate2._locate`."""
    from hydra.utils import instantiate

    guard_targets()
    guard_targets()
    with pytest.raises(Exception, match="Error locating target 'textwrap.dedent'") as caught:
        instantiate({"_target_": "textwrap.dedent", "text": "x"})
    assert isinstance(caught.value.__cause__, ForeignTargetError)
    made = instantiate({"_target_": "interp_lab.run.sweep.record.Record"})
    assert type(made).__name__ == "Record"


def test_folders_that_are_searched_too_come_after_the_main_one(folder: Path) -> None:
    """And are forgotten when others are named; a name in both is the main one's."""
    (folder / "own" / "size").mkdir(parents=True)
    (folder / "own" / "size" / "small.yaml").write_text("n: 99\n")
    (folder / "own" / "size" / "mine.yaml").write_text("n: 7\n")
    try:
        search_in([folder / "own"])
        assert composed(folder / "conf", ["size=mine"]).size.n == 7
        assert composed(folder / "conf", ["size=small"]).size.n == 5
        search_in([])
        with pytest.raises(HydraException):
            composed(folder / "conf", ["size=mine"])
    finally:
        search_in([])


def test_what_is_registered_or_packaged_without_a_file_of_ours() -> None:
    """A file of such a name would be found before a registered node, and after a packaged one."""
    search_in([])  # Hydra looks for its plugins then
    assert "hydra/launcher/joblib" in registered_options()
    assert (packaged_folder() / "hydra" / "job_logging" / "default.yaml").is_file()
