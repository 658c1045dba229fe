"""Figures of phones, dimensions and layers over a run: colours, blanks, bands and their numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_words import APPLE, asked, knockout_aggregates, phone_aggregates, written
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interp_lab.fields import Document, Field, PhoneMap, Scalar
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.dimension_curves import dimension_layer_curves
from interp_lab.studies.semdim.figures.knockout_bands import knockout_bands
from interp_lab.studies.semdim.figures.phones import band_mean, phone_dimension_heatmap
from interp_lab.studies.semdim.figures.words import WordStyle
from interp_lab.visualization.base import NothingToDrawError, save
from interp_lab.visualization.toolbox import TOP, USE_CAPTION

PHONES = ["t͡ʃ", "ɯː", "a", "i", "ŋ", "p"]
DIMENSIONS = ["big-small", "sharp-round", "fast-slow", "good-bad", "hard-soft", "happy-sad"]
LAYERS = 7
STYLE = WordStyle(dpi=40, workers=0)
KNOWN = phone_aggregates(PHONES, DIMENSIONS, LAYERS)


def opened(folder: Path, aggregates: list[tuple[Field, Any]]) -> Results:
    return written(folder, asked([APPLE]), aggregates=aggregates)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Six phones, six dimensions, seven layers; some cells without a word."""
    with opened(tmp_path_factory.mktemp("phones"), KNOWN + knockout_aggregates()) as held:
        yield held


def squares_of(axes: Axes) -> list[PolyCollection]:
    """The squares whose colours are shares."""
    return [
        c for c in axes.collections if isinstance(c, PolyCollection) and c.get_array() is not None
    ]


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if squares_of(axes) and axes.get_title(loc="left")]


def read_cells(axes: Axes) -> tuple[np.ma.MaskedArray, np.ndarray]:
    """Shares (masked where nothing is drawn) and filled parts of cells, from the drawn shapes."""
    (squares,) = squares_of(axes)
    shape = round(axes.get_ylim()[0] + 0.5), round(axes.get_xlim()[1] + 0.5)
    shares, parts = np.ma.masked_all(shape), np.zeros(shape)
    for path, share in zip(squares.get_paths(), squares.get_array(), strict=True):
        low, high = path.vertices.min(axis=0), path.vertices.max(axis=0)
        column, row = np.rint((low + high) / 2).astype(int)
        shares[row, column], parts[row, column] = share, np.prod(high - low)
    return shares, parts


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def test_a_panel_a_band_with_0_5_in_the_middle_of_the_colours(results: Results) -> None:
    shares, counts = (results.aggregate(f"phone_dimension{e}") for e in ("", "_count"))
    figure = phone_dimension_heatmap(results, STYLE)
    drawn = panels(figure)
    assert [axes.get_title(loc="left") for axes in drawn] == [
        "early layers 0–1",
        "middle layers 2–4",
        "late layers 5–6",
    ]
    for axes, rows in zip(drawn, (slice(0, 2), slice(2, 5), slice(5, 7)), strict=True):
        (image,) = squares_of(axes)
        values, _ = read_cells(axes)
        never = counts[0] == 0
        assert never.any()
        assert (np.ma.getmaskarray(values) == never).all()
        assert values.compressed() == pytest.approx(shares[rows].mean(axis=0)[~never])
        middle = np.array(image.cmap(image.norm(0.5)))[:3]
        assert middle.min() > 0.9  # white
        above, below = (np.array(image.cmap(image.norm(v))) for v in (0.6, 0.4))
        assert above[0] > above[2] and below[2] > below[0]  # red for the first side
        low, high = image.get_clim()
        assert 0.5 - low == pytest.approx(high - 0.5)
        assert low <= values.min() and values.max() <= high
        assert axes.patch.get_hatch()
    assert USE_CAPTION in said(figure)


def test_labels_are_phones_down_and_dimensions_across(results: Results) -> None:
    figure = phone_dimension_heatmap(results, STYLE)
    first, *others = panels(figure)
    assert [label.get_text() for label in first.get_yticklabels()] == PHONES
    assert [label.get_text() for label in first.get_xticklabels()] == DIMENSIONS
    assert first.get_ylim()[0] > first.get_ylim()[1]
    assert not any(label.get_text() for axes in others for label in axes.get_yticklabels())


def test_too_few_words_are_blank_too(results: Results) -> None:
    counts = results.aggregate("phone_dimension_count")[0]
    figure = phone_dimension_heatmap(results, STYLE, min_count=6)
    mask = np.ma.getmaskarray(read_cells(panels(figure)[0])[0])
    assert (mask == (counts < 6)).all()
    assert "fewer than 6 words" in said(figure)
    assert f"is the mean of: {counts[counts >= 6].min()} to {counts.max()}." in said(figure)
    with pytest.raises(NothingToDrawError, match="1000 words or more"):
        phone_dimension_heatmap(results, STYLE, min_count=1000)


def test_cells_beyond_the_shuffles_have_a_dot(results: Results) -> None:
    figure = phone_dimension_heatmap(results, STYLE)
    for axes in panels(figure):
        values = np.ma.filled(read_cells(axes)[0], 0.5)
        rows, columns = np.nonzero((values < 0.4) | (values > 0.6))
        (dots,) = axes.get_lines()
        assert (dots.get_ydata().tolist(), dots.get_xdata().tolist()) == (
            rows.tolist(),
            columns.tolist(),
        )
    assert len(rows)  # the late layers have some
    assert "Dots: beyond what 95 % of shuffles of the phones between words reach in any" in said(
        figure
    )
    # A result of before has bounds of single cells alone, and the caption says so.
    named = phone_dimension_heatmap(results, STYLE, permutation="phone_permutation")
    assert "each cell by itself; not corrected for the number of cells" in said(named)


def test_a_cell_is_filled_as_far_as_it_is_attended_to(results: Results) -> None:
    mass = results.aggregate("phone_mass")
    seen = results.aggregate("phone_dimension_count")[0] > 0
    figure = phone_dimension_heatmap(results, STYLE)
    drawn = [read_cells(axes)[1] for axes in panels(figure)]
    means = [mass[rows].mean(axis=0) for rows in (slice(0, 2), slice(2, 5), slice(5, 7))]
    top = max(mean[seen].max() for mean in means)
    for parts, mean in zip(drawn, means, strict=True):
        # 0.94 of a cell's side are filled at most.
        assert parts[seen] == pytest.approx(mean[seen] / top * 0.94**2, rel=1e-4)
    assert f"a full cell is {top:.2g}" in said(figure)


def test_without_masses_cells_are_full(tmp_path: Path) -> None:
    kept = [(f, v) for f, v in KNOWN if f.name != "phone_mass"]
    with opened(tmp_path, kept) as results:
        figure = phone_dimension_heatmap(results, STYLE)
        parts = read_cells(panels(figure)[0])[1]
    assert set(parts[parts > 0].round(6)) == {round(0.94**2, 6)}
    assert "full cell" not in said(figure)


def test_layers_of_a_band_weigh_by_their_words() -> None:
    shares, counts = np.array([[[0.2]], [[0.8]]]), np.array([[[1]], [[3]]])
    assert band_mean(shares, counts).tolist() == [[pytest.approx(0.65)]]
    assert band_mean(shares, counts * 0).count() == 0


def test_one_layer_is_one_panel(results: Results) -> None:
    (axes,) = panels(phone_dimension_heatmap(results, WordStyle(dpi=40, layer=6)))
    assert axes.get_title(loc="left") == "layer 6"


def test_noise_has_no_full_colour(tmp_path: Path) -> None:
    even = np.full((2, 1, 1), 0.5001)
    found: list[tuple[Field, Any]] = [
        (PhoneMap("phone_dimension", "share"), even),
        (PhoneMap("phone_dimension_count", "words", dtype="int64"), np.ones((2, 1, 1))),
        (Document("phones", "phones"), json.dumps(["a"])),
        (Document("dimensions", "dimensions"), json.dumps(["big-small"])),
    ]
    with opened(tmp_path, found) as results:
        figure = phone_dimension_heatmap(results, STYLE)
        assert squares_of(panels(figure)[0])[0].get_clim() == pytest.approx((0.4, 0.6))
        assert "Colours run from 0.40 to 0.60." in said(figure)


def test_a_curve_a_dimension_between_its_bands(results: Results) -> None:
    values = results.aggregate("dimension_curve")
    low, high = (results.aggregate(f"dimension_curve_{e}") for e in ("low", "high"))
    figure = dimension_layer_curves(results, STYLE)
    assert len(figure.axes) == len(DIMENSIONS)
    spans = {tuple(axes.get_ylim()) for axes in figure.axes}
    assert len(spans) == 1
    ((bottom, top),) = spans
    assert (bottom + top) / 2 == pytest.approx(0.5)
    assert bottom <= low.min() and high.max() <= top
    for place, axes in enumerate(figure.axes):
        even, curve = axes.get_lines()
        assert set(even.get_ydata()) == {0.5}
        assert curve.get_ydata() == pytest.approx(values[place])
        chance, interval = (c.get_paths()[0].vertices[:, 1] for c in axes.collections)
        assert (chance.min(), chance.max()) == pytest.approx((0.47, 0.53))
        assert (interval.min(), interval.max()) == pytest.approx(
            (low[place].min(), high[place].max())
        )
        assert [text.get_text() for text in axes.texts] == DIMENSIONS[place].split("-")
    assert "phones shuffled between words" in said(figure)


def test_curves_without_a_permutation_do_not_speak_of_it(tmp_path: Path) -> None:
    kept = [(f, v) for f, v in KNOWN if not f.name.startswith("permutation")]
    with opened(tmp_path, kept) as results:
        figure = dimension_layer_curves(results, STYLE)
    assert all(len(axes.collections) == 1 for axes in figure.axes)
    assert "shuffled" not in said(figure)


def test_bars_of_a_knock_out_stand_in_their_order(results: Results) -> None:
    figure = knockout_bands(results, STYLE, chance={"accuracy": 0.5})
    accuracy, change = figure.axes
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx(
        [0.9, 0.52, 0.6, 0.8, 0.88]
    )
    assert [bar.get_height() for bar in change.patches] == pytest.approx([0.45, 0.38, 0.15, 0.02])
    words = [label.get_text().split("\n")[0] for label in accuracy.get_xticklabels()]
    assert words == ["nothing", "all", "early", "middle", "late"]
    assert accuracy.patches[1].get_facecolor() == to_rgba(TOP)
    ends = [line.get_segments()[0][:, 1] for line in accuracy.collections]
    assert ends[0] == pytest.approx([0.85, 0.94])
    assert "chance" in [text.get_text() for text in accuracy.texts]


def test_an_absent_field_is_said(tmp_path: Path) -> None:
    with opened(tmp_path, [(Scalar("accuracy", "accuracy"), 0.5)]) as results:
        for draw, line in (
            (phone_dimension_heatmap, "no PhoneMap phone_dimension"),
            (dimension_layer_curves, "no DimensionCurve dimension_curve"),
            (knockout_bands, "no knockout_<band>_accuracy"),
        ):
            with pytest.raises(NothingToDrawError, match=line):
                draw(results, STYLE)


def test_figures_of_the_run_have_every_letter(
    results: Results, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for draw in (phone_dimension_heatmap, dimension_layer_curves, knockout_bands):
        save(draw(results, STYLE), tmp_path / "x.png", STYLE)
    assert caplog.text == ""
