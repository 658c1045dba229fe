"""`mode=doctor` with a checkpoint of QD-DETR: what it is, and whether it can be traced, unrun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from qd_detr_cases import checkpoint, network

Command = Callable[..., Any]


def looked_at(command: Command, path: Path, *more: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and name -> (state, text) of what is found."""
    given = ("model=qd_detr_avigate", f"model.checkpoint={path}", *more)
    said = command("mode=doctor", "--json", *given)
    found = json.loads(said.out)["findings"]
    assert {f["group"] for f in found} == {str(path)}
    return said.code, {f["name"]: (f["state"], f["text"]) for f in found}


def test_a_trained_checkpoint_is_described(command: Command, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model_best.ckpt", network("clipwise"))
    code, found = looked_at(command, path)
    assert code == 0 and {state for state, _ in found.values()} <= {"ok", "note"}
    assert found["file"][1].startswith("training checkpoint of epoch 12, with its options: ")
    assert found["network"][1].startswith("QD-DETR with gated audio")
    assert found["layers"][1].startswith("3 fusion layers, 2 encoder layers, 2 decoder layers, 5 ")
    assert found["layers"][1].endswith("features of text 12, video 10, audio 8 columns")
    assert found["gating type"][1] == "clipwise: its options say so"
    assert "nheads=4" in found["options"][1] and "fusion_n_heads=2" in found["options"][1]
    assert found["gates"] == ("ok", "can be traced: 3 of attention, 3 of ffn")
    assert [p.name for p in tmp_path.iterdir()] == ["model_best.ckpt"], "nothing was left behind"
    said = command("mode=doctor", "model=qd_detr_avigate", f"model.checkpoint={path}")
    assert said.out.splitlines()[-1].startswith("verdict: it can be measured")


def test_what_must_be_given_is_said_and_is_enough(command: Command, tmp_path: Path) -> None:
    torch.save(network("global").state_dict(), tmp_path / "w.pth")
    code, found = looked_at(command, tmp_path / "w.pth")
    assert code == 1 and found["file"][1].startswith("weights alone: ")
    assert found["gating type"][0] == "warning" and "does not say which" in found["gating type"][1]
    state, text = found["to be given"]
    assert state == "failure"
    assert text.startswith("gating_type, nheads, fusion_n_heads: not in the checkpoint")
    assert found["weights"][0] == found["gates"][0] == "ok", "the rest of it is well"
    given = ("model.gating_type=global", "model.architecture={nheads: 4, fusion_n_heads: 2}")
    code, found = looked_at(command, tmp_path / "w.pth", *given)
    assert code == 0 and found["gating type"][1].startswith("global: as given")
    assert "to be given" not in found


def test_what_the_shapes_tell_is_not_asked(command: Command, tmp_path: Path) -> None:
    torch.save(network("elementwise").state_dict(), tmp_path / "w.pth")
    _, found = looked_at(command, tmp_path / "w.pth")
    assert found["gating type"] == ("ok", "elementwise: its shapes say so")
    assert found["to be given"][1].startswith("nheads, fusion_n_heads: ")
    _, found = looked_at(command, tmp_path / "w.pth", "model.gating_type=global")
    assert found["weights"][0] == "failure" and "elementwise" in found["weights"][1]


@pytest.mark.parametrize(
    ("damage", "name", "says"),
    [
        ("cut", "file", "cut off"),
        ("gone", "file", "no such file or folder"),
        ("foreign", "network", "no QD-DETR: its tensors begin encoder.weight"),
        ("no gates", "network", "QD-DETR without gated audio: no fusion.fusion_layers"),
        ("lacking", "weights", "1 missing: fusion.fusion_layers.1.norm1.bias"),
        ("paper", "gates", "the fusion of the paper is model=qd_detr_avigate_paper"),
        ("not finite", "weights", "1 not finite: class_embed.bias"),
    ],
)
def test_what_is_wrong_is_one_line(
    command: Command, tmp_path: Path, damage: str, name: str, says: str
) -> None:
    path = tmp_path / "w.ckpt"
    made = network("paper" if damage == "paper" else "global")
    checkpoint(path, made)
    loaded = torch.load(path, weights_only=False)
    weights = loaded["model"]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "gone":
        path.unlink()
    elif damage == "foreign":
        torch.save({"model": {"encoder.weight": torch.ones(2)}}, path)
    elif damage != "paper":
        if damage == "no gates":
            loaded["model"] = {k: v for k, v in weights.items() if ".fusion." not in f".{k}"}
        elif damage == "lacking":
            del weights["module.fusion.fusion_layers.1.norm1.bias"]
        else:
            weights["module.class_embed.bias"][0] = float("nan")
        torch.save(loaded, path)
    code, found = looked_at(command, path)
    assert code == 1 and found[name][0] == "failure"
    assert says in found[name][1] and "\n" not in found[name][1]


def test_a_command_without_a_model_checks_the_machine(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp_lab.doctor import checkup
    from interp_lab.doctor.findings import Finding

    one = Finding("files", "file locks", "ok", "work")
    monkeypatch.setattr(checkup, "checkup", lambda root: iter([one]))
    said = command("mode=doctor", "task=avigate")
    assert "file locks" in said.out and "every promise holds on this machine" in said.out
    said = command(
        "mode=doctor", "model=qd_detr_avigate", "model.init=random", "model.checkpoint=x"
    )
    assert "model.init=random: no checkpoint is read" in said.out
