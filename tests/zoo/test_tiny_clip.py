"""tiny_clip shows the planted truth on scenes it has never seen, and untrained weights do not.

First the measures themselves are checked on arrays whose value is known, then the shipped model.
"""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor

from interp_lab.zoo import scenes, weights_path
from interp_lab.zoo.tiny_clip.checks import (
    cls_object_factor,
    evaluate,
    held_out_scenes,
    neighbour_auc,
    watch_vision,
)
from interp_lab.zoo.tiny_clip.make import train
from interp_lab.zoo.tiny_clip.model import PATCH, build_model, build_processor, load, to_pixels
from interp_lab.zoo.training import MAX_WEIGHT_BYTES, save_half

PHOTOS = Path(scenes.__file__).parent / "photos"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no threads that wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shipped() -> tuple[CLIPModel, CLIPProcessor]:
    return load(weights_path("tiny_clip"))


@pytest.fixture(scope="module")
def trained(shipped: tuple[CLIPModel, CLIPProcessor]) -> dict[str, float]:
    return evaluate(*shipped)


@pytest.fixture(scope="module")
def untrained() -> list[dict[str, float]]:
    processor = build_processor()
    return [evaluate(build_model(seed).eval(), processor, count=128) for seed in range(2)]


def test_auc_is_one_where_hidden_states_are_the_regions() -> None:
    examples = scenes.draw_scenes(20, 5)
    regions = [scenes.region_coverage(scene.labels, PATCH).argmax(0) for scene in examples]
    hidden = np.eye(4, dtype=np.float32)[np.stack(regions)]  # the ground and up to three objects
    assert neighbour_auc(hidden, examples) == 1.0
    assert neighbour_auc(1 - hidden, examples) == 1.0
    noise = np.random.default_rng(0).normal(size=hidden.shape).astype(np.float32)
    assert neighbour_auc(noise, examples) == pytest.approx(0.5, abs=0.1)


def test_factor_is_one_for_even_attention_and_finds_the_planted_head() -> None:
    examples = scenes.draw_scenes(20, 6)
    even = np.full((20, 2, 3, 8, 8), 0.01, np.float32)
    assert cls_object_factor(even, examples) == pytest.approx(1.0, rel=1e-5)
    coverage = np.stack([scenes.object_coverage(scene.labels, PATCH) for scene in examples])
    even[:, 1, 2] = coverage  # a head that looks at each patch as much as objects cover it
    seen = coverage[10:]
    expected = ((seen**2).sum((1, 2)) / seen.sum((1, 2))).mean() / seen.mean()
    assert expected > 3
    assert cls_object_factor(even, examples) == pytest.approx(expected, rel=1e-5)


def test_neighbours_in_one_region_are_more_alike(
    trained: dict[str, float], untrained: list[dict[str, float]]
) -> None:
    assert trained["neighbour_auc"] >= 0.85
    assert trained["neighbour_auc"] >= max(u["neighbour_auc"] for u in untrained) + 0.15


def test_cls_attends_to_objects(
    trained: dict[str, float], untrained: list[dict[str, float]]
) -> None:
    assert trained["cls_object_factor"] >= 3.0
    assert max(u["cls_object_factor"] for u in untrained) < 1.2


def test_captions_are_matched(trained: dict[str, float], untrained: list[dict[str, float]]) -> None:
    assert trained["caption_of_64"] >= 0.75 and trained["colour_swap"] >= 0.8
    assert max(u["caption_of_64"] for u in untrained) < 0.1
    assert max(u["colour_swap"] for u in untrained) < 0.6


def test_card_states_what_is_measured_here(trained: dict[str, float]) -> None:
    card = (weights_path("tiny_clip") / "CARD.md").read_text(encoding="utf-8")
    for name, value in trained.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        assert float(row.split("|")[2]) == pytest.approx(value, abs=0.004)


def test_weights_are_small_and_half_precision() -> None:
    file = weights_path("tiny_clip") / "model.safetensors"
    assert file.stat().st_size <= MAX_WEIGHT_BYTES
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}


def test_auto_classes_load_it_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("transformers").addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = weights_path("tiny_clip")
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(folder)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert type(model) is CLIPModel and type(processor) is CLIPProcessor
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_processor_takes_scenes_as_they_are_and_crops_photographs(
    shipped: tuple[CLIPModel, CLIPProcessor],
) -> None:
    _, processor = shipped
    image = held_out_scenes(1)[0].image
    direct = to_pixels(image[None], processor)
    through = processor(images=Image.fromarray(image), return_tensors="pt").pixel_values
    torch.testing.assert_close(through, direct)
    photo = Image.open(PHOTOS / "cat.jpg")
    side = min(photo.size)
    left = (photo.width - side) // 2
    square = photo.crop((left, 0, left + side, side))
    whole, middle = (
        processor(images=each, return_tensors="pt").pixel_values for each in (photo, square)
    )
    assert whole.shape == (1, 3, 64, 64)
    assert (whole - middle)[..., 2:-2].abs().mean() < 0.1


def test_tokenizer_knows_every_word_of_a_caption(
    shipped: tuple[CLIPModel, CLIPProcessor],
) -> None:
    tokenizer = shipped[1].tokenizer
    for scene in held_out_scenes(20):
        text = scenes.caption(scene.objects)
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_watching_returns_the_models_own_numbers(
    shipped: tuple[CLIPModel, CLIPProcessor],
) -> None:
    model, processor = shipped
    examples = held_out_scenes(2)
    hidden, attention = watch_vision(model, examples, processor)
    pixels = to_pixels(np.stack([scene.image for scene in examples]), processor)
    with torch.no_grad():
        output = model.vision_model(pixel_values=pixels, output_attentions=True)
    assert hidden.shape == (2, 8, 8, 96) and attention.shape == (2, 4, 4, 8, 8)
    np.testing.assert_allclose(hidden[1, 2, 3], output.last_hidden_state[1, 1 + 2 * 8 + 3])
    np.testing.assert_allclose(attention[1, 3, 2, 5, 6], output.attentions[3][1, 2, 0, 47])


def test_training_changes_every_weight_and_can_be_repeated(tmp_path: Path) -> None:
    processor = build_processor()
    first, again = (train(seed=3, steps=1, processor=processor, pool_size=16) for _ in range(2))
    start = build_model(3).state_dict()
    kept = []
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        if torch.equal(value, start[name]):
            kept.append(name)
    assert all(name.endswith(("k_proj.bias", "position_ids")) for name in kept)
    save_half(first, processor, tmp_path)
    reloaded, _ = load(tmp_path)
    torch.testing.assert_close(reloaded.logit_scale, first.logit_scale, atol=2e-3, rtol=0)


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = build_model(0)
    model.logit_scale.data.fill_(1e6)
    with pytest.raises(ValueError, match="logit_scale"):
        save_half(model, build_processor(), tmp_path)
    assert not list(tmp_path.iterdir())
