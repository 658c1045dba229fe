"""Figures of a run of written answers: where attention goes token by token, over the samples.

Means at a step are over the samples whose answers are that long; how many those are stands below,
once for panels of the same samples, and not at all where there is one sample.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import Field, LayerIndex, StepCounts, StepCurve
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import POINTS, TrajectoryStyle
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.toolbox import (
    REST,
    SECOND,
    TOP,
    aggregate,
    aggregate_or_none,
    count_ticks,
    head_sheet,
    index_ticks,
    legend_above,
)

# part of a row -> what a panel calls it, and its colour
PARTS = {
    "image": ("image", TOP),
    "prompt": ("prompt text", REST),
    "generated": ("written text", SECOND),
}
COUNTS = "n_samples_at_step"
FEW = "Means are over the samples whose answers reach the step; below: how many."
MOST_PANELS = 4  # side by side


def share_maps(results: Results, style: TrajectoryStyle) -> Figure:
    """Draw the shares of attention on image, prompt and written text: layers by steps.

    Args:
        results: an open result with mean_share_image and its two siblings.
        style: how.

    Raises:
        NothingToDrawError: if the result does not hold them.
    """
    found = {part: aggregate(results, f"mean_share_{part}", StepCurve) for part in PARTS}
    n_layers, n_steps = _shape(found["image"][1])
    is_one = _is_one(results, COUNTS)
    height = 2.9 + min(3.0, n_layers * 0.08) + 0.9 * (not is_one)
    page = style.page((max(7.0, 3 * min(3.6, 1.6 + n_steps * 0.06) + 0.8), height), fill=True)
    title = "Where attention goes while the model writes"
    norm = Normalize(0.0, 1.0)
    with style.context(page.points):
        fields = [field for field, _ in found.values()]
        figure = head_sheet(results, style, page, title, fields, "" if is_one else FEW)
        rows = 1 if is_one else 2
        grid = figure.add_gridspec(
            rows, 4, height_ratios=[3, 1][:rows], width_ratios=[1, 1, 1, 0.05]
        )
        for column, (part, (_, values)) in enumerate(found.items()):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(values, cmap=style.colormap, norm=norm, aspect="auto")
            axes.set_title(f"on {PARTS[part][0]}", loc="left", fontsize="small")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, labelbottom=is_one or column > 0, labelleft=column == 0)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlabel("generated token" if is_one or column > 0 else "")
            index_ticks(axes.yaxis, n_layers, 12)
            axes.set_ylabel("layer" if column == 0 else "")
            if not is_one and column == 0:
                _counts(figure.add_subplot(grid[1, 0]), results, COUNTS, n_steps, is_first=True)
        bar = figure.colorbar(
            ScalarMappable(norm, style.colormap), cax=figure.add_subplot(grid[0, 3])
        )
        bar.set_label("share of attention")
        bar.outline.set_visible(False)
    return figure


def share_curves(results: Results, style: TrajectoryStyle) -> Figure:
    """Draw the same shares as curves over the steps, a panel for each chosen layer.

    Args, raises: as for `share_maps`; the layers are those whose rows are stored, or the style's.
    """
    found = {part: aggregate(results, f"mean_share_{part}", StepCurve) for part in PARTS}
    _, n_steps = _shape(found["image"][1])
    layers = _layers(results, style)
    title = "Shares of attention while the model writes"
    kinds = [f for f, _ in found.values()]
    # All layers are of the same samples, which are counted below the first.
    with_counts = _Panels(results, style, title, kinds, [COUNTS] + [""] * (len(layers) - 1))
    with style.context(with_counts.page.points):
        figure, pairs = with_counts.panels()
        for upper, layer in zip(pairs, layers, strict=True):
            for part, (_, values) in found.items():
                name, color = PARTS[part]
                _curve(upper, values[layer], name, color)
            upper.set_ylim(0, 1)
            upper.set_xlim(-0.5, n_steps - 0.5)
            _title(upper, f"layer {layer}")
        pairs[0].set_ylabel("share of attention")
        _legend(pairs[0])
    return figure


def distance_curves(results: Results, style: TrajectoryStyle) -> Figure:
    """Draw how far the attended place is from the predicted and the reference point.

    Args:
        results: an open result with mean_distance_predicted or mean_distance_reference.
        style: how.

    Raises:
        NothingToDrawError: if the result holds neither.
    """
    names = [
        kind
        for kind in POINTS
        if isinstance(results.aggregates.get(f"mean_distance_{kind}"), StepCurve)
    ]
    if not names:
        raise NothingToDrawError("the result holds no distances: no answer with a point")
    found = {kind: aggregate(results, f"mean_distance_{kind}", StepCurve) for kind in names}
    stored = _stored(results)
    shown = _layers(results, style)
    foot = (
        "Distance from the centre of mass of attention on the image to the point, in diagonals "
        "of the picture."
    )
    title = "How far the attended place is from the point"
    kinds = [f for f, _ in found.values()]
    panels = _merged({kind: values for kind, (_, values) in found.items()})
    counts = _apart(results, [_counted(results, names[0]) for names in panels])
    with_counts = _Panels(results, style, title, kinds, counts, foot)
    colors = matplotlib.colormaps[style.colormap](np.linspace(0.1, 0.8, len(shown)))
    top = max(float(values.max()) for _, values in found.values()) * 1.05
    with style.context(with_counts.page.points):
        figure, pairs = with_counts.panels()
        for upper, names in zip(pairs, panels, strict=True):
            values = found[names[0]][1]
            for layer, color in zip(shown, colors, strict=True):
                _curve(upper, values[stored.index(layer)], f"layer {layer}", color)
            upper.set_ylim(0, top)
            upper.set_xlim(-0.5, values.shape[1] - 0.5)
            same = " (the same distances)" if len(names) > 1 else ""
            _title(upper, f"to the {' and the '.join(names)} point{same}")
        pairs[0].set_ylabel("distance [diagonals]")
        _legend(pairs[0])
    return figure


def _merged(curves: Mapping[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Return the kinds of points, panel by panel: those of equal curves share one."""
    found: list[tuple[str, ...]] = []
    for kind, values in curves.items():
        twin = next((p for p in found if np.array_equal(curves[p[0]], values)), None)
        if twin is None:
            found.append((kind,))
        else:
            found[found.index(twin)] = (*twin, kind)
    return found


def _apart(results: Results, names: Sequence[str]) -> list[str]:
    """Return the names of counts, "" for one that is that of the panel to its left."""
    values = [aggregate(results, name, StepCounts)[1] for name in names]
    twins = [False, *(np.array_equal(a, b) for a, b in pairwise(values))]
    return ["" if twin else name for name, twin in zip(names, twins, strict=True)]


def _counted(results: Results, kind: str) -> str:
    """Return the name of the counts of the samples that have a point of this kind."""
    own = f"n_distance_{kind}_at_step"
    return own if aggregate_or_none(results, own, StepCounts) is not None else COUNTS


def _is_one(results: Results, name: str) -> bool:
    """Return whether no step has more than one sample behind it."""
    counts = aggregate(results, name, StepCounts)[1]
    return not counts.size or int(counts.max()) <= 1


class _Panels:
    """Panels side by side; below some the number of samples behind each step.

    Args:
        results, style, title, fields: as for `head_sheet`.
        counts: a name of counts for each panel, "" for none; counts of one sample are left out.
        foot: how to read the panels.
    """

    def __init__(
        self,
        results: Results,
        style: TrajectoryStyle,
        title: str,
        fields: Sequence[Field],
        counts: Sequence[str],
        foot: str = "",
    ) -> None:
        self.cols = min(len(counts), MOST_PANELS)
        self.rows = -(-len(counts) // self.cols)
        self.results = results
        self.counts = [n if n and not _is_one(results, n) else "" for n in counts]
        few = FEW if any(self.counts) else ""
        height = self.rows * (2.9 if any(self.counts) else 2.4) + 1.3
        self.page = style.page((max(6.0, self.cols * 3.4), height), fill=True)
        self._make = lambda: head_sheet(
            results, style, self.page, title, fields, f"{foot} {few}".strip()
        )

    def panels(self) -> tuple[Figure, list[Axes]]:
        """Return the figure and its panels; call it within the style's context."""
        figure = self._make()
        outer = figure.add_gridspec(self.rows, self.cols)
        found = []
        for index, name in enumerate(self.counts):
            # All panels have the height of those with counts below.
            rows = 2 if any(self.counts) else 1
            ratios = [3, 1][:rows]
            inner = outer[divmod(index, self.cols)].subgridspec(rows, 1, height_ratios=ratios)
            upper = cast(Axes, figure.add_subplot(inner[0]))
            upper.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            if name:
                lower = cast(Axes, figure.add_subplot(inner[1], sharex=upper))
                n_steps = len(aggregate(self.results, name, StepCounts)[1])
                upper.tick_params(labelbottom=False)
                _counts(lower, self.results, name, n_steps, is_first=not index)
            else:
                upper.set_xlabel("generated token")
            found.append(upper)
        return figure, found


def _shape(values: np.ndarray) -> tuple[int, int]:
    if not values.shape[1]:
        raise NothingToDrawError("no token was generated in any sample")
    return values.shape[0], values.shape[1]


def _stored(results: Results) -> list[int]:
    """Return the layers of the first sample's rows; those of a run are the same in all."""
    if not isinstance(results.fields.get("layers"), LayerIndex):
        raise NothingToDrawError("the result holds no LayerIndex layers")
    return [int(number) for number in results.read("layers", 0)]


def _layers(results: Results, style: TrajectoryStyle) -> list[int]:
    stored = _stored(results)
    asked = style.layer
    wanted = stored if asked is None else [asked] if isinstance(asked, int) else list(asked)
    return [layer for layer in wanted if layer in stored]


def _curve(axes: Axes, values: np.ndarray, name: str, color: object) -> None:
    """Add a curve over steps; a single step is a point."""
    size = matplotlib.rcParams["font.size"] / 3
    marker = "o" if len(values) <= 40 else ""
    axes.plot(
        np.arange(len(values)),
        values,
        label=name,
        color=color,
        marker=marker,
        markersize=size,
        linewidth=matplotlib.rcParams["axes.linewidth"] * 2,
    )


def _title(axes: Axes, words: str) -> None:
    """Write what a panel shows above it, with room for a legend below the words."""
    pad = 1.5 * matplotlib.rcParams["font.size"]
    axes.set_title(words, loc="left", fontsize="small", pad=pad)


def _legend(axes: Axes) -> None:
    legend_above(axes)
    legend = axes.get_legend()
    assert legend is not None
    legend.set_in_layout(False)  # wider than its panel, it must not make the others narrow


def _counts(axes: Axes, results: Results, name: str, n_steps: int, *, is_first: bool) -> None:
    """Draw how many samples there are at each step, with the axis of steps."""
    counts = aggregate(results, name, StepCounts)[1][:n_steps]
    axes.fill_between(
        np.arange(-0.5, n_steps + 0.5),
        np.append(counts, counts[-1:]),
        step="post",
        color="0.8",
        linewidth=0,
    )
    axes.set(xlim=(-0.5, n_steps - 0.5), ylim=(0, max(1, counts.max()) * 1.15))
    axes.set_xlabel("generated token")
    axes.set_ylabel("samples" if is_first else "")
    count_ticks(axes.yaxis, 2)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
