"""Samples by layers: every sample's mean gates as a map, and which samples are alike."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from scipy.cluster import hierarchy

from interp_lab.fields import LayerCurve
from interp_lab.store.results import Results
from interp_lab.studies.avigate.figures.gate_panels import (
    audio_kinds,
    gate_kinds,
    gate_map,
    gate_sheet,
    group_color,
    stacked,
    symmetric,
)
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import shortened

FEWEST_TO_CLUSTER = 3
# More rows than this have no room for their names.
MOST_NAMED = 60
LONGEST_NAME = 16


def activation_patterns(results: Results, style: Style, *, cmap: str = "RdBu_r") -> Figure:
    """Draw every sample's mean gate of each layer: samples down, layers across.

    Where the data set knows the kind of audio, samples of a kind stand together; within a kind
    they are ordered by |g| of the last layer, so that a trend is seen whatever the order of files.

    Args:
        results: an open result.
        style: how.
        cmap: a diverging colormap; its middle is 0.

    Raises:
        NothingToDrawError: if the samples hold no mean gates.
    """
    kinds = gate_kinds(results)
    means = {kind: stacked(results, f"mean_{kind}", LayerCurve) for kind in kinds}
    named = audio_kinds(results)
    order = _order(results, kinds[0], named)
    page = style.page((1.6 + 2.4 * len(kinds), _height(len(order))), fill=True)
    foot = "Each row is a sample: mean gate over its clips and channels."
    foot += " Samples stand by kind of audio, then by |g| of the last layer." if any(named) else ""
    with style.context(page.points):
        figure = gate_sheet(results, style, page, "Mean gates, sample by layer", foot=foot)
        row = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        norm = symmetric(list(means.values()))
        for place, (axes, kind) in enumerate(zip(row, kinds, strict=True)):
            last = place == len(kinds) - 1
            gate_map(axes, means[kind][order], cmap, norm, "mean gate" if last else None)
            axes.set_title(f"{kind} gate", loc="left", fontsize="small")
            axes.set(xlabel="layer", xticks=np.arange(means[kind].shape[1]))
        _name_rows(row[0], [results.sample_ids[i] for i in order], named[order], 0.04)
    return figure


def _order(results: Results, kind: str, named: np.ndarray) -> np.ndarray:
    size = stacked(results, f"magnitude_{kind}", LayerCurve)[:, -1]
    return np.lexsort((-size, named.astype(str)))


def _height(n: int) -> float:
    return 2.0 + min(6.5, max(2.2, 0.16 * n))


def _name_rows(axes: Axes, names: list[str], kinds: np.ndarray, edge_share: float) -> None:
    """Name few samples, and mark each one's kind of audio by a coloured edge, with a legend.

    Args:
        axes: the map.
        names, kinds: of its rows.
        edge_share: width of the edge over that of the map.
    """
    axes.set_yticks([])
    points = float(matplotlib.rcParams["font.size"])
    if len(names) <= MOST_NAMED:
        short = [shortened(n, LONGEST_NAME) for n in names]
        axes.set_yticks(np.arange(len(names)), short, fontsize=min(points * 0.7, 420 / len(names)))
    else:
        axes.set_ylabel("sample", labelpad=points * 1.6)
    known = sorted(set(kinds.tolist()) - {""})
    if not known:
        return
    axes.tick_params(axis="y", pad=points * 1.2)
    edge = axes.inset_axes((-1.6 * edge_share, 0, edge_share, 1))
    edge.set_axis_off()
    edge.set(xlim=(0, 1), ylim=axes.get_ylim())
    for place, kind in enumerate(known):
        rows = np.flatnonzero(kinds == kind)
        edge.barh(rows, 1, 1, color=group_color(kind, place), label=f"{kind} audio")
    figure = axes.figure
    assert figure is not None
    below = ScaledTranslation(0, -points * 3.4 / 72, figure.dpi_scale_trans)
    edge.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=edge.transAxes + below,
        ncols=2,
        fontsize="x-small",
        handlelength=1,
        borderaxespad=0,
    )


def gate_clustering(
    results: Results, style: Style, *, cmap: str = "RdBu_r", method: str = "average"
) -> Figure:
    """Draw which samples have like gates: a tree of samples beside their mean gates by layer.

    The distance of two samples is the Euclidean one between their mean gates of all layers and
    kinds; clusters are merged by `method`. Colours at the margin are the data set's kinds of
    audio, which the clustering does not know.

    Args:
        results: an open result.
        style: how.
        cmap: a diverging colormap; its middle is 0.
        method: of scipy.cluster.hierarchy.linkage.

    Raises:
        NothingToDrawError: with fewer than 3 samples, or if all have the same gates.
    """
    kinds = gate_kinds(results)
    if len(results) < FEWEST_TO_CLUSTER:
        raise NothingToDrawError(f"{len(results)} samples; clustering needs {FEWEST_TO_CLUSTER}")
    means = [stacked(results, f"mean_{kind}", LayerCurve) for kind in kinds]
    table = np.concatenate(means, axis=1).astype(np.float64)
    if np.ptp(table, axis=0).max() == 0:
        raise NothingToDrawError("all samples have the same gates; there is nothing to cluster")
    tree = hierarchy.linkage(table, method)
    order = hierarchy.leaves_list(hierarchy.optimal_leaf_ordering(tree, table))
    tree = hierarchy.optimal_leaf_ordering(tree, table)
    page = style.page((7.6, _height(len(table))), fill=True)
    foot = (
        f"Tree: Euclidean distance of the mean gates of all layers and kinds, {method} linkage. "
        "Columns: layers of each kind of gate."
    )
    with style.context(page.points):
        figure = gate_sheet(results, style, page, "Samples by likeness of their gates", foot=foot)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
        _tree(left, tree)
        gate_map(right, table[order], cmap, symmetric([table]), "mean gate")
        _name_columns(right, kinds, [m.shape[1] for m in means])
        _name_rows(
            right, [results.sample_ids[i] for i in order], audio_kinds(results)[order], 0.025
        )
    return figure


def _tree(axes: Axes, tree: np.ndarray) -> None:
    """Draw a dendrogram whose leaves, from the top, are the rows of the map beside it."""
    width = matplotlib.rcParams["axes.linewidth"]
    drawn: dict[str, Any] = hierarchy.dendrogram(tree, no_plot=True)
    for leaves, distances in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axes.plot(distances, (np.array(leaves) - 5) / 10, color="0.3", linewidth=width)
    n = len(tree) + 1
    axes.set(xlim=(tree[:, 2].max() * 1.04, 0), ylim=(n - 0.5, -0.5), yticks=[], xlabel="distance")
    axes.spines["left"].set_visible(False)


def _name_columns(axes: Axes, kinds: list[str], sizes: list[int]) -> None:
    labels = [str(layer) for size in sizes for layer in range(size)]
    axes.set(xticks=np.arange(len(labels)), yticks=[], ylabel="")
    axes.set_xticklabels(labels)
    start = 0
    for kind, size in zip(kinds, sizes, strict=True):
        middle = start + (size - 1) / 2
        axes.text(
            middle,
            1.01,
            kind,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize="small",
        )
        if start:
            axes.axvline(start - 0.5, color="white", linewidth=matplotlib.rcParams["font.size"] / 4)
        start += size
    axes.set_xlabel("layer")
