"""What figures of gates share: finding the fields, the heading, colours, and a diverging scale."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, MaxNLocator

from interp_lab.fields import Category, Field, GateValues, LayerCurve, Scalar
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Page, Style
from interp_lab.visualization.sheets import Heading, sheet

SIGN_CAPTION = (
    "Positive: the branch is added; negative: subtracted; 0: ignored. The sign of a tanh gate is "
    "arbitrary, so |g| says how much passes. An open gate alone does not show that audio is used."
)
PREFIX = "gate_"
# Colours that differ in brightness too, and are not those of signs.
HELPS, MISLEADS = "informative", "misleading"
KIND_COLORS = {HELPS: "#4b2e83", MISLEADS: "#d9902f", "all": "0.35"}
OTHER_COLORS = ("#2a8c82", "#a05195", "#8a6d3b")
TRUE_COLOR, FOUND_COLOR = "#4f8a5b", "#b5541c"
# Layers that a legend names all of.
MOST_NAMED = 16


def gate_kinds(results: Results) -> list[str]:
    """Return the kinds of gates in a result, attention first.

    Raises:
        NothingToDrawError: if it has none.
    """
    kinds = [field.name.removeprefix(PREFIX) for field in results.of_kind(GateValues)]
    if not kinds:
        raise NothingToDrawError("the result holds no GateValues")
    return sorted(kinds, key=lambda kind: (kind != "attention", kind))


def gates_of(results: Results, kind: str, sample: str) -> np.ndarray:
    """Return a sample's gates of a kind: (layer, clip, channel)."""
    return np.asarray(results.read(f"{PREFIX}{kind}", sample))


def stacked(results: Results, name: str, kind: type[Field]) -> np.ndarray:
    """Return a stacked field of all samples: (sample, *axes).

    Raises:
        NothingToDrawError: if the samples do not hold it.
    """
    held = {n: f for n, f in results.fields.items() if isinstance(f, kind)}
    if name not in held:
        raise NothingToDrawError(f"the samples hold no {kind.__name__} {name}", name, held)
    return np.concatenate([block[name] for block in results.stream([name])])


def scalars(results: Results, name: str) -> np.ndarray:
    """Return a number of every sample, NaN where a sample has none: (sample,)."""
    held = [results.holds(name, sample) for sample in results.sample_ids]
    return np.array(
        [
            float(results.read(name, sample)) if there else np.nan
            for sample, there in zip(results.sample_ids, held, strict=True)
        ]
    )


def audio_kinds(results: Results) -> np.ndarray:
    """Return what the data set calls each sample's audio, empty if it does not say: (sample,)."""
    if not isinstance(results.fields.get("audio_kind"), Category):
        return np.full(len(results), "", dtype=object)
    return stacked(results, "audio_kind", Category).astype(str)


def groups(results: Results) -> dict[str, np.ndarray]:
    """Return the samples of each audio kind, or all of them: name -> (sample,) bool."""
    kinds = audio_kinds(results)
    named = sorted(set(kinds.tolist()) - {""})
    return {n: kinds == n for n in named} or {"all": np.ones(len(kinds), dtype=bool)}


def group_color(name: str, place: int = 0) -> str:
    """Return a kind of audio's colour; `place` tells unknown ones apart."""
    return KIND_COLORS.get(name, OTHER_COLORS[place % len(OTHER_COLORS)])


def layer_colors(n_layers: int, cmap: str) -> list[Any]:
    """Return one colour a layer, none so bright that it vanishes on white."""
    return list(matplotlib.colormaps[cmap](np.linspace(0.05, 0.85, max(n_layers, 1))))


def gate_sheet(
    results: Results,
    style: Style,
    page: Page,
    title: str,
    *,
    foot: str = "",
    subtitle: Sequence[str] = (),
    caption: str = SIGN_CAPTION,
) -> Figure:
    """Return an empty figure about gates, with what stands above and below its panels.

    Call it, and add panels, within `style.context(page.points)`.

    Args:
        results: an open result.
        style, page: how, and of which size.
        title: what the figure shows.
        foot: how to read it; the sentences on signs follow.
        subtitle: more words behind task, model and data set.
        caption: these sentences.
    """
    known = results.attributes
    words = [str(known[key]) for key in ("task_name", "model", "dataset") if known.get(key)]
    if not subtitle:
        words.append(f"{len(results)} sample{'s' * (len(results) != 1)}")
        words += [f"{len(results.failures)} failed"] if results.failures else []
    heading = Heading(
        title, " · ".join([*words, *subtitle]), tuple(results.notes), f"{foot} {caption}".strip()
    )
    return sheet(style, page, heading)


def symmetric(arrays: Sequence[np.ndarray]) -> Normalize:
    """Return limits with 0 in the middle that reach to the largest gate; the colour bar says it."""
    top = max((float(np.abs(a).max()) for a in arrays if a.size), default=1.0) or 1.0
    return Normalize(-top, top)


def gate_map(
    axes: Axes,
    values: np.ndarray,
    cmap: str,
    norm: Normalize,
    label: str | None = None,
    *,
    few_ticks: bool = False,
) -> AxesImage:
    """Draw (row, column) gates, with a colour bar if it has a label.

    Args:
        axes: where.
        values: (row, column).
        cmap, norm: from value to colour.
        label: of the colour bar.
        few_ticks: the bar is low and has room for its ends alone.
    """
    image = axes.imshow(values, cmap=cmap, norm=norm, aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if label:
        figure = axes.figure
        assert figure is not None
        bar = figure.colorbar(image, cax=axes.inset_axes((1.02, 0.0, 0.03, 1.0)))
        bar.outline.set_visible(False)
        low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
        bar.locator = FixedLocator([low, high]) if few_ticks else MaxNLocator(5)
        bar.set_label(label)
    return image


def legend_of_layers(axes: Axes) -> None:
    """Put the legend of layers above the axes, on the left: of many layers, some from end to end.

    Its columns are as many as fit: a long name, such as one with its mean, takes two places.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MOST_NAMED:
        chosen = np.unique(np.linspace(0, len(labels) - 1, MOST_NAMED // 2).round().astype(int))
        handles, labels = ([values[i] for i in chosen] for values in (handles, labels))
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=8 if max(map(len, labels), default=0) < 10 else 4,
        fontsize="x-small",
        borderaxespad=0.1,
        handlelength=1.2,
        columnspacing=1.2,
    )


def zero_line(axes: Axes) -> None:
    """Draw a thin line at gate 0."""
    width = matplotlib.rcParams["axes.linewidth"]
    axes.axhline(0, color="0.6", linewidth=width, linestyle=(0, (4, 3)), zorder=0)


def aggregate_curve(results: Results, name: str) -> np.ndarray | None:
    """Return an aggregate (layer,), or None if there is none."""
    found = isinstance(results.aggregates.get(name), LayerCurve)
    return np.asarray(results.aggregate(name)) if found else None


def aggregate_scalar(results: Results, name: str) -> float | None:
    """Return an aggregate number, or None if there is none."""
    found = isinstance(results.aggregates.get(name), Scalar)
    return float(results.aggregate(name)) if found else None
