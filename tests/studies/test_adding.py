"""What CONTRIBUTING says of adding a study, a figure and a model's YAML: no existing file changes.

Everything here is written into a folder of the user's own, as a newcomer would.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp_lab.datasets.base import stated_prompts
from interp_lab.errors import ConfigError
from interp_lab.store.results import open_results

STUDY = '''
"""norms: how long a vision tower's patch vectors are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from interp_lab.capture.plans import HiddenPlan
from interp_lab.datasets.images import ImageFiles
from interp_lab.fields import Histogram, Scalar


class Norms:
    """Mean length of the patch vectors.

    Args:
        layer: hidden state, 0 = embeddings.
    """

    def __init__(self, layer: int = 1) -> None:
        self.layer = layer
        self.definitions = {"mean_norm": "norms.mean_norm/1"}
        self.fields = [Scalar("mean_norm", "mean length", definition="norms.mean_norm/1")]

    def for_model(self, model):
        return NormsOfModel(self, f"hidden.{self.layer}")


@dataclass(frozen=True)
class NormsOfModel:
    options: Norms
    hookpoint: str
    notes: tuple = ()

    @property
    def fields(self):
        return self.options.fields

    def plans(self, tokens):
        cells = list(tokens.where(role="image"))
        return {"norm": HiddenPlan(self.hookpoint, lambda h: h[cells].float().norm(dim=-1).mean())}

    def variants(self, sample, seen, captured):
        return {}

    def update(self, sample, seen, captured, outputs):
        return {"mean_norm": float(captured["norm"])}


class NormNumbers:
    """Their distribution.

    Args:
        bins: of the histogram.
    """

    definitions = {}

    def __init__(self, bins: int = 4) -> None:
        self.bins = bins

    def compute(self, results):
        values = np.concatenate([b["mean_norm"] for b in results.stream(["mean_norm"])])
        counts, edges = np.histogram(values, self.bins)
        low, high = float(edges[0]), float(edges[-1])
        return [(Histogram("norms", "mean length", lowest=low, highest=high), counts)]

    def export(self, results, folder: Path) -> None:
        (folder / "norms.txt").write_text(f"{len(results)} images")


PROMPT = "System: see.\\n\\n What is {thing}?  {{ \\n"


class Asked(ImageFiles):
    """Pictures with a prompt."""

    prompts = {"mine": PROMPT}


def bars(results, style, *, color: str = "0.4") -> Figure:
    figure = Figure(figsize=(3, 2))
    counts = results.aggregate("norms")
    figure.subplots().bar(range(len(counts)), counts, color=color)
    return figure
'''
YAMLS = {
    "task/norms.yaml": """
# @package _global_
defaults:
  - override /analysis: norms
  - override /numbers: norms
  - override /visualization: norms
task_name: norms
allow_targets: [my_norms]
""",
    "analysis/norms.yaml": "_target_: my_norms.Norms\nlayer: 1\n",
    "numbers/norms.yaml": "_target_: my_norms.NormNumbers\n",
    "visualization/norms.yaml": """
_target_: interp_lab.visualization.base.Style
figures:
  bars: {_target_: my_norms.bars, file: bars, per: run}
""",
    "dataset/asked.yaml": "_target_: my_norms.Asked\npath: ???\n",
    "model/mine.yaml": """
_target_: interp_lab.models.clip.ClipVision
family: clip
checkpoint: zoo:tiny_clip
name: mine
""",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "mine"
    for name, text in YAMLS.items():
        (place / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "conf" / name).write_text(text.lstrip())
    (place / "my_norms.py").write_text(STUDY.lstrip())
    monkeypatch.syspath_prepend(str(place))
    return place


def test_a_study_with_a_figure(
    folder: Path, pictures: Callable[..., Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    typed = (f"--config-dir={folder}/conf", "task=norms", "dataset=images")
    typed += (f"dataset.path={pictures(3)}",)
    said = command(*typed)
    assert said.code == 0, said.err
    assert "WARNING" not in said.out and "warning" not in said.err.lower()
    [path] = tmp_path.glob("outputs/norms/*/results.h5")
    assert (path.parent / "figures" / "bars.png").is_file()
    assert (path.parent / "exports" / "norms.txt").read_text() == "3 images"
    again = command(*typed, "numbers.bins=7", "visualization.figures.bars.color=red")
    assert again.code == 0 and "nothing is measured" in again.out, again.err
    with open_results(path) as results:
        assert len(results.aggregate("norms")) == 7
        assert results.definitions["mean_norm"] == "norms.mean_norm/1"


def test_prompts_that_a_data_set_states_are_kept_with_the_result(
    folder: Path, pictures: Callable[..., Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    prompt = "System: see.\n\n What is {thing}?  {{ \n"
    typed = (f"--config-dir={folder}/conf", "task=norms", "dataset=asked")
    typed += (f"dataset.path={pictures(1)}", "visualization.figures=null")
    said = command(*typed)
    assert said.code == 0, said.err
    [path] = tmp_path.glob("outputs/norms/*/results.h5")
    with open_results(path) as results:
        assert results.prompts == {"mine": prompt}
    assert json.loads((path.parent / "exports" / "prompts.json").read_text()) == {"mine": prompt}
    listed = command("mode=summary", f"results={path}").out
    assert "  prompt     mine\n      System: see.\n      \n       What is {thing}?  {{ \n" in listed
    again = command(*typed, "numbers.bins=7")  # numbers made again keep them
    assert again.code == 0, again.err
    with open_results(path) as results:
        assert results.prompts == {"mine": prompt} and len(results.aggregate("norms")) == 7


@pytest.mark.parametrize("stated", [["text"], {"name": 1}, {1: "text"}, "text", None])
def test_prompts_that_are_no_texts_are_refused(stated: Any) -> None:
    with pytest.raises(ConfigError, match="prompts of Own should be name -> full text"):
        stated_prompts(type("Own", (), {"prompts": stated})())


def test_a_yaml_of_four_keys_takes_every_key_of_the_signature(
    folder: Path, pictures: Callable[..., Path], command: Callable[..., Any]
) -> None:
    typed = (f"--config-dir={folder}/conf", "model=mine", "dataset=images")
    typed += (f"dataset.path={pictures(1)}", "visualization.figures=null")
    for key in ("dtype=bfloat16", "trust_remote_code=false", "revision=main"):
        assert key.split("=")[0] not in YAMLS["model/mine.yaml"]
        said = command(*typed, f"model.{key}")
        assert said.code == 0, said.err
    said = command(*typed, "model.dtyp=bfloat16")
    assert said.code == 1 and "dtype" in said.err
