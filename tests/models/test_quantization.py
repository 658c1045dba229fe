"""Weights in few bits: refused in one line, estimated, and really packed where torchao is there.

`make test-quantized` installs the packages; without them the tests that pack are skipped.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from interp_lab.config.signature import typed
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.identity.checkpoints import quantization_said
from interp_lab.models import quantization
from interp_lab.models.clip import ClipVision
from interp_lab.models.llava import Llava
from interp_lab.models.loading import refuse_not_finite
from interp_lab.models.quantization import check_quantization, note_on, packed_size
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")
INT8 = {"method": "torchao", "kind": "int8_weight_only"}
needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed (make test-quantized)"
)
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (make test-quantized)"
)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"method": "bitsandbytes", "bits": 5}, r"model.quantization.bits=5: should be 4 or 8"),
        ({"method": "bitsandbyte", "bits": 4}, r"quantization.method='bitsandbyte'.*Did you mean"),
        ({"bits": 4}, "lacks method; give model.quantization.method too"),
        ({"method": "torchao"}, "lacks kind; give model.quantization.kind too"),
        ({"method": "torchao", "kind": "int8_weigth_only"}, "Did you mean 'int8_weight_only'"),
        ({**INT8, "groupsize": 32}, r"groupsize: no such key. Did you mean 'group_size'"),
        ("int8", "should be a table of keys and values"),
        ({"method": "bitsandbytes", "bits": 4, "skip": [3]}, r"quantization.skip.0=3"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(value: Any, said: str) -> None:
    for family in (Llava, ClipVision):
        with pytest.raises(ConfigError, match=said) as error:
            typed(family, {"quantization": value}, "model")
        assert "\n" not in str(error.value)


def test_values_that_fit_stay_as_they_are() -> None:
    for value in (None, INT8, {"method": "bitsandbytes", "bits": 4, "double": True}):
        assert typed(Llava, {"quantization": value}, "model") == {"quantization": value}


@pytest.mark.parametrize(
    ("wanted", "packed", "said"),
    [
        (INT8, {"method": "awq"}, "come quantised .awq. and cannot be quantised again"),
        ({"method": "bitsandbytes", "bits": 8, "kind": "nf4"}, None, "kind: is of bits: 4"),
        ({**INT8, "group_size": 32}, None, "has one scale a row"),
        ({"method": "bitsandbytes", "bits": 4}, None, "4 bits, nf4.*pip install bitsandbytes"),
        (None, {"method": "gptq", "bits": 4}, "pip install optimum gptqmodel"),
        (None, {"method": "awq", "bits": 4}, "x: quantised by awq, .*pip install gptqmodel"),
        (None, {"method": "compressed-tensors"}, "pip install compressed-tensors"),
        (None, {"method": "vptq"}, "runs on NVIDIA GPUs alone"),
        ({"method": "torchao", "kind": "int4_weight_only"}, None, "pip install|NVIDIA GPUs alone"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(
    wanted: Any, packed: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_installed", lambda name: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said) as error:
        check_quantization(wanted, packed, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, None),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {"method": "gptq", "bits": 4}),
        ({"quant_method": "awq", "w_bit": 4}, {"method": "awq", "bits": 4}),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, {"method": "fp8", "bits": 8}),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {"method": "bitsandbytes", "bits": 4},
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
            },
            {"method": "compressed-tensors", "bits": 8},
        ),
        ({"quant_method": "torchao", "quant_type": {"default": {}}}, {"method": "torchao"}),
    ],
)
def test_what_a_checkpoint_says_of_its_packing(values: Any, found: Any) -> None:
    assert quantization_said({"quantization_config": values} if values else {}) == found
    nested = {"text_config": {"quantization_config": values}}
    assert quantization_said(nested if values else {}) == found


def test_real_configurations_are_what_is_asked_for() -> None:
    four = quantization.loading_options(
        {"method": "bitsandbytes", "bits": 4, "double": True, "skip": ["vision_tower"]},
        torch.bfloat16,
    )["quantization_config"]
    assert isinstance(four, tf.BitsAndBytesConfig)
    assert four.load_in_4bit and not four.load_in_8bit and four.bnb_4bit_use_double_quant
    assert four.bnb_4bit_quant_type == "nf4" and four.bnb_4bit_compute_dtype is torch.bfloat16
    assert four.llm_int8_skip_modules == ["vision_tower"]
    eight = quantization.loading_options({"method": "bitsandbytes", "bits": 8}, torch.float16)
    assert eight["quantization_config"].load_in_8bit
    assert quantization.loading_options(None, torch.float16) == {}


def test_bytes_of_packed_weights_by_hand() -> None:
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(64, 32), "b": torch.nn.Linear(64, 8)})
    assert packed_size(module, None) == (64 * 40 + 40) * 4
    # 4 bits and half a bit of scale for each weight; a bias stays in 4 bytes.
    four = {"method": "bitsandbytes", "bits": 4}
    assert packed_size(module, four) == 64 * 40 * 4.5 / 8 + 40 * 4
    assert packed_size(module, {**four, "skip": ["b"]}) == 64 * 32 * 4.5 / 8 + 64 * 8 * 4 + 40 * 4
    assert packed_size(module, INT8) == 64 * 40 + 40 * 4
    assert packed_size(module, {"method": "torchao"}) == packed_size(module, None)


def test_random_weights_are_not_packed() -> None:
    with pytest.raises(
        ConfigError, match="model.quantization: changes the weights of a checkpoint"
    ):
        Weights("x", init="random", quantization=INT8, architecture={"a": 1})


def held(module: torch.nn.Module) -> int:
    """Bytes that the weights really take, those inside packed ones too."""

    def size(tensor: Any) -> int:
        if hasattr(tensor, "__tensor_flatten__"):
            return sum(size(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
        return tensor.numel() * tensor.element_size()

    return sum(size(t) for t in (*module.parameters(), *module.buffers()))


@needs_torchao
def test_torchao_packs_really_and_the_numbers_are_those_of_the_rounded_weights() -> None:
    given: dict[str, Any] = {"checkpoint": "zoo:tiny_llava", "device": CPU, "dtype": "float32"}
    whole, packed = Llava(**given), Llava(**given, quantization=INT8)
    refuse_not_finite(packed.module, "x")
    assert "QUANTISED WEIGHTS (torchao, int8_weight_only" in packed.notes[0]
    assert held(packed.module) == pytest.approx(packed_size(whole.module, INT8), rel=0.05)
    linear = packed.module.model.language_model.layers[0].mlp.up_proj.weight
    rounded = linear.dequantize()
    want = whole.module.model.language_model.layers[0].mlp.up_proj.weight
    # One scale a row of 255 steps: half a step at most is lost.
    assert ((rounded - want).abs() <= want.abs().amax(1, keepdim=True) / 127 * 0.51).all()
    assert not torch.equal(rounded, want)
    for name, module in packed.module.named_modules():
        if isinstance(module, torch.nn.Linear) and hasattr(module.weight, "__tensor_flatten__"):
            value = torch.nn.Parameter(module.weight.dequantize(), requires_grad=False)
            whole.module.get_submodule(name).weight = value
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.inference_mode():
        got, expected = (m.module(input_ids=ids).logits for m in (packed, whole))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@needs_torchao
def test_a_checkpoint_that_comes_packed_is_loaded_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    shutil.copytree(weights_path("tiny_llava"), folder)
    given: dict[str, Any] = {"device": CPU, "dtype": "float32"}
    packed = Llava(checkpoint="zoo:tiny_llava", quantization=INT8, **given)
    packed.module.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["quantization_config"]
    loaded = Llava(checkpoint=str(folder), **given)
    assert "torchao; as the checkpoint comes; torchao" in loaded.notes[0]
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.inference_mode():
        got, want = (m.module(input_ids=ids).logits for m in (loaded, packed))
    assert torch.equal(got, want)
    with pytest.raises(ConfigError, match="come quantised"):
        Llava(checkpoint=str(folder), quantization=INT8, **given)


@needs_torchao
def test_packed_weights_that_are_not_finite_are_refused() -> None:
    model = Llava(checkpoint="zoo:tiny_llava", device=CPU, dtype="float32", quantization=INT8)
    weight = model.module.model.language_model.layers[0].mlp.up_proj.weight
    scale = next(n for n in weight.__tensor_flatten__()[0] if "scale" in n)
    getattr(weight, scale).view(-1)[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.mlp\.up_proj"):
        refuse_not_finite(model.module, "x")


@needs_bitsandbytes
@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_packs_on_the_cpu(bits: int) -> None:
    wanted = {"method": "bitsandbytes", "bits": bits}
    given: dict[str, Any] = {"checkpoint": "zoo:tiny_clip", "device": CPU, "family": "clip"}
    whole, packed = ClipVision(**given), ClipVision(**given, quantization=wanted)
    refuse_not_finite(packed.module, "x")
    assert f"bitsandbytes, {bits} bits" in packed.notes[0]
    assert ("batch_size" in packed.notes[0]) == (bits == 8)
    side = whole.module.config.image_size
    pixels = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        got, want = (m.forward({"pixel_values": pixels}).flatten() for m in (packed, whole))
    similar = torch.nn.functional.cosine_similarity(got.float(), want.float(), dim=0)
    assert 0.9 < float(similar) < 1 - 1e-6


def test_a_note_says_how() -> None:
    assert note_on(None, None) is None
    assert note_on(None, {"method": "gptq", "bits": 4}) == (
        "QUANTISED WEIGHTS (gptq, 4 bits; as the checkpoint comes): rounded"
    )
