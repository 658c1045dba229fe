"""The scenes' truth, checked by hand-made label maps and by the pixels themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp_lab.zoo import scenes, weights_path
from interp_lab.zoo.scenes import ACROSS_BORDER, EXCLUDED, SAME_REGION

PHOTOS = Path(scenes.__file__).parent / "photos"


def test_a_seed_names_its_scenes() -> None:
    first, again, other = (scenes.draw_scenes(3, seed) for seed in ((1, 0), (1, 0), (0, 0)))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [scene.objects for scene in first] == [scene.objects for scene in again]
    assert not np.array_equal(first[0].image, other[0].image)


def test_labels_lie_where_the_objects_are_painted() -> None:
    """The mean colour under each label is nearest to the colour that the object's phrase names."""
    named = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in scenes.COLOURS.items()}
    for scene in scenes.draw_scenes(40, 3):
        assert scene.image.shape == (64, 64, 3) and scene.image.dtype == np.uint8
        assert scene.labels.max() == len(scene.objects)
        for index, thing in enumerate(scene.objects, start=1):
            mean = scene.image[scene.labels == index].mean(0)
            nearest = max(named, key=lambda name: named[name] @ mean)
            assert nearest == thing.colour


def test_objects_never_hide_one_another() -> None:
    for scene in scenes.draw_scenes(40, 4):
        for index, thing in enumerate(scene.objects, start=1):
            whole = scenes.shape_mask(thing.shape, thing.centre, thing.radius)
            assert np.array_equal(scene.labels == index, whole)


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_a_shape_stays_in_its_square(shape: str) -> None:
    rows, cols = np.nonzero(scenes.shape_mask(shape, (30.0, 20.0), 10.0))
    assert cols.min() >= 20 and cols.max() <= 40 and rows.min() >= 10 and rows.max() <= 30
    assert 100 < len(rows) <= 400


def test_caption_names_every_object_in_any_order() -> None:
    thing = scenes.SceneObject("small", "red", "circle", (0.0, 0.0), 8.0)
    other = scenes.SceneObject("large", "blue", "cross", (0.0, 0.0), 15.0)
    both = "a small red circle and a large blue cross"
    turned = "a large blue cross and a small red circle"
    assert scenes.caption([thing, other]) == both
    rng = np.random.default_rng(0)
    assert {scenes.caption([thing, other], rng) for _ in range(20)} == {both, turned}


def test_coverage_counts_pixels() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [2, 0, 0, 0]], np.uint8)
    coverage = scenes.region_coverage(labels, 2)
    assert coverage.tolist() == [
        [[0.75, 0.0], [0.75, 1.0]],
        [[0.25, 1.0], [0.0, 0.0]],
        [[0.0, 0.0], [0.25, 0.0]],
    ]
    assert scenes.object_coverage(labels, 2).tolist() == [[0.25, 1.0], [0.25, 0.0]]


def test_neighbour_truth_by_hand() -> None:
    """Owners at purity 0.75: ground, object 1 / ground, ground; at 0.8 the left column is mixed."""
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [2, 0, 0, 0]], np.uint8)
    coverage = scenes.region_coverage(labels, 2)
    loose = scenes.neighbour_truth(coverage, purity=0.75)
    assert loose.horizontal.tolist() == [[ACROSS_BORDER], [SAME_REGION]]
    assert loose.vertical.tolist() == [[SAME_REGION, ACROSS_BORDER]]
    strict = scenes.neighbour_truth(coverage, purity=0.8)
    assert strict.horizontal.tolist() == [[EXCLUDED], [EXCLUDED]]
    assert strict.vertical.tolist() == [[EXCLUDED, ACROSS_BORDER]]


def test_two_touching_objects_are_two_regions() -> None:
    truth = scenes.neighbour_truth(scenes.region_coverage(np.array([[1, 2]], np.uint8), 1))
    assert truth.horizontal.tolist() == [[ACROSS_BORDER]]
    assert truth.vertical.shape == (0, 2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="64x60"):
        scenes.region_coverage(np.zeros((64, 60), np.uint8), 8)
    with pytest.raises(ValueError, match="purity"):
        scenes.neighbour_truth(np.ones((1, 2, 2)), purity=0.5)
    with pytest.raises(ValueError, match="'star'; known: circle"):
        scenes.shape_mask("star", (0.0, 0.0), 1.0)


def test_shipped_scenes_are_those_of_their_seed() -> None:
    files = sorted((PHOTOS / "scenes").glob("*.png"))
    for file, scene in zip(files, scenes.demo_scenes(), strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), scene.image)


def test_every_photograph_is_small_and_has_its_licence() -> None:
    licences = (PHOTOS / "LICENSES.md").read_text(encoding="utf-8")
    files = [path for path in PHOTOS.iterdir() if path.suffix in {".jpg", ".png"}]
    assert len(files) >= 3
    for file in files:
        assert file.stat().st_size < 150_000
        assert f"## {file.name}" in licences
        assert min(Image.open(file).size) >= 256


def test_unknown_model_names_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"known: .*tiny_clip.*mean 'tiny_clip'"):
        weights_path("tiny_clap")


def test_looking_up_weights_and_drawing_scenes_needs_no_torch() -> None:
    code = (
        "import sys, interp_lab.zoo.scenes as s; s.draw_scenes(1, 0)\n"
        "import interp_lab.zoo as z; z.weights_path('tiny_clip')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
