"""What figures about layers and heads share: finding their fields, words, ticks and colours.

Every such figure says at its foot that attention alone does not show use, and layers always stand
in numeric order.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import Field
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Page, Style
from interp_lab.visualization.sheets import Heading, sheet, wrap

USE_CAPTION = "Attention alone does not show that the model uses what a head looks at."
# Red and blue that differ in brightness too; the others are to be seen, not looked at.
TOP, SECOND, REST, LINE = "#c8102e", "#2c6e9b", "#9aabbb", "0.35"
# Cells up to this number in all have their value written in them.
MOST_WRITTEN_CELLS = 160


def aggregate(results: Results, name: str, kind: type[Field]) -> tuple[Field, np.ndarray]:
    """Return a field over the whole run, with its values.

    Raises:
        NothingToDrawError: if the result does not hold it, or as another kind.
    """
    held = {n: f for n, f in results.aggregates.items() if isinstance(f, kind)}
    if name not in held:
        raise NothingToDrawError(
            f"the result holds no {kind.__name__} {name}; it has {', '.join(held) or 'none'}",
            name,
            held,
        )
    return held[name], np.asarray(results.aggregate(name))


def aggregate_or_none(results: Results, name: str, kind: type[Field]) -> np.ndarray | None:
    """Return the values of a field over the whole run, or None if it is not there."""
    field = results.aggregates.get(name)
    return np.asarray(results.aggregate(name)) if isinstance(field, kind) else None


def head_sheet(
    results: Results,
    style: Style,
    page: Page,
    title: str,
    fields: Sequence[Field],
    foot: str,
    *,
    counted: int | None = None,
) -> Figure:
    """Return an empty figure about heads, with what stands above and below its panels.

    Call it, and add panels, within `style.context(page.points)`.

    Args:
        results: an open result.
        style, page: how, and of which size.
        title: what the figure shows.
        fields: what it is drawn from; their definitions are named.
        foot: how to read it; the sentence on use follows.
        counted: samples that the numbers are of, where it can differ from those of the result:
            a sample without a picture has no winning head.
    """
    return sheet(style, page, _heading(results, title, fields, foot, counted))


def samples_of(counts: np.ndarray) -> int:
    """Return how many samples are in counts (n_layers, n_heads)."""
    return int(counts.sum(axis=1).max())


def _heading(
    results: Results, title: str, fields: Sequence[Field], foot: str, counted: int | None
) -> Heading:
    known = results.attributes
    words = [str(known[key]) for key in ("task_name", "model", "dataset") if known.get(key)]
    number = f"{len(results)} sample{'s' * (len(results) != 1)}"
    words += [number if counted in (None, len(results)) else f"{counted} of {number}"]
    words += [f"{len(results.failures)} failed"] if results.failures else []
    words += dict.fromkeys(field.definition for field in fields if field.definition)
    return Heading(title, " · ".join(words), tuple(results.notes), f"{foot} {USE_CAPTION}".strip())


def letters_wide(text: str, points: float | None = None) -> float:
    """Return about how wide a text is in inches, at the smallest letters that figures have."""
    small = 0.85 * (points or matplotlib.rcParams["font.size"])
    return max((len(line) for line in text.split("\n")), default=0) * 0.58 * small / 72


def index_step(axis: Axis, n: int, most: int) -> int:
    """Return how far numbered indices 0 to n - 1 are apart: room for each, at most about `most`."""
    axes, points = axis.axes, matplotlib.rcParams["font.size"]
    figure, spec = axes.figure, axes.get_subplotspec()
    assert isinstance(figure, Figure)
    is_x = axis is axes.xaxis
    box = spec.get_position(figure) if spec is not None else axes.get_position()
    width, height = figure.get_size_inches()
    # Beside an axis stand the other one's numbers and its name.
    long = (box.width * width if is_x else box.height * height) - 4 * points / 72
    each = letters_wide(str(n - 1)) + 0.6 * points / 72 if is_x else 1.3 * points / 72
    most = max(2, min(most, int(long / each)))
    return next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 50, 100, max(n, 1)) if n / s <= most)


def index_ticks(axis: Axis, n: int, most: int) -> None:
    """Put whole-numbered ticks on indices 0 to n - 1, evenly, at most about `most` of them."""
    axis.set_ticks(np.arange(0, n, index_step(axis, n, most)))


def layer_ticks(axes: Axes, n_layers: int, most: int = 40) -> None:
    """Set the x-axis to layers: all of them numbered if they are few, else every second or so."""
    index_ticks(axes.xaxis, n_layers, most)
    axes.tick_params(axis="x", length=0, labelsize="x-small" if n_layers > 16 else "small")
    axes.set(xlim=(-0.7, n_layers - 0.3), xlabel="layer")


def count_ticks(axis: Axis, most: int = 5) -> None:
    """Put few, whole-numbered ticks on an axis of counts."""
    axis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def reference_line(axes: Axes, value: float, words: str, *, beside: bool = False) -> None:
    """Draw a dashed line across the axes with its meaning above its end, or beside the axes."""
    width = matplotlib.rcParams["axes.linewidth"] * 1.3
    axes.axhline(value, color=LINE, linewidth=width, linestyle=(0, (4, 3)), zorder=1)
    aligned: dict[str, Any] = {"xytext": (0, 2), "ha": "right", "va": "bottom"}
    if beside:
        aligned = {"xytext": (3, 0), "ha": "left", "va": "center"}
    axes.annotate(
        words,
        (1, value),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize="x-small",
        color=LINE,
        **aligned,
    )


def shortened(name: str, longest: int) -> str:
    """Return a name of at most so many letters, its middle left out: names differ at their ends."""
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[len(name) - end :]}"


def legend_above(axes: Axes) -> None:
    """Put the legend of an axes above it, on the left: in one row, or one below the other."""
    handles, labels = axes.get_legend_handles_labels()
    points, figure = matplotlib.rcParams["font.size"], axes.figure
    assert isinstance(figure, Figure)
    room = float(figure.get_size_inches()[0]) - 6 * points / 72
    sign = 4 * points / 72
    fits = sum(letters_wide(label) + sign for label in labels) <= room
    labels = labels if fits else [wrap(label, room - sign, points * 0.85) for label in labels]
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(labels) if fits else 1,
        fontsize="x-small",
        borderaxespad=0.1,
    )


def intervals(
    axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: Any, share: float = 1.0
) -> None:
    """Draw intervals as upright lines with short ends; arrays (n,), `share` thins the lines."""
    width = matplotlib.rcParams["axes.linewidth"] * 1.8 * share
    axes.vlines(x, low, high, color=color, linewidth=width, zorder=2)
    size = matplotlib.rcParams["font.size"] * 0.4
    for ends in (low, high):
        axes.plot(
            x,
            ends,
            linestyle="",
            marker="_",
            color=color,
            markersize=size,
            markeredgewidth=width,
            zorder=2,
        )


def layer_head_map(
    figure: Figure,
    cell: SubplotSpec,
    values: np.ndarray,
    *,
    norm: Normalize,
    cmap: str,
    label: str,
    number: str,
    highest_only: bool = False,
) -> Axes:
    """Draw layers (down, from 0) by heads (across) in colours, each layer's highest framed in red.

    Args:
        figure, cell: where.
        values: (n_layers, n_heads); a layer of zeros gets no frame.
        norm, cmap: from value to colour.
        label: of the colour bar.
        number: format of the numbers that are written into few cells, such as ".2f".
        highest_only: frame the highest of all instead.
    """
    axes = figure.add_subplot(cell)
    n_layers, n_heads = values.shape
    image = axes.imshow(values, cmap=cmap, norm=norm, aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    index_ticks(axes.xaxis, n_heads, 16)
    index_ticks(axes.yaxis, n_layers, 16)
    axes.set(xlabel="head", ylabel="layer")
    rows = np.flatnonzero(values.any(axis=1))
    if highest_only:
        rows = rows[values.max(axis=1)[rows].argmax()][None] if len(rows) else rows
    _frames(axes, rows, values.argmax(axis=1)[rows])
    if values.size <= MOST_WRITTEN_CELLS:
        _write_numbers(axes, values, image.to_rgba(values), number)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.035, 1.0)))
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(6, integer=values.dtype.kind in "iu")
    points = matplotlib.rcParams["font.size"] * 0.9
    height = cell.get_position(figure).height * figure.get_size_inches()[1] * 0.75
    bar.set_label(wrap(label, height, points))
    return axes


def _frames(axes: Axes, rows: np.ndarray, cols: np.ndarray) -> None:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.46
    squares = np.stack([cols, rows], axis=-1)[:, None, :] + corners
    width = matplotlib.rcParams["axes.linewidth"] * 1.6
    # Red on a dark or a bright cell: a white line outside keeps it apart from both.
    for color, share in (("white", 2.0), (TOP, 1.0)):
        frames = PolyCollection(
            list(squares), facecolors="none", edgecolors=color, linewidths=width * share, zorder=3
        )
        frames.set_clip_on(False)
        axes.add_collection(frames)


def _write_numbers(axes: Axes, values: np.ndarray, colors: np.ndarray, number: str) -> None:
    bright = colors[..., :3] @ np.array([0.299, 0.587, 0.114])
    for (layer, head), value in np.ndenumerate(values):
        axes.text(
            head,
            layer,
            f"{value:{number}}",
            ha="center",
            va="center",
            fontsize="x-small",
            color="black" if bright[layer, head] > 0.5 else "white",
            zorder=4,
        )
