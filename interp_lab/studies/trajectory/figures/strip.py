"""A strip for papers: the images under the attention of some generated tokens, side by side.

Unlike in the film, colours are the attention itself, on one scale for all tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp_lab.errors import ConfigError
from interp_lab.fields import CellMap
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import (
    Trajectory,
    TrajectoryStyle,
    read_trajectory,
)
from interp_lab.studies.trajectory.figures.film_images import (
    MOST_SIDES,
    PREDICTED,
    REFERENCE,
    RINGED,
    Marker,
)
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.panels import DrawnMap
from interp_lab.visualization.reading import shown
from interp_lab.visualization.sheets import Heading, sheet
from interp_lab.visualization.toolbox import USE_CAPTION

GUIDE = (
    "Colours: attention of the query that predicts the token, on each cell, translucent over the "
    "picture. Below each: the token, its step, and the share of its attention on all images."
)
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
    steps: int | list[int] = 6,
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
            evenly from the first to the last.
        cmap: a colormap of matplotlib for attention; None = the style's.
        title: with {sample} and {layer} in braces.

    Raises:
        NothingToDrawError: if the sample has no image or no generated token.
        ConfigError: for a step that there is not.
    """
    style = style if cmap is None else replace(style, cmap=cmap)
    of = read_trajectory(results, style, sample, layer)
    if not of.tokens.grids:
        raise NothingToDrawError(f"sample {sample!r}: no image")
    scenes = [_scene(of, step) for step in chosen_steps(steps, of.n_steps, sample)]
    n_rows = len(of.tokens.grids)
    aspects = [min(MOST_SIDES, max(1 / MOST_SIDES, _aspect(of, i))) for i in range(n_rows)]
    kinds = dict.fromkeys(marker.kind for marker in of.markers)
    foot = [GUIDE, *(f"{SIGNS[kind].capitalize()}." for kind in kinds), USE_CAPTION]
    known = results.attributes
    words = [of.heads, *(str(known[key]) for key in ("model", "dataset") if known.get(key))]
    words += [definition] if (definition := results.fields["rows"].definition) else []
    filled = title.format_map({"sample": sample, "layer": layer})
    head = Heading(filled, " · ".join(words), tuple(results.notes), " ".join(foot))
    size = (max(6.0, len(scenes) * PANEL + 1.0), sum(aspects) * PANEL * 0.9 + 0.2 * n_rows + 1.9)
    page = style.page(size, fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        _draw(figure, of, scenes, aspects, style)
    return figure


def chosen_steps(steps: int | Sequence[int], n_steps: int, sample: str) -> list[int]:
    """Return which of `n_steps` steps are drawn: those named, or so many of them, evenly.

    Raises:
        ConfigError: for a step that there is not.
    """
    if isinstance(steps, int):
        if steps < 1:
            raise ConfigError(f"steps={steps}: give at least 1, or a list of steps")
        even = np.rint(np.linspace(0, n_steps - 1, min(steps, n_steps)))
        return [int(step) for step in even]
    for step in steps:
        if not -n_steps <= step < n_steps:
            raise ConfigError(f"steps={step}: sample {sample!r} has steps 0 to {n_steps - 1}")
    return [step % n_steps for step in steps]


def _scene(of: Trajectory, step: int) -> Scene:
    row = of.row(step)
    cells = tuple(
        row[list(of.tokens.where(image=index))].reshape(grid)
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
) -> None:
    top = max(float(cells.max()) for scene in scenes for cells in scene.cells) or 1.0
    norm = Normalize(0.0, top)
    n_rows = len(aspects)
    grid = figure.add_gridspec(
        n_rows, len(scenes) + 1, height_ratios=aspects, width_ratios=[1.0] * len(scenes) + [0.06]
    )
    for column, scene in enumerate(scenes):
        for row in range(n_rows):
            axes = figure.add_subplot(grid[row, column])
            _panel(axes, of, row, scene.cells[row], norm, style)
            rows, cols = of.tokens.grids[row]
            axes.set_aspect(aspects[row] * cols / rows)
            if n_rows > 1 and column == 0:
                axes.set_ylabel(f"image {row + 1}")
            if row == n_rows - 1:
                axes.set_xlabel(f"{scene.text}\n", fontsize="medium", labelpad=3)
                axes.annotate(
                    f"step {scene.step} · {scene.share:.0%}",
                    (0.5, 0),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    xytext=(0, -1.9 * matplotlib.rcParams["font.size"]),
                    fontsize="small",
                    color="0.35",
                )
    place = figure.add_subplot(grid[:, -1])
    bar = figure.colorbar(
        ScalarMappable(norm, style.cmap), cax=place, label="attention", alpha=style.overlay_alpha
    )
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)


def _panel(
    axes: Axes,
    of: Trajectory,
    image: int,
    cells: np.ndarray,
    norm: Normalize,
    style: TrajectoryStyle,
) -> None:
    """Draw one image under its cells, with its points."""
    picture = of.pictures[image]
    drawn = DrawnMap(CellMap("attention", "attention"), cells, norm)
    if picture is None:
        panels.draw_tiles(axes, drawn, style.cmap)
    else:
        panels.draw_over_picture(
            axes, drawn, picture, style.cmap, alpha=style.overlay_alpha, gray=style.overlay_gray
        )
    panels.frame(axes, drawn.grid, 1.0, labels=False)
    for marker in of.markers:
        if marker.image == image:
            _mark(axes, marker, drawn.grid)


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
