"""`mode=models`: what it says of the package's models is what a run or a plan does."""

import pytest
from omegaconf import open_dict

from interp_lab.config.composing import composed_here
from interp_lab.errors import InterpLabError
from interp_lab.run import pairing
from interp_lab.run.pairing import Pairs, pairs
from interp_lab.run.plan import plan
from interp_lab.run.study import run_study

# By hand: which of the shipped tiny models is made for which study.
TINY = {
    ("tiny_clip", "clip_similarity"): "",
    ("tiny_clip", "scienceqa"): "no answers",
    ("tiny_clip", "avigate"): "no gates",
    ("tiny_llava", "scienceqa"): "",
    ("tiny_llava", "trajectory"): "",
    ("tiny_llava", "semdim"): "",  # its words can be read
    ("tiny_llava", "clip_similarity"): "no hidden states",
    ("tiny_omni", "semdim"): "",
    ("tiny_avigate", "avigate"): "",
    ("tiny_avigate", "semdim"): "no answers",
    ("flan_t5_base", "semdim"): "",
    ("flan_t5_base", "trajectory"): "no decoder that reads the prompt",
    ("smollm2_135m", "semdim"): "",
    ("smollm2_135m", "trajectory"): "",  # of semdim's words
    ("smollm2_135m", "scienceqa"): "no image",
}


@pytest.fixture(scope="module")
def found() -> Pairs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "own_settings", lambda: None)
        patch.setattr(pairing, "config_folders", lambda settings: [])
        return pairs(composed_here([]))


@pytest.mark.parametrize(("pair", "missing"), TINY.items(), ids=str)
def test_the_table_says_what_fits(found: Pairs, pair: tuple[str, str], missing: str) -> None:
    assert found.cells[pair] == missing


def test_every_model_of_the_package_runs_with_a_study(found: Pairs) -> None:
    assert not found.unknown
    for model in found.models:
        assert any(not found.cells[model, task] for task in found.studies), model


@pytest.mark.parametrize("task", ["clip_similarity", "scienceqa", "semdim", "trajectory"])
def test_a_plan_goes_where_the_table_says_yes_and_is_refused_elsewhere(
    found: Pairs, task: str
) -> None:
    for model in ("tiny_clip", "tiny_omni"):
        cfg = composed_here([f"task={task}", f"model={model}", "mode=plan"])
        if task == "scienceqa":
            with open_dict(cfg):
                cfg.dataset.conv_mode = "chat_template"
        if found.cells[model, task]:
            with pytest.raises(InterpLabError):
                plan(cfg, None)
        else:
            assert plan(cfg, None)


def test_the_command_prints_a_row_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "own_settings", lambda: None)
        patch.setattr(pairing, "config_folders", lambda settings: [])
        run_study(composed_here(["mode=models"]), ["mode=models"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split()[:2] == ["model", "reads"]
    assert any(row.startswith("tiny_clip ") and " yes " in row for row in rows)
