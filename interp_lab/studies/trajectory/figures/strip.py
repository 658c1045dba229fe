"""A strip for papers: the images under the attention of some generated tokens, side by side.

Which tokens: those at which one cell gets much attention, for a head that looks at the image now
and then is missed by steps at equal distances. How they were chosen stands in the figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from interp_lab.errors import ConfigError
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import (
    Trajectory,
    TrajectoryStyle,
    read_trajectory,
)
from interp_lab.studies.trajectory.figures.film_colors import Scale
from interp_lab.studies.trajectory.figures.film_images import (
    MOST_SIDES,
    PREDICTED,
    REFERENCE,
    RINGED,
    Marker,
)
from interp_lab.studies.trajectory.figures.standout import hint_beside
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import shown
from interp_lab.visualization.sheets import Heading, sheet
from interp_lab.visualization.toolbox import USE_CAPTION

GUIDE = (
    "Colours: attention of the query that predicts the token, on each cell, from 0 to the largest "
    "of the whole answer; {cover}. Framed: at least half of the scale. Below each: the token, its "
    "step, and the share of its attention on all images."
)
PEAKS = 6  # how many steps are chosen by what happens in them
GRADES = 256  # of a scale of colours
PANEL = 1.75  # inches of a panel's width
MOST_LETTERS = 16
LOOKS = {"predicted": ("o", PREDICTED), "reference": ("+", REFERENCE)}
SIGNS = {"predicted": "ring: predicted point", "reference": "cross: reference point"}


@dataclass(frozen=True)
class Scene:
    """One generated token: its step, text, share on the images, and each image's cells."""

    step: int
    text: str
    share: float
    cells: tuple[np.ndarray, ...]


def attention_strip(
    results: Results,
    style: TrajectoryStyle,
    sample: str,
    layer: int,
    *,
    steps: int | list[int] | Literal["peaks"] = "peaks",
    cmap: str | None = None,
    title: str = "{sample}: where layer {layer} looks while it writes",
) -> Figure:
    """Draw the images of a sample under the attention of some generated tokens.

    Args:
        results: an open result.
        style: how; its head is shown.
        sample: its id.
        layer: number in the model.
        steps: which generated tokens, from 0, negative ones from the end; or how many of them,
            evenly from the first to the last; peaks = six by what happens in them, see
            `peak_steps`.
        cmap: a colormap of matplotlib for attention, which then covers all cells alike; None = the
            colours and the opacity of the film.
        title: with {sample} and {layer} in braces.

    Raises:
        NothingToDrawError: if the sample has no image or no generated token.
        ConfigError: for a step that there is not.
    """
    of = read_trajectory(results, style, sample, layer)
    if not of.tokens.grids:
        raise NothingToDrawError(f"sample {sample!r}: no image")
    peaks = of.peaks
    chosen, how = chosen_steps(steps, peaks, sample)
    scenes = [_scene(of, step) for step in chosen]
    colors = film_colors(style, cmap, float(peaks.max()))
    n_rows = len(of.tokens.grids)
    aspects = [min(MOST_SIDES, max(1 / MOST_SIDES, _aspect(of, i))) for i in range(n_rows)]
    kinds = dict.fromkeys(marker.kind for marker in of.markers)
    cover = "cells without attention show the picture as it is"
    cover = "translucent over the picture" if cmap or not style.grows else cover
    hint = hint_beside(results, layer, of.heads)
    foot = [
        how,
        GUIDE.format(cover=cover),
        *(f"{SIGNS[kind].capitalize()}." for kind in kinds),
        *([f"{hint}."] if hint else []),
        USE_CAPTION,
    ]
    known = results.attributes
    words = [of.heads, *(str(known[key]) for key in ("model", "dataset") if known.get(key))]
    words += [definition] if (definition := results.fields["rows"].definition) else []
    filled = title.format_map({"sample": sample, "layer": layer})
    head = Heading(filled, " · ".join(words), tuple(results.notes), " ".join(foot))
    size = (max(6.0, len(scenes) * PANEL + 1.0), sum(aspects) * PANEL * 0.9 + 0.2 * n_rows + 1.9)
    page = style.page(size, fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        _draw(figure, of, scenes, aspects, style, colors)
    return figure


def chosen_steps(
    steps: int | Sequence[int] | str, peaks: np.ndarray, sample: str
) -> tuple[list[int], str]:
    """Return which steps are drawn, and a sentence that says how they were chosen.

    Args:
        steps: as for `attention_strip`.
        peaks: (n_steps,) the largest attention on one cell.
        sample: its id.

    Raises:
        ConfigError: for a step that there is not, or another word than peaks.
    """
    n_steps = len(peaks)
    if isinstance(steps, str):
        if steps != "peaks":
            raise ConfigError(f"steps={steps!r}: give peaks, how many steps, or a list of steps")
        found, apart = peak_steps(peaks, PEAKS)
        if len(found) == n_steps:
            return found, "All steps are shown."
        spread = f", chosen at least {apart} steps apart" if apart > 1 else ""
        return found, (
            f"Shown: of {n_steps} steps the {len(found)} in which one image cell gets most "
            f"attention{spread}."
        )
    if isinstance(steps, int):
        if steps < 1:
            raise ConfigError(f"steps={steps}: give at least 1, or a list of steps")
        even = np.rint(np.linspace(0, n_steps - 1, min(steps, n_steps)))
        return [int(step) for step in even], f"Shown: {len(even)} of {n_steps} steps, evenly."
    for step in steps:
        if not -n_steps <= step < n_steps:
            raise ConfigError(f"steps={step}: sample {sample!r} has steps 0 to {n_steps - 1}")
    return [step % n_steps for step in steps], "Shown: steps that were asked for by number."


def peak_steps(peaks: np.ndarray, most: int) -> tuple[list[int], int]:
    """Return the steps in which one cell gets most attention, in order, and their least distance.

    The highest is taken, then the next highest that lies no nearer than n // (2 most) steps to one
    that was taken, and so on: steps beside a peak that show the same are left out.

    Args:
        peaks: (n,) the largest attention on one cell, of each step.
        most: how many steps.
    """
    apart = max(1, len(peaks) // (2 * most))
    found: list[int] = []
    for step in np.argsort(-peaks, kind="stable").tolist():
        if len(found) < most and all(abs(step - other) >= apart for other in found):
            found.append(step)
    return sorted(found), apart


def _scene(of: Trajectory, step: int) -> Scene:
    row = of.row(step)
    cells = tuple(
        row[list(of.tokens.cells(index))].reshape(grid)
        for index, grid in enumerate(of.tokens.grids)
    )
    text = shown(of.tokens.tokens[of.n_prompt + step].text)
    text = text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
    return Scene(step, text, of.shares(row)[0], cells)


def _aspect(of: Trajectory, index: int) -> float:
    """Return height over width of an image; of its grid where the picture was not kept."""
    picture, grid = of.pictures[index], of.tokens.grids[index]
    height, width = grid if picture is None else picture.shape[:2]
    return height / width


def _draw(
    figure: Figure,
    of: Trajectory,
    scenes: Sequence[Scene],
    aspects: Sequence[float],
    style: TrajectoryStyle,
    colors: ScalarMappable,
) -> None:
    n_rows = len(aspects)
    grid = figure.add_gridspec(
        n_rows, len(scenes) + 1, height_ratios=aspects, width_ratios=[1.0] * len(scenes) + [0.06]
    )
    for column, scene in enumerate(scenes):
        for row in range(n_rows):
            axes = figure.add_subplot(grid[row, column])
            _panel(axes, of, row, scene.cells[row], colors, style)
            rows, cols = of.tokens.grids[row]
            axes.set_aspect(aspects[row] * cols / rows)
            if n_rows > 1 and column == 0:
                axes.set_ylabel(of.tokens.name_of(row))
            if row == n_rows - 1:
                told = f"{scene.text}\nstep {scene.step} · {scene.share:.0%}"
                axes.set_xlabel(told, fontsize="small", labelpad=3)
    place = figure.add_subplot(grid[:, -1])
    bar = figure.colorbar(colors, cax=place, label="attention")
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)


def film_colors(style: TrajectoryStyle, cmap: str | None, top: float) -> ScalarMappable:
    """Return what gives attention its colour and opacity."""
    weights = np.linspace(0, 1, GRADES)
    if cmap is not None:
        colors, covers = matplotlib.colormaps[cmap](weights)[:, :3], style.overlay_alpha
    else:
        scale = Scale(style.color_of, style.gamma, 1.0, style.grows)
        inks, covers = scale.ink(scale.weights(weights), style.overlay_alpha)
        colors = inks / 255
    graded = np.column_stack([colors, np.broadcast_to(covers, GRADES)])
    return ScalarMappable(Normalize(0.0, top or 1.0), ListedColormap(graded))


def _panel(
    axes: Axes,
    of: Trajectory,
    image: int,
    cells: np.ndarray,
    colors: ScalarMappable,
    style: TrajectoryStyle,
) -> None:
    """Draw one image under its cells, with its points."""
    picture, grid = of.pictures[image], of.tokens.grids[image]
    if picture is not None:
        panels.draw_picture(axes, picture, grid, gray=style.overlay_gray)
    draw_heat(axes, cells, colors)
    panels.draw_grid(axes, grid, strength=0.5)
    panels.frame(axes, grid, 1.0, labels=False)
    for marker in of.markers:
        if marker.image == image:
            _mark(axes, marker, grid)


def draw_heat(axes: Axes, cells: np.ndarray, colors: ScalarMappable) -> None:
    """Draw cells (rows, cols) in their colours, over what is there.

    Those of at least half of the scale have a frame of white, which is seen on any colour.
    """
    low, high = colors.get_clim()
    extent = (0.0, float(cells.shape[1]), float(cells.shape[0]), 0.0)
    axes.imshow(cells, extent=extent, cmap=colors.get_cmap(), vmin=low, vmax=high, aspect="auto")
    least = (high or 1.0) / 2
    width = matplotlib.rcParams["font.size"] * 0.12
    for row, col in np.argwhere(cells >= least):
        place = (col + 0.04, row + 0.04)
        axes.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor="white", linewidth=width))


def _mark(axes: Axes, marker: Marker, grid: tuple[int, int]) -> None:
    """Draw a point: its sign in colour on the same sign in white."""
    sign, color = LOOKS[marker.kind]
    size = matplotlib.rcParams["font.size"] * (1.0 if marker.kind == RINGED else 0.65)
    points = matplotlib.rcParams["font.size"]
    for ink, width in (("white", 0.3), (tuple(c / 255 for c in color), 0.13)):
        axes.plot(
            marker.x * grid[1],
            marker.y * grid[0],
            sign,
            markersize=size,
            clip_on=False,
            markerfacecolor="none",
            markeredgecolor=ink,
            markeredgewidth=points * width,
        )
