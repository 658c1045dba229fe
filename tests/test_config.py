"""The configuration: every YAML composes, every target resolves, every mistake is one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import check_arguments, conf_dir, plain, quoted, run_id, target_of
from interp_lab.run.study import style_of

GROUPS = ("task", "model", "dataset", "analysis", "visualization", "experiment")
OPTIONS = [
    (group, path.stem) for group in GROUPS for path in sorted((conf_dir() / group).glob("*.yaml"))
]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_target_takes_its_values(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}")
    for node in ("model", "dataset"):
        for key, value in OmegaConf.to_container(cfg[node], resolve=False).items():
            if value == "???":  # what only the user can say
                cfg[node][key] = "x"
    for node in ("model", "dataset", "analysis"):
        values = plain(cfg[node])
        check_arguments(target_of(values, node), values, node)
    style_of(cfg)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("modle=tiny_clip", ["modle", "'model'"]),
        ("model=tiny_clp", ["model=tiny_clp", "'tiny_clip'"]),
        ("visualization.cmpa=hot", ["visualization.cmpa", "'cmap'"]),
        ("visualization.figures.combind.dpi=3", ["visualization.figures.combind", "'combined'"]),
        ("visualization.figures.combined=3", ["visualization.figures.combined"]),
        ("model.famly=clip", ["model.famly", "'family'"]),
        ("dataset.max_sample=3", ["dataset.max_sample", "'max_samples'"]),
        ("select.lyer=3", ["select.lyer", "'select.layer'"]),
        ("visualization.cmap=virids", ["visualization.cmap", "'viridis'"]),
        ("visualization.format=jpgg", ["visualization.format", "'jpg'"]),
        ("visualization.dpi=-3", ["visualization.dpi"]),
        ("analysis.metric=cosin", ["analysis.metric", "'cosine'"]),
        ("analysis.layer=abc", ["analysis.layer", "integer"]),
        ("analysis.layer=9", ["analysis.layer=9", "0 to 4"]),
        ("batch_size=many", ["batch_size", "whole number"]),
        ("batch_size=0", ["batch_size=0"]),
        ("mode=rnder", ["mode", "render"]),
        ("+foo=1", ["foo", "no such key"]),
        ("+batch_sise=1", ["batch_sise", "'batch_size'"]),
        ("+analysis.metrik=cosine", ["analysis.metrik", "'metric'"]),
        ("+visualization.dpy=3", ["visualization.dpy", "'dpi'"]),
        ("+output.rooot=x", ["output.rooot", "'root'"]),
        ("device=cuda:7", ["cuda:7", "cpu"]),
        ("device=gpu", ["device=gpu", "cpu"]),
        ("model.dtype=flot16", ["model.dtype", "'float16'"]),
        ("model.init=rndom", ["model.init"]),
        ("model.checkpoint=./nowhere", ["model.checkpoint", "no such folder"]),
        ("model.checkpoint=zoo:tiny_clop", ["zoo:tiny_clop", "tiny_clip"]),
        ("model.family=siglip", ["model.family", "clip"]),
        ("dataset.path=nowhere.png", ["dataset.path", "no such file"]),
        ("dataset.max_samples=0", ["dataset.max_samples"]),
        ("dataset=images", ["dataset.path", "no value"]),
        ("model._target_=interp_lab.models.clip.ClipVison", ["_target_", "'ClipVision'"]),
        ("visualization.figures.combined._target_=nowhere.f", ["visualization.figures", "nowhere"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    command: Callable[..., object], typed: str, says: list[str]
) -> None:
    said = command(typed)
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == 1
    assert len(errors) == 1, said.err
    assert "Traceback" not in said.err
    for words in says:
        assert words in errors[0]


def own_config(folder: Path, name: str, text: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return [f"--config-dir={folder}", f"--config-name={name}"]


def test_own_config_by_name_overrides_the_defaults(
    command: Callable[..., object], tmp_path: Path
) -> None:
    text = "defaults:\n  - config\n  - _self_\nanalysis:\n  metric: dot_product\n"
    said = command(*own_config(tmp_path / "studies", "mine", text), "--cfg", "job")
    assert said.code == 0
    assert OmegaConf.create(said.out).analysis.metric == "dot_product"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "defaults: [config, _self_]\nanalysis: {metrik: cosine}\n",
            ["metrik", "'metric'", "mine.yaml"],
        ),
        (
            "defaults: [config, _self_]\nbatch_sise: 3\n",
            ["batch_sise", "'batch_size'", "mine.yaml"],
        ),
        ("defaults: [config, _self_\nbatch_size: 3\n", ["mine.yaml", "line 2", "YAML"]),
        ("defaults: [config, {override model: tiny_clp}, _self_]\n", ["tiny_clp", "'tiny_clip'"]),
    ],
)
def test_a_mistake_in_an_own_config_names_the_file(
    command: Callable[..., object], tmp_path: Path, text: str, says: list[str]
) -> None:
    said = command(*own_config(tmp_path / "studies", "mine", text))
    assert said.code == 1
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    for words in says:
        assert words in errors[0]


@pytest.mark.parametrize(
    "arguments", [("seed=3", "--cfg", "job"), ("--cfg", "job", "seed=3"), ("--cfg=job", "seed=3")]
)
def test_flags_may_stand_anywhere(command: Callable[..., object], arguments: list[str]) -> None:
    said = command(*arguments)
    assert said.code == 0
    assert OmegaConf.create(said.out).seed == 3


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("select.word=나비", "나비"),
        ("select.word=[나비,chat,été]", ["나비", "chat", "été"]),
        ("select.word='t͡ʃ ɯː'", "t͡ʃ ɯː"),
        ("select.word=apple", "apple"),
    ],
)
def test_words_of_every_script_can_be_typed(typed: str, read: object) -> None:
    assert OmegaConf.to_container(composed("task=semdim", quoted(typed)))["select"]["word"] == read


def test_run_id_ignores_what_does_not_change_the_numbers() -> None:
    base = run_id(composed())
    for same in ("device=cpu", "visualization.cmap=hot", "output.root=x", "batch_size=2"):
        assert run_id(composed(same)) == base
    for other in ("seed=1", "analysis.metric=dot_product", "model=clip_vit_base_patch32"):
        assert run_id(composed(other)) != base


def test_run_id_is_the_same_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    here = run_id(composed("dataset=images", "dataset.path=a"))
    monkeypatch.chdir("/")
    assert run_id(composed("dataset=images", f"dataset.path={tmp_path}/a")) == here
