"""Vision towers: the real architectures, what they say of their tokens, what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipVisionModel

from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.base import resolve_device
from interp_lab.models.clip import ClipVision
from interp_lab.models.weights import Weights, refuse_partial
from interp_lab.studies.clip_similarity.analyzer import TokenSimilarityAnalyzer
from interp_lab.zoo import weights_path

CAT = Path(__file__).parents[2] / "interp_lab" / "zoo" / "photos" / "cat.jpg"
TINY = {"family": "clip", "checkpoint": "zoo:tiny_clip", "device": torch.device("cpu")}


def direct(tokens: torch.Tensor, grid: int) -> dict[str, np.ndarray]:
    """The definitions, written out with plain NumPy in float64."""
    values = tokens.double().numpy()
    unit = values / np.linalg.norm(values, axis=-1, keepdims=True)
    cls, cells = unit[0], unit[1:].reshape(grid, grid, -1)
    return {
        "horizontal_right": np.einsum("rcd,rcd->rc", cells[:, :-1], cells[:, 1:]),
        "vertical_down": np.einsum("rcd,rcd->rc", cells[:-1], cells[1:]),
        "cls_similarity": cells @ cls,
    }


@pytest.mark.slow
def test_full_size_architecture_equals_the_direct_computation() -> None:
    analyzer = TokenSimilarityAnalyzer(
        "clip-vit-large-patch14-336", device="cpu", overrides=["model.init=random"]
    )
    result = analyzer.analyze(CAT)
    assert result.grid_size == 24
    pixels = analyzer.model.prepare([Sample("cat", images=(Image.open(CAT),))]).inputs
    with torch.inference_mode():
        tokens = analyzer.model.module(**pixels).last_hidden_state[0]
    for name, expected in direct(tokens, 24).items():
        np.testing.assert_allclose(getattr(result, name), expected, atol=1e-6)


def test_a_batch_gives_the_same_as_one_by_one() -> None:
    model = ClipVision(**TINY)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(3)]
    samples = [Sample(str(i), images=(image,)) for i, image in enumerate(images)]
    with torch.inference_mode():
        together = model.run(model.prepare(samples))
        alone = [model.run(model.prepare([s]))[0] for s in samples]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_the_picture_is_the_crop_that_the_model_saw() -> None:
    """A wide picture, black at the sides: only its middle square may be seen."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 200
    seen = ClipVision(**TINY).prepare([Sample("x", images=(Image.fromarray(pixels),))]).seen[0]
    assert seen.pictures[0].shape == (64, 64, 3)
    assert (seen.pictures[0][:, 2:-2] == 200).all()


def test_tokens_are_cls_and_then_cells_row_by_row() -> None:
    tokens = ClipVision(**TINY).prepare([Sample("x", images=(Image.open(CAT),))]).seen[0].tokens
    assert tokens.where(role="cls") == (0,)
    assert tokens.tokens[1 + 8 * 3 + 5].cell == (3, 5)


def test_siglip_has_no_cls_and_its_last_hidden_state_is_before_the_norm() -> None:
    tower = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    model = ClipVision(
        family="siglip",
        checkpoint="none",
        device=torch.device("cpu"),
        init="random",
        architecture=tower,
        processor={"size": {"height": 32, "width": 32}},
    )
    assert isinstance(model.module, SiglipVisionModel) and not model.has_cls
    seen = model.prepare([Sample("x", images=(Image.open(CAT),))]).seen[0]
    assert seen.tokens.where(role="cls") == () and len(seen.tokens) == 16
    assert model.hookpoints["hidden.2"] == "encoder.layers.1"


def test_random_weights_are_said_and_reproducible() -> None:
    def build(seed: int) -> ClipVision:
        tower = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        }
        size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        random = {"init": "random", "architecture": tower, "processor": size, "seed": seed}
        return ClipVision(**TINY | random)

    def first(model: ClipVision) -> torch.Tensor:
        return next(model.module.parameters())

    assert "RANDOM WEIGHTS" in build(0).notes[0]
    assert torch.equal(first(build(1)), first(build(1)))
    assert not torch.equal(first(build(1)), first(build(2)))


def test_a_sample_without_an_image_is_its_own_failure() -> None:
    with pytest.raises(SampleError, match="0 images"):
        ClipVision(**TINY).prepare([Sample("x")])


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = weights_path("tiny_clip")
    weights = load_file(source / "model.safetensors")
    gone = next(k for k in weights if k.startswith("vision_model.encoder.layers.1"))
    del weights[gone]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        if (source / name).exists():
            (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(UnsupportedModelError, match="lacks weights"):
        ClipVision(**TINY | {"checkpoint": str(tmp_path)})


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        ClipVision(**TINY | {"checkpoint": str(tmp_path)})


def test_partial_loads_are_refused_by_every_kind_of_difference() -> None:
    for info in ({"missing_keys": {"a"}}, {"unexpected_keys": {"b"}}, {"mismatched_keys": {"c"}}):
        with pytest.raises(UnsupportedModelError):
            refuse_partial(info, "x")
    refuse_partial({"unexpected_keys": {"text_model.a"}}, "x", ignored=["text_model"])


def test_devices_by_every_spelling() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert resolve_device(None).type in ("cpu", "mps")


def test_local_looking_checkpoints_are_not_asked_of_the_hub() -> None:
    from interp_lab.errors import MissingInputError

    with pytest.raises(MissingInputError, match="no such folder"):
        Weights("./nowhere").location()
    assert Weights("openai/clip").location() == "openai/clip"


@pytest.mark.parametrize("size", [(4000, 500), (300, 900), (64, 64), (90, 64)])
def test_the_share_of_a_picture_that_is_seen_is_what_reaches_the_tower(
    size: tuple[int, int],
) -> None:
    # Red rises along x and green along y: the colours at the crop's borders say where they lie.
    x = np.broadcast_to(np.linspace(0, 255, size[0]), size[::-1])
    y = np.broadcast_to(np.linspace(0, 255, size[1])[:, None], size[::-1])
    picture = np.stack([x, y, np.zeros(size[::-1])], axis=-1).astype(np.uint8)
    sample = Sample("ramp", images=(Image.fromarray(picture),))
    [seen] = ClipVision(**TINY).prepare([sample]).seen
    shown = seen.pictures[0].astype(float)
    # A border pixel's centre is half a pixel inside; scaling blurs a little.
    side = 64 / 63 / 255
    across = (shown[:, -1, 0].mean() - shown[:, 0, 0].mean()) * side
    down = (shown[-1, :, 1].mean() - shown[0, :, 1].mean()) * side
    assert seen.shares == (pytest.approx(min(1, across) * min(1, down), abs=0.03),)
