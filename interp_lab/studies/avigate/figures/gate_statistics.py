"""All gates of a run: their distribution, each layer's mean and spread, and their signs."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.fields import Histogram
from interp_lab.store.results import Results
from interp_lab.studies.avigate.figures.gate_panels import (
    aggregate_curve,
    aggregate_scalar,
    gate_kinds,
    gate_sheet,
    layer_colors,
    zero_line,
)
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import layer_ticks

# As the maps have them: what is added is red, what is subtracted blue.
SIGN_COLORS = {"positive": "#b2182b", "near_zero": "0.82", "negative": "#2166ac"}
RIDGE = 0.88  # height of the highest ridge, in layers


def overall_statistics(results: Results, style: Style) -> Figure:
    """Draw, for each kind of gate: all values, each layer's mean and spread, and shares by sign.

    Args:
        results: an open result.
        style: how.

    Raises:
        NothingToDrawError: if the result holds no statistics of gates.
    """
    kinds = gate_kinds(results)
    page = style.page((9.2, 0.9 + 2.7 * len(kinds)), fill=True)
    near = aggregate_scalar(results, "near_zero") or 0.0
    foot = (
        "Left: how often each value occurs, all layers. Middle: mean (point), half of the values "
        f"(thick), 90 % (thin), |g| (cross). "
        f"Right: shares above {near:g}, below -{near:g}, and between."
    )
    with style.context(page.points):
        figure = gate_sheet(results, style, page, "Gates over all samples", foot=foot)
        grid = figure.subplots(len(kinds), 3, squeeze=False, width_ratios=[1.15, 1, 1])
        for row, kind in zip(grid, kinds, strict=True):
            _all_values(row[0], results, kind)
            _means(row[1], results, kind, style.colormap)
            _signs(row[2], results, kind, legend=kind == kinds[0])
    return figure


def layer_histograms(results: Results, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts (layer, bin) of a kind of gate and the borders of the bins (bin + 1,).

    Raises:
        NothingToDrawError: if the result holds none.
    """
    start = f"histogram_{kind}_layer"
    held = {
        name: f
        for name, f in results.aggregates.items()
        if isinstance(f, Histogram) and name.startswith(start)
    }
    if not held:
        raise NothingToDrawError(f"the result holds no Histogram {start}<number>")
    names = [f"{start}{i}" for i in range(len(held))]
    counts = np.array([results.aggregate(name) for name in names])
    field = held[names[0]]
    assert isinstance(field, Histogram)
    return counts, np.linspace(field.lowest, field.highest, counts.shape[1] + 1)


def _all_values(axes: Axes, results: Results, kind: str) -> None:
    counts, borders = layer_histograms(results, kind)
    share = counts.sum(axis=0) / counts.sum()
    centres = (borders[1:] + borders[:-1]) / 2
    colors = np.where(centres < 0, SIGN_COLORS["negative"], SIGN_COLORS["positive"])
    axes.bar(borders[:-1], share, np.diff(borders), align="edge", color=colors.tolist())
    mean, std = (float(results.aggregate(f"{kind}_{n}_overall")) for n in ("mean", "std"))
    axes.axvline(mean, color="black", linewidth=matplotlib.rcParams["axes.linewidth"] * 1.6)
    axes.set_title(f"{kind} gate: mean {mean:.3f}, SD {std:.3f}", loc="left", fontsize="small")
    axes.set(xlabel="gate", ylabel="share of values", xlim=(borders[0], borders[-1]))


def _means(axes: Axes, results: Results, kind: str, cmap: str) -> None:
    curves = {
        n: aggregate_curve(results, f"{kind}_{n}")
        for n in ("mean", "magnitude", "p5", "p25", "p75", "p95")
    }
    layers = np.arange(len(curves["mean"] if curves["mean"] is not None else []))
    width = matplotlib.rcParams["axes.linewidth"]
    size = matplotlib.rcParams["font.size"] / 2.2
    for layer, color in zip(layers, layer_colors(len(layers), cmap), strict=True):
        ends = {n: float(c[layer]) for n, c in curves.items() if c is not None}
        axes.vlines(layer, ends["p5"], ends["p95"], color=color, linewidth=width * 1.5)
        axes.vlines(layer, ends["p25"], ends["p75"], color=color, linewidth=width * 6)
        axes.plot(layer, ends["mean"], "o", color="white", markeredgecolor=color, markersize=size)
        axes.plot(layer + 0.17, ends["magnitude"], "x", color="black", markersize=size)
    zero_line(axes)
    layer_ticks(axes, len(layers))
    axes.set(ylabel="gate")


def _signs(axes: Axes, results: Results, kind: str, *, legend: bool) -> None:
    bottom: np.ndarray | float = 0.0
    n_layers = 0
    for name, color in SIGN_COLORS.items():
        share = aggregate_curve(results, f"{kind}_share_{name}")
        if share is None:
            continue
        n_layers = len(share)
        axes.bar(
            np.arange(n_layers), share, 0.72, bottom, color=color, label=name.replace("_", " ")
        )
        bottom = bottom + share
    layer_ticks(axes, n_layers)
    axes.set(ylabel="share of values", ylim=(0, 1))
    if legend:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1),
            ncols=3,
            fontsize="x-small",
            borderaxespad=0.1,
            handlelength=1,
            columnspacing=1,
        )


def layer_distributions(results: Results, style: Style) -> Figure:
    """Draw each layer's distribution as a ridge, kinds of gates beside each other.

    Args:
        results: an open result.
        style: how.

    Raises:
        NothingToDrawError: if the result holds no histograms of gates.
    """
    kinds = gate_kinds(results)
    held = {kind: layer_histograms(results, kind) for kind in kinds}
    n_layers = max(len(counts) for counts, _ in held.values())
    page = style.page((4.4 * len(kinds) + 0.4, 1.6 + 0.62 * n_layers), fill=True)
    foot = (
        "Ridges: how often each value occurs in a layer, the highest of a panel at full height. "
        "Lines: median, and the middle half of the values."
    )
    with style.context(page.points):
        figure = gate_sheet(results, style, page, "Gates of each layer", foot=foot)
        row = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, (kind, (counts, borders)) in zip(row, held.items(), strict=True):
            _ridges(axes, counts, borders, style.colormap)
            _quartiles(axes, results, kind)
            axes.set_title(f"{kind} gate", loc="left", fontsize="small")
    return figure


def _ridges(axes: Axes, counts: np.ndarray, borders: np.ndarray, cmap: str) -> None:
    scale = RIDGE / max(int(counts.max()), 1)
    width = matplotlib.rcParams["axes.linewidth"]
    axes.axvline(0, color="0.6", linewidth=width, linestyle=(0, (4, 3)), zorder=0)
    for layer, (row, color) in enumerate(zip(counts, layer_colors(len(counts), cmap), strict=True)):
        # Layer 0 stands at the top; a ridge rises from its line.
        axes.stairs(
            layer - row * scale, borders, baseline=layer, fill=True, color=color, alpha=0.85
        )
        axes.axhline(layer, color="0.75", linewidth=width * 0.7, zorder=0)
    layer = int(counts.max(axis=1).argmax())
    highest = counts[layer].max() / max(int(counts[layer].sum()), 1)
    unit = f"full height: {highest:.0%} of a layer's values in {borders[1] - borders[0]:.2g}"
    axes.set(
        xlim=(borders[0], borders[-1]),
        ylim=(len(counts) - 0.6, -1.0),
        xlabel=f"gate\n({unit})",
        ylabel="layer",
        yticks=np.arange(len(counts)),
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _quartiles(axes: Axes, results: Results, kind: str) -> None:
    width = matplotlib.rcParams["axes.linewidth"]
    curves = [aggregate_curve(results, f"{kind}_{name}") for name in ("p25", "median", "p75")]
    for curve, share in zip(curves, (1.0, 2.4, 1.0), strict=True):
        if curve is not None:
            layers = np.arange(len(curve))
            axes.vlines(curve, layers - 0.16, layers + 0.16, color="black", linewidth=width * share)
