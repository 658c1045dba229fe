"""Does another head win when the answer is wrong? Right and wrong answers beside each other."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from interp_lab.fields import HeadCounts, Scalar
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import (
    SECOND,
    TOP,
    aggregate,
    aggregate_or_none,
    head_sheet,
    index_step,
    intervals,
    layer_ticks,
    legend_above,
    samples_of,
)


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
    both = [aggregate_or_none(results, name, HeadCounts) for name in (right, wrong)]
    there = [counts for counts in both if counts is not None]
    sizes = [0 if counts is None else samples_of(counts) for counts in both]
    if there and not all(sizes):
        raise NothingToDrawError(f"{sizes[0]} right and {sizes[1]} wrong answers: none to compare")
    field, of_right = aggregate(results, right, HeadCounts)
    _, of_wrong = aggregate(results, wrong, HeadCounts)
    top = (of_right + of_wrong).argmax(axis=1)
    n_layers = len(top)
    page = style.page((max(6.5, n_layers * 0.28 + 1.2), 4.9), fill=True)
    foot = (
        "Share of the head that is most frequent over all samples; lines: 95 % Wilson intervals. "
        "Below: the most frequent head of each group; red where the groups differ."
    )
    title = "Winning heads of right and of wrong answers" + _accuracy_words(results, accuracy)
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [field], foot, counted=sum(sizes))
        upper, lower = figure.subplots(2, 1, height_ratios=[6, 1])
        groups = (("right", of_right, SECOND, "o"), ("wrong", of_wrong, TOP, "^"))
        for place, (word, counts, color, marker) in enumerate(groups):
            x = np.arange(n_layers) + (place - 0.5) * 0.36
            wins, n = counts[np.arange(n_layers), top], sizes[place]
            low, high = _wilson(wins, n)
            intervals(upper, x, low, high, color, 0.7)
            look = {"marker": marker, "color": color, "label": f"{word} answers, n = {n}"}
            size = matplotlib.rcParams["font.size"] / 2.4
            upper.plot(x, wins / n, linestyle="", markersize=size, zorder=3, **look)
        legend_above(upper)
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
    step = index_step(axes.xaxis, len(right), 40)
    for layer, (one, other) in list(enumerate(zip(right, wrong, strict=True)))[::step]:
        for row, number in ((0, one), (1, other)):
            differs = row == 1 and one != other
            axes.text(
                layer,
                row,
                str(number),
                ha="center",
                va="center",
                fontsize="x-small",
                color=TOP if differs else "0.2",
            )
    axes.set(xlim=(-0.7, len(right) - 0.3), ylim=(1.5, -0.5), xticks=[])
    axes.set_yticks([0, 1], ["head, right", "head, wrong"], fontsize="x-small")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
