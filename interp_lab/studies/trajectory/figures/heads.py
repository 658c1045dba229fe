"""Which head looks from place to place while the answer is written, and where it looks.

The default of the film, one layer and the mean over its heads, may show nothing of what a model
does. These figures are of all layers and heads, from what is stored of every sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from interp_lab.fields import Document, HeadScores, Scalar, StepCurve
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import TrajectoryStyle, picture_or_none
from interp_lab.studies.trajectory.figures.film_colors import DEEP_BLUE
from interp_lab.studies.trajectory.figures.standout import MEAN, standout
from interp_lab.studies.trajectory.figures.strip import draw_heat, film_colors
from interp_lab.studies.trajectory.peaks import MEANING
from interp_lab.tokens import TokenMap
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import read_field, shown
from interp_lab.visualization.sheets import Heading, sheet
from interp_lab.visualization.toolbox import (
    REST,
    USE_CAPTION,
    aggregate,
    aggregate_or_none,
    head_sheet,
    index_ticks,
    layer_head_map,
)

PATH_GUIDE = (
    "Each step's peak is the image cell with most of this head's attention when the token is "
    "predicted. Above: each cell in the colour of the largest attention that it gets as a peak; "
    "framed and numbered by its step: at least half of the scale. Below: attention on the "
    "peak, step by step, with the tokens at those steps."
)
NO_SCORE = (
    "it has no image, or an earlier version measured it; the command of the run with resume=false "
    "measures it again"
)
MOST_WORDS = 60  # of tokens below the bars


def head_overview(results: Results, style: TrajectoryStyle) -> Figure:
    """Draw the score of all layers and heads, the highest framed.

    Args:
        results: an open result with mean_moving_peak.
        style: how.

    Raises:
        NothingToDrawError: if the result does not hold it.
    """
    if MEAN not in results.aggregates:
        raise NothingToDrawError(f"no sample holds moving_peak: {NO_SCORE}", MEAN)
    field, scores = aggregate(results, MEAN, HeadScores)
    n_layers, n_heads = scores.shape
    counted = aggregate_or_none(results, "n_moving_peak", Scalar)
    found = standout(results)
    title = "Heads that look from place to place"
    told = f"{MEANING}; the mean over samples. "
    told += f"Framed: {found.hint(-1)}." if found else "No head has any."
    size = (max(6.5, min(14.0, 2.4 + 0.5 * n_heads)), max(4.6, min(12.0, 3.2 + 0.3 * n_layers)))
    page = style.page(size, fill=True)
    with style.context(page.points):
        n = None if counted is None else int(counted)
        figure = head_sheet(results, style, page, title, [field], told, counted=n)
        cell = figure.add_gridspec(1, 1)[0, 0]
        norm = Normalize(0.0, float(scores.max()) or 1.0)
        layer_head_map(
            figure,
            cell,
            scores,
            norm=norm,
            cmap=style.colormap,
            label="moving peak",
            number=".2f",
            highest_only=True,
        )
    return figure


@dataclass(frozen=True)
class Path:
    """Where the best head of one sample looks.

    Args:
        who: which head, in words.
        why: its score, in words.
        tokens: of the sample.
        words: of the generated tokens.
        peaks: (step,) attention on the peak.
        cells: (step,) which image cell it is.
        pictures: of each image, None where it was not kept.
    """

    who: str
    why: str
    tokens: TokenMap
    words: tuple[str, ...]
    peaks: np.ndarray
    cells: np.ndarray
    pictures: tuple[np.ndarray | None, ...]

    @property
    def top(self) -> float:
        """The largest attention on a peak."""
        return float(self.peaks.max())

    @property
    def strong(self) -> np.ndarray:
        """The steps with at least half of that."""
        return np.flatnonzero(self.peaks >= self.top / 2)

    def maps(self) -> list[np.ndarray]:
        """Return the largest attention that each cell gets as a peak, of each image."""
        sizes = [rows * cols for rows, cols in self.tokens.grids]
        values = np.zeros(sum(sizes))
        np.maximum.at(values, self.cells, self.peaks)
        ends = np.cumsum(sizes)
        return [
            values[end - size : end].reshape(grid)
            for size, end, grid in zip(sizes, ends, self.tokens.grids, strict=True)
        ]

    def numbers(self) -> dict[tuple[int, int, int], str]:
        """Return image, row and column of strong peaks -> the steps at which they are."""
        images = range(len(self.tokens.grids))
        places = [t for i in images for t in self.tokens.cells(i)]
        found: dict[tuple[int, int, int], list[str]] = {}
        for step in self.strong:
            token = self.tokens.tokens[places[self.cells[step]]]
            assert token.image is not None and token.cell is not None
            found.setdefault((token.image, *token.cell), []).append(str(step))
        # More than two do not fit into a cell.
        return {k: ", ".join(v if len(v) < 3 else [v[0], "…"]) for k, v in found.items()}


def peak_path(results: Results, style: TrajectoryStyle, sample: str) -> Figure:
    """Draw where the head of the highest score looks in one sample, step by step.

    Args:
        results: an open result with moving_peak, peak_share and peak_cell.
        style: how.
        sample: its id.

    Raises:
        NothingToDrawError: if the sample does not hold them.
    """
    path = _read(results, sample)
    aspects = [_aspect(path, i) for i in range(len(path.tokens.grids))]
    known = results.attributes
    words = [path.why, *(str(known[key]) for key in ("model", "dataset") if known.get(key))]
    words += [f.definition for n in ("peak_share",) if (f := results.fields[n]).definition]
    head = Heading(
        f"{sample}: where {path.who} looks",
        " · ".join(words),
        tuple(results.notes),
        f"{PATH_GUIDE} {MEANING}. {USE_CAPTION}",
    )
    page = style.page((8.0, 7.6), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        colors = film_colors(style, None, path.top)
        outer = figure.add_gridspec(2, 1, height_ratios=[3, 1])
        grid = outer[0].subgridspec(1, len(aspects))
        for image, cells in enumerate(path.maps()):
            axes = figure.add_subplot(grid[0, image])
            if (picture := path.pictures[image]) is not None:
                panels.draw_picture(axes, picture, cells.shape, gray=style.overlay_gray)
            draw_heat(axes, cells, colors)
            panels.frame(axes, cells.shape, 1.0, labels=False)
            axes.set_aspect(aspects[image] * cells.shape[1] / cells.shape[0])
            _number(axes, path, image)
        place = figure.axes[-1].inset_axes((1.03, 0.0, 0.04, 1.0))
        bar = figure.colorbar(colors, cax=place, label="attention")
        bar.outline.set_visible(False)
        _steps(figure.add_subplot(outer[1]), path)
    return figure


def _read(results: Results, sample: str) -> Path:
    if not results.holds("moving_peak", sample):
        raise NothingToDrawError(f"sample {sample!r} holds no moving_peak: {NO_SCORE}")
    scores = read_field(results, sample, "moving_peak", HeadScores)[1]
    tokens = TokenMap.from_json(str(read_field(results, sample, "tokens", Document)[1]))
    layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
    who = f"head {head} of layer {layer}"
    why = f"moving peak {scores.max():.2f}, the highest of all heads"
    curves = [read_field(results, sample, n, StepCurve)[1] for n in ("peak_share", "peak_cell")]
    if not curves[0].shape[1] or not curves[0].max() > 0:
        raise NothingToDrawError(f"sample {sample!r}: no attention on an image")
    words = [shown(t.text) for t in tokens.tokens if t.role == "generated"]
    pictures = (picture_or_none(results, sample, i) for i in range(len(tokens.grids)))
    peaks, cells = curves[0][layer].astype(float), curves[1][layer].astype(int)
    return Path(who, why, tokens, tuple(words), peaks, cells, tuple(pictures))


def _aspect(path: Path, image: int) -> float:
    picture = path.pictures[image]
    height, width = path.tokens.grids[image] if picture is None else picture.shape[:2]
    return min(4.0, max(0.25, height / width))


def _number(axes: Axes, path: Path, image: int) -> None:
    """Write the steps of strong peaks into their cells."""
    rows, cols = path.tokens.grids[image]
    if max(rows, cols) > 16:  # cells too small for a number
        return
    for (of, row, col), steps in path.numbers().items():
        if of == image:
            axes.text(
                col + 0.1,
                row + 0.12,
                steps,
                ha="left",
                va="top",
                fontsize="x-small",
                color="black",
                bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            )


def _steps(axes: Axes, path: Path) -> None:
    n = len(path.peaks)
    strong: Sequence[int] = path.strong.tolist()
    blue = tuple(c / 255 for c in DEEP_BLUE)
    axes.bar(range(n), path.peaks, color=[blue if i in strong else REST for i in range(n)])
    axes.set(xlim=(-0.7, n - 0.3), ylim=(0, min(1.0, path.top * 1.15)))
    axes.set(xlabel="generated token", ylabel="attention\non the peak")
    index_ticks(axes.xaxis, n, 20)
    if n > MOST_WORDS:
        return
    for step in strong:
        word = path.words[step]
        axes.annotate(
            word if len(word) <= 8 else f"{word[:7]}…",
            (step, 0),
            xytext=(0, 0.3 * matplotlib.rcParams["font.size"]),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize="x-small",
            color="white",
        )
