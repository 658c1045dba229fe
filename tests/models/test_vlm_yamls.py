"""The named image-text models: what their YAMLs build is what was released, and builds small."""

from typing import Any

import pytest
import torch
import yaml
from shrinking import shrink

from interp_lab.config.nodes import conf_dir
from interp_lab.models.vlm import VisionLanguageModel
from interp_lab.models.weights import Weights

# Layers, heads and parameters as the releases have them (tied weights once; GLM's 45 x 128 biases
# of its router are no parameters here).
RELEASED = {
    "qwen3_vl_2b": (28, 16, 2_127_532_032),
    "qwen3_vl_4b": (36, 32, 4_437_815_808),
    "qwen3_vl_8b": (36, 32, 8_767_123_696),
    "qwen3_vl_30b_a3b": (48, 32, 31_070_754_032),
    "internvl3_5_1b": (28, 16, 1_060_897_792),
    "internvl3_5_8b": (36, 32, 8_528_318_464),
    "gemma3_4b": (34, 8, 4_300_079_472),
    "gemma3_12b": (48, 16, 12_187_325_040),
    "smolvlm2_2_2b": (24, 32, 2_246_784_880),
    "llava_onevision_7b": (28, 28, 8_030_807_584),
    "llava_next_7b": (32, 32, 7_566_747_648),
    "paligemma2_3b": (26, 8, 3_032_242_416),
    "idefics3_8b": (32, 32, 8_462_086_384),
    "glm4_5v": (46, 96, 107_710_933_120 - 45 * 128),
}


def values_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


def test_every_yaml_of_the_class_stands_in_the_table() -> None:
    target = "interp_lab.models.vlm.VisionLanguageModel"
    names = {p.stem for p in (conf_dir() / "model").glob("*.yaml") if target in p.read_text()}
    assert names - {"vlm"} == set(RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_what_a_yaml_plans_has_the_size_of_the_release(name: str) -> None:
    values = values_of(name)
    weights = Weights("none", init="random", dtype="bfloat16", architecture=values["architecture"])
    planned = VisionLanguageModel.skeleton(weights, values)
    text = planned.config.get_text_config()
    size = sum(p.numel() for p in planned.parameters())
    assert (text.num_hidden_layers, text.num_attention_heads, size) == RELEASED[name]
    assert all(p.is_meta for p in planned.parameters())
    assert values["name"] == name


@pytest.mark.parametrize("name", RELEASED)
def test_each_builds_at_a_small_size(name: str) -> None:
    weights = Weights("none", init="random", architecture=values_of(name)["architecture"])
    config = VisionLanguageModel.configuration(weights)
    network = VisionLanguageModel.network(config.model_type, weights)
    shrink(config, 16)
    module = network._from_config(config, dtype=torch.float32)
    assert sum(p.numel() for p in module.parameters()) < 3e7
    assert type(module).__name__ == network.__name__
