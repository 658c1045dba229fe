"""The named YAMLs of towers, models that hear and text models: facts, plans, tiny ones."""

from pathlib import Path
from typing import Any

import audio_cases
import pytest
import torch
import yaml
from PIL import Image
from test_qwen_omni import spoken
from test_text_lm import saved, written

from interp_lab.capture.towers import find_sites
from interp_lab.config.nodes import conf_dir, target_of
from interp_lab.datasets.base import Sample
from interp_lab.models.weights import Weights

CPU = torch.device("cpu")
# name -> layers, heads, parameters in millions: of the whole that is loaded.
TOWERS = {
    "clip_vit_base_patch16": (12, 12, 85.80),
    "clip_vit_huge_patch14_laion": (32, 16, 630.77),
    "siglip2_base": (12, 12, 92.88),
    "siglip2_base_naflex": (12, 12, 92.93),
    "dinov2_base": (12, 12, 86.58),
    "dinov2_registers_base": (12, 12, 86.58),
    "dinov3_vitb16": (12, 12, 85.66),
}
SPEAK = {
    "qwen2_audio_7b": (32, 32, 8397.09),
    "voxtral_mini_3b": (30, 32, 4676.0),
    "qwen3_omni_30b": (48, 32, 31720.0),
}
WRITE = {"qwen3_8b": (36, 32, 8190.74), "llama_3_1_8b": (32, 32, 8030.26)}
SMALL = {
    "hidden_size": 32,
    "d_model": 32,
    "intermediate_size": 48,
    "encoder_ffn_dim": 48,
    "num_hidden_layers": 2,
    "encoder_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "encoder_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "num_mel_bins": audio_cases.BINS,
    "downsample_hidden_size": 16,
    "output_dim": 32,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [1],
    "mrope_section": [2, 3, 3],
    "max_position_embeddings": 4096,
}


def node(name: str) -> dict[str, Any]:
    """A YAML's values; that all compose is a test of the configuration's."""
    return yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


def shrunk(values: Any) -> Any:
    """An architecture with the same keys and small numbers."""
    if isinstance(values, dict):
        return {k: shrunk(SMALL.get(k, v)) for k, v in values.items()}
    return values


@pytest.mark.parametrize("name", TOWERS | SPEAK | WRITE)
def test_facts_on_meta_weights(name: str) -> None:
    values = node(name)
    layers, heads, millions = (TOWERS | SPEAK | WRITE)[name]
    cls = target_of(values, "model")
    source = Weights(
        values["checkpoint"], None, values["dtype"], "random", False, values["architecture"]
    )
    module = cls.skeleton(source, values)
    assert all(p.is_meta for p in module.parameters())
    sites = find_sites(module, "vision" if name in TOWERS else "language")
    assert len(sites) == layers
    text = module.config.get_text_config() if name not in TOWERS else module.config
    assert text.num_attention_heads == heads
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(millions * 1e6, rel=1e-3)


@pytest.mark.parametrize("name", TOWERS)
def test_towers_at_tiny_size(name: str) -> None:
    values = node(name)
    own = {k: v for k, v in values.items() if k not in ("_target_", "name")}
    own |= {"init": "random", "architecture": shrunk(values["architecture"])}
    model = target_of(values, "model")(device=CPU, **own)
    [seen] = model.prepare([Sample("x", images=(Image.new("RGB", (300, 300), "red"),))]).seen
    rows = {"clip_vit_base_patch16": 14, "siglip2_base": 14, "dinov3_vitb16": 14}.get(name, 16)
    assert seen.tokens.grids == ((rows, rows),)
    registers = 4 if "registers" in name or "dinov3" in name else 0
    assert len(seen.tokens.where(role="register")) == registers
    assert len(seen.tokens.where(role="cls")) == (0 if "siglip" in name else 1)


@pytest.mark.parametrize("name", SPEAK | WRITE)
def test_language_models_at_tiny_size(name: str, tmp_path: Path) -> None:
    values = node(name)
    family = {"qwen2_audio_7b": "qwen2_audio", "voxtral_mini_3b": "voxtral"}.get(name, "qwen3_omni")
    tiny = getattr(audio_cases, family)(tmp_path) if name in SPEAK else {}
    place = str(tmp_path) if name in SPEAK else saved(tmp_path)
    own = {k: v for k, v in values.items() if k not in ("_target_", "name")}
    shape = shrunk(values["architecture"]) | {k: v for k, v in tiny.items() if "token" in k}
    if name == "qwen2_audio_7b":
        shape["audio_config"]["max_source_positions"] = 150
    own |= {"init": "random", "architecture": shape, "processor": place, "dtype": "float32"}
    model = target_of(values, "model")(device=CPU, **own)
    [seen] = model.prepare([spoken(0.5) if name in SPEAK else written()]).seen
    assert bool(seen.tokens.where(modality="audio")) == (name in SPEAK)
    assert seen.tokens.where(role="option", label="dim1")
