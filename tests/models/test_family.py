"""Families: one flat signature each, and what a new variant costs."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_language import architecture, save_processor
from vip_llava import VipLlava

from interp_lab.capture.session import watch
from interp_lab.config.nodes import check_arguments
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError
from interp_lab.models.clip import ClipVision
from interp_lab.models.family import Family, LanguageFamily
from interp_lab.models.llava import Llava
from interp_lab.models.loading import RANDOM_NOTE
from interp_lab.models.qwen_omni import QwenOmni
from interp_lab.models.qwen_vl import QwenVL
from interp_lab.models.text import TextModel
from interp_lab.models.weights import Weights
from interp_lab.studies.scienceqa.analysis import ScienceQAHeads

CPU = torch.device("cpu")
CAT = Path(__file__).parents[2] / "interp_lab" / "zoo" / "photos" / "cat.jpg"
NEEDED = inspect.Parameter.empty
# The options of the families: name -> default.
OPTIONS = {
    "checkpoint": NEEDED,
    "device": NEEDED,
    "revision": None,
    "dtype": "bfloat16",
    "init": "pretrained",
    "trust_remote_code": False,
    "architecture": None,
    "processor": None,
    "device_map": None,
    "attn_implementation": "sdpa",
    "temperature": 0.0,
    "seed": 0,
    "coordinates": None,
    "max_memory": None,
    "offload_folder": None,
    "quantization": None,
    "adapter": None,
    "adapter_revision": None,
    "merge_adapter": True,
}
RANDOM = ("init", "architecture", "processor", "seed")
TOWER = ("attn_implementation", "temperature", "coordinates")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (Llava, OPTIONS | {"dtype": "float16", "max_new_tokens": 16}),
        (QwenVL, OPTIONS | {"max_new_tokens": 1024, "min_pixels": None, "max_pixels": None}),
        (QwenOmni, OPTIONS | {"max_new_tokens": 8}),
        (
            TextModel,
            {k: v for k, v in OPTIONS.items() if k not in RANDOM}
            | {"dtype": "float32", "max_new_tokens": 8},
        ),
        (
            ClipVision,
            {k: v for k, v in OPTIONS.items() if k not in TOWER}
            | {"dtype": "float32", "family": NEEDED},
        ),
    ],
)
def test_options_and_defaults_of_every_family(family: Any, expected: dict[str, Any]) -> None:
    parameters = inspect.signature(family).parameters
    assert {name: p.default for name, p in parameters.items()} == expected
    assert list(parameters)[:2] == ["checkpoint", "device"]


def test_types_of_options_are_checked_from_the_signature() -> None:
    for name, value in (("max_new_tokens", "many"), ("processor", 3), ("architecture", "x")):
        with pytest.raises(ConfigError, match=rf"model\.{name}="):
            check_arguments(Llava, {"checkpoint": "x", name: value}, "model")
    with pytest.raises(ConfigError, match="TextModel takes no such option"):
        check_arguments(TextModel, {"checkpoint": "x", "init": "random"}, "model")
    values = {"family": "clip", "checkpoint": "x", "processor": {"size": 3}}
    assert check_arguments(ClipVision, values, "model") == values


def test_a_default_of_a_subclass_is_its_own() -> None:
    class Half(LanguageFamily):
        dtype = "float16"

    class Quarter(Half):
        max_new_tokens = 3
        extra: int = 7

    parameters = inspect.signature(Quarter).parameters
    assert [parameters[k].default for k in ("dtype", "max_new_tokens", "extra")] == [
        "float16",
        3,
        7,
    ]
    assert inspect.signature(LanguageFamily).parameters["dtype"].default == "float32"
    assert inspect.signature(Family).parameters["dtype"].default == "float32"


def test_a_variant_takes_few_lines() -> None:
    lines = (Path(__file__).parent / "vip_llava.py").read_text().splitlines()
    assert 15 <= len(lines) <= 40


@pytest.fixture
def vip(tmp_path: Path) -> VipLlava:
    values = architecture()
    del values["vision_feature_layer"], values["vision_feature_select_strategy"]
    return VipLlava(
        "none",
        CPU,
        dtype="float32",
        init="random",
        max_new_tokens=3,
        architecture=values | {"vision_feature_layers": [-1, -2]},
        processor=save_processor(tmp_path / "processor"),
        seed=5,
    )


def sample(name: str, text: str = "What is it ?", image: bool = True) -> Sample:
    parts = ((("image", 0),) if image else ()) + (("text", text),)
    return Sample(name, parts, (Image.open(CAT),) if image else ())


def test_a_variant_has_everything_of_a_family(vip: VipLlava) -> None:
    assert vip.notes == [RANDOM_NOTE] and vip.max_new_tokens == 3 and vip.seed == 5
    prepared = vip.prepare([sample("a"), sample("b", "red green blue"), sample("c", image=False)])
    assert [seen.tokens.grids for seen in prepared.seen] == [((4, 4),), ((4, 4),), ()]
    assert [len(seen.tokens.where(modality="image")) for seen in prepared.seen] == [16, 16, 0]
    assert prepared.seen[1].pictures[0].shape == (32, 32, 3)
    study = ScienceQAHeads().for_model(vip)
    with torch.inference_mode():
        plans = [study.plans(seen.tokens) for seen in prepared.seen]
        with watch(vip, prepared, plans) as capture:
            answers = vip.run(prepared)
        alone = vip.run(vip.prepare([sample("b", "red green blue")]))[0]
    torch.testing.assert_close(answers[1].first_logits, alone.first_logits, atol=1e-5, rtol=0)
    assert capture.rows[0]["heads"].values.shape == (2, 2)
    with pytest.raises(SampleError, match=r"x: ViP-LLaVA takes text and images, got \['audio'\]"):
        vip.render(Sample("x", (("audio", 0),)))


def test_the_plan_of_a_variant_has_its_parameters_and_no_memory(vip: VipLlava) -> None:
    values = dict(vip.architecture or {})
    skeleton = VipLlava.skeleton(Weights("none", init="random", architecture=values), {})
    shapes = {name: p.shape for name, p in vip.module.named_parameters()}
    assert {name: p.shape for name, p in skeleton.named_parameters()} == shapes
    assert all(p.is_meta for p in skeleton.parameters())


def test_a_checkpoint_of_a_variant_loads_like_a_hub_id(vip: VipLlava, tmp_path: Path) -> None:
    folder = save_processor(tmp_path / "trained")
    vip.module.save_pretrained(folder)
    again = VipLlava(folder, CPU, dtype="float32")
    inputs = vip.prepare([sample("a")]).inputs
    assert again.notes == []
    torch.testing.assert_close(vip.forward(inputs), again.forward(inputs), atol=1e-6, rtol=0)
