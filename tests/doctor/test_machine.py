"""What the doctor says of locks, fonts, ffmpeg, versions, launchers, space and their lack."""

import errno
import json
import os
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.specifiers import SpecifierSet

from interp_lab.doctor import figures, file_locks, launchers, space, versions
from interp_lab.doctor.findings import Finding, as_json, as_text
from interp_lab.errors import MissingInputError
from interp_lab.visualization import fonts


def test_locks_of_this_folder_hold_and_nothing_is_left(tmp_path: Path) -> None:
    found = file_locks.lock_finding(tmp_path / "not" / "there")
    assert found.state == "ok", found.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_in_plain_words(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_locks.fcntl, "flock", refuse)
    monkeypatch.setattr(file_locks, "file_system", lambda root: ("nfs", "rw,vers=3"))
    found = file_locks.lock_finding(tmp_path)
    assert found.state == "failure"
    assert found.text.startswith(f"{tmp_path} (nfs) has no working locks")
    assert errno.errorcode[number] in found.text
    assert "two jobs could measure the same samples" in found.text and "output.root" in found.text


def test_locks_that_do_nothing_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Here flock succeeds and holds nothing, so the second process, a real one, gets the lock too.
    monkeypatch.setattr(file_locks.fcntl, "flock", lambda *_: None)
    found = file_locks.lock_finding(tmp_path)
    assert found.state == "failure"
    assert "a second process took a lock that was held" in found.text


def test_a_mount_whose_locks_end_at_this_host_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_locks, "file_system", lambda root: ("nfs", "rw,nolock"))
    found = file_locks.lock_finding(tmp_path)
    assert found.state == "failure" and "nolock" in found.text and "this host alone" in found.text


def test_a_folder_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(file_locks.tempfile, "mkstemp", refuse)
    found = file_locks.lock_finding(tmp_path)
    assert found.state == "failure" and "cannot be written (Permission denied)" in found.text


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw 0 0\nb /data nfs4 rw,local_lock=all 0 0\nc /data2 xfs rw 0 0\n")
    assert file_locks.file_system(Path("/data/x"), mounts) == ("nfs4", "rw,local_lock=all")
    assert file_locks.file_system(Path("/data2"), mounts) == ("xfs", "rw")
    assert file_locks.file_system(Path("/home"), mounts)[0] == "ext4"
    assert file_locks.file_system(Path("/home"), tmp_path / "none")[0] == "unknown file system"


def test_a_missing_font_is_a_warning_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f.state for f in map(figures.font_finding, figures.LETTERS)} == {"ok"}
    monkeypatch.setattr(fonts, "chain", lambda preferred: ["DejaVu Sans"])
    korean, ipa = figures.font_finding("Korean"), figures.font_finding("IPA")
    assert korean.state == "warning" and "pip install koreanize-matplotlib" in korean.text
    assert ipa.state == "ok"


def test_a_missing_ffmpeg_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise MissingInputError("there is no ffmpeg: pip install it")

    monkeypatch.setattr(figures, "find_ffmpeg", none)
    found = figures.ffmpeg_finding()
    assert found.state == "warning" and "no video can be drawn: there is no ffmpeg" in found.text


def test_versions_against_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = versions.judged("torch", "2.14.1+cu130", SpecifierSet(">=2.4,<3"))
    outside = versions.judged("transformers", "5.24.0", SpecifierSet(">=5.6,<5.24"))
    assert inside.state == "ok"
    assert outside.state == "failure"
    assert "5.24.0 is outside the tested range" in outside.text
    assert "pip install 'transformers" in outside.text
    # The installed environment is the one that the tests are for.
    found = {f.name: f for f in versions.version_findings()}
    assert {"interp_lab", "python", "torch", "transformers", "numpy", "h5py"} <= set(found)
    assert found["torch"].details["version"] == str(torch.__version__).split("+")[0] or found[
        "torch"
    ].details["version"] == str(torch.__version__)


def test_a_package_that_is_not_there_and_a_checkout_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        versions, "requires", lambda name: ["no-such-package-x>=1", "b; extra=='x'"]
    )
    found = {f.name: f for f in versions.version_findings()}
    assert found["no-such-package-x"].state == "failure" and "b" not in found

    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", missing)
    found = {f.name: f for f in versions.version_findings()}
    assert found["bounds"].state == "warning" and found["torch"].state == "ok"


def test_launchers_promised_and_extra() -> None:
    lacking = launchers.Launcher("x", "hydra_plugins.no_such.launcher", "x", "x")
    assert launchers.launcher_finding(launchers.LAUNCHERS[0]).state == "ok"
    assert launchers.launcher_finding(lacking).state == "note"
    promised = launchers.Launcher("x", "no_such_plugin", "x", None)
    assert launchers.launcher_finding(promised).state == "failure"


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    disk, memory = space.space_findings(tmp_path / "x", [torch.device("cpu")])
    assert disk.state == "warning" and "1.0 MiB free" in disk.text
    assert memory.details["free"] > 0


def test_a_table_and_json_of_the_same_findings() -> None:
    findings = [
        Finding("a", "one", "ok", "fine"),
        Finding("a", "longer", "warning", "no 나비"),
        Finding("b", "x", "failure", "broken", {"n": 1}),
    ]
    lines = as_text(findings).splitlines()
    assert lines[:3] == ["a", "  ok       one     fine", "  warning  longer  no 나비"]
    assert lines[-1] == "verdict: 1 failure (1 warning): b: x"
    values = json.loads(as_json(findings))
    assert values["holds"] is False and values["findings"][2]["details"] == {"n": 1}
    assert as_text(findings[:1]).endswith("verdict: every promise holds on this machine")


def test_a_version_outside_the_range_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.untested() == []
    real = versions.version
    monkeypatch.setattr(versions, "version", lambda n: "9.9" if n == "transformers" else real(n))
    [note] = versions.untested()
    assert "\n" not in note
    assert re.search(r"transformers 9\.9 is outside the tested range .*pip install 'transf", note)
