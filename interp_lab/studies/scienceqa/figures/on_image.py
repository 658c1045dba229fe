"""Where on the question's picture the winning heads look: one panel a layer, on one scale.

What a cell's number is, the score's definition says: its largest cell, or the sum or mean over the
cells, is the score that stands above the panel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from interp_lab.fields import CellMap, Field, LayerMaps
from interp_lab.store.results import Results
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError, Page, Style
from interp_lab.visualization.panels import DrawnMap, sentence
from interp_lab.visualization.reading import read_field, shown
from interp_lab.visualization.sheets import Heading, sheet, wrap
from interp_lab.visualization.toolbox import TOP, USE_CAPTION

PANEL = 1.75  # inches of a panel's width
MOST_ACROSS = 5
# Letters that a panel's title needs: "layer 31, head 31".
TITLE_LETTERS = 19
MOST_OF_QUESTION = 160
# Below this share of the picture's area the figure says that the model saw only a part of it.
MOSTLY_SEEN = 0.98
# More cells a side than this have no room for their borders.
MOST_BORDERED = 12


@dataclass(frozen=True)
class HeadStyle(Style):
    """Style of figures about winning heads (see `Style` for the rest).

    Args:
        layer: the layers whose maps are drawn on a picture, one or a list; null = those in which
            the winner scores highest.
        head: only where this head wins; null = whichever wins.
        overlay_alpha: how much of a picture its cells cover, above 0 to 1.
        overlay_gray: draw the picture under the cells without its colours, so that every hue is
            a number's.
    """

    layer: int | list[int] | None = None
    head: int | None = None
    overlay_alpha: float = 0.6
    overlay_gray: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("overlay_alpha", 0.01, 1)
        if not isinstance(self.overlay_gray, bool):
            self.refuse("overlay_gray", "give true or false")
        layers = self.layer if isinstance(self.layer, Sequence) else [self.layer]
        for value in layers if self.layer is not None else []:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.refuse("layer", "give a layer's number, from 0 on, or a list of them")
        if self.head is not None:
            self._check_number("head", 0, math.inf, whole=True)


def head_on_image(
    results: Results,
    style: HeadStyle,
    sample: str,
    *,
    maps: str = "winner_maps",
    heads: str = "max_head_per_layer",
    scores: str = "scores",
    most: int = 7,
) -> Figure:
    """Draw the question's picture, and on it where the winning heads of some layers look.

    Args:
        results: an open result.
        style: how, and which layers and head.
        sample: its id.
        maps: name of the LayerMaps (layer, row, col).
        heads: name of the HeadIndex (layer,) whose maps they are.
        scores: name of the HeadScores (layer, head).
        most: so many layers, those whose winner scores highest, where no layer is asked for.

    Raises:
        NothingToDrawError: if the sample holds no maps, or what is asked for is not among them.
    """
    field, cells = read_field(results, sample, maps, LayerMaps)
    winners = np.asarray(results.read(heads, sample), dtype=int)
    best = np.asarray(results.read(scores, sample))[np.arange(len(winners)), winners]
    layers = chosen_layers(style, sample, winners, best, most)
    picture = _held(results, "picture", sample)
    aspect = panels.cell_aspect(picture, cells.shape[1:]) * cells.shape[1] / cells.shape[2]
    across, page = _page(style, len(layers) + (picture is not None), aspect)
    with style.context(page.points):
        figure = sheet(style, page, _heading(results, sample, field))
        rows = math.ceil((len(layers) + (picture is not None)) / across)
        grid = figure.add_gridspec(rows, across + 1, width_ratios=[1.0] * across + [0.06])
        top = float(cells[layers].max()) or 1.0
        norm = Normalize(0.0, top)
        places = [(i // across, i % across) for i in range(len(layers) + 1)]
        if picture is not None:
            _photograph(figure.add_subplot(grid[places.pop(0)]), picture, cells.shape[1:])
        for place, layer in zip(places, layers, strict=False):
            drawn = DrawnMap(CellMap(f"layer {layer}", field.about), cells[layer], norm)
            title = f"layer {layer}, head {winners[layer]}\nscore {best[layer]:.3g}"
            _panel(figure.add_subplot(grid[place]), drawn, picture, style, title)
        _scale(figure, grid, norm, style, field, page)
    return figure


def chosen_layers(
    style: HeadStyle, sample: str, winners: np.ndarray, best: np.ndarray, most: int
) -> list[int]:
    """Return the layers that are drawn, in the model's order.

    Args:
        style: its layer and head are asked for.
        sample: for the reason.
        winners: (layer,) the head that wins each layer.
        best: (layer,) its score.
        most: how many where no layer is asked for.

    Raises:
        NothingToDrawError: if there is none.
    """
    every = list(range(len(winners)))
    asked = every if style.layer is None else style.layer
    asked = asked if isinstance(asked, Sequence) else [asked]
    if beyond := [n for n in asked if n >= len(winners)]:
        raise NothingToDrawError(
            f"select.layer={beyond[0]}: sample {sample!r} has layers 0 to {len(winners) - 1}"
        )
    layers = sorted({*asked})
    if style.head is not None:
        layers = [layer for layer in layers if winners[layer] == style.head]
        if not layers:
            raise NothingToDrawError(
                f"select.head={style.head}: wins none of these layers in sample {sample!r}, and "
                "the map of each layer's winner alone is kept"
            )
    if style.layer is None:
        layers = sorted(sorted(layers, key=lambda layer: (-best[layer], layer))[:most])
    return layers


def _held(results: Results, name: str, sample: str) -> np.ndarray | None:
    """Return a ragged value that the sample may lack."""
    there = name in results.fields and results.holds(name, sample)
    return np.asarray(results.read(name, sample)) if there else None


def _page(style: Style, n_panels: int, aspect: float) -> tuple[int, Page]:
    """Return panels side by side, as many as have room for their titles, and the page."""
    across = math.ceil(n_panels / math.ceil(n_panels / MOST_ACROSS))
    while True:
        rows = math.ceil(n_panels / across)
        height = rows * (PANEL * min(max(aspect, 0.3), 3.0) + 0.55) + 1.9
        page = style.page((max(4.5, across * PANEL + 1.0), height), fill=True)
        room = (page.width - 0.9) / across
        if across == 1 or room >= TITLE_LETTERS * 0.55 * 0.9 * page.points / 72:
            return across, page
        across -= 1


def _heading(results: Results, sample: str, field: Field) -> Heading:
    known, question = results.attributes, _held(results, "question", sample)
    text = " ".join(shown(str(question)).split()) if question is not None else ""
    text = text if len(text) <= MOST_OF_QUESTION else f"{text[: MOST_OF_QUESTION - 1]}…"
    said = [f"{sample}: {text}" if text else sample]
    for name, words in (("answer", "right answer"), ("predicted", "the model's")):
        if name in results.fields:
            said.append(f"{words}: {results.read(name, sample) or 'none'}")
    words = [str(known[key]) for key in ("model", "dataset") if known.get(key)]
    foot = (
        f"Colours: {field.about}, of the head that wins the layer, translucent over the picture; "
        f"one scale for all panels. Framed: the largest cell. {USE_CAPTION}"
    )
    view = _held(results, "map_view", sample)
    foot = foot if view is None else f"Maps: {view}. {foot}"
    share = _held(results, "seen_share", sample)
    notes = list(results.notes)
    if share is not None and share < MOSTLY_SEEN:
        notes.append(f"the model saw {float(share):.0%} of the picture's area: its middle")
    return Heading(" · ".join(said), " · ".join([*words, field.definition]), tuple(notes), foot)


def _photograph(axes: Axes, picture: np.ndarray, grid: tuple[int, int]) -> None:
    panels.draw_picture(axes, picture, grid)
    panels.frame(axes, grid, panels.cell_aspect(picture, grid), labels=False)
    axes.set_title("as the model saw it\n", loc="left", fontsize="small", pad=3)


def _panel(
    axes: Axes, drawn: DrawnMap, picture: np.ndarray | None, style: HeadStyle, title: str
) -> None:
    """Draw one layer's map over the picture, its largest cell framed."""
    rows, cols = drawn.grid
    if picture is None:
        panels.draw_tiles(axes, drawn, str(style.colormap))
    else:
        panels.draw_picture(axes, picture, drawn.grid, gray=style.overlay_gray)
        axes.imshow(
            drawn.values,
            extent=(0, cols, rows, 0),
            cmap=style.colormap,
            norm=drawn.norm,
            alpha=style.overlay_alpha,
            aspect="auto",
            label=drawn.field.name,
        )
    if max(rows, cols) <= MOST_BORDERED:
        panels.draw_grid(axes, drawn.grid, strength=0.5)
    panels.frame(axes, drawn.grid, panels.cell_aspect(picture, drawn.grid), labels=False)
    row, col = np.unravel_index(int(drawn.values.argmax()), drawn.values.shape)
    width = matplotlib.rcParams["axes.linewidth"] * 2
    for color, share in (("white", 2.2), (TOP, 1.0)):
        axes.plot(
            [col, col + 1, col + 1, col, col],
            [row, row, row + 1, row + 1, row],
            color=color,
            linewidth=width * share,
            clip_on=False,
            solid_joinstyle="miter",
            zorder=4,
        )
    axes.set_title(title, loc="left", fontsize="small", pad=3)


def _scale(
    figure: Figure, grid: GridSpec, norm: Normalize, style: HeadStyle, field: Field, page: Page
) -> None:
    place = figure.add_subplot(grid[:, -1])
    bar = figure.colorbar(
        ScalarMappable(norm, style.colormap), cax=place, alpha=style.overlay_alpha
    )
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)
    bar.set_label(wrap(sentence(field.about), page.height * 0.5, page.points * 0.9))
