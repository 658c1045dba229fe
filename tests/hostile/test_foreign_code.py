"""Commands and files that tried to run code, and did not.

Each attempt would leave a file behind; after each there is none. The line that it got is checked.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from interp_lab.errors import ConfigError, StoreError
from interp_lab.store.checksum import seal
from interp_lab.store.locks import DeviceLock, check_planted
from interp_lab.store.results import open_results

# A module that says that it was imported, by the file it makes.
EVIL = """
from pathlib import Path
Path({mark!r}).touch()
def run(*args, **kwargs):
    Path({mark!r}).touch()
class Data:
    def __init__(self, **kwargs):
        Path({mark!r}).touch()
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module `evil_module` on the path; the returned file exists once it has run."""
    place = tmp_path / "evil"
    place.mkdir()
    found = place / "it_ran"
    (place / "evil_module.py").write_text(EVIL.format(mark=str(found)))
    monkeypatch.syspath_prepend(str(place))
    sys.modules.pop("evil_module", None)
    return found


def refused(said: Any, mark: Path) -> str:
    """The one line of a command that ended with an error and ran nothing."""
    assert not mark.exists(), "it ran"
    assert said.code == 1 and "Traceback" not in said.err, said.err
    [line] = [line for line in said.err.splitlines() if line.startswith("error: ")]
    return line


OWN = "_target_: interp_lab.models.own.OwnModule"
SYSTEM = "{{_target_: os.system, command: 'touch {mark}'}}"
# What is typed -> words of the line.
TYPED = {
    "dataset": (f"dataset={SYSTEM}", "dataset._target_=os.system"),
    "module": ("dataset={{_target_: evil_module.Data}}", "allow_targets=[evil_module]"),
    "model": (f"model={SYSTEM}", "model._target_=os.system"),
    "network": (f"model={{{{{OWN}, module: {SYSTEM}}}}}", "model.module._target_=os.system"),
    "nested": (
        f"model={{{{{OWN}, module: {{{{_target_: interp_lab.models.qd_detr.network.Network, "
        f"inner: [{SYSTEM}]}}}}}}}}",
        "model.module.inner[0]._target_=os.system",
    ),
    "analysis": ("analysis={{_target_: evil_module.Data}}", "analysis._target_"),
    "numbers": ("numbers={{_target_: evil_module.Data}}", "numbers._target_"),
    "style": ("visualization={{_target_: evil_module.Data}}", "visualization._target_"),
    "figure": ("visualization.figures.cls._target_=evil_module.run", "figures.cls._target_"),
    "wrong kind": ("dataset._target_=interp_lab.models.clip.ClipVision", "interp_lab.datasets."),
    "door": (
        "dataset={{_target_: interp_lab.identity.signatures.import_module, name: evil_module}}",
        "interp_lab.datasets.",
    ),
    "importer": ("+importers.h6=evil_module.run", "importers.h6"),
    "no path": ("dataset._target_=system", "give a dotted path"),
    "no text": ("dataset._target_=[os.system]", "give a dotted path"),
    "dunder": ("dataset._target_=evil_module..Data", "give a dotted path"),
    "task": ("task_name=../../evil", "task_name=../../evil: names a folder"),
    "absolute task": ("task_name=/tmp/evil", "task_name"),
    "dot task": ("task_name='..'", "task_name"),
    "wildcard": ("allow_targets=['*']", "no name of a package"),
    "package of yaml": ("hydra.searchpath=[pkg://evil_module]", "--config-dir"),
}


@pytest.mark.parametrize("mode", ["run", "plan"])
@pytest.mark.parametrize("case", TYPED)
def test_a_command_that_names_foreign_code(
    command: Callable[..., Any], mark: Path, tmp_path: Path, case: str, mode: str
) -> None:
    typed, words = TYPED[case]
    before = {p for p in tmp_path.rglob("*") if "outputs" not in p.parts}
    said = command(typed.format(mark=mark), f"mode={mode}", "device=cpu")
    line = refused(said, mark)
    assert words in line
    left = {p for p in tmp_path.rglob("*") if "outputs" not in p.parts} - before
    assert not left and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("mode", ["doctor", "merge", "compute", "render", "summary"])
def test_no_mode_imports_it(command: Callable[..., Any], mark: Path, mode: str) -> None:
    said = command("dataset={_target_: evil_module.Data}", f"mode={mode}")
    assert "dataset._target_=evil_module.Data" in refused(said, mark)


@pytest.mark.parametrize("key", ["read", "prepare"])
def test_functions_of_a_network_of_one_s_own(mark: Path, key: str) -> None:
    """Its YAML names them by dotted paths, which are no `_target_`; allowed, they are imported."""
    import torch
    from omegaconf import OmegaConf

    from interp_lab.config.nodes import build

    own = {"_target_": "interp_lab.models.own.OwnModule", key: "evil_module.run"}
    own["module"] = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}
    cfg = OmegaConf.create({"model": own, "allow_targets": ["torch.nn"]})
    with pytest.raises(ConfigError, match=rf"model\.{key}=evil_module\.run: is not of interp_lab"):
        build(cfg, "model", device=torch.device("cpu"))
    assert not mark.exists()
    cfg.allow_targets.append("evil_module")
    build(cfg, "model", device=torch.device("cpu"))
    assert mark.exists()


def test_hydra_s_own_nodes_import_nothing_foreign(command: Callable[..., Any], mark: Path) -> None:
    said = command("+hydra.callbacks.x={_target_: evil_module.Data}")
    assert "_target_=evil_module.Data" in refused(said, mark)


def test_what_is_allowed_on_purpose_must_meet_the_contract(
    command: Callable[..., Any], mark: Path
) -> None:
    """Allowed, so it is imported; a class without the methods of a data set is never made."""
    typed = (
        "dataset={_target_: evil_module.Data, name: x, path: null, allow_targets: [evil_module]}"
    )
    said = command(typed, "mode=plan")
    assert said.code == 1 and "is no dataset: it has no method 'ids'" in said.err


def test_what_a_module_of_ours_borrowed_is_none_of_ours(command: Callable[..., Any]) -> None:
    said = command("numbers._target_=interp_lab.studies.clip_similarity.numbers.Path")
    assert said.code == 1 and "is no class of this package" in said.err


def test_a_permission_is_for_the_package_that_it_names(
    command: Callable[..., Any], mark: Path
) -> None:
    said = command("dataset={_target_: evil_module.Data}", "allow_targets=[evil]")
    assert "allow_targets=[evil_module]" in refused(said, mark)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the demo."""
    from interp_lab.api import run

    root = tmp_path_factory.mktemp("measured")
    typed = ["device=cpu", f"output.root={root}", "visualization.max_samples=0"]
    with run([*typed, "capture.live_check=false", "capture.verify=off"]) as results:
        return results.path


STORED = {
    "style": {"visualization": {"_target_": "os.system", "command": "touch {mark}"}},
    "figure": {"visualization": {"figures": {"cls": {"_target_": "evil_module.run"}}}},
    "dotted figure": {
        "visualization": {"figures": {"cls": {"_target_": "interp_lab.analyses.x.evil"}}}
    },
    "numbers": {"numbers": {"_target_": "evil_module.Data"}},
    "model": {"model": {"_target_": "evil_module.Data"}},
    "inner": {"model": {"module": [{"_target_": "evil_module.Data"}]}},
    "permission": {
        "allow_targets": ["evil_module"],
        "visualization": {
            "allow_targets": ["evil_module"],
            "figures": {"cls": {"_target_": "evil_module.run", "allow_targets": ["evil_module"]}},
        },
    },
    "unknown name": {"visualization": {"figures": {"cls": {"_target_": "NoSuchFigure"}}}},
}


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{k: merged(base.get(k), v) for k, v in change.items()}}
    return change


def forged(measured: Path, folder: Path, change: Any, mark: Path, signed: bool) -> Path:
    """A copy of a result whose stored configuration is changed, with or without a checksum."""
    path = folder / "results.h5"
    path.write_bytes(measured.read_bytes())
    with h5py.File(path, "r+") as file:
        stored = yaml.safe_load(file.attrs["config"])
        text = yaml.safe_dump(merged(stored, change)) if isinstance(change, dict) else change
        file.attrs["config"] = text.replace("{mark}", str(mark))
        if not signed:
            file.attrs["schema_version"] = 2
    if signed:
        seal(path)
    else:
        path.write_bytes(bytes(512) + path.read_bytes()[512:])
    return path


@pytest.mark.parametrize(
    ("case", "mode"), [*((case, "render") for case in STORED), ("numbers", "compute")]
)
def test_a_result_that_names_foreign_code(
    command: Callable[..., Any], measured: Path, mark: Path, tmp_path: Path, case: str, mode: str
) -> None:
    path = forged(measured, tmp_path, STORED[case], mark, signed=mode == "render")
    said = command(f"mode={mode}", f"results={path}", "visualization.workers=0")
    line = refused(said, mark)
    assert "_target_" in line or "no class or figure 'NoSuchFigure'" in line
    assert not (tmp_path / "figures").exists()


def test_a_stored_color_is_not_imported(
    command: Callable[..., Any], mark: Path, tmp_path: Path
) -> None:
    golden = Path(__file__).parents[1] / "golden" / "trajectory" / "results.h5"
    path = tmp_path / "results.h5"
    path.write_bytes(golden.read_bytes())
    with h5py.File(path, "r+") as file:
        stored = yaml.safe_load(file.attrs["config"])
        stored["visualization"]["colors"] = "evil_module.run"
        file.attrs["config"] = yaml.safe_dump(stored)
    said = command("mode=render", f"results={path}", "visualization.workers=0")
    assert "visualization.colors=evil_module.run" in refused(said, mark)


def test_stored_text_refers_to_nothing(
    measured: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_lab.config.nodes import conf_dir, plain
    from interp_lab.libraries.hydra_inside import composed
    from interp_lab.run.numbers import stored_config

    monkeypatch.setenv("SECRET", "a password")
    text = "visualization: {font: '${oc.env:SECRET}'}\nnumbers: {}\n"
    found = stored_config(text, composed(conf_dir()))
    assert plain(found)["visualization"] == {"font": "${oc.env:SECRET}"}


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
ITSELF = "a: &a [*a]\n"
DEEP = "a: " + "[" * 300 + "]" * 300 + "\n"


@pytest.mark.parametrize("text", [LAUGHS, ITSELF, DEEP], ids=["laughs", "itself", "deep"])
def test_yaml_that_stands_for_too_much(
    command: Callable[..., Any], measured: Path, mark: Path, tmp_path: Path, text: str
) -> None:
    """In a file of the user's and in a result; both are refused before they are written out."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "big.yaml").write_text(text)
    line = refused(command(f"--config-dir={folder.parent}", "experiment=big", "mode=plan"), mark)
    assert "big.yaml: stands for more than 100000 values" in line
    path = forged(measured, tmp_path, text, mark, signed=True)
    line = refused(command("mode=render", f"results={path}"), mark)
    assert "stands for more than 100000 values" in line


def test_a_changed_result_is_refused(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.h5"
    path.write_bytes(measured.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["run_id"] = "another"
    with pytest.raises(StoreError, match="damaged or changed since it was written"):
        open_results(path)


def test_a_task_name_of_a_result_is_no_path(
    command: Callable[..., Any], measured: Path, mark: Path, tmp_path: Path
) -> None:
    path = tmp_path / "results.h5"
    path.write_bytes(measured.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["task_name"] = "../experiment/untrained_control"
    seal(path)
    said = command("mode=summary", f"results={path}")
    assert said.code == 0, said.err


@pytest.mark.parametrize("ids", [["../a"], ["a/../../b"], ["a\\..\\b"], ["Cat", "cat"], ["a\nb"]])
def test_ids_that_leave_their_folder_or_differ_by_case(ids: list[str]) -> None:
    from interp_lab.config.nodes import check_ids

    with pytest.raises(ConfigError, match="dataset: sample id") as caught:
        check_ids(ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ids", [["a/b", "a/c"], ["/data/a.png", "b..c"], ["고양이 (1)", "가\u200d"]]
)
def test_ids_that_are_names(ids: list[str]) -> None:
    from interp_lab.config.nodes import check_ids

    check_ids(ids)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp directory that everybody can write to."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def test_a_lock_folder_that_is_a_link(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (shared / f"interp_lab-{os.getuid()}").symlink_to(target)
    with pytest.raises(StoreError, match="is a link, so no lock is taken there"):
        DeviceLock("card").take()
    assert not list(target.iterdir())


def test_a_lock_folder_of_another_user(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared / f"interp_lab-{os.getuid() + 1}").mkdir(mode=0o700)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(StoreError, match=f"belongs to another user .uid {me}"):
        DeviceLock("card").take()


def test_a_lock_folder_that_everybody_writes_to(shared: Path) -> None:
    place = shared / f"interp_lab-{os.getuid()}"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(StoreError, match="can be written to by everybody"):
        DeviceLock("card").take()


def test_a_lock_folder_of_one_s_own(shared: Path) -> None:
    lock = DeviceLock("card")
    assert lock.take()
    lock.release()
    assert (shared / f"interp_lab-{os.getuid()}").stat().st_mode & 0o077 == 0


def test_a_run_directory_behind_a_link_of_another_user(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / "outputs").symlink_to(tmp_path)
    check_planted(shared / "outputs" / "run")  # one's own link
    mine = os.lstat

    def others(path: Any, **given: Any) -> os.stat_result:
        found = mine(path, **given)
        if Path(path) != shared / "outputs":
            return found
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:10]])

    monkeypatch.setattr(os, "lstat", others)
    with pytest.raises(StoreError, match="is a link of another user"):
        check_planted(shared / "outputs" / "run")
