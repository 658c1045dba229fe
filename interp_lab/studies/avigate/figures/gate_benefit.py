"""Does a gate open when the audio helps? Against the loss saved, and under changed gates."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.fields import LayerCurve
from interp_lab.store.results import Results
from interp_lab.studies.avigate.figures.gate_panels import (
    aggregate_curve,
    aggregate_scalar,
    gate_kinds,
    gate_sheet,
    group_color,
    groups,
    scalars,
    stacked,
)
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import intervals

MEASURES = {
    "r1_0_5": "R1@0.5",
    "r1_0_7": "R1@0.7",
    "average_precision": "mAP",
    "loss": "loss",
}
PANELS_A_ROW = 4
WORDS = {"plain": "gates as\nthey are", "audio_off": "audio\noff", "gates_open": "gates\nopen"}
USE_CAPTION = (
    "The sign of a tanh gate is arbitrary, so |g| is shown. A correlation over samples is no proof "
    "of use; what the loss does when the gates are changed is."
)


def gate_benefit(
    results: Results, style: Style, *, kinds: Sequence[str] = ("attention",)
) -> Figure:
    """Draw |g| of each layer against the loss that the audio saves, one point a sample.

    Args:
        results: an open result.
        style: how.
        kinds: of gates; those that the result does not hold are left out.

    Raises:
        NothingToDrawError: if the samples have no loss with and without audio.
    """
    saved = scalars(results, "loss_difference")
    held = [kind for kind in gate_kinds(results) if kind in kinds]
    if not np.isfinite(saved).any() or not held:
        raise NothingToDrawError("no sample has a loss with and without audio")
    sizes = {kind: stacked(results, f"magnitude_{kind}", LayerCurve) for kind in held}
    panels = [(kind, layer) for kind in held for layer in range(sizes[kind].shape[1])]
    cols = min(PANELS_A_ROW, max(size.shape[1] for size in sizes.values()))
    rows = sum(-(-size.shape[1] // cols) for size in sizes.values())
    page = style.page((max(6.0, 1.1 + 2.25 * cols), 1.9 + 2.3 * rows), fill=True)
    foot = (
        "Each point is a sample. Upwards: loss with the audio gates closed minus loss as the model "
        "is; above 0 the audio helps. ρ: Spearman's correlation with its 95 % bootstrap interval."
    )
    with style.context(page.points):
        figure = gate_sheet(
            results,
            style,
            page,
            "Does the gate open when the audio helps?",
            foot=foot,
            caption=USE_CAPTION,
        )
        grid = figure.subplots(rows, cols, squeeze=False, sharey=True)
        used = _placed(grid, [sizes[kind].shape[1] for kind in held])
        for axes, (kind, layer) in zip(used, panels, strict=True):
            _points(axes, results, sizes[kind][:, layer], saved)
            axes.set_title(_rho(results, kind, layer), loc="left", fontsize="small")
            axes.set_xlabel(f"mean |g|, {kind} layer {layer}")
        for row in grid:
            row[0].set_ylabel("loss saved\nby the audio")
        _legend(grid[0, 0], results)
    return figure


def _placed(grid: np.ndarray, counts: Sequence[int]) -> list[Axes]:
    """Return the axes of each kind's layers, a kind from a row's start on; remove the others.

    Args:
        grid: axes (row, col).
        counts: layers of each kind.
    """
    used: list[Axes] = []
    start, cols = 0, grid.shape[1]
    for count in counts:
        end = start + -(-count // cols)
        here = grid[start:end].ravel()
        used += list(here[:count])
        for axes in here[count:]:
            axes.remove()
        start = end
    return used


def _points(axes: Axes, results: Results, size: np.ndarray, saved: np.ndarray) -> None:
    width = matplotlib.rcParams["axes.linewidth"]
    axes.axhline(0, color="0.6", linewidth=width, linestyle=(0, (4, 3)), zorder=0)
    points = matplotlib.rcParams["font.size"] ** 2 / 5
    for place, (name, rows) in enumerate(groups(results).items()):
        axes.scatter(
            size[rows],
            saved[rows],
            s=points,
            color=group_color(name, place),
            alpha=0.6,
            linewidths=0,
            label=name,
        )
    axes.set_xlim(left=0)


def _rho(results: Results, kind: str, layer: int) -> str:
    ends = [aggregate_curve(results, f"{kind}_loss_correlation{e}") for e in ("", "_low", "_high")]
    if any(end is None for end in ends):
        return "ρ is not defined"
    value, low, high = (float(end[layer]) for end in ends if end is not None)
    return f"ρ = {value:.2f} ({low:.2f} to {high:.2f})"


def _legend(axes: Axes, results: Results) -> None:
    names = list(groups(results))
    if names == ["all"]:
        return
    axes.legend(
        loc="best", fontsize="x-small", handletextpad=0.1, title="audio", title_fontsize="x-small"
    )


def moments_under_gates(
    results: Results,
    style: Style,
    *,
    measures: Sequence[str] = ("r1_0_5", "average_precision"),
) -> Figure:
    """Draw how well moments are found with the gates as they are and changed, by kind of audio.

    Args:
        results: an open result.
        style: how.
        measures: which panels; those that the result does not hold are left out.

    Raises:
        NothingToDrawError: if the result holds none.
    """
    held = {m: found for m in measures if (found := _conditions(results, m))}
    if not held:
        raise NothingToDrawError("the result holds no measures of moments found")
    page = style.page((0.8 + 3.7 * len(held), 4.4), fill=True)
    foot = "Bars: mean over samples; lines: 95 % bootstrap intervals."
    caption = (
        "If forcing the gates open costs where the audio misleads and nowhere else, the closed "
        "gate is what keeps misleading audio out."
    )
    with style.context(page.points):
        figure = gate_sheet(
            results, style, page, "Moments found under changed gates", foot=foot, caption=caption
        )
        row = figure.subplots(1, len(held), squeeze=False)[0]
        for axes, (measure, conditions) in zip(row, held.items(), strict=True):
            _bars(axes, results, measure, conditions)
        row[0].legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            fontsize="x-small",
            borderaxespad=0.1,
            handlelength=1,
        )
    return figure


def _conditions(results: Results, measure: str) -> list[str]:
    end = f"_{measure}_all"
    found = [
        name.removesuffix(end)
        for name in results.aggregates
        if name.endswith(end) and not name.endswith(f"_less_plain{end}")
    ]
    known = list(WORDS)
    return sorted(found, key=lambda c: (known.index(c) if c in known else len(known), c))


def _bars(axes: Axes, results: Results, measure: str, conditions: Sequence[str]) -> None:
    names = list(groups(results))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        for spot, condition in enumerate(conditions):
            ends = [
                aggregate_scalar(results, f"{condition}_{measure}_{name}{e}")
                for e in ("", "_low", "_high")
            ]
            if ends[0] is None:
                continue
            x = spot - 0.4 + width * (place + 0.5)
            size = int(aggregate_scalar(results, f"n_{name}") or 0)
            axes.bar(
                x,
                ends[0],
                width * 0.92,
                color=group_color(name, place),
                label=f"{name}, n = {size}" if spot == 0 else None,
            )
            top = ends[0]
            if ends[1] is not None and ends[2] is not None:
                intervals(axes, np.array([x]), np.array(ends[1:2]), np.array(ends[2:]), "0.15")
                top = ends[2]
            axes.annotate(
                f"{ends[0]:.2f}",
                (x, top),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize="x-small",
            )
    axes.set_xticks(
        range(len(conditions)), [WORDS.get(c, c.replace("_", "\n")) for c in conditions]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(MEASURES.get(measure, measure))
    if measure != "loss":
        axes.set(ylim=(0, 1.09), yticks=np.linspace(0, 1, 6))
