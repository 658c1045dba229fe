"""Which head wins which layer, and how often: figures of counts and scores by layer and head."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from interp_lab.fields import Field, HeadCounts, HeadScores
from interp_lab.store.results import Results
from interp_lab.visualization.base import Page, Style
from interp_lab.visualization.panels import limits, sentence
from interp_lab.visualization.toolbox import (
    REST,
    TOP,
    aggregate,
    count_ticks,
    head_sheet,
    index_ticks,
    layer_head_map,
    letters_wide,
    reference_line,
    samples_of,
)

TIES = "On equal counts the lower head number comes first."
NUMBER_GUIDE = "Heads of one number in different layers are different heads."
LOWEST_PANEL = 0.8  # inches of a panel's height, at letters of 10.5 points
SHORTEST_BAR = 0.3  # inches of the longest bar of all


def max_attention_head_distribution(
    results: Results, style: Style, *, counts: str = "layer_head_counts", columns: int = 4
) -> Figure:
    """Draw one bar chart a layer: how many samples each head wins, the most frequent one in red.

    Args:
        results: an open result.
        style: how.
        counts: name of the HeadCounts (n_layers, n_heads).
        columns: panels side by side; 8 gives a landscape page. Fewer where their titles have no
            room, or shorter titles where fewer would make too many rows.

    Raises:
        NothingToDrawError: if the result does not hold the counts.
    """
    field, values = aggregate(results, counts, HeadCounts)
    n_layers = len(values)
    columns, page, short = _panels(style, columns, values.shape)
    rows = math.ceil(n_layers / columns)
    foot = f"One panel a layer; red: its most frequent head, with its share of samples. {TIES}"
    foot = f"{foot} L: layer, H: head." if short else foot
    title = "Winning heads of every layer"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        grid = figure.add_gridspec(rows, columns)
        for layer in range(n_layers):
            axes = figure.add_subplot(grid[divmod(layer, columns)])
            _layer_bars(axes, layer, values[layer], short)
            axes.set_ylim(0, max(1, values.max()) * 1.04)
            is_lowest = layer + columns >= n_layers
            axes.tick_params(labelbottom=is_lowest, labelleft=layer % columns == 0)
            axes.set_xlabel("head" if is_lowest else "", fontsize="small")
            axes.set_ylabel("samples" if layer % columns == 0 else "", fontsize="small")
    return figure


def _panels(style: Style, columns: int, shape: tuple[int, ...]) -> tuple[int, Page, bool]:
    """Return panels side by side, the page, and whether their titles are abbreviated."""
    n_layers, n_heads = shape
    asked = max(1, min(columns, n_layers))
    title = f"layer {n_layers - 1} head {n_heads - 1}: 100%"
    page = style.page((6.0, 4.0), fill=True)
    for count in range(asked, 0, -1):
        rows = math.ceil(n_layers / count)
        width = 2.15 if count <= 4 else 1.6
        page = style.page((max(6.0, count * width + 0.5), rows * 1.15 + 1.6), fill=True)
        if count < asked and page.height / rows < LOWEST_PANEL * page.points / 10.5:
            break
        if (page.width - 0.4) / count >= letters_wide(title, page.points):
            return count, page, False
    title = f"L{n_layers - 1} H{n_heads - 1} 100%  "
    room = int((page.width - 0.4) / letters_wide(title, page.points))
    count = max(1, min(asked, room))
    rows = math.ceil(n_layers / count)
    return count, style.page((max(6.0, count * 2.15 + 0.5), rows * 1.15 + 1.6), fill=True), True


def _layer_bars(axes: Axes, layer: int, counts: np.ndarray, short: bool) -> None:
    top, total = int(counts.argmax()), int(counts.sum())
    colors = [TOP if head == top and total else REST for head in range(len(counts))]
    axes.bar(np.arange(len(counts)), counts, width=0.85, color=colors)
    axes.set_title(f"{'L' if short else 'layer '}{layer}", loc="left", fontsize="small", pad=3)
    if total:
        words = f"{'H' if short else 'head '}{top}{'' if short else ':'} {counts[top] / total:.0%}"
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
            cmap=str(style.colormap),
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
            cmap=str(style.colormap),
            number=".2g",
            norm=limits([values]),
            label=_mean_of(results, field) + unit,
        )
    return figure


def _mean_of(results: Results, field: Field) -> str:
    """Return what is averaged, also of a result that says no more than that it is a mean."""
    scores = results.fields.get("scores")
    if scores is None or field.about != "mean score":
        return sentence(field.about)
    return sentence(f"mean over samples: {scores.about}")


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
    asked = max(1, min(top_k, n_heads))
    order = np.argsort(-values, axis=1, kind="stable")[:, :asked]
    wins = np.take_along_axis(values, order, axis=1)
    height = max(0.2, min(0.4, 4.0 / n_layers))
    shares = wins.max(axis=0) / max(1, int(wins.max()))
    width = max(6.0, float((shares * 1.5).sum()) + asked * 1.1 + 0.9)
    page = style.page((width, n_layers * height + 1.8), fill=True)
    ranks = _ranks(page, shares, n_heads, int(wins.max()))
    k = len(ranks.widths)
    foot = (
        f"At every bar: the head's number{' (in front)' * (not ranks.word)} and the samples it "
        f"wins. Heads that win none are left out. {TIES}"
    )
    title = f"The {k} most frequent heads of every layer" if k > 1 else "Every layer's first head"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        grid = figure.add_gridspec(1, k, width_ratios=ranks.widths)
        for rank in range(k):
            axes = figure.add_subplot(grid[0, rank])
            _rank_bars(axes, order[:, rank], wins[:, rank], ranks, rank)
    return figure


@dataclass(frozen=True)
class Ranks:
    """Room of the columns of `top_k_heads_per_layer`, in shares of the longest bar.

    Args:
        before, after: room for a head's number in front of a bar, and for its count behind it.
        widths: of the columns, so many as there is room for.
        most: what the longest bar counts.
        word: whether the number stands behind the word head.
    """

    before: float
    after: float
    widths: list[float]
    most: int
    word: bool


def _ranks(page: Page, shares: np.ndarray, n_heads: int, most: int) -> Ranks:
    """Return the columns' room: words are shortened, then columns left out, where there is none."""
    gap = 0.5 * page.points / 72
    after = letters_wide(str(most), page.points) + 2 * gap
    room = page.width - 5 * page.points / 72
    for k in range(len(shares), 0, -1):
        for word in ("head ", ""):
            before = letters_wide(f"{word}{n_heads - 1}", page.points) + gap
            bar = (room - k * (before + after)) / max(float(shares[:k].sum()), 1e-9)
            if bar >= SHORTEST_BAR or (k == 1 and not word):
                bar = max(bar, SHORTEST_BAR)
                widths = (shares[:k] + (before + after) / bar).tolist()
                return Ranks(before / bar, after / bar, widths, max(1, most), bool(word))
    raise AssertionError("one column always has room")


def _rank_bars(axes: Axes, heads: np.ndarray, wins: np.ndarray, ranks: Ranks, rank: int) -> None:
    """Draw one bar a layer: the wins of its head of this rank, on one scale for all ranks."""
    layers, most = np.arange(len(heads)), ranks.most
    left, right = -ranks.before * most, float(wins.max()) + ranks.after * most
    axes.hlines(layers, left, right, color="0.92", linewidth=0.6, zorder=0)
    axes.barh(layers, wins, height=0.72, color=REST if rank else TOP)
    gap = 0.12 * ranks.after * most
    for layer, head, count in zip(layers.tolist(), heads.tolist(), wins.tolist(), strict=True):
        if count:
            named = f"head {head}" if ranks.word else str(head)
            for x, words, side in ((-gap, named, "right"), (count + gap, str(count), "left")):
                axes.text(x, layer, words, ha=side, va="center", fontsize="x-small")
    first = "most frequent" if ranks.word else "1st"
    words = (first, "2nd", "3rd")[rank] if rank < 3 else f"{rank + 1}th"
    axes.set_title(words, loc="left", fontsize="small")
    axes.set(xlim=(left, right), ylim=(len(heads) - 0.4, -0.6), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="x-small")
    if rank == 0:
        index_ticks(axes.yaxis, len(heads), len(heads))
        axes.set_ylabel("layer")


def head_frequency_total(
    results: Results, style: Style, *, counts: str = "layer_head_counts", top: int = 5
) -> Figure:
    """Draw each head number's wins over all layers; red: the most frequent above the equal share.

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
    equal = totals.sum() / n_heads
    red = red[totals[red] > equal]
    page = style.page((max(6.0, n_heads * 0.27 + 1.0), 4.2), fill=True)
    most = f"Red: the {len(red)} most frequent above the equal share. {TIES}"
    foot = f"{most if len(red) else 'No head lies above the equal share.'} {NUMBER_GUIDE}"
    title = "Wins of each head number over all layers"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=samples_of(values))
        axes = figure.add_subplot()
        bars = axes.bar(np.arange(n_heads), totals, width=0.8, color=REST)
        slot = (page.width - 1.2) / n_heads
        written: list[int] = []
        for number in red.tolist():
            bars[number].set_color(TOP)
            words = str(totals[number])
            apart = min((abs(number - other) for other in written), default=n_heads)
            # A number that has no room is left out; the first ones are written first.
            if apart * slot < letters_wide(f"{words} "):
                continue
            written.append(number)
            axes.annotate(
                words,
                (number, float(totals[number])),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
                color=TOP,
            )
        reference_line(axes, equal, "equal\nshare", beside=True)
        index_ticks(axes.xaxis, n_heads, 40)
        axes.tick_params(axis="x", length=0, labelsize="x-small" if n_heads > 16 else "small")
        count_ticks(axes.yaxis)
        axes.set(xlim=(-0.7, n_heads - 0.3), xlabel="head", ylabel="wins: samples × layers")
        axes.margins(y=0.1)
    return figure
