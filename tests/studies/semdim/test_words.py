"""Figures of one word: heat maps, averages, flows. What is drawn are the numbers of the result."""

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from known_words import (
    APPLE,
    BUTTERFLY,
    CAFE,
    CHO,
    CHURCH,
    NABI,
    PAIRS,
    asked,
    knockout_aggregates,
    phone_aggregates,
    written,
)
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError
from interp_lab.fields import Document, Pattern
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results
from interp_lab.studies.semdim.figures.word_average import average_heatmap, pool
from interp_lab.studies.semdim.figures.word_axes import FRAME_SECONDS, column_of, spread
from interp_lab.studies.semdim.figures.word_flow import (
    ALL_TOGETHER,
    WIDEST,
    Links,
    attention_flow,
    flow_links,
    node_places,
    points_of,
)
from interp_lab.studies.semdim.figures.word_maps import attention_heatmap
from interp_lab.studies.semdim.figures.word_units import fraction_by_unit
from interp_lab.studies.semdim.figures.words import (
    Token,
    WordStyle,
    bands_of,
    read_tokens,
)
from interp_lab.visualization.base import NothingToDrawError, save
from interp_lab.visualization.draw import check_figures, draw_all
from interp_lab.visualization.reading import shown
from interp_lab.visualization.toolbox import SECOND, TOP, USE_CAPTION

STYLE = WordStyle(dpi=40, workers=0)
WORDS = [APPLE, CHURCH, NABI]
SPOKEN = "ko/나비/audio/big-small/0"
WRITTEN = "en/apple/original/big-small/0"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Three words, two pairs, both orders; 4 layers, 3 heads."""
    with written(tmp_path_factory.mktemp("words"), asked(WORDS)) as results:
        yield results


def maps_of(figure: Figure) -> list[Axes]:
    """The axes of heat maps, without strips and colour bars."""
    return [axes for axes in figure.axes if axes.get_xlabel() == "attended token (key)"]


def drawn(axes: Axes) -> np.ndarray:
    return np.ma.filled(axes.get_images()[0].get_array(), np.nan)


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_each_panel_is_the_mean_of_its_band(words: Results) -> None:
    values = words.read("attention_matrix", WRITTEN)
    figure = attention_heatmap(words, STYLE, WRITTEN)
    panels = maps_of(figure)
    titles = [a.get_title(loc="left") for a in figure.axes if a.get_title(loc="left")]
    assert titles == ["early layer 0", "middle layers 1–2", "late layer 3"]
    for axes, rows in zip(panels, ([0], [1, 2], [3]), strict=True):
        expected = values[rows].mean(axis=(0, 1))
        shown_values = drawn(axes)
        later = ~np.tri(len(expected), dtype=bool)
        assert np.isnan(shown_values[later]).all()
        assert shown_values[~later] == pytest.approx(expected[~later])
    assert "mean over 3 heads" in said(figure)
    assert "apple: big or small?" in said(figure)
    assert USE_CAPTION in said(figure)


def test_one_layer_and_head_are_shown_alone(words: Results) -> None:
    style = WordStyle(dpi=40, layer=2, head=1)
    figure = attention_heatmap(words, style, WRITTEN)
    (axes,) = maps_of(figure)
    values = words.read("attention_matrix", WRITTEN)[2, 1]
    assert drawn(axes)[np.tri(len(values), dtype=bool)] == pytest.approx(
        values[np.tri(len(values), dtype=bool)]
    )
    assert "head 1" in said(figure)
    for chosen, line in (
        ({"layer": 4}, "select.layer=4: .* layers 0 to 3"),
        ({"head": 3}, "select.head=3: .* heads 0 to 2"),
    ):
        with pytest.raises(ConfigError, match=line):
            attention_heatmap(words, WordStyle(**chosen), WRITTEN)


def test_a_stored_choice_of_layers_keeps_its_numbers(tmp_path: Path) -> None:
    chosen = [(Document("layers", "layers"), "[0, 9, 18, 27]")]
    with written(tmp_path, asked([APPLE])[:1], aggregates=chosen) as results:
        bands = bands_of(results, 4, WordStyle(bands=2))
        assert [band.name for band in bands] == ["early layers 0–9", "late layers 18–27"]
        (band,) = bands_of(results, 4, WordStyle(layer=18))
        assert (band.name, band.rows.tolist()) == ("layer 18", [2])
        with pytest.raises(ConfigError, match=r"select.layer=2: .* layers 0, 9, 18, 27"):
            bands_of(results, 4, WordStyle(layer=2))


def test_lines_part_word_and_dimensions_and_reach_across(words: Results) -> None:
    (axes,) = maps_of(attention_heatmap(words, WordStyle(dpi=40, bands=1), WRITTEN))
    separators = [c for c in axes.collections if isinstance(c, LineCollection)]
    segments = {tuple(map(tuple, line)) for line in separators[0].get_segments()}
    # app, le | big | small
    assert segments == {
        ((1.5, -0.5), (1.5, 3.5)),
        ((2.5, -0.5), (2.5, 3.5)),
        ((-0.5, 1.5), (3.5, 1.5)),
        ((-0.5, 2.5), (3.5, 2.5)),
    }
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 3.5), (3.5, -0.5))
    assert labels(axes) == ["app", "le", "big", "small"]
    colors = [label.get_color() for label in axes.get_xticklabels()]
    assert colors[2:] == [TOP, SECOND]


def test_sound_and_phones_stand_over_their_tokens(words: Results) -> None:
    figure = attention_heatmap(words, WordStyle(dpi=40, bands=1), SPOKEN)
    strip, axes = figure.axes[0], maps_of(figure)[0]
    figure.canvas.draw()
    assert strip.get_xlim() == axes.get_xlim()
    assert strip.get_position().x0 == pytest.approx(axes.get_position().x0)
    assert strip.get_position().x1 == pytest.approx(axes.get_position().x1)
    (image,) = strip.get_images()
    left, right = image.get_extent()[:2]
    assert (left, right) == pytest.approx((-0.5, 19.5))
    assert image.get_array().shape == (80, round(0.8 / FRAME_SECONDS))
    texts = {t.get_text(): t.get_position() for t in strip.texts}
    # Four phones of four tokens each, after two silent ones; then the dimensions.
    assert [texts[p][0] for p in "nabi"] == pytest.approx([3.5, 7.5, 11.5, 15.5])
    # Upright names of neighbours are moved apart by what a line of letters needs.
    assert [texts[d][0] for d in ("big", "small")] == pytest.approx([20, 21], abs=0.4)
    assert texts["small"][0] - texts["big"][0] > 1
    assert "word" not in texts
    assert labels(axes) == ["0 s", "0.2 s", "0.4 s", "0.6 s", "big", "small"]
    assert axes.get_xticks()[:2] == pytest.approx([-0.5, 4.5])


def test_times_follow_the_tokens_own_seconds() -> None:
    tokens = [Token("a", "word", (0.0, 0.04)), Token("b", "word", (0.04, 0.12))]
    assert column_of(tokens, np.array([0.0, 0.04, 0.08, 0.12])) == pytest.approx(
        [-0.5, 0.5, 1.0, 1.5]
    )


def test_the_average_pools_dimensions_and_orders(words: Results) -> None:
    samples = [name for name in words.sample_ids if name.startswith("en/apple/")]
    pooled = pool(words, STYLE, samples, "attention_matrix", "matrix_tokens")
    raw = [words.read("attention_matrix", name).mean(axis=(0, 1)) for name in samples]
    # Every dimension has one token here, so pooling changes nothing.
    assert pooled.square == pytest.approx(np.mean(raw, axis=0), abs=1e-6)
    assert [token.text for token in pooled.sides] == ["big", "small", "sharp", "round"]
    big = next(row for token, row in pooled.sides.items() if token.text == "big")
    # The first in the first order, the second in the flipped one.
    assert big == pytest.approx((raw[0][2, :2] + raw[1][3, :2]) / 2, abs=1e-6)
    assert pooled.pairs == 2
    figure = average_heatmap(words, STYLE, samples)
    assert "2 pairs, 4 samples" in said(figure)
    left, right = maps_of(figure)
    assert drawn(left)[np.tri(4, dtype=bool)] == pytest.approx(
        np.mean(raw, axis=0)[np.tri(4, dtype=bool)], abs=1e-6
    )
    assert drawn(right).shape == (4, 2)


def test_tokens_of_a_dimension_are_pooled_as_mean_row_and_sum_column(tmp_path: Path) -> None:
    question = (APPLE, ("realistic", "big"), False)
    with written(tmp_path, [question]) as results:
        name = results.sample_ids[0]
        raw = results.read("attention_matrix", name).mean(axis=(0, 1))
        pooled = pool(results, STYLE, [name], "attention_matrix", "matrix_tokens")
    # app, le, realis, tic, big
    assert pooled.square[2, :2] == pytest.approx((raw[2, :2] + raw[3, :2]) / 2)
    assert pooled.square[3, 2] == pytest.approx(raw[4, 2] + raw[4, 3])


def test_links_are_as_wide_as_their_weights(words: Results) -> None:
    style = WordStyle(dpi=40, layer=1)
    (axes,) = attention_flow(words, style, SPOKEN).axes
    values = words.read("flow_matrix", SPOKEN)[1, 0]
    first, second = (c for c in axes.collections if isinstance(c, LineCollection))
    # 20 word tokens, "big", "smal", "l", then the answer.
    top = max(values[20:23, :20].max(), values[23:, 20:23].max())
    most = max(*first.get_linewidths(), *second.get_linewidths())
    for links, weights in ((first, values[20:23, :20]), (second, values[23:, 20:23])):
        expected = np.sort(weights.ravel())
        widths = np.array(links.get_linewidths())
        assert widths == pytest.approx(expected / top * most, rel=1e-4)
        alphas = links.get_colors()[:, 3]
        assert (np.diff(alphas) >= 0).all() and alphas[-1] > alphas[0]
        assert widths.max() <= WIDEST * 1.06
    # The strongest link of all is drawn last, between its own two tokens.
    query, key = np.unravel_index(values[20:23, :20].argmax(), (3, 20))
    places = node_places(read_tokens(words, SPOKEN, "flow_tokens"))
    assert first.get_segments()[-1][0] == pytest.approx(places[key])
    assert first.get_segments()[-1][-1] == pytest.approx(places[20 + query])
    assert first.get_colors()[-1][:3] == pytest.approx(to_rgba(SECOND if query else TOP)[:3])


def test_panels_of_a_flow_share_one_scale(words: Results) -> None:
    figure = attention_flow(words, STYLE, WRITTEN)
    values = words.read("flow_matrix", WRITTEN)[:, 0]
    means = [values[rows].mean(axis=0) for rows in ([0], [1, 2], [3])]
    tops = [[m[2:5, :2].max(), m[5:, 2:5].max()] for m in means]
    widest = [[max(c.get_linewidths()) for c in axes.collections[:2]] for axes in figure.axes]
    # One number of points for an attention of 1: in every panel, of both kinds of links.
    points = np.array(widest) / np.array(tops)
    assert points == pytest.approx(np.full_like(points, points[0, 0]), rel=1e-4)
    assert f"The widest from word to options is {np.max(tops, axis=0)[0]:.2g}" in said(figure)
    key = figure.axes[-1].get_legend()
    shown_widths = {
        t.get_text(): line.get_linewidth()
        for t, line in zip(key.texts, key.get_lines(), strict=True)
    }
    assert len(shown_widths) == 3
    for text, width in shown_widths.items():
        assert width == pytest.approx(float(text) * points[0, 0], rel=1e-4)
    assert "model says" in said(figure)


def test_labels_move_apart_as_little_as_they_must() -> None:
    # Two of length 2 with one place between their middles: half a place each.
    assert spread(np.array([4.0, 5.0]), np.array([2.0, 2.0])) == pytest.approx([3.5, 5.5])
    # A third one pushes both: the middle of 4, 5, 6 stays.
    assert spread(np.array([4.0, 5.0, 6.0]), np.full(3, 2.0)) == pytest.approx([3, 5, 7])
    assert spread(np.array([0.0, 5.0, 5.5]), np.ones(3)) == pytest.approx([0, 4.75, 5.75])
    assert spread(np.array([1.0, 2.0]), np.ones(2)).tolist() == [1, 2]
    assert spread(np.array([]), np.array([])).size == 0


def test_many_even_links_are_thin() -> None:
    places = np.stack([np.zeros(60), np.linspace(0, 1, 60)], axis=1)
    even = Links(np.full(60, 0.01), places, np.ones((60, 2)), ("red",) * 60)
    assert points_of([even], 0.01) * 60 == pytest.approx(ALL_TOGETHER)
    one = Links(np.array([0.5, 0.01]), places[:2], np.ones((2, 2)), ("red",) * 2)
    assert points_of([one], 0.5) == WIDEST


def test_a_flow_goes_from_the_word_through_options_to_the_answer() -> None:
    tokens = [
        Token("a", "word"),
        Token("b", "word"),
        Token("x", "option1"),
        Token("y", "option2"),
        Token(":", "answer"),
    ]
    places = node_places(tokens)
    assert places[:, 0].tolist() == [0, 0, 1, 1, 1.75]
    assert places[2, 1] < 0.5 < places[3, 1]
    to_options, to_answer = flow_links(np.arange(25.0).reshape(5, 5), tokens, places)
    assert to_options.weights.tolist() == [10, 11, 15, 16]
    assert to_answer.weights.tolist() == [22, 23]
    assert list(to_answer.colors) == [TOP, SECOND]
    with pytest.raises(NothingToDrawError, match="no tokens of the word"):
        node_places(tokens[2:])


def test_units_are_coloured_from_the_middle_of_0_5(words: Results) -> None:
    axes, *_ = fraction_by_unit(words, STYLE, SPOKEN).axes
    expected = words.read("fraction_sum", SPOKEN).mean(axis=1)
    (squares,) = (c for c in axes.collections if c.get_array() is not None)
    assert np.asarray(squares.get_array()) == pytest.approx(expected.ravel())
    low, high = squares.get_clim()
    assert (low + high) / 2 == pytest.approx(0.5)
    assert labels(axes) == ["n", "a", "b", "i"]


@pytest.mark.parametrize("word", [BUTTERFLY, CHO, CAFE, CHURCH, NABI], ids=lambda w: w.word)
def test_every_script_is_drawn(
    word: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    question = [(word, PAIRS[0], False)]
    with (
        warnings.catch_warnings(),
        caplog.at_level(logging.WARNING),
        written(tmp_path, question) as results,
    ):
        warnings.simplefilter("error")
        name = results.sample_ids[0]
        for figure in (
            attention_heatmap(results, STYLE, name),
            average_heatmap(results, STYLE, [name]),
            attention_flow(results, STYLE, name),
            fraction_by_unit(results, STYLE, name),
        ):
            save(figure, tmp_path / "x.png", STYLE)
    assert caplog.text == ""


def test_labels_are_composed_and_never_empty() -> None:
    assert [shown(t) for t in (" big", "\n", " ", "", "나")] == ["big", "↵", "␣", "∅", "나"]


def test_a_written_word_has_no_sound_and_misses_none(words: Results) -> None:
    figure = attention_heatmap(words, STYLE, WRITTEN)
    assert not figure.axes[0].get_images()
    with pytest.raises(NothingToDrawError, match="no Pattern flow; it has attention_matrix, flow"):
        attention_flow(words, STYLE, WRITTEN, matrix="flow")


def test_the_answer_is_told_by_its_dimension(words: Results) -> None:
    assert "model says big (right)" in said(attention_heatmap(words, STYLE, WRITTEN))
    flipped = WRITTEN[:-1] + "1"
    assert "model says small (answer: big) · options flipped" in said(
        attention_heatmap(words, STYLE, flipped)
    )


def test_a_block_of_the_answer_row_has_one_row(tmp_path: Path) -> None:
    fields = [Pattern("attention_matrix", "attention"), Document("matrix_tokens", "tokens")]
    writer = PartWriter(tmp_path / "parts", fields)
    tokens = [{"text": t, "group": g} for t, g in (("a", "word"), ("big", "dim1"))]
    row = np.array([0.2, 0.1]).reshape(1, 1, 1, 2)
    writer.add(0, "x", {"attention_matrix": row, "matrix_tokens": json.dumps(tokens)})
    writer.flush()
    merge(list_parts(tmp_path / "parts"), ["x"], tmp_path / "r.h5", {}, lambda results: [])
    with open_results(tmp_path / "r.h5") as results:
        (axes,) = maps_of(attention_heatmap(results, STYLE, "x", title="x"))
        assert drawn(axes).tolist() == [[pytest.approx(0.2), pytest.approx(0.1)]]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["answer"]
        with pytest.raises(NothingToDrawError, match="no square block"):
            average_heatmap(results, STYLE, ["x"])


def test_the_configuration_that_ships_draws_the_known_names(tmp_path: Path) -> None:
    text = (conf_dir() / "visualization" / "semdim.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    figures = node.pop("figures")
    node.pop("needs", None)  # of the study's fields
    del figures["knockout_bands"]["enabled"]  # an interpolation
    check_figures(figures)
    assert node.pop("_target_") == "interp_lab.studies.semdim.figures.words.WordStyle"
    style = WordStyle(**(node | {"dpi": 20, "workers": 0, "max_samples": 1}))
    phones = phone_aggregates("p b".split(), ["big-small"], 4) + knockout_aggregates()
    with written(tmp_path, asked([NABI]), aggregates=phones) as results:
        path = results.path
    paths = draw_all(path, figures, style, tmp_path / "f", {"layer": 1})
    found = {str(p.relative_to(tmp_path / "f")) for p in paths}
    assert found == {
        "audio/ko/semdim_heatmap_나비_big_small.png",
        "audio/ko/semdim_flow_나비_big_small.png",
        "audio/ko/semdim_fraction_나비_big_small.png",
        "audio/ko/semdim_avg_heatmap_나비.png",
        "phone_dimension_heatmap.png",
        "dimension_layer_curves.png",
        "knockout_bands.png",
    }
