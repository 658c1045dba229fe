"""Figures of a run of written answers: where attention goes token by token, over the samples.

Means at a step are over the samples whose answers are that long; how many those are stands below.
"""

from collections.abc import Sequence
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
    page = style.page(
        (max(7.0, 3 * min(3.6, 1.6 + n_steps * 0.06) + 0.8), 3.4 + min(3.0, n_layers * 0.08)),
        fill=True,
    )
    title = "Where attention goes while the model writes"
    norm = Normalize(0.0, 1.0)
    with style.context(page.points):
        fields = [field for field, _ in found.values()]
        figure = head_sheet(results, style, page, title, fields, FEW)
        grid = figure.add_gridspec(2, 4, height_ratios=[3, 1], width_ratios=[1, 1, 1, 0.05])
        for column, (part, (_, values)) in enumerate(found.items()):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(values, cmap=style.cmap, norm=norm, aspect="auto", origin="lower")
            axes.set_title(f"on {PARTS[part][0]}", loc="left", fontsize="small")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, labelbottom=False, labelleft=column == 0)
            index_ticks(axes.yaxis, n_layers, 12)
            axes.set_ylabel("layer" if column == 0 else "")
            _counts(
                figure.add_subplot(grid[1, column]), results, COUNTS, n_steps, is_first=column == 0
            )
        bar = figure.colorbar(ScalarMappable(norm, style.cmap), cax=figure.add_subplot(grid[0, 3]))
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
    with_counts = _Panels(results, style, title, [f for f, _ in found.values()], len(layers))
    with style.context(with_counts.page.points):
        figure, pairs = with_counts.panels()
        for (upper, lower), layer in zip(pairs, layers, strict=True):
            for part, (_, values) in found.items():
                name, color = PARTS[part]
                _curve(upper, values[layer], name, color)
            upper.set_ylim(0, 1)
            _title(upper, f"layer {layer}")
            _counts(lower, results, COUNTS, n_steps, is_first=upper is pairs[0][0])
        pairs[0][0].set_ylabel("share of attention")
        _legend(pairs[0][0])
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
    with_counts = _Panels(results, style, title, [f for f, _ in found.values()], len(names), foot)
    colors = matplotlib.colormaps[style.cmap](np.linspace(0.1, 0.8, len(shown)))
    top = max(float(values.max()) for _, values in found.values()) * 1.05
    with style.context(with_counts.page.points):
        figure, pairs = with_counts.panels()
        for (upper, lower), (kind, (_, values)) in zip(pairs, found.items(), strict=True):
            for layer, color in zip(shown, colors, strict=True):
                _curve(upper, values[stored.index(layer)], f"layer {layer}", color)
            upper.set_ylim(0, top)
            _title(upper, f"to the {kind} point")
            own = f"n_distance_{kind}_at_step"
            held = own if aggregate_or_none(results, own, StepCounts) is not None else COUNTS
            _counts(lower, results, held, values.shape[1], is_first=upper is pairs[0][0])
        pairs[0][0].set_ylabel("distance [diagonals]")
        _legend(pairs[0][0])
    return figure


class _Panels:
    """Panels side by side, each with the number of samples below it."""

    def __init__(
        self,
        results: Results,
        style: TrajectoryStyle,
        title: str,
        fields: Sequence[Field],
        n: int,
        foot: str = "",
    ) -> None:
        self.cols = min(n, MOST_PANELS)
        self.rows = -(-n // self.cols)
        self.n = n
        self.page = style.page((max(6.0, self.cols * 3.4), self.rows * 2.9 + 1.3), fill=True)
        self._make = lambda: head_sheet(
            results, style, self.page, title, fields, f"{foot} {FEW}".strip()
        )

    def panels(self) -> tuple[Figure, list[tuple[Axes, Axes]]]:
        """Return the figure and its pairs of panels; call it within the style's context."""
        figure = self._make()
        outer = figure.add_gridspec(self.rows, self.cols)
        pairs = []
        for index in range(self.n):
            inner = outer[divmod(index, self.cols)].subgridspec(2, 1, height_ratios=[3, 1])
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            upper.tick_params(labelbottom=False)
            pairs.append((cast(Axes, upper), cast(Axes, lower)))
        return figure, pairs


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
