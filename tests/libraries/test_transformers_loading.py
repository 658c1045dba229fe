"""What is assumed of transformers' loading."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from transformers import modeling_utils
from transformers.models.auto import auto_factory

from interp_lab.libraries.transformers_loading import attention_names, without_adapters


def with_adapter(folder: Path) -> Path:
    config = tf.Qwen2Config(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    tf.Qwen2ForCausalLM(config).save_pretrained(folder)
    values = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{path}.lora_A.weight": torch.ones(1, 8), f"{path}.lora_B.weight": torch.ones(8, 1)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("network", [tf.Qwen2ForCausalLM, tf.AutoModelForCausalLM])
def test_an_adapter_beside_weights_is_left_alone_inside_the_block(
    network: type, tmp_path: Path
) -> None:
    folder = with_adapter(tmp_path)
    before = modeling_utils.maybe_load_adapters, auto_factory.is_peft_available
    with without_adapters():
        module, info = network.from_pretrained(folder, output_loading_info=True)
    assert not any("lora" in name for name, _ in module.named_modules())
    assert not info["missing_keys"] and not info["unexpected_keys"]
    # Outside, transformers puts it on: this is what the block is there for.
    outside = network.from_pretrained(folder)
    assert any("lora" in name for name, _ in outside.named_modules())
    assert (modeling_utils.maybe_load_adapters, auto_factory.is_peft_available) == before


def test_the_block_lets_go_after_an_error(tmp_path: Path) -> None:
    before = modeling_utils.maybe_load_adapters, auto_factory.is_peft_available
    with pytest.raises(ZeroDivisionError), without_adapters():
        _ = 1 // 0
    assert (modeling_utils.maybe_load_adapters, auto_factory.is_peft_available) == before
    shutil.rmtree(tmp_path)


def test_names_of_attention_are_those_that_can_be_typed() -> None:
    names = attention_names()
    assert {"eager", "sdpa", "flash_attention_2", "flex_attention"} <= set(names)
    assert not any("/" in name or "|" in name for name in names)
