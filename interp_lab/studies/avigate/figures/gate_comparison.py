"""Samples side by side: the mean gates of each layer, one column a sample."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.store.results import Results
from interp_lab.studies.avigate.figures.gate_panels import (
    audio_kinds,
    gate_kinds,
    gate_sheet,
    group_color,
    layer_colors,
    legend_of_layers,
    zero_line,
)
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import shortened

MOST_COMPARED = 12
LONGEST_NAME = 24


def gate_comparison(
    results: Results,
    style: Style,
    *,
    compare: bool | list[str | int] = True,
) -> Figure:
    """Draw chosen samples side by side: their mean gates by layer, kinds of gates below each other.

    Args:
        results: an open result.
        style: how.
        compare: ids, in the order they are drawn; true = the first 12; false = none.

    Raises:
        NothingToDrawError: if none, or fewer than two, are asked for.
        StoreError: for an id that the result does not have.
    """
    chosen = results.sample_ids[:MOST_COMPARED] if compare is True else compare or []
    names = [str(name) for name in chosen]
    if len(names) < 2:
        raise NothingToDrawError("a comparison needs at least 2 samples")
    kinds = gate_kinds(results)
    means = {k: np.array([results.read(f"mean_{k}", n) for n in names]) for k in kinds}
    sounds = dict(zip(results.sample_ids, audio_kinds(results), strict=True))
    page = style.page((max(6.5, 1.6 + 0.55 * len(names)), 1.7 + 2.3 * len(kinds)), fill=True)
    foot = "Points: mean gate over clips and channels, one colour a layer, joined for each sample."
    with style.context(page.points):
        figure = gate_sheet(
            results,
            style,
            page,
            "Gates of samples compared",
            foot=foot,
            subtitle=[f"{len(names)} of {len(results)} samples"],
        )
        grid = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
        for axes, kind in zip(grid, kinds, strict=True):
            _compared(axes, means[kind], kind, style.colormap)
            axes.tick_params(axis="x", length=0)
        legend_of_layers(grid[0])
        _name_samples(grid[-1], names, [str(sounds[n]) for n in names])
    return figure


def _compared(axes: Axes, means: np.ndarray, kind: str, cmap: str) -> None:
    zero_line(axes)
    width = matplotlib.rcParams["axes.linewidth"]
    size = matplotlib.rcParams["font.size"] / 1.9
    axes.vlines(
        np.arange(len(means)),
        means.min(axis=1),
        means.max(axis=1),
        color="0.8",
        linewidth=width * 2,
        zorder=1,
    )
    for layer, color in enumerate(layer_colors(means.shape[1], cmap)):
        axes.plot(means[:, layer], "o", color=color, markersize=size, label=f"layer {layer}")
    axes.set(ylabel=f"mean {kind} gate", xlim=(-0.6, len(means) - 0.4))


def _name_samples(axes: Axes, names: Sequence[str], kinds: Sequence[str]) -> None:
    known = sorted(set(kinds) - {""})
    short = [shortened(name, LONGEST_NAME) for name in names]
    labels = [f"{n}\n{k}" if k else n for n, k in zip(short, kinds, strict=True)]
    axes.set_xticks(np.arange(len(names)), labels, rotation=45, ha="right", fontsize="x-small")
    for label, kind in zip(axes.get_xticklabels(), kinds, strict=True):
        if kind:
            label.set_color(group_color(kind, known.index(kind)))
    axes.tick_params(axis="x", length=0)
