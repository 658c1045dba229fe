"""One sample's gates over time, under its saliency and its windows."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from interp_lab.store.results import Results
from interp_lab.studies.avigate.figures.gate_panels import (
    FOUND_COLOR,
    MOST_NAMED,
    TRUE_COLOR,
    gate_kinds,
    gate_map,
    gate_sheet,
    gates_of,
    layer_colors,
    legend_of_layers,
    symmetric,
    zero_line,
)
from interp_lab.visualization.base import Style

MOST_FOUND = 3


def gate_analysis(results: Results, style: Style, sample: str, *, cmap: str = "RdBu_r") -> Figure:
    """Draw a sample's gates over time below its saliency and its windows, one colour a layer.

    A gate for the whole video is a level line. Of a gate with several channels the line is the
    mean over them and the band their middle 90 %; below it stands the map of layers by clips.

    Args:
        results: an open result.
        style: how.
        sample: the sample's id.
        cmap: a diverging colormap of the maps; its middle is 0.

    Raises:
        NothingToDrawError: if the sample holds no gates.
    """
    kinds = gate_kinds(results)
    gates = {kind: gates_of(results, kind, sample) for kind in kinds}
    length, unit = _length(results, sample, gates)
    has_time = results.holds("windows", sample) or results.holds("predicted_windows", sample)
    curves = [n for n in ("saliency", "predicted_saliency") if results.holds(n, sample)]
    rows = [("moments", 1.0)] * (has_time or bool(curves)) + [(kind, 1.35) for kind in kinds]
    rows += [(f"map {k}", 0.45 + 0.1 * len(g)) for k, g in gates.items() if g[0].size > 1]
    page = style.page((7.6, 1.55 + 1.15 * sum(ratio for _, ratio in rows)), fill=True)
    with style.context(page.points):
        title = f"Gates of sample {sample}"
        foot = _foot(gates, has_moments=rows[0][0] == "moments")
        words = _words(results, sample)
        figure = gate_sheet(results, style, page, title, foot=foot, subtitle=words)
        grid = figure.subplots(
            len(rows), 1, squeeze=False, sharex=True, height_ratios=[ratio for _, ratio in rows]
        )[:, 0]
        # The same range for every sample: a closed gate must not look open in its own figure.
        norm = symmetric([np.ones(1), *gates.values()])
        for axes, (name, _) in zip(grid, rows, strict=True):
            if name == "moments":
                _moments(axes, results, sample, curves, length)
            elif name.startswith("map "):
                _map(axes, gates[name[4:]], style, cmap, norm, length, name[4:])
            else:
                _lines(axes, gates[name], length, name, style.colormap, norm)
                legend_of_layers(axes)
        _shade(grid, results, sample)
        grid[-1].set(xlabel=unit, xlim=(0, length))
    return figure


def _length(results: Results, sample: str, gates: dict[str, np.ndarray]) -> tuple[float, str]:
    """Return how long the sample is, in seconds where that is known, else in clips; and which."""
    curves = [
        results.read(n, sample)
        for n in ("saliency", "predicted_saliency")
        if results.holds(n, sample)
    ]
    clips = max([g.shape[1] for g in gates.values()] + [len(c) for c in curves])
    if results.holds("clip_seconds", sample) and clips > 1:
        return clips * float(results.read("clip_seconds", sample)), "time [s]"
    if clips > 1:
        return float(clips), "clip"
    ends = [
        results.read(n, sample).max()
        for n in ("windows", "predicted_windows")
        if results.holds(n, sample)
    ]
    return (float(max(ends)), "time [s]") if ends else (1.0, "the whole input")


def _words(results: Results, sample: str) -> list[str]:
    """Return what stands below the title: query, kind of audio, loss with and without audio."""
    words = []
    for name, text in (("query", "“{}”"), ("audio_kind", "{} audio")):
        value = str(results.read(name, sample)) if results.holds(name, sample) else ""
        words += [text.format(value)] if value else []
    for name, text in (("loss", "loss {:.3f}"), ("audio_off_loss", "with audio off {:.3f}")):
        if results.holds(name, sample):
            words.append(text.format(float(results.read(name, sample))))
    return words


def _foot(gates: dict[str, np.ndarray], *, has_moments: bool) -> str:
    channels = max(g.shape[2] for g in gates.values())
    foot = "Green: relevant windows and annotated saliency; orange: what the model found. "
    foot *= has_moments
    some = max(map(len, gates.values())) > MOST_NAMED
    foot += f"Above each panel: the means of {'some' if some else 'the'} layers. "
    foot += "A gate for the whole video is level. " * all(g.shape[1] == 1 for g in gates.values())
    if channels > 1:
        foot += f"Lines: mean over {channels} channels; bands: their middle 90 %. "
    return foot.strip()


def _steps(axes: Axes, values: np.ndarray, length: float, **look: Any) -> None:
    axes.stairs(values, np.linspace(0, length, len(values) + 1), baseline=None, **look)


def _moments(
    axes: Axes, results: Results, sample: str, curves: Sequence[str], length: float
) -> None:
    """Draw both saliencies, each over its own range, and the windows as bars above them."""
    width = matplotlib.rcParams["axes.linewidth"] * 2
    for name, color, words in (
        ("saliency", TRUE_COLOR, "annotated"),
        ("predicted_saliency", FOUND_COLOR, "predicted"),
    ):
        if name in curves:
            values = np.asarray(results.read(name, sample), dtype=np.float64)
            span = float(np.ptp(values)) or 1.0
            _steps(
                axes,
                (values - values.min()) / span,
                length,
                color=color,
                linewidth=width,
                label=f"saliency, {words}",
            )
    if results.holds("windows", sample):
        for start, end in results.read("windows", sample):
            axes.barh(1.72, end - start, 0.22, start, color=TRUE_COLOR)
    found = []
    if results.holds("predicted_windows", sample):
        found = results.read("predicted_windows", sample)[:MOST_FOUND]
    for place, (start, end) in enumerate(found):
        # The surest in full colour; the next ones fainter and lower.
        axes.barh(
            1.36,
            end - start,
            (0.24, 0.14, 0.08)[place],
            start,
            color=FOUND_COLOR,
            alpha=(1, 0.55, 0.35)[place],
        )
    axes.set(ylim=(-0.06, 1.9))
    axes.set_yticks(
        [0, 1, 1.36, 1.72], ["lowest", "highest", "found", "relevant"], fontsize="x-small"
    )
    axes.tick_params(axis="y", length=0)
    if curves:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="x-small", borderaxespad=0.1
        )


def _lines(
    axes: Axes, gates: np.ndarray, length: float, kind: str, cmap: str, norm: Normalize
) -> None:
    width = matplotlib.rcParams["axes.linewidth"] * 2.4
    zero_line(axes)
    for layer, color in enumerate(layer_colors(len(gates), cmap)):
        values = gates[layer]
        if values.shape[1] > 1:
            low, high = np.percentile(values, [5, 95], axis=1)
            borders = np.linspace(0, length, len(values) + 1)
            axes.fill_between(
                borders,
                np.append(low, low[-1]),
                np.append(high, high[-1]),
                step="post",
                color=color,
                alpha=0.16,
                linewidth=0,
            )
        _steps(
            axes,
            values.mean(axis=1),
            length,
            color=color,
            linewidth=width,
            label=f"layer {layer}: {round(float(values.mean()), 2) + 0.0:+.2f}",
        )
    top = float(norm.vmax or 1.0) * 1.06
    axes.set(ylim=(-top, top), ylabel=f"{kind} gate")


def _map(
    axes: Axes,
    gates: np.ndarray,
    style: Style,
    cmap: str,
    norm: Normalize,
    length: float,
    kind: str,
) -> None:
    if gates.shape[2] > 1:  # channels of either sign would cancel in a mean
        values, cmap, label = np.abs(gates).mean(axis=2), style.colormap, "mean |g|"
        norm = Normalize(0, float(norm.vmax or 1.0))
    else:
        values, label = gates[..., 0], "gate"
    image = gate_map(axes, values, cmap, norm, label, few_ticks=True)
    image.set_extent((0, length, len(gates) - 0.5, -0.5))
    axes.set(ylabel=f"{kind}\nlayer", yticks=np.arange(0, len(gates), 1 + len(gates) // 8))


def _shade(grid: Iterable[Axes], results: Results, sample: str) -> None:
    """Shade the relevant windows through all panels of curves."""
    if not results.holds("windows", sample):
        return
    for start, end in results.read("windows", sample):
        for axes in grid:
            if not axes.images:
                axes.axvspan(start, end, color=TRUE_COLOR, alpha=0.12, linewidth=0, zorder=0)
