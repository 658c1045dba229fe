"""clip_similarity: the definitions against arithmetic that a reader can do in the head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from interp_lab.statistics.streaming import RunningMoments
from interp_lab.store.results import open_results
from interp_lab.studies import TokenSimilarityAnalyzer
from interp_lab.studies.clip_similarity.analysis import ClipSimilarity, neighbour_maps, similarity
from interp_lab.studies.clip_similarity.figures.maps import MapStyle, combined

PHOTOS = Path(__file__).parents[3] / "interp_lab" / "zoo" / "photos"


def test_dot_product_and_cosine_by_hand() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert similarity(a, b, "dot_product").item() == 24.0
    assert similarity(a, b, "cosine").item() == pytest.approx(24 / 25)


def test_neighbours_are_the_right_and_the_lower_one() -> None:
    # One number a cell, so a product of neighbours tells which two were taken.
    cells = torch.tensor([[2.0, 3.0], [5.0, 7.0]])[..., None]
    right, down = neighbour_maps(cells, "dot_product")
    assert right.tolist() == [[6.0], [35.0]]
    assert down.tolist() == [[10.0, 21.0]]


def test_layers_count_from_the_embeddings() -> None:
    analyzer = TokenSimilarityAnalyzer("tiny_clip", device="cpu")
    last = analyzer.analyze(PHOTOS / "cat.jpg")
    fourth = TokenSimilarityAnalyzer("tiny_clip", "cpu", overrides=["analysis.layer=4"])
    first = TokenSimilarityAnalyzer("tiny_clip", "cpu", overrides=["analysis.layer=0"])
    same = fourth.analyze(PHOTOS / "cat.jpg")
    other = first.analyze(PHOTOS / "cat.jpg")
    np.testing.assert_array_equal(last.cls_similarity, same.cls_similarity)
    assert np.abs(last.cls_similarity - other.cls_similarity).max() > 0.01


def test_hooks_are_gone_after_a_measurement() -> None:
    analyzer = TokenSimilarityAnalyzer("tiny_clip", device="cpu")
    analyzer.analyze(PHOTOS / "cat.jpg")
    assert sum(len(m._forward_hooks) for m in analyzer.model.module.modules()) == 0


def test_running_moments_equal_the_whole() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1e6, 1, (101, 3, 2))
    moments = RunningMoments()
    for block in np.array_split(values, [1, 7, 50]):
        moments.update(block)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, values.std(0), rtol=1e-8)
    assert (moments.lowest, moments.highest) == (values.min(), values.max())


def test_definitions_are_named_with_every_number() -> None:
    analysis = ClipSimilarity(metric="dot_product")
    by_name = {f.name: f for f in analysis.fields}
    assert by_name["cls_similarity"].definition == "clip_similarity.cls_similarity/1 (dot_product)"


def test_what_the_figure_must_say_of_a_crop_and_of_foreign_pictures(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    Image.new("RGB", (800, 100), "teal").save(folder / "wide.png")
    Image.new("RGB", (100, 100), "teal").save(folder / "square.png")
    said = command("dataset=images", f"dataset.path={folder}", "~visualization.figures")
    assert said.code == 0, said.err
    style = MapStyle(workers=0, dpi=40)
    with open_results(said.out.strip().splitlines()[-1].removeprefix("results: ")) as results:
        wide, square = (said_by(combined(results, style, n)) for n in ("wide.png", "square.png"))
    # Of 800 pixels 100 are seen: an eighth, which is written as a whole percentage.
    assert "The model saw the middle 12% of this picture, the rest was cropped" in wide
    assert "the middle" not in square
    for text in (wide, square):
        assert "This model (tiny_clip) knows synthetic scenes alone" in text


def said_by(figure: Figure) -> str:
    return " ".join(t.get_text().replace("\n", " ") for t in figure.texts)
