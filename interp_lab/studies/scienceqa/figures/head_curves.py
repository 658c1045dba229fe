"""How sure and how varied winning heads are: one number a layer, with intervals where there are."""

from typing import cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.fields import HeadCounts, LayerCurve
from interp_lab.store.results import Results
from interp_lab.visualization.base import Style
from interp_lab.visualization.panels import sentence
from interp_lab.visualization.toolbox import (
    REST,
    SECOND,
    TOP,
    aggregate,
    aggregate_or_none,
    count_ticks,
    head_sheet,
    index_step,
    intervals,
    layer_ticks,
    legend_above,
    letters_wide,
    reference_line,
    samples_of,
)


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
    counted, values = aggregate(results, counts, HeadCounts)
    (one, heads), (other, bits) = (aggregate(results, n, LayerCurve) for n in (distinct, entropy))
    n_layers, n_heads = values.shape
    n = samples_of(values)
    page = style.page((max(7.0, 2 * (n_layers * 0.12 + 0.9)), 4.2), fill=True)
    foot = "0 bits: the same head in every sample."
    if n < n_heads:
        foot += f" With {n} samples at most {n} heads and {np.log2(max(n, 1)):.3g} bits can appear."
    title = "How varied the winning heads are"
    with style.context(page.points):
        figure = head_sheet(results, style, page, title, [counted, one, other], foot, counted=n)
        left, right = figure.subplots(1, 2)
        left.bar(np.arange(n_layers), heads, width=0.8, color=SECOND)
        reference_line(left, n_heads, f"{n_heads} heads")
        count_ticks(left.yaxis)
        left.set(ylabel="heads", ylim=(0, n_heads * 1.12))
        size = matplotlib.rcParams["font.size"] / 2.6
        right.plot(np.arange(n_layers), bits, color=SECOND, marker="o", markersize=size)
        most = float(np.log2(n_heads))
        longest = f"maximum: log₂ {n_heads} = {most:.3g} bits"
        fits = letters_wide(longest) <= page.width / 2 - 0.7
        reference_line(right, most, longest if fits else f"maximum: {most:.3g} bits")
        right.set(ylabel="entropy [bit]", ylim=(-0.03 * max(most, 1), max(most, 1) * 1.12))
        for axes, field in ((left, one), (right, other)):
            axes.set_title(sentence(field.about), loc="left", fontsize="small")
            layer_ticks(axes, n_layers, 20)
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
    counted, values = aggregate(results, counts, HeadCounts)
    ends = [aggregate(results, share + end, LayerCurve) for end in ("", "_low", "_high")]
    n_layers, n_heads = values.shape
    firm = {name: aggregate_or_none(results, name, LayerCurve) for name in (near_ties, agreement)}
    ratios = [2.2, 1] if any(curve is not None for curve in firm.values()) else [2.2]
    page = style.page((max(6.5, n_layers * 0.26 + 1.2), 2.2 + sum(ratios)), fill=True)
    foot = f"Points: share of samples that the head wins; lines: {interval}; numbers: the head."
    if (ends[0][1] == 1).any():
        foot += " Where one head wins every sample, resampling cannot give the interval a width."
    title = "How firmly each layer's most frequent head leads"
    with style.context(page.points):
        fields = [counted, *(field for field, _ in ends)]
        figure = head_sheet(results, style, page, title, fields, foot, counted=samples_of(values))
        rows = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
        upper = cast(Axes, rows[0])
        _share_points(upper, *(curve for _, curve in ends), heads=values.argmax(axis=1))
        reference_line(upper, 1 / n_heads, f"equal\nshare:\n1/{n_heads}", beside=True)
        upper.set_ylabel(sentence(ends[0][0].about))
        if len(rows) > 1:
            upper.set_xlabel("")
            _firmness(cast(Axes, rows[1]), results, firm[near_ties], near_ties, is_bar=True)
            _firmness(cast(Axes, rows[1]), results, firm[agreement], agreement, is_bar=False)
    return figure


def _share_points(
    axes: Axes, share: np.ndarray, low: np.ndarray, high: np.ndarray, heads: np.ndarray
) -> None:
    """Draw one point a layer with its interval and the head's number above it."""
    layers = np.arange(len(share))
    intervals(axes, layers, low, high, TOP)
    size = matplotlib.rcParams["font.size"] / 2.2
    axes.plot(layers, share, linestyle="", marker="o", markersize=size, color=TOP, zorder=3)
    layer_ticks(axes, len(share))
    numbered = index_step(axes.xaxis, len(share), 40)
    for layer, number in list(enumerate(heads.tolist()))[::numbered]:
        axes.annotate(
            str(number),
            (layer, max(high[layer], share[layer])),
            xytext=(0, size * 0.6 + 1.5),
            textcoords="offset points",
            ha="center",
            fontsize="x-small",
        )
    axes.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))


def _firmness(
    axes: Axes, results: Results, values: np.ndarray | None, name: str, *, is_bar: bool
) -> None:
    """Add a curve of shares from 0 to 1, if there is one, with a legend above the axes."""
    if values is None:
        return
    layers, about = np.arange(len(values)), results.aggregates[name].about
    if is_bar:
        axes.bar(layers, values, width=0.7, color=REST, label=about)
    else:
        size = matplotlib.rcParams["font.size"] / 2.6
        axes.plot(
            layers,
            values,
            linestyle="",
            marker="D",
            markersize=size,
            color=SECOND,
            label=about,
            clip_on=False,
        )
    axes.set(ylabel="share", ylim=(0, 1.06), yticks=[0, 0.5, 1])
    layer_ticks(axes, len(values))
    legend_above(axes)
