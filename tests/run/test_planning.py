"""mode=plan: counts are those of the run that follows, memory is that of the real thing."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from interp_lab.config.nodes import build, conf_dir
from interp_lab.errors import ConfigError, DeviceError
from interp_lab.fields import (
    Category,
    CellMap,
    Document,
    HeadScores,
    LayerCurve,
    Pattern,
    Scalar,
)
from interp_lab.run import plan as planning
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import open_results
from interp_lab.store.sizes import declared_bytes, measured_bytes, readable


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def line(said: object, start: str) -> str:
    assert said.code == 0, said.err
    return next(text for text in said.out.splitlines() if text.startswith(start))


def test_a_plan_counts_and_leaves_nothing_behind(
    command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    said = command(
        "mode=plan", "dataset=images", f"dataset.path={pictures(10)}", "output.part_size=4"
    )
    assert "10: 0 finished, 10 to measure" in line(said, "samples")
    assert "1: 10 samples" in line(said, "jobs")
    assert line(said, "parts").split()[1] == "3"
    assert "warning" not in said.out and "results:" not in said.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_a_plan_of_a_run_in_its_midst_is_what_the_run_then_does(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    study = ["dataset=images", "visualization.max_samples=0", "max_failed_share=0.9"]
    study.append(f"dataset.path={pictures(5, bad=2)}")
    assert command(*study).code == 3
    pictures(8, bad=2)
    said = command("mode=plan", *study)
    assert "10: 5 finished, 2 failed before" in line(said, "samples")
    assert line(said, "samples").endswith("3 to measure")
    assert "measured on 5 finished samples" in line(said, "fields")
    assert line(command("mode=plan", *study, "retry_failed=true"), "samples").endswith(
        "5 to measure"
    )
    assert line(command("mode=plan", *study, "resume=false"), "samples").endswith("10 to measure")
    said = command(*study)
    assert said.code == 3
    with open_results(said.out.strip().splitlines()[-1].removeprefix("results: ")) as results:
        assert len(results) == 5 + 3 and len(results.failures) == 2


def test_a_sweep_has_a_plan_for_each_group_that_shares(
    command: Callable[..., object], pictures: Callable[..., Path], tmp_path: Path
) -> None:
    said = command(
        "--multirun",
        "mode=plan",
        "dataset=images",
        f"dataset.path={pictures(10)}",
        "device=cpu,cpu,cpu",
        "analysis.metric=cosine,dot_product",
        "batch_size=2",
        "hydra/launcher=slurm",
        "hydra.launcher.partition=none_such",
    )
    assert said.code == 0, said.err
    # Batches of 2 are dealt out to three jobs: 0 1, 6 7 | 2 3, 8 9 | 4 5.
    jobs = [text for text in said.out.splitlines() if text.startswith("jobs")]
    assert jobs == ["jobs        3 of 3 that share them: 4, 4, 2 samples"] * 2
    commands = [text for text in said.out.splitlines() if text.startswith("command")]
    assert len(commands) == 2
    assert "metric=cosine" in commands[0] and "metric=dot_product" in commands[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_shares_by_hand_are_one_plan(
    command: Callable[..., object], pictures: Callable[..., Path]
) -> None:
    study = ["dataset=images", f"dataset.path={pictures(10)}", "batch_size=2", "shard.count=3"]
    said = command("--multirun", "mode=plan", *study, "shard.index=0,2")
    assert line(said, "jobs") == "jobs        2 of 3 that share them: 4, 2 samples"
    said = command("mode=plan", *study, "shard.index=1")
    assert line(said, "jobs") == "jobs        1 of 3 that share them: 4 samples"


@pytest.mark.parametrize("task", ["clip_similarity", "scienceqa", "semdim"])
def test_the_weights_of_a_plan_are_those_that_load(task: str) -> None:
    import torch

    cfg = composed(f"task={task}", "model.dtype=bfloat16")
    planned = planning.network_of(cfg)
    module = build(cfg, "model", device=torch.device("cpu"), seed=0).module
    assert planned.parameters == sum(p.numel() for p in module.parameters())
    held = [*module.parameters(), *module.buffers()]
    assert planned.size == sum(t.numel() * t.element_size() for t in held)


@pytest.mark.parametrize(
    ("model", "parameters", "axes"),
    [
        # 32 layers: 4 * 4096^2 + 3 * 4096 * 11008 + 2 * 4096; two vocabularies of 32064 * 4096 and
        # a norm of 4096; a projector of (1024 + 1) * 4096 + (4096 + 1) * 4096; CLIP ViT-L/14-336
        # with 303,507,456.
        ("llava_1_5_7b", 7_063_427_072, {"layer": 32, "head": 32, "row": 24, "y": 336}),
        ("qwen_omni_7b", 8_931_813_888, {"layer": 28, "head": 28}),
    ],
)
def test_large_models_are_planned_without_memory(
    model: str, parameters: int, axes: dict[str, int]
) -> None:
    planning.network_of(composed("task=scienceqa"))  # what transformers imports is not counted
    before = psutil.Process(os.getpid()).memory_info().rss
    planned = planning.network_of(composed(f"model={model}", "model.init=random"))
    assert psutil.Process(os.getpid()).memory_info().rss - before < 300 * 2**20
    assert planned.parameters == parameters
    assert 2 * parameters <= planned.size < 2.01 * parameters
    assert axes.items() <= planned.lengths.items()


def test_llavas_count_by_hand() -> None:
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    projector = 1025 * 4096 + 4097 * 4096
    assert 32 * layer + 2 * 32064 * 4096 + 4096 + projector + 303_507_456 == 7_063_427_072


def test_it_warns_when_the_weights_do_not_fit(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 2**30)
    said = command(
        "mode=plan", "task=scienceqa", "model=llava_1_5_7b", "model.init=random", "device=cpu"
    )
    assert "7,063,427,072 parameters in float16: 13.2 GiB" in line(said, "model")
    assert "the weights alone need 13.2 GiB and cpu has 1.0 GiB free" in line(said, "warning")


def test_it_warns_when_jobs_do_not_fit_beside_each_other(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 5 * 2**20)
    study = ["mode=plan", "task=scienceqa"]
    assert "warning" not in command(*study, "device=cpu").out
    said = command("--multirun", *study, "device=cpu,cpu,cpu")
    assert "3 jobs at once on cpu need 5.9 MiB" in line(said, "warning")


def test_it_warns_when_the_disk_is_too_small(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "parts and result need" in line(command("mode=plan"), "warning")


def test_what_cannot_be_known_is_said(command: Callable[..., object]) -> None:
    said = command("mode=plan", "task=semdim", "model=qwen_omni_7b", "device=0")
    assert "not estimated" in line(said, "model") and "Qwen2.5-Omni-7B" in line(said, "model")
    assert "not on this machine" in line(said, "device")
    assert line(said, "fields").startswith("fields      at least ")
    assert "unknown until the first part: attention_matrix" in line(said, "fields")


def test_a_plan_needs_no_skeleton_but_says_that_there_is_none(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.setattr(sys, "path", [str(benchmarks), *sys.path])
    said = command("mode=plan", "task=synthetic", f"--config-dir={benchmarks}/studies")
    assert "no `skeleton`" in line(said, "model")
    assert "100000: 0 finished" in line(said, "samples")


def test_a_mistake_in_a_plan_is_an_error(command: Callable[..., object]) -> None:
    said = command("mode=plan", "model.dtype=flot16")
    assert said.code == 1 and "'float16'" in said.err


def test_declared_bytes_by_hand() -> None:
    fields = [
        HeadScores("scores", ""),
        LayerCurve("margin", ""),
        Scalar("start", "", dtype="int64"),
        Category("answer", ""),
        CellMap("map", ""),
        Document("prompt", ""),
        Pattern("block", ""),
    ]
    size, known, unknown = declared_bytes(fields, {"layer": 32, "head": 16})
    # Four bytes a number, eight a place; a word and the sample's id have 48 each.
    assert size == 32 * 16 * 4 + 32 * 4 + 8 + 48 + (48 + 8)
    assert known == ["scores", "margin", "start", "answer"]
    assert unknown == ["map", "prompt", "block"]


@pytest.mark.parametrize("ragged", [False, True])
def test_measured_bytes_foretell_the_result(tmp_path: Path, ragged: bool) -> None:
    """From 3 parts of 16 samples to a result of 1000: within 10 %."""
    ids = [f"sample-{i:05d}" for i in range(1000)]
    fields = [HeadScores("scores", ""), Category("answer", ""), Document("said", "", ragged=ragged)]

    def write(folder: Path, n: int) -> None:
        writer = PartWriter(folder, fields, size=16)
        for i in range(n):
            texts = {"answer": f"answer {i % 7}", "said": "so " * (20 + i % 50)}
            writer.add(i, ids[i], {"scores": np.full((8, 8), i), **texts})
        writer.flush()

    write(tmp_path / "few", 48)
    write(tmp_path / "all", 1000)
    merge(list_parts(tmp_path / "all"), ids, tmp_path / "results.h5", {}, lambda results: ())
    each, samples = measured_bytes(list_parts(tmp_path / "few"))
    assert samples == 48
    assert each * 1000 == pytest.approx((tmp_path / "results.h5").stat().st_size, rel=0.1)
    assert measured_bytes([]) == (0.0, 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (14126854144, "13.2 GiB"),
        (2**42, "4.0 TiB"),
    ],
)
def test_readable(size: int, text: str) -> None:
    assert readable(size) == text


def test_a_plan_leaves_the_loggers_of_its_process_on(command):
    logger = logging.getLogger("interp_lab.run.work")
    assert command("mode=plan", "device=cpu").code == 0
    assert not logger.disabled


def test_a_plan_says_the_dtype_that_auto_means(command: Callable[..., object]) -> None:
    said = command("mode=plan", "task=scienceqa", "model.dtype=auto", "device=cpu")
    want = planning.network_of(composed("task=scienceqa", "model.dtype=float16"))
    text = f"in float16 (auto): {readable(want.size)}"
    assert text in line(said, "model")


def test_a_plan_has_the_dtype_of_the_family_where_the_yaml_names_none(tmp_path: Path) -> None:
    cfg = composed("task=scienceqa")
    del cfg.model["dtype"]  # Llava's own is float16
    assert planning.network_of(cfg).dtype == "float16"


def test_a_plan_states_the_bytes_of_packed_weights() -> None:
    chosen = ("task=scienceqa", "model=llava_1_5_7b", "model.init=random")
    whole = planning.network_of(composed(*chosen))
    from interp_lab.models.llava import Llava
    from interp_lab.models.quantization import packed_size
    from interp_lab.models.weights import Weights

    values = planning.plain(composed(*chosen).model)
    module = Llava.skeleton(Weights.of_node(Llava, values), values)
    packed = packed_size(module, {"method": "bitsandbytes", "bits": 4})
    # By hand: the products of the language model's layers, of the projector and of the tower are
    # packed; what is left is two vocabularies, embeddings, norms and biases.
    language = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    tower = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
    products = language + tower + 1024 * 4096 + 4096 * 4096
    assert packed == whole.size - products * 2 + products * 4.5 / 8


def test_a_plan_says_what_lies_where(
    command: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 2**20)
    study = ["mode=plan", "task=scienceqa", "device=cpu", "model.dtype=float32"]
    whole = planning.network_of(composed("task=scienceqa", "model.dtype=float32"))
    wait = f"model.offload_folder={tmp_path / 'wait'}"
    said = command(*study, "model.device_map={model:disk,lm_head:cpu}", wait)
    lines = [text for text in said.out.splitlines() if text.startswith("device")]
    head = 96 * 59 * 4
    assert lines[0] == f"device      cpu: 1.0 MiB free, {readable(head)} of weights"
    assert lines[1].endswith(f"free, {readable(whole.size - head)} of weights")
    assert "disk: " in lines[1] and "warning: the weights" not in said.out
    assert not (tmp_path / "wait").exists()


def test_a_plan_keeps_to_the_memory_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_lab.models.devices import Placement

    monkeypatch.setattr(planning, "free_memory", lambda device: 2**20)
    cpu = Placement("auto", {"cpu": "100KiB"})
    assert planning._rooms(cpu) == {"cpu": 100 * 2**10}
    assert planning._rooms(Placement("auto", {"cpu": "1GiB"})) == {"cpu": 2**20}
    with pytest.raises(DeviceError, match="model.device_map.model: device=7"):
        planning._rooms(Placement({"model": 7, "lm_head": "cpu"}))
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        planning.network_of(composed("task=scienceqa", "model.device_map={modle:cpu,lm_head:cpu}"))
