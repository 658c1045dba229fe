"""How sure and how varied winning heads are: one number a layer, with intervals where there are."""

from typing import cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from interp_lab.fields import HeadCounts, LayerCurve, Scalar
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.head_panels import (
    REST,
    SECOND,
    TOP,
    aggregate,
    aggregate_or_none,
    count_ticks,
    head_heading,
    intervals,
    layer_ticks,
    reference_line,
)
from interp_lab.visualization.panels import sentence
from interp_lab.visualization.sheets import sheet


def layer_diversity(
    results: Results,
    style: Style,
    *,
    distinct: str = "distinct_heads",
    entropy: str = "entropy_bits",
    counts: str = "layer_head_counts",
) -> Figure:
    """Draw how many heads ever win a layer (left), and how evenly, as an entropy (right).

    Args:
        results: an open result.
        style: how.
        distinct: name of the LayerCurve of distinct heads.
        entropy: name of the LayerCurve of entropies, base 2.
        counts: name of the HeadCounts, which tell how many heads there are.

    Raises:
        NothingToDrawError: if the result does not hold them.
    """
    _, values = aggregate(results, counts, HeadCounts)
    fields, curves = zip(
        *(aggregate(results, name, LayerCurve) for name in (distinct, entropy)), strict=True
    )
    n_layers, n_heads = values.shape
    n = int(values.sum(axis=1).max())
    page = style.page((max(7.0, 2 * (n_layers * 0.13 + 0.9)), 4.2), fill=True)
    foot = "0 bits: the same head in every sample."
    if n < n_heads:
        foot += f" With {n} samples at most {n} heads and {np.log2(max(n, 1)):.3g} bits can appear."
    with style.context(page.points):
        head = head_heading(results, "How varied the winning heads are", fields, foot)
        figure = sheet(style, page, head)
        left, right = figure.subplots(1, 2)
        left.bar(np.arange(n_layers), curves[0], width=0.8, color=SECOND)
        reference_line(left, n_heads, f"{n_heads} heads")
        count_ticks(left.yaxis)
        left.set(ylabel="heads", ylim=(0, n_heads * 1.12))
        right.plot(
            curves[1], color=SECOND, marker="o", markersize=matplotlib.rcParams["font.size"] / 2.6
        )
        most = np.log2(n_heads)
        reference_line(right, most, f"maximum: log₂ {n_heads} = {most:.3g} bits")
        right.set(ylabel="entropy [bit]", ylim=(-0.02 * max(most, 1), max(most, 1) * 1.12))
        for axes, field in ((left, fields[0]), (right, fields[1])):
            axes.set_title(sentence(field.about), loc="left", fontsize="small")
            layer_ticks(axes, n_layers)
    return figure


def head_share_intervals(
    results: Results,
    style: Style,
    *,
    share: str = "top_head_share",
    near_ties: str = "near_tie_share",
    agreement: str = "split_half_agreement",
    counts: str = "layer_head_counts",
    interval: str = "95 % bootstrap interval over samples",
) -> Figure:
    """Draw each layer's most frequent head: its share with interval, and how firm the wins are.

    Args:
        results: an open result.
        style: how.
        share: name of the LayerCurve; its interval is named the same with `_low` and `_high`.
        near_ties: LayerCurve of the share of near ties; left out if the result has none.
        agreement: LayerCurve of the agreement of split halves; left out likewise.
        counts: name of the HeadCounts, which tell the heads' numbers.
        interval: what the interval is.

    Raises:
        NothingToDrawError: if the result holds no share, interval or counts.
    """
    _, values = aggregate(results, counts, HeadCounts)
    field, shares = aggregate(results, share, LayerCurve)
    low, high = (aggregate(results, f"{share}_{end}", LayerCurve)[1] for end in ("low", "high"))
    n_layers, n_heads = values.shape
    firmness = {
        name: aggregate_or_none(results, name, LayerCurve) for name in (near_ties, agreement)
    }
    firm = [(results.aggregates[name].about, v) for name, v in firmness.items() if v is not None]
    page = style.page((max(6.5, n_layers * 0.26 + 1.0), 3.7 + 1.7 * bool(firm)), fill=True)
    foot = f"Points: share of samples that the head wins; lines: {interval}; numbers: the head."
    with style.context(page.points):
        title = "How firmly each layer's most frequent head leads"
        figure = sheet(style, page, head_heading(results, title, [field], foot))
        panels = figure.subplots(
            1 + bool(firm), 1, squeeze=False, height_ratios=[2.2, 1][: 1 + bool(firm)]
        )
        axes = cast(Axes, panels[0, 0])
        layers = np.arange(n_layers)
        intervals(axes, layers, low, high, TOP)
        size = matplotlib.rcParams["font.size"] / 2.2
        axes.plot(layers, shares, linestyle="", marker="o", markersize=size, color=TOP, zorder=3)
        for layer, number in enumerate(values.argmax(axis=1)):
            axes.annotate(
                str(number), (layer, high[layer]), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize="x-small",
            )  # fmt: skip
        reference_line(axes, 1 / n_heads, f"equal share: 1/{n_heads}")
        axes.set(ylabel=sentence(field.about), ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
        layer_ticks(axes, n_layers)
        if firm:
            _firmness(cast(Axes, panels[1, 0]), firm)
            axes.set_xlabel("")
    return figure


def _firmness(axes: Axes, curves: list[tuple[str, np.ndarray]]) -> None:
    """Draw the first curve as bars and a second as points, both shares from 0 to 1."""
    size = matplotlib.rcParams["font.size"] / 2.2
    for (about, values), drawn_as in zip(curves, ("bars", "points"), strict=False):
        layers = np.arange(len(values))
        if drawn_as == "bars":
            axes.bar(layers, values, width=0.7, color=REST, label=about)
        else:
            axes.plot(
                layers,
                values,
                linestyle="",
                marker="D",
                markersize=size * 0.8,
                color=SECOND,
                label=about,
            )
    axes.set(ylabel="share", ylim=(0, 1.06), yticks=[0, 0.5, 1])
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="x-small", borderaxespad=0.1
    )
    layer_ticks(axes, len(curves[0][1]))


def accuracy_split(
    results: Results,
    style: Style,
    *,
    right: str = "layer_head_counts_right",
    wrong: str = "layer_head_counts_wrong",
    accuracy: str = "accuracy",
) -> Figure:
    """Draw how often each layer's most frequent head wins, for right and for wrong answers.

    Below stand the most frequent heads of both, the wrong answers' in red where it differs.

    Args:
        results: an open result.
        style: how.
        right: name of the HeadCounts of samples that were answered rightly.
        wrong: of those answered wrongly.
        accuracy: name of the Scalar; left out if the result has none.

    Raises:
        NothingToDrawError: if the result does not hold the counts, or no answers were wrong, or
            none right: there is nothing to compare.
    """
    field, of_right = aggregate(results, right, HeadCounts)
    _, of_wrong = aggregate(results, wrong, HeadCounts)
    sizes = [int(counts.sum(axis=1).max()) for counts in (of_right, of_wrong)]
    if not all(sizes):
        raise NothingToDrawError(f"{sizes[0]} right and {sizes[1]} wrong answers: none to compare")
    top = (of_right + of_wrong).argmax(axis=1)
    n_layers = len(top)
    page = style.page((max(6.5, n_layers * 0.28 + 1.2), 4.9), fill=True)
    foot = (
        "Share of the head that is most frequent over all samples; lines: 95 % Wilson intervals. "
        "Below: the most frequent head of each group; red where the groups differ."
    )
    with style.context(page.points):
        title = "Winning heads of right and of wrong answers" + _accuracy_words(results, accuracy)
        figure = sheet(style, page, head_heading(results, title, [field], foot))
        upper, lower = figure.subplots(2, 1, height_ratios=[6, 1])
        groups = (("right", of_right, SECOND, "o"), ("wrong", of_wrong, TOP, "^"))
        for place, (word, counts, color, marker) in enumerate(groups):
            x = np.arange(n_layers) + (place - 0.5) * 0.36
            wins, n = counts[np.arange(n_layers), top], sizes[place]
            low, high = _wilson(wins, n)
            intervals(upper, x, low, high, color, 0.7)
            size = matplotlib.rcParams["font.size"] / 2.4
            upper.plot(x, wins / n, linestyle="", marker=marker, markersize=size, color=color,
                       label=f"{word} answers, n = {n}", zorder=3)  # fmt: skip
        upper.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="x-small", borderaxespad=0.1
        )
        upper.set(ylabel="share of samples", ylim=(0, 1.03), yticks=np.linspace(0, 1, 6))
        layer_ticks(upper, n_layers)
        _head_table(lower, of_right.argmax(axis=1), of_wrong.argmax(axis=1))
    return figure


def _accuracy_words(results: Results, name: str) -> str:
    ends = [aggregate_or_none(results, name + end, Scalar) for end in ("", "_low", "_high")]
    if ends[0] is None:
        return ""
    words = f" (accuracy {float(ends[0]):.3g}"
    if ends[1] is not None and ends[2] is not None:
        words += f", {float(ends[1]):.3g} to {float(ends[2]):.3g}"
    return f"{words})"


def _wilson(wins: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of the shares wins / n: (n_layers,) each."""
    found = [stats.binomtest(int(k), n).proportion_ci(0.95, "wilson") for k in wins]
    return np.array([f.low for f in found]), np.array([f.high for f in found])


def _head_table(axes: Axes, right: np.ndarray, wrong: np.ndarray) -> None:
    for layer, (one, other) in enumerate(zip(right, wrong, strict=True)):
        for row, number in ((0, one), (1, other)):
            differs = row == 1 and one != other
            axes.text(layer, row, str(number), ha="center", va="center", fontsize="x-small",
                      color=TOP if differs else "0.2")  # fmt: skip
    axes.set(xlim=(-0.7, len(right) - 0.3), ylim=(1.5, -0.5), xticks=[])
    axes.set_yticks([0, 1], ["head, right", "head, wrong"], fontsize="x-small")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
