"""Which head wins which layer, and how often: figures of counts and scores by layer and head."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from interp_lab.fields import HeadCounts, HeadScores
from interp_lab.store.results import Results
from interp_lab.visualization.base import Style
from interp_lab.visualization.panels import limits, sentence
from interp_lab.visualization.toolbox import (
    REST,
    TOP,
    aggregate,
    count_ticks,
    head_sheet,
    index_ticks,
    layer_head_map,
    reference_line,
    samples_of,
)

TIES = "On equal counts the lower head number comes first."
NUMBER_GUIDE = "Heads of one number in different layers are different heads."
# Room for a head's number and for its count, as shares of the longest bar.
BEFORE_BAR, AFTER_BAR = 0.45, 0.28


def max_attention_head_distribution(
    results: Results, style: Style, *, counts: str = "layer_head_counts", columns: int = 4
) -> Figure:
    """Draw one bar chart a layer: how many samples each head wins, the most frequent one in red.

    Args:
        results: an open result.
        style: how.
        counts: name of the HeadCounts (n_layers, n_heads).
        columns: panels side by side; 8 gives a landscape page.

    Raises:
        NothingToDrawError: if the result does not hold the counts.
    """
    field, values = aggregate(results, counts, HeadCounts)
    n_layers = len(values)
    columns = max(1, min(columns, n_layers))
    rows = math.ceil(n_layers / columns)
    width = 2.15 if columns <= 4 else 1.6
    page = style.page((max(6.0, columns * width + 0.5), rows * 1.15 + 1.6), fill=True)
    foot = f"One panel a layer; red: its most frequent head, with its share of samples. {TIES}"
    title = "Winning heads of every layer"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        grid = figure.add_gridspec(rows, columns)
        for layer in range(n_layers):
            axes = figure.add_subplot(grid[divmod(layer, columns)])
            _layer_bars(axes, layer, values[layer])
            axes.set_ylim(0, max(1, values.max()) * 1.04)
            is_lowest = layer + columns >= n_layers
            axes.tick_params(labelbottom=is_lowest, labelleft=layer % columns == 0)
            axes.set_xlabel("head" if is_lowest else "", fontsize="small")
            axes.set_ylabel("samples" if layer % columns == 0 else "", fontsize="small")
    return figure


def _layer_bars(axes: Axes, layer: int, counts: np.ndarray) -> None:
    top, total = int(counts.argmax()), int(counts.sum())
    colors = [TOP if head == top and total else REST for head in range(len(counts))]
    axes.bar(np.arange(len(counts)), counts, width=0.85, color=colors)
    axes.set_title(f"layer {layer}", loc="left", fontsize="small", pad=3)
    if total:
        words = f"head {top}: {counts[top] / total:.0%}"
        axes.set_title(words, loc="right", fontsize="small", color=TOP, pad=3)
    axes.set_xlim(-0.8, len(counts) - 0.2)
    index_ticks(axes.xaxis, len(counts), 5)
    count_ticks(axes.yaxis, 2)
    axes.tick_params(labelsize="x-small", length=2)


def max_attention_head_heatmap(
    results: Results, style: Style, *, counts: str = "layer_head_counts"
) -> Figure:
    """Draw layers by heads; the colour is the number of samples in which the head wins.

    Args:
        results: an open result.
        style: how.
        counts: name of the HeadCounts (n_layers, n_heads).

    Raises:
        NothingToDrawError: if the result does not hold the counts.
    """
    field, values = aggregate(results, counts, HeadCounts)
    page = style.page(_map_size(*values.shape), fill=True)
    foot = f"Framed in red: each layer's most frequent head. {TIES}"
    title = "How often each head wins its layer"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        layer_head_map(
            figure,
            figure.add_gridspec(1, 1)[0],
            values,
            cmap=style.cmap,
            number="d",
            norm=Normalize(0, max(1, values.max())),
            label=sentence(field.about),
        )
    return figure


def mean_scores(results: Results, style: Style, *, scores: str = "mean_scores") -> Figure:
    """Draw layers by heads; the colour is the mean score over the samples.

    Args:
        results: an open result.
        style: how.
        scores: name of the HeadScores (n_layers, n_heads).

    Raises:
        NothingToDrawError: if the result does not hold the scores.
    """
    field, values = aggregate(results, scores, HeadScores)
    page = style.page(_map_size(*values.shape), fill=True)
    foot = (
        "Framed in red: each layer's highest mean. The head that wins most samples can be another."
    )
    with style.context(page.points):
        figure = head_sheet(results, style, page, "How strongly each head scores", [field], foot)
        unit = "" if field.unit == "1" else f" [{field.unit}]"
        layer_head_map(
            figure,
            figure.add_gridspec(1, 1)[0],
            values,
            cmap=style.cmap,
            number=".2g",
            norm=limits([values]),
            label=sentence(field.about) + unit,
        )
    return figure


def _map_size(n_layers: int, n_heads: int) -> tuple[float, float]:
    cell = min(0.55, max(0.2, 5.0 / max(n_layers, n_heads)))
    return max(6.0, n_heads * cell + 1.8), max(2.4, n_layers * cell) + 1.8


def top_k_heads_per_layer(
    results: Results, style: Style, *, counts: str = "layer_head_counts", top_k: int = 5
) -> Figure:
    """Draw each layer's k most frequent heads, with head number and count at every bar.

    Args:
        results: an open result.
        style: how.
        counts: name of the HeadCounts (n_layers, n_heads).
        top_k: how many; at most all heads.

    Raises:
        NothingToDrawError: if the result does not hold the counts.
    """
    field, values = aggregate(results, counts, HeadCounts)
    n_layers, n_heads = values.shape
    k = max(1, min(top_k, n_heads))
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    wins = np.take_along_axis(values, order, axis=1)
    most = max(1, int(wins.max()))
    # One scale for all ranks: a column is as wide as its longest bar needs.
    widths = wins.max(axis=0) / most + BEFORE_BAR + AFTER_BAR
    height = max(0.2, min(0.4, 4.0 / n_layers))
    page = style.page((max(6.0, widths.sum() * 1.5 + 0.9), n_layers * height + 1.8), fill=True)
    foot = (
        "At every bar: the head's number and the samples it wins. Heads that win none are left "
        f"out. {TIES}"
    )
    title = f"The {k} most frequent heads of every layer"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        grid = figure.add_gridspec(1, k, width_ratios=widths)
        for rank in range(k):
            axes = figure.add_subplot(grid[0, rank])
            _rank_bars(axes, order[:, rank], wins[:, rank], most, rank)
    return figure


def _rank_bars(axes: Axes, heads: np.ndarray, wins: np.ndarray, most: int, rank: int) -> None:
    """Draw one bar a layer: the wins of its head of this rank, on a scale up to `most`."""
    layers = np.arange(len(heads))
    left, right = -BEFORE_BAR * most, float(wins.max()) + AFTER_BAR * most
    axes.hlines(layers, left, right, color="0.92", linewidth=0.6, zorder=0)
    axes.barh(layers, wins, height=0.72, color=REST if rank else TOP)
    for layer, head, count in zip(layers.tolist(), heads.tolist(), wins.tolist(), strict=True):
        if count:
            for x, words, side in (
                (-0.03 * most, f"head {head}", "right"),
                (count + 0.03 * most, str(count), "left"),
            ):
                axes.text(x, layer, words, ha=side, va="center", fontsize="x-small")
    words = ("most frequent", "2nd", "3rd")[rank] if rank < 3 else f"{rank + 1}th"
    axes.set_title(words, loc="left", fontsize="small")
    axes.set(xlim=(left, right), ylim=(len(heads) - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="x-small")
    if rank == 0:
        axes.set_yticks(layers)
        axes.set_ylabel("layer")


def head_frequency_total(
    results: Results, style: Style, *, counts: str = "layer_head_counts", top: int = 5
) -> Figure:
    """Draw each head number's wins over all layers, the most frequent ones in red.

    Args:
        results: an open result.
        style: how.
        counts: name of the HeadCounts (n_layers, n_heads).
        top: how many are red; at most half of the heads, so that they stand out.

    Raises:
        NothingToDrawError: if the result does not hold the counts.
    """
    field, values = aggregate(results, counts, HeadCounts)
    totals, n_heads = values.sum(axis=0), values.shape[1]
    red = np.argsort(-totals, kind="stable")[: max(1, min(top, n_heads // 2))]
    red = red[totals[red] > 0]
    page = style.page((max(6.0, n_heads * 0.27 + 1.0), 4.2), fill=True)
    foot = f"Red: the {len(red)} most frequent. {TIES} {NUMBER_GUIDE}"
    title = "Wins of each head number over all layers"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        axes = figure.add_subplot()
        bars = axes.bar(np.arange(n_heads), totals, width=0.8, color=REST)
        for number in red.tolist():
            bars[number].set_color(TOP)
            axes.annotate(
                f"{totals[number]}",
                (number, float(totals[number])),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
                color=TOP,
            )
        reference_line(axes, totals.sum() / n_heads, "equal\nshare", beside=True)
        index_ticks(axes.xaxis, n_heads, 40)
        axes.tick_params(axis="x", length=0, labelsize="x-small" if n_heads > 16 else "small")
        count_ticks(axes.yaxis)
        axes.set(xlim=(-0.7, n_heads - 0.3), xlabel="head", ylabel="wins: samples × layers")
        axes.margins(y=0.1)
    return figure
