"""The sheet that panels are drawn on: size, heading, notes, and what to know when reading it.

Heading and foot have a fixed place above and below; the panels' layout keeps clear of both.
"""

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interp_lab.visualization.base import Page, Style

NOTE_LOOK: dict[str, Any] = {
    "color": "#c00000",
    "bbox": {"boxstyle": "square,pad=0.2", "facecolor": "#fdeaea", "edgecolor": "none"},
}


@dataclass(frozen=True)
class Heading:
    """What stands above and below the panels of a figure.

    Args:
        title: the sample or the run.
        subtitle: task, model, data set, definition.
        notes: what a reader must know, such as random weights; drawn in red.
        foot: how to read the panels.
    """

    title: str
    subtitle: str = ""
    notes: tuple[str, ...] = ()
    foot: str = ""


class Sheet(Figure):
    """A figure that draws itself in its own style, wherever it is shown.

    matplotlib makes tick labels when it draws, with the settings of that moment.
    """

    def __init__(self, style: Style, page: Page) -> None:
        super().__init__(figsize=(page.width, page.height), dpi=style.dpi)
        FigureCanvasAgg(self)
        self._style = style
        self._points = page.points

    def draw(self, renderer: RendererBase) -> None:
        """Draw with the style's letters and lines."""
        with self._style.context(self._points):
            super().draw(renderer)


def sheet(style: Style, page: Page, heading: Heading) -> Sheet:
    """Return an empty figure with its heading; the panels' layout keeps clear of it.

    Call it, and add panels, within `style.context(page.points)`.

    Args:
        style: gives fonts and resolution.
        page: the sizes.
        heading: its lines are wrapped to the width.
    """
    figure = Sheet(style, page)
    size, base = (page.width, page.height), page.points
    # No bold letters: fonts for Korean and Japanese often have none.
    lines: list[tuple[str, float, dict[str, Any]]] = [(heading.title, 1.4, {})]
    lines += [(heading.subtitle, 0.95, {"color": "0.3"})] if heading.subtitle else []
    lines += [(note[:1].upper() + note[1:], 1.05, NOTE_LOOK) for note in heading.notes]
    margin = 0.6 * base / 72
    top = margin
    for text, scale, look in lines:
        wrapped = wrap(text, size[0] - 2 * margin, base * scale)
        figure.text(
            margin / size[0],
            1 - top / size[1],
            wrapped,
            va="top",
            fontsize=base * scale,
            linespacing=1.25,
            **look,
        )
        top += (wrapped.count("\n") + 1) * base * scale * 1.4 / 72
    foot = wrap(heading.foot, size[0] - 2 * margin, base * 0.8)
    bottom = margin
    if foot:
        figure.text(
            margin / size[0],
            margin / size[1],
            foot,
            va="bottom",
            color="0.3",
            fontsize=base * 0.8,
            linespacing=1.25,
        )
        bottom += (foot.count("\n") + 1) * base * 0.8 * 1.4 / 72
    gap = 0.35 * base / 72
    rect = (0, bottom / size[1], 1, 1 - (top + bottom) / size[1])
    figure.set_layout_engine(
        "constrained", rect=rect, w_pad=2 * gap, h_pad=gap, wspace=0.02, hspace=0.02
    )
    return figure


def wrap(text: str, inches: float, points: float) -> str:
    """Break a text into lines that fit a width, by the usual width of letters at a font size.

    Letters of double width (Korean, Japanese) count twice; a long word is broken.
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    share = 1 + wide / max(len(text), 1)
    columns = max(8, int(inches * 72 / (0.58 * points * share)))
    return textwrap.fill(text, columns)
