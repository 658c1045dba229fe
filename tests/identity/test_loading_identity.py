"""How weights are loaded is part of what a run is, where it changes numbers, and nowhere else."""

import json
import shutil
from functools import lru_cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from interp_lab.config.nodes import conf_dir, identity_nodes
from interp_lab.errors import ConfigError
from interp_lab.identity.checkpoints import dtype_said
from interp_lab.identity.run import identity_of_run, run_id_of
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path


@lru_cache(maxsize=64)
def identity(*overrides: str) -> dict:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return identity_of_run(identity_nodes(compose("config", overrides=list(overrides))))


def copied(folder: Path, **settings: object) -> str:
    shutil.copytree(weights_path("tiny_clip"), folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return f"model.checkpoint={folder}"


def test_auto_is_the_same_run_as_the_dtype_that_it_means(tmp_path: Path) -> None:
    chosen = copied(tmp_path / "copy", dtype="bfloat16")
    auto = identity(chosen, "model.dtype=auto")
    assert auto["model"]["dtype"] == "bfloat16"
    assert auto == identity(chosen, "model.dtype=bfloat16")
    assert auto != identity(chosen, "model.dtype=float32")


def test_where_a_model_lies_is_no_other_run() -> None:
    spread = ("model.device_map=auto", "model.max_memory={cpu:1GiB}", "model.offload_folder=/tmp/x")
    assert identity(*spread) == identity()


def test_new_options_leave_earlier_runs_what_they_were() -> None:
    """A directory that was begun before they came is found under its name."""
    known = identity()["model"]
    assert not {"quantization", "adapter", "adapter_revision", "merge_adapter"} & set(known)
    assert "packed" not in identity()


def test_how_weights_are_packed_is_another_run() -> None:
    four = "model.quantization={method:bitsandbytes,bits:4}"
    ids = {
        run_id_of(identity(*more))
        for more in ((), (four,), ("model.quantization={method:bitsandbytes,bits:8}",))
    }
    assert len(ids) == 3
    # Listing an option with its default makes no other run.
    listed = "model.quantization={method:bitsandbytes,bits:4,kind:nf4,double:false,skip:[]}"
    assert identity(listed) == identity(four)


def test_a_checkpoint_that_comes_packed_says_so(tmp_path: Path) -> None:
    chosen = copied(tmp_path / "a", quantization_config={"quant_method": "awq", "bits": 4})
    assert identity(chosen)["packed"] == {"method": "awq", "bits": 4}


def test_merging_an_adapter_or_not_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    adapter = f"model.adapter={tmp_path}"
    merged, beside = identity(adapter), identity(adapter, "model.merge_adapter=false")
    assert merged != beside and merged["weights"]["adapter"]["files"]
    assert identity("model.merge_adapter=false") == identity()


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}, "vision_config": {"dtype": "float32"}}, "bfloat16"),
        ({"thinker_config": {"torch_dtype": "bfloat16"}}, "bfloat16"),
    ],
)
def test_the_dtype_that_a_config_names(settings: dict, dtype: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert dtype_said(str(tmp_path)) == dtype
    assert Weights(str(tmp_path), dtype="auto").dtype_name == dtype


def test_without_a_name_it_is_the_dtype_of_all_weights(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="model.dtype=auto: .* names no dtype"):
        _ = Weights(str(tmp_path), dtype="auto").dtype_name
    half = {"a": torch.zeros(2, dtype=torch.float16), "n": torch.zeros(2, dtype=torch.int64)}
    save_file(half, tmp_path / "model-1.safetensors")
    assert dtype_said(str(tmp_path)) == "float16"
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    assert dtype_said(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"dtype": "float64"}')
    with pytest.raises(ConfigError, match="says float64; give one of float32"):
        _ = Weights(str(tmp_path), dtype="auto").dtype_name


def test_auto_of_random_weights_is_what_the_architecture_says() -> None:
    given = {"init": "random", "dtype": "auto"}
    assert Weights("x", **given, architecture={"dtype": "float16"}).dtype_name == "float16"
    with pytest.raises(ConfigError, match="model.dtype=auto"):
        _ = Weights("x", **given, architecture={"a": 1}).dtype_name


@pytest.mark.parametrize("name", ["flot16", "Auto", "fp16", ""])
def test_a_dtype_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^model.dtype=.*float32, float16, bfloat16, auto"):
        Weights("x", dtype=name)
