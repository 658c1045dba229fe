"""`mode=doctor` as it is typed: what it prints, its exit code, nothing left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp_lab.doctor import checkup
from interp_lab.doctor.findings import Finding
from interp_lab.doctor.proof import Proof


def test_the_real_checkup_as_json(
    command: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One dtype: the others are run in test_kernels and test_proof.
    monkeypatch.setattr(checkup, "DTYPES", {"float32": torch.float32})
    monkeypatch.setattr(checkup, "devices", lambda: [torch.device("cpu")])
    said = command("mode=doctor", "--json")
    values = json.loads(said.out)
    groups = {f["group"] for f in values["findings"]}
    assert groups == {
        "versions",
        "kernels on cpu",
        "capture on cpu",
        "figures",
        "launchers",
        "files",
        "memory",
    }
    assert values["holds"] == (said.code == 0), said.err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_promise_is_exit_1_and_one_line(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding("files", "file locks", "failure", "no locks: take a local disk")]
    monkeypatch.setattr(checkup, "checkup", lambda root: iter(findings))
    said = command("mode=doctor")
    assert said.code == 1
    assert said.out.splitlines()[-1] == "verdict: 1 failure: files: file locks"
    assert said.err.splitlines() == [
        "error: 1 failure: files: file locks; the first: no locks: take a local disk"
    ]


def test_warnings_alone_are_exit_0(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding("figures", "font for Korean", "warning", "pip install x")]
    monkeypatch.setattr(checkup, "checkup", lambda root: iter(findings))
    said = command("mode=doctor")
    assert said.code == 0 and said.err == ""
    assert said.out.splitlines()[-1] == "verdict: every promise holds on this machine (1 warning)"


def test_a_failed_proof_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Proof({}, ["generated tokens: steps captured: 0 instead of 3"])
    monkeypatch.setattr(checkup, "prove", lambda *about: wrong)
    found = list(checkup.proof_findings(torch.device("cpu")))
    assert {f.state for f in found} == {"failure"}
    assert "0 instead of 3" in found[0].text and "pip install 'transformers" in found[0].text


def test_json_without_doctor_is_refused(command: Callable[..., object]) -> None:
    said = command("--json")
    assert said.code == 1 and "--json: mode=doctor alone prints JSON" in said.err


def test_a_run_is_proven_before_its_model_is_loaded(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_lab.doctor import first
    from interp_lab.errors import UnsupportedModelError

    asked = []

    def refuse(*about: object) -> None:
        asked.append(about)
        raise UnsupportedModelError("capture is wrong here")

    monkeypatch.setattr(first, "prove_once", refuse)
    said = command("task=scienceqa", "device=cpu", "model.checkpoint=no/such/weights")
    assert said.code == 1 and "capture is wrong here" in said.err
    assert asked == [(torch.device("cpu"), torch.float32, "sdpa")]
    # A vision tower's hidden states are read by hooks: no attention is watched.
    assert command("device=cpu", "visualization.max_samples=0").code == 0
