"""Figures of a sample and of a run, drawn from a result that the real store wrote."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from known_maps import GRID, SIDE, values_of
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from interp_lab.store.results import open_results
from interp_lab.studies.clip_similarity.figures.maps import (
    MapStyle,
    SimilarityVisualizer,
    combined,
    individual,
)
from interp_lab.studies.clip_similarity.figures.run_maps import distributions, mean_maps
from interp_lab.visualization.base import NothingToDrawError

Write = Callable[..., Path]
STYLE = MapStyle(figsize=(6, 5), dpi=40)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def titles(figure: Figure) -> list[str]:
    return [a.get_title() for a in figure.axes if a.get_title()]


def test_combined_holds_photo_maps_and_overlays(write_result: Write) -> None:
    with open_results(write_result()) as results:
        figure = combined(results, STYLE, "a.png")
    assert titles(figure).count("On the image") == 3
    assert titles(figure)[0] == "Image as the model saw it"
    assert "a.png" in texts(figure)
    assert "maps · a_model · some_images · cosine" in texts(figure)
    tiles = next(a for a in figure.axes if a.get_title() == "Similarity to CLS").get_images()[0]
    assert np.asarray(tiles.get_array()) == pytest.approx(values_of("cls_similarity", 0), abs=1e-6)


def test_an_absent_field_leaves_no_hole(write_result: Write) -> None:
    with open_results(write_result(has_cls=False)) as results:
        figure = combined(results, STYLE, 0)
        with pytest.raises(NothingToDrawError, match="no field cls_similarity"):
            individual(results, STYLE, 0, field="cls_similarity")
    assert titles(figure).count("On the image") == 2
    assert not any("CLS" in text for text in texts(figure))
    assert len(figure.axes) == 1 + 2 * 2 + 2  # photograph, two maps twice, two histograms


@pytest.mark.parametrize(
    ("figsize", "has_cls"), [((20, 16), True), ((24, 8), True), ((8, 12), False), (None, True)]
)
def test_panels_do_not_overlap_and_stay_on_the_sheet(
    write_result: Write, figsize: tuple[float, float] | None, has_cls: bool
) -> None:
    style = MapStyle(figsize=figsize, dpi=30)
    with open_results(write_result(has_cls=has_cls)) as results:
        figure = combined(results, style, 0)
        figure.canvas.draw()
        boxes = [a.get_tightbbox() for a in figure.axes]
    sheet = figure.bbox
    for i, box in enumerate(boxes):
        assert sheet.x0 - 1 <= box.x0 <= box.x1 <= sheet.x1 + 1
        assert sheet.y0 - 1 <= box.y0 <= box.y1 <= sheet.y1 + 1
        for other in boxes[:i]:
            assert min(box.x1, other.x1) - max(box.x0, other.x0) < 1 or (
                min(box.y1, other.y1) - max(box.y0, other.y0) < 1
            )


def test_notes_are_red(write_result: Write) -> None:
    with open_results(write_result(notes=["RANDOM WEIGHTS"])) as results:
        for figure in (combined(results, STYLE, 0), mean_maps(results, STYLE)):
            (note,) = [t for t in figure.texts if t.get_text() == "RANDOM WEIGHTS"]
            assert note.get_color() == "#c00000"


def test_mean_maps_show_the_mean_of_the_samples(write_result: Write) -> None:
    with open_results(write_result(["a", "b"])) as results:
        figure = mean_maps(results, STYLE, fields=["mean_cls_similarity"])
        everything = mean_maps(results, STYLE)
    expected = (values_of("cls_similarity", 0) + values_of("cls_similarity", 1)) / 2
    drawn = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert drawn == pytest.approx(expected, abs=1e-6)
    assert len(everything.axes) == 6
    assert any(text.replace("\n", " ").endswith("of 2 samples") for text in texts(everything))


def test_distributions_count_every_value_and_sort_the_samples(write_result: Write) -> None:
    samples = ["b.png", "a.png", "c.png"]
    with open_results(write_result(samples, failed=["bad.png"])) as results:
        figure = distributions(results, STYLE)
    pooled, dots = figure.axes[:3], figure.axes[3:]
    n = [sum(bar.get_height() for bar in axes.patches) for axes in pooled]
    assert n == [3 * GRID * (GRID - 1)] * 2 + [3 * GRID * GRID]
    heights = np.asarray(dots[2].collections[0].get_offsets())[:, 1]
    expected = [values_of("cls_similarity", i).mean() for i in range(3)]
    assert heights == pytest.approx(expected, abs=1e-6)
    assert {"b.png", "c.png"} <= set(texts(figure))  # the lowest and the highest
    assert any("1 failed" in text for text in texts(figure))


def test_the_visualizer_of_notebooks_writes_the_known_names(tmp_path: Path) -> None:
    result = SimpleNamespace(
        grid_size=GRID,
        horizontal_right=values_of("horizontal_right", 0),
        vertical_down=values_of("vertical_down", 0),
        cls_similarity=None,
        picture=np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
    )
    visualizer = SimilarityVisualizer(figsize=(6, 5), cmap="hot", dpi=50)
    path = visualizer.visualize_all(result, save_path=tmp_path / "deep" / "all.png")
    assert Image.open(path).size == (300, 250)
    paths = visualizer.visualize_individual(result, output_dir=tmp_path)
    assert [p.name for p in paths] == ["horizontal_similarity.png", "vertical_similarity.png"]
    result.picture = None
    assert visualizer.visualize_all(result, tmp_path / "no_picture.svg").stat().st_size > 0


def test_single_figures_of_both_directions_share_their_colours(write_result: Write) -> None:
    with open_results(write_result()) as results:
        figures = [
            individual(results, STYLE, 0, field=name)
            for name in ("horizontal_right", "vertical_down", "cls_similarity")
        ]
    norms = [figure.axes[0].get_images()[0].norm for figure in figures]
    assert [(n.vmin, n.vmax) for n in norms] == [
        pytest.approx((0.1, 0.41)),
        pytest.approx((0.1, 0.41)),
        pytest.approx((-0.2, -0.05)),
    ]


def test_fixed_limits_hide_no_value_of_a_histogram(write_result: Write) -> None:
    style = MapStyle(figsize=(6, 5), dpi=40, limits=(0.0, 0.2))
    with open_results(write_result()) as results:
        figure = combined(results, style, 0, fields=["vertical_down"])
    (histogram,) = [axes for axes in figure.axes if axes.get_ylabel() == "count"]
    low, high = histogram.get_xlim()
    assert low == 0
    assert high == pytest.approx(values_of("vertical_down", 0).max())
