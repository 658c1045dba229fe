"""Figures of heads: what is drawn are the numbers of the result, each under its own layer and head.

The results are written by the real store, with aggregates by the real statistics.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError
from interp_lab.fields import Field, HeadCounts, HeadIndex, HeadScores, LayerCurve, Scalar
from interp_lab.statistics import heads as heads
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results
from interp_lab.studies.scienceqa.figures.answer_split import accuracy_split
from interp_lab.studies.scienceqa.figures.head_curves import head_share_intervals, layer_diversity
from interp_lab.studies.scienceqa.figures.heads import (
    head_frequency_total,
    max_attention_head_distribution,
    max_attention_head_heatmap,
    mean_scores,
    top_k_heads_per_layer,
)
from interp_lab.studies.scienceqa.figures.knockout import knockout
from interp_lab.studies.scienceqa.figures.on_image import HeadStyle
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.draw import check_figures, draw_all
from interp_lab.visualization.toolbox import TOP, USE_CAPTION

DEFINITION = "scienceqa.max_text_to_image/1"
SHARE_ENDS = ("", "_low", "_high")
STYLE = Style(dpi=40, workers=0)
FIGURES: tuple[Callable[..., Figure], ...] = (
    max_attention_head_distribution,
    max_attention_head_heatmap,
    top_k_heads_per_layer,
    head_frequency_total,
    layer_diversity,
    head_share_intervals,
    mean_scores,
    accuracy_split,
    knockout,
)
SEED_FILES = {
    "max_attention_head_distribution",
    "max_attention_head_heatmap",
    "top_k_heads_per_layer",
    "head_frequency_total",
    "layer_diversity",
}


def planted_scores(n: int, n_layers: int, n_heads: int, seed: int = 0) -> np.ndarray:
    """Scores (n, n_layers, n_heads) in which layer l prefers head (3 l + 1) mod n_heads.

    The preference falls from the first layer (always) to the last (hardly).
    """
    rng = np.random.default_rng(seed)
    scores = rng.random((n, n_layers, n_heads)) * 0.5
    for layer in range(n_layers):
        strength = 0.55 * (1 - layer / n_layers) + 0.02
        scores[:, layer, (3 * layer + 1) % n_heads] += strength
    return scores.astype(np.float32)


def estimates(name: str, about: str, kind: type[Field], estimate: heads.Estimate) -> list:
    """The three fields of a number and its interval."""
    return [(kind(f"{name}{e}", about), v) for e, v in zip(SHARE_ENDS, estimate, strict=True)]


def statistics(scores: np.ndarray, correct: np.ndarray) -> list[tuple[Field, object]]:
    """The aggregates of a run, as an analysis of heads gives them."""
    n, _, n_heads = scores.shape
    winning = heads.winners(scores)
    counts = heads.winner_counts(winning, n_heads)
    about = "samples in which the head scores highest"
    share = heads.top_head_share(winning, n_heads, seed=0)
    found: list[tuple[Field, object]] = [
        (HeadCounts("layer_head_counts", about, definition=DEFINITION), counts),
        (
            LayerCurve("distinct_heads", "heads that win at least once"),
            heads.distinct_heads(counts),
        ),
        (LayerCurve("entropy_bits", "entropy of the winners", "bit"), heads.entropy_bits(counts)),
        (
            LayerCurve("near_tie_share", "near ties, margin below 1 %"),
            heads.near_ties(scores).mean(0),
        ),
        (HeadScores("mean_scores", "mean score", definition=DEFINITION), scores.mean(0)),
        *estimates("top_head_share", "share of samples", LayerCurve, share),
        *estimates("accuracy", "accuracy", Scalar, heads.accuracy(correct, seed=0)),
    ]
    for word, chosen in (("right", correct), ("wrong", ~correct)):
        split = heads.winner_counts(winning[chosen], n_heads)
        found.append((HeadCounts(f"layer_head_counts_{word}", about, definition=DEFINITION), split))
    if n > 1:
        agreement = heads.split_half_agreement(winning, n_heads, seed=0)
        found.append((LayerCurve("split_half_agreement", "agreement of split halves"), agreement))
    return found


def knockouts() -> list[tuple[Field, object]]:
    """Numbers of three conditions; the random heads' logit difference is below zero."""
    found: list[tuple[Field, object]] = []
    for condition, accuracy, logit in (
        ("winners", 0.4, 0.3),
        ("baseline", 0.9, 2.5),
        ("random", 0.85, -0.4),
    ):
        for measure, value in (("accuracy", accuracy), ("logit_difference", logit)):
            spread = heads.Estimate(*(np.array(value + d) for d in (0, -0.08, 0.08)))
            found += estimates(f"knockout_{condition}_{measure}", measure, Scalar, spread)
    return found


def written(
    folder: Path,
    n: int = 40,
    n_layers: int = 4,
    n_heads: int = 4,
    *,
    scores: np.ndarray | None = None,
    correct: np.ndarray | None = None,
    without: tuple[str, ...] = (),
    has_knockout: bool = True,
    scored: int | None = None,
) -> Results:
    """Write a result into `folder` and open it."""
    scores = planted_scores(n, n_layers, n_heads) if scores is None else scores
    n = len(scores)
    correct = np.arange(n) % 5 != 4 if correct is None else correct
    fields = [
        HeadScores("scores", "highest attention", definition=DEFINITION),
        HeadIndex("max_head_per_layer", "head that scores highest", definition=DEFINITION),
    ]
    writer = PartWriter(folder / "parts", fields, size=10_000, seconds=1e9)
    for i, one in enumerate(scores):
        writer.add(i, str(i), {"scores": one, "max_head_per_layer": heads.winners(one)})
    writer.flush()
    aggregates = statistics(scores[:scored], correct[:scored]) + (
        knockouts() if has_knockout else []
    )
    kept = [(f, v) for f, v in aggregates if f.name not in without]
    attributes = {"task_name": "scienceqa", "model": "llava_1_5_7b", "dataset": "scienceqa"}
    final = folder / "results.h5"
    merge(
        list_parts(folder / "parts"),
        [str(i) for i in range(n)],
        final,
        attributes,
        lambda results: kept,
    )
    return open_results(final)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """40 samples, 4 layers, 4 heads."""
    with written(tmp_path_factory.mktemp("small")) as results:
        yield results


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """100 samples, 32 layers, 32 heads."""
    with written(tmp_path_factory.mktemp("large"), 100, 32, 32) as results:
        yield results


def bars(axes: Axes) -> list[float]:
    (container,) = (c for c in axes.containers if isinstance(c, BarContainer))
    return [bar.get_height() for bar in container]


def red_bars(axes: Axes) -> list[int]:
    colors = [bar.get_facecolor() for bar in axes.patches]
    return [i for i, color in enumerate(colors) if color == to_rgba(TOP)]


def words_at(axes: Axes, y: float) -> list[str]:
    """The texts in the row at height y, from left to right."""
    found = [t for t in axes.texts if t.get_position()[1] == y]
    return [t.get_text() for t in sorted(found, key=lambda t: t.get_position()[0])]


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


@pytest.mark.parametrize("size", ["small", "large"])
def test_every_layer_has_its_bars_in_numeric_order(
    size: str, request: pytest.FixtureRequest
) -> None:
    results = request.getfixturevalue(size)
    counts = results.aggregate("layer_head_counts")
    figure = max_attention_head_distribution(results, STYLE)
    assert len(figure.axes) == len(counts)
    places = [(-a.get_position().y0, a.get_position().x0) for a in figure.axes]
    assert places == sorted(places)
    for layer, axes in enumerate(figure.axes):
        assert axes.get_title(loc="left") == f"layer {layer}"
        assert bars(axes) == counts[layer].tolist()
        assert red_bars(axes) == [counts[layer].argmax()]
        top = counts[layer].max() / counts[layer].sum()
        assert axes.get_title(loc="right") == f"head {counts[layer].argmax()}: {top:.0%}"
        assert axes.get_ylim()[1] > counts.max()


def test_samples_without_a_winner_are_not_said_to_be_counted(tmp_path: Path) -> None:
    # Three of the forty samples have no picture: the counts are of the other 37.
    with written(tmp_path, scored=37) as results:
        assert "37 of 40 samples" in said(max_attention_head_heatmap(results, STYLE))


def test_columns_of_the_distribution_are_an_option(large: Results) -> None:
    figure = max_attention_head_distribution(large, STYLE, columns=8)
    assert len({round(axes.get_position().x0, 6) for axes in figure.axes}) == 8
    width, height = figure.get_size_inches()
    assert width > height


def test_the_heat_map_is_layers_down_and_heads_across(small: Results) -> None:
    counts = small.aggregate("layer_head_counts")
    axes = max_attention_head_heatmap(small, STYLE).axes[0]
    image = axes.get_images()[0]
    assert np.asarray(image.get_array()).tolist() == counts.tolist()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
    low, high = axes.get_ylim()
    assert low > high  # layer 0 at the top
    assert image.get_clim() == (0, counts.max())
    red = axes.collections[-1]
    assert red.get_edgecolor()[0] == pytest.approx(to_rgba(TOP))
    centres = [path.vertices[:4].mean(axis=0).tolist() for path in red.get_paths()]
    assert np.array(centres) == pytest.approx(np.stack([counts.argmax(1), np.arange(4)], axis=1))
    assert [[t.get_text() for t in axes.texts][h] for h in range(4)] == [str(c) for c in counts[0]]


def test_top_k_names_each_layers_own_heads_also_beyond_ten(tmp_path: Path) -> None:
    scores = np.zeros((10, 12, 5), dtype=np.float32)
    for layer in range(12):
        scores[:7, layer, layer % 5] = 1
        scores[7:9, layer, (layer + 1) % 5] = 1
        scores[9:, layer, (layer + 2) % 5] = 1
    with written(tmp_path, scores=scores) as results:
        axes = top_k_heads_per_layer(results, STYLE, top_k=4).axes
    assert [a.get_title(loc="left") for a in axes] == ["most frequent", "2nd", "3rd", "4th"]
    for layer in range(12):
        assert words_at(axes[0], layer) == [f"head {layer % 5}", "7"]
        assert words_at(axes[1], layer) == [f"head {(layer + 1) % 5}", "2"]
        assert words_at(axes[2], layer) == [f"head {(layer + 2) % 5}", "1"]
    assert not axes[3].texts  # no fourth head ever wins
    assert axes[0].get_yticks().tolist() == list(range(12))
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]
    assert len(red_bars(axes[0])) == 12


def test_ranks_share_one_scale(large: Results) -> None:
    figure = top_k_heads_per_layer(large, STYLE, top_k=3)
    figure.canvas.draw()
    widths = [a.get_position().width / np.ptp(a.get_xlim()) for a in figure.axes]
    assert widths == pytest.approx([widths[0]] * 3, rel=0.02)


def test_totals_are_over_layers_with_the_five_most_frequent_in_red(large: Results) -> None:
    totals = large.aggregate("layer_head_counts").sum(axis=0)
    axes = head_frequency_total(large, STYLE).axes[0]
    assert bars(axes) == totals.tolist()
    assert red_bars(axes) == sorted(np.argsort(-totals, kind="stable")[:5].tolist())
    assert axes.lines[0].get_ydata()[0] == 32 * 100 / 32


def test_only_heads_above_the_equal_share_are_red(tmp_path: Path) -> None:
    """Of 4 heads one wins 4 of 8; the others' 2, 1 and 1 lie at or below the equal share, 2."""
    scores = np.eye(4)[[0, 1, 1, 1, 1, 2, 3, 3]][:, None]
    with written(tmp_path, scores=scores) as results:
        figure = head_frequency_total(results, STYLE, top=5)
    assert red_bars(figure.axes[0]) == [1]
    assert "the 1 most frequent above the equal share" in said(figure)


def test_what_is_averaged_stands_at_the_scale(small: Results) -> None:
    figure = mean_scores(small, STYLE)
    labels = {" ".join(axes.get_ylabel().split()) for axes in (*figure.axes, *_inner(figure))}
    about = small.fields["scores"].about
    assert f"Mean over samples: {about}" in labels


def _inner(figure: Figure) -> list[Axes]:
    return [child for axes in figure.axes for child in axes.child_axes]


def test_diversity_stands_beside_its_maximum(large: Results) -> None:
    left, right = layer_diversity(large, STYLE).axes
    assert bars(left) == large.aggregate("distinct_heads").tolist()
    dashed, curve = sorted(right.lines, key=lambda line: len(line.get_xdata()))
    assert curve.get_ydata() == pytest.approx(large.aggregate("entropy_bits"))
    assert dashed.get_ydata()[0] == 5
    assert dashed.is_dashed()


def test_few_samples_cannot_reach_the_maximum_and_the_figure_says_so(tmp_path: Path) -> None:
    with written(tmp_path, 4, 3, 16) as results:
        assert "at most 4 heads and 2 bits" in said(layer_diversity(results, STYLE))


def test_a_share_stands_in_its_interval_with_the_heads_number(small: Results) -> None:
    upper, lower = head_share_intervals(small, STYLE).axes
    ends = [small.aggregate(f"top_head_share{end}") for end in SHARE_ENDS]
    points = next(line for line in upper.lines if line.get_marker() == "o")
    assert points.get_ydata() == pytest.approx(ends[0])
    segments = np.array(upper.collections[0].get_segments())
    assert segments[:, :, 1] == pytest.approx(np.stack(ends[1:], axis=1))
    numbers = [t.get_text() for t in upper.texts]
    assert numbers[:4] == [str(h) for h in small.aggregate("layer_head_counts").argmax(axis=1)]
    assert bars(lower) == pytest.approx(small.aggregate("near_tie_share").tolist())
    agreed = next(line for line in lower.lines if line.get_marker() == "D")
    assert agreed.get_ydata() == pytest.approx(small.aggregate("split_half_agreement"))


def test_without_firmness_the_shares_stand_alone(tmp_path: Path) -> None:
    without = ("near_tie_share", "split_half_agreement")
    with written(tmp_path, without=without) as results:
        assert len(head_share_intervals(results, STYLE).axes) == 1


def test_mean_scores_name_their_definition(small: Results) -> None:
    figure = mean_scores(small, STYLE)
    image = figure.axes[0].get_images()[0]
    assert np.asarray(image.get_array()) == pytest.approx(small.aggregate("mean_scores"))
    assert DEFINITION in said(figure)


def test_right_and_wrong_answers_are_compared_by_the_head_of_all(tmp_path: Path) -> None:
    # Layer 0: head 1 wins always. Layer 1: head 2 wins the 6 right samples, head 0 the 4 wrong.
    scores = np.zeros((10, 2, 3), dtype=np.float32)
    scores[:, 0, 1] = 1
    scores[:6, 1, 2] = 1
    scores[6:, 1, 0] = 1
    with written(tmp_path, scores=scores, correct=np.arange(10) < 6) as results:
        figure = accuracy_split(results, STYLE)
    upper, lower = figure.axes
    shares = {line.get_label(): line.get_ydata().tolist() for line in upper.lines}
    assert shares["right answers, n = 6"] == [1, 1]
    assert shares["wrong answers, n = 4"] == [1, 0]
    assert (words_at(lower, 0), words_at(lower, 1)) == (["1", "2"], ["1", "0"])
    assert [t.get_text() for t in lower.texts if t.get_color() == TOP] == ["0"]
    assert "accuracy 0.6, " in said(figure)


def test_with_right_answers_alone_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with (
        written(tmp_path, 6, correct=np.ones(6, dtype=bool)) as results,
        pytest.raises(NothingToDrawError, match="6 right and 0 wrong answers"),
    ):
        accuracy_split(results, STYLE)


def test_a_clean_run_says_the_same_where_it_counted_no_wrong_answer() -> None:
    """What a run counts: a group without a sample has no field at all."""
    only = {"layer_head_counts_right": HeadCounts("layer_head_counts_right", "wins")}
    held: Any = SimpleNamespace(aggregates=only, aggregate=lambda _: np.array([[4, 2], [6, 0]]))
    with pytest.raises(NothingToDrawError, match="^6 right and 0 wrong answers: none to compare$"):
        accuracy_split(held, STYLE)


def test_blocked_heads_stand_beside_random_ones(small: Results) -> None:
    accuracy, logits = knockout(small, STYLE).axes
    ticks = [t.get_text().split("\n")[0] for t in accuracy.get_xticklabels()]
    assert ticks == ["nothing", "winning heads", "random heads"]
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx([0.9, 0.4, 0.85])
    assert [bar.get_height() for bar in logits.patches] == pytest.approx([2.5, 0.3, -0.4])
    lines = np.concatenate([c.get_segments() for c in logits.collections])
    assert lines[:, :, 1] == pytest.approx(
        np.array([[2.42, 2.58], [0.22, 0.38], [-0.48, -0.32]]), abs=1e-6
    )


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_says_that_attention_does_not_show_use(
    figure: Callable[..., Figure], small: Results
) -> None:
    text = said(figure(small, STYLE))
    assert USE_CAPTION in text
    assert "scienceqa · llava_1_5_7b" in text


@pytest.mark.parametrize("figure", FIGURES)
def test_labels_of_32_layers_and_heads_do_not_touch(
    figure: Callable[..., Figure], large: Results
) -> None:
    drawn = figure(large, Style(dpi=100, workers=0))
    drawn.canvas.draw()
    edges = drawn.bbox
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
            boxes = [t.get_window_extent() for t in shown]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
            assert all(edges.x0 <= box.x0 and box.x1 <= edges.x1 for box in boxes)
        left, right = (t.get_window_extent() for t in (axes._left_title, axes._right_title))
        assert not right.width or left.x1 < right.x0
        written_out = [t.get_window_extent() for t in axes.texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(written_out, 2))


@pytest.mark.parametrize("figure", FIGURES)
def test_what_the_result_does_not_hold_is_left_out_with_a_reason(
    figure: Callable[..., Figure], tmp_path: Path
) -> None:
    every = [f.name for f, _ in statistics(planted_scores(4, 2, 2), np.array([1, 1, 0, 0]) == 1)]
    with (
        written(tmp_path, 4, 2, 2, without=tuple(every), has_knockout=False) as results,
        pytest.raises(NothingToDrawError, match="the result holds no"),
    ):
        figure(results, STYLE)


def test_a_field_of_another_kind_is_not_taken(small: Results) -> None:
    with pytest.raises(NothingToDrawError, match="no HeadCounts mean_scores; it has layer_head_c"):
        max_attention_head_heatmap(small, STYLE, counts="mean_scores")


def shipped() -> tuple[dict[str, Any], dict[str, Any]]:
    """The style and the figures of the configuration that ships."""
    text = (conf_dir() / "visualization" / "scienceqa.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    figures = node.pop("figures")
    node.pop("needs", None)  # of the study's fields
    figures["top_k"]["top_k"] = 3  # an interpolation
    assert node.pop("_target_").rpartition(".")[2] == "HeadStyle"
    # These results are of many samples; maps over pictures have tests of their own.
    figures.pop("on_image")
    return {**node, "dpi": 30, "workers": 0}, figures


def test_the_configuration_that_ships_draws_all_and_knows_the_seeds_names(
    small: Results, tmp_path: Path
) -> None:
    style, figures = shipped()
    paths = draw_all(small.path, figures, HeadStyle(**style), tmp_path)
    assert {path.parent for path in paths} == {tmp_path}
    assert {path.stem for path in paths} > SEED_FILES
    assert len(paths) == len(figures) == len(FIGURES)


def test_one_sample_has_the_seeds_figures_but_none_that_needs_several(tmp_path: Path) -> None:
    style, figures = shipped()
    with written(tmp_path, 1, 2, 3) as results:
        path = results.path
    paths = draw_all(path, figures, HeadStyle(**style), tmp_path / "figures")
    assert {path.stem for path in paths} == {*SEED_FILES, "mean_scores"}


@pytest.mark.parametrize("fewest", [0, "one", True, 1.5])
def test_min_samples_is_checked_before_a_run(fewest: object) -> None:
    _, figures = shipped()
    with pytest.raises(ConfigError, match=r"figures.total.min_samples=.*whole number"):
        check_figures({"total": {**figures["total"], "min_samples": fewest}})


def test_one_layer_of_one_head_can_be_drawn(tmp_path: Path) -> None:
    with written(tmp_path, 3, 1, 1) as results:
        for figure in FIGURES:
            if figure is not accuracy_split:
                figure(results, STYLE).canvas.draw()
