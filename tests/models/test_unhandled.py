"""Keys of a configuration that change numbers and that nothing computes are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from test_llava import original_release
from tiny_language import architecture, save_processor
from tiny_qwen import architecture as qwen_architecture

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.clip import ClipVision
from interp_lab.models.llava import Llava
from interp_lab.models.llava_original import original_configuration
from interp_lab.models.qwen_omni import QwenOmni
from interp_lab.models.qwen_vl import QwenVL
from interp_lab.models.text import TextModel
from interp_lab.models.unhandled import ANY, refuse_unhandled
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def refused(config: Any, handled: dict[str, Any] | None = None) -> str | None:
    try:
        refuse_unhandled(config, "model.checkpoint=x/y", handled)
    except UnsupportedModelError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio='pad'"),
        ({"image_aspect_ratio": "square"}, None),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end=True"),
        ({"mm_use_im_start_end": False}, None),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ({"sliding_window": 4096}, "sliding_window=4096"),
        ({"sliding_window": 4096, "use_sliding_window": False}, None),
        ({"logit_scale": 1.0}, None),
        ({"logit_scale": 0.25}, "logit_scale=0.25"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, None),
        ({"rope_scaling": {"rope_type": "default"}}, None),
        (
            {"rope_scaling": {"type": "of_mine", "factor": 2.0}},
            "rope_parameters={'type': 'of_mine'",
        ),
        ({"some_note": "of whoever trained it"}, None),
    ],
)
def test_a_key_that_llama_does_not_know(values: dict[str, Any], says: str | None) -> None:
    said = refused(tf.LlamaConfig(**SMALL, **values))
    if says is None:
        assert said is None
    else:
        assert said is not None and "\n" not in said
        assert said.startswith(f"model.checkpoint=x/y: its configuration has {says}")
        assert said.endswith("take a checkpoint without it")


def test_a_key_that_the_class_declares_is_computed() -> None:
    assert refused(tf.MistralConfig(**SMALL, sliding_window=8)) is None
    assert refused(tf.Gemma2Config(**SMALL, head_dim=8, attn_logit_softcapping=30.0)) is None
    # GPT-2 has positions of another kind: rotary ones would not be computed.
    rotary = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    assert "rope_parameters" in (refused(tf.GPT2Config(rope_parameters=rotary)) or "")
    assert refused(tf.GPT2Config()) is None


def test_a_configuration_within_another_is_looked_at_with_its_path() -> None:
    config = tf.LlavaConfig(**architecture(text={"clip_qkv": 8.0}))
    assert "has text_config.clip_qkv=8.0" in (refused(config) or "")
    config = tf.LlavaConfig(**architecture(vision={"qk_norm": True}))
    assert "has vision_config.qk_norm=True" in (refused(config) or "")


def test_a_family_may_take_care_of_a_key_or_of_some_of_its_values() -> None:
    config = tf.LlamaConfig(**SMALL, image_aspect_ratio="pad")
    assert refused(config, {"image_aspect_ratio": ANY}) is None
    assert refused(config, {"image_aspect_ratio": ("pad",)}) is None
    assert refused(config, {"image_aspect_ratio": ("anyres",)}) is not None


def test_a_released_qwen_configuration_stands() -> None:
    """Its text keys stand at the top, with a kind of positions and a window that is off."""
    flat = SMALL | {
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        "rope_theta": 1e6,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 1,
        "use_mrope": False,
        "vision_config": {"depth": 1, "in_chans": 3, "spatial_patch_size": 14},
    }
    for kind in (tf.Qwen2VLConfig, tf.Qwen2_5_VLConfig):
        assert refused(kind(**flat)) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"image_aspect_ratio": "pad"}, None),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio='anyres'"),
        ({"image_aspect_ratio": "square", "mm_use_im_start_end": False}, None),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end=True"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type='spatial_unpad'"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type='perceiver'"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type='mlp3x_gelu'"),
        ({"mm_vision_select_layer": -1}, None),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature='cls'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling={'type': 'linear'"),
        ({"rope_scaling": None, "rope_theta": 10000.0, "hidden_act": "silu"}, None),
        ({"rope_theta": 1000000.0}, "rope_theta=1000000.0"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters={'rope_theta'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"mm_use_im_patch_token": True}, "mm_use_im_patch_token=True"),
        ({"use_mm_proj": False}, "use_mm_proj=False"),
        ({"sliding_window": 4096, "model_type": "llava_mistral"}, "sliding_window=4096"),
    ],
)
def test_keys_of_the_original_llava(
    changes: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    model = tf.LlavaForConditionalGeneration(tf.LlavaConfig(**architecture()))
    weights = Weights(str(original_release(tmp_path, model, **changes)))
    if says is None:
        config = original_configuration(weights)
        assert config is not None
        assert config.vision_feature_layer == changes.get("mm_vision_select_layer", -2)
        return
    for refuse in (original_configuration, lambda w: Llava(w.checkpoint, CPU, dtype="float32")):
        with pytest.raises(UnsupportedModelError) as caught:
            refuse(weights)
        assert f"its configuration has {says}" in str(caught.value)
        assert "\n" not in str(caught.value)


def changed(folder: Path, **changes: Any) -> str:
    """Change a saved config.json; a dotted place is written with two underscores."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for key, value in changes.items():
        *above, last = key.split("__")
        place = values
        for name in above:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(values))
    return str(folder)


def text_folder(folder: Path) -> Path:
    tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)).save_pretrained(folder)
    return folder


def llava_folder(folder: Path) -> Path:
    save_processor(folder)
    tf.LlavaForConditionalGeneration(tf.LlavaConfig(**architecture())).save_pretrained(folder)
    return folder


def qwen_folder(folder: Path) -> Path:
    config = tf.Qwen2_5_VLConfig(**qwen_architecture())
    tf.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def of_zoo(name: str) -> Any:
    def copied(folder: Path) -> Path:
        folder.mkdir()
        for path in weights_path(name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copied


@pytest.mark.parametrize(
    ("family", "made", "key"),
    [
        (TextModel, text_folder, "final_logit_softcapping"),
        (Llava, llava_folder, "text_config__final_logit_softcapping"),
        (QwenVL, qwen_folder, "text_config__final_logit_softcapping"),
        (QwenOmni, of_zoo("tiny_omni"), "text_config__final_logit_softcapping"),
        (ClipVision, of_zoo("tiny_clip"), "vision_config__final_logit_softcapping"),
    ],
)
def test_every_family_refuses_it_before_the_weights_and_in_its_plan(
    family: Any, made: Any, key: str, tmp_path: Path
) -> None:
    given = {"family": "clip"} if family is ClipVision else {}
    folder = made(tmp_path / "trained")
    assert family.skeleton(Weights(str(folder)), given) is not None
    changed(folder, **{key: 30.0})
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"final_logit_softcapping=30\.0"):
        family(checkpoint=str(folder), device=CPU, **given)
    with pytest.raises(UnsupportedModelError, match=r"final_logit_softcapping=30\.0"):
        family.skeleton(Weights(str(folder)), given)


@pytest.mark.parametrize(("base", "stands"), [(10000.0, True), (500.0, False)])
def test_an_earlier_release_reads_what_a_later_one_wrote_of_a_tower(
    base: float, stands: bool
) -> None:
    """A class that does not declare the key, as Qwen's vision towers before transformers 5.23."""
    config = tf.CLIPVisionConfig(rope_parameters={"rope_type": "axial", "rope_theta": base})
    assert (refused(config) is None) == stands
