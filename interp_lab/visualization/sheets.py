"""The sheet that panels are drawn on: size, heading, notes, and what to know when reading it.

Heading and foot have a fixed place above and below; the panels' layout keeps clear of both.
"""

import textwrap
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from interp_lab.libraries.matplotlib_inside import titles_of
from interp_lab.visualization.base import Page, Style
from interp_lab.visualization.looks import NATURAL_POINTS

# Of the sheet, as a share of the letters.
MARGIN = 0.6

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


@dataclass(frozen=True)
class Line:
    """Words of a heading: their size as a share of the letters', and how they look."""

    text: str
    share: float
    look: dict[str, Any]

    def lines(self, width: float, points: float) -> str:
        """Return the words, broken to fit `width` inches at letters of `points`."""
        return wrap(self.text, width - 2 * MARGIN * points / 72, points * self.share)

    def height(self, width: float, points: float) -> float:
        """Return the height of the broken words in inches."""
        if not self.text:
            return 0.0
        return (self.lines(width, points).count("\n") + 1) * points * self.share * 1.4 / 72


class Sheet(Figure):
    """A figure that draws itself in its own style, wherever it is shown.

    matplotlib makes tick labels when it draws, with the settings of that moment.

    Attributes:
        caption: the words that are no part of the picture, as one text; see `looks`.
    """

    def __init__(self, style: Style, page: Page, caption: str = "") -> None:
        super().__init__(figsize=(page.width, page.height), dpi=style.dpi)
        FigureCanvasAgg(self)
        self._style = style
        self._points = page.points
        self.caption = caption

    def draw(self, renderer: RendererBase) -> None:
        """Draw with the style's letters and lines."""
        with self._style.context(self._points):
            self._keep_letters_legible()
            super().draw(renderer)

    def lay_out(self) -> None:
        """Place the panels within the words, once; see `base.LaidOut`."""
        engine = self.get_layout_engine()
        if engine is None:
            return
        with self._style.context(self._points):
            self._keep_letters_legible()
            for axes in self.axes:
                axes.apply_aspect()
            engine.execute(self)
            if not self._style.look.words and self._break_wide_titles():
                engine.execute(self)
        self.set_layout_engine("none")

    def _break_wide_titles(self) -> bool:
        """Break titles and labels that are wider than their panel; return whether there were any.

        A column's letters are as large as in a wide figure, its panels are not.
        """
        found = False
        for axes in self.axes:
            # Half of the gap to the next panel may be used as well.
            width = axes.get_position().width * self.get_size_inches()[0] * 1.1
            for text in (*titles_of(axes), axes.xaxis.label):
                lines = text.get_text().split("\n")
                broken = "\n".join(wrap(line, width, float(text.get_fontsize())) for line in lines)
                found = found or broken != text.get_text()
                text.set_text(broken)
        return found

    def _keep_letters_legible(self) -> None:
        limits = self._style.look.limits
        if limits is not None and self._style.font_size is None:
            for text in self.findobj(Text):
                text.set_fontsize(min(max(text.get_fontsize(), limits[0]), limits[1]))


def sheet(style: Style, page: Page, heading: Heading) -> Sheet:
    """Return an empty figure with its heading; the panels' layout keeps clear of it.

    Call it, and add panels, within `style.context(page.points)`.

    Args:
        style: gives fonts, resolution, and whether the words are part of the picture.
        page: the sizes.
        heading: its lines are wrapped to the width.
    """
    above, below = _lines(heading), Line(heading.foot, 0.8, {"color": "0.3"})
    caption = ""
    if not style.look.words:
        caption = caption_of(heading)
        page, above, below = _without_words(page, above, below)
    figure = Sheet(style, page, caption)
    width, height, base = page.width, page.height, page.points
    margin = MARGIN * base / 72
    top = bottom = margin
    for line in above:
        _write(figure, line, page, 1 - top / height, "top")
        top += line.height(width, base)
    if below.text:
        _write(figure, below, page, bottom / height, "bottom")
        bottom += below.height(width, base)
    # Panels have small titles and labels of their own, which would stick to these words.
    air = base / 72
    top, bottom = top + 0.5 * air * bool(above), bottom + 0.4 * air * bool(below.text)
    gap = 0.35 * base / 72
    rect = (0, bottom / height, 1, 1 - (top + bottom) / height)
    figure.set_layout_engine(
        "constrained", rect=rect, w_pad=2 * gap, h_pad=gap, wspace=0.02, hspace=0.02
    )
    return figure


def caption_of(heading: Heading) -> str:
    """Return what stands above and below a figure as one text, ready to be a caption."""
    about = heading.subtitle.replace(" · ", ", ")
    title = f"{heading.title} ({about})" if about else heading.title
    parts = (title, *heading.notes, heading.foot)
    sentences = (" ".join(part.split()).rstrip(".") for part in parts if part.strip())
    return "".join(f"{s[:1].upper()}{s[1:]}. " for s in sentences).strip()


def is_loud(note: str) -> bool:
    """Return whether a note says that the numbers must not be used, as RANDOM WEIGHTS: does.

    Such a note stays in every picture, for pictures travel without their captions.
    """
    return note.partition(":")[0].split(";")[0].isupper()


def _lines(heading: Heading) -> list[Line]:
    # No bold letters: fonts for Korean and Japanese often have none.
    lines = [Line(heading.title, 1.4, {})]
    lines += [Line(heading.subtitle, 0.95, {"color": "0.3"})] if heading.subtitle else []
    return lines + [Line(n[:1].upper() + n[1:], 1.05, NOTE_LOOK) for n in heading.notes]


def _without_words(page: Page, above: list[Line], below: Line) -> tuple[Page, list[Line], Line]:
    """Leave out all but loud notes, and the height that the others would take."""
    kept = [line for line in above if line.look is NOTE_LOOK and is_loud(line.text)]
    natural = page.natural or (page.width, page.height)
    left = [line for line in [*above, below] if line not in kept]
    freed = sum(line.height(natural[0], NATURAL_POINTS) for line in left)
    share = max(0.5, 1 - freed / natural[1])
    return replace(page, height=page.height * share), kept, Line("", 1, {})


def _write(figure: Figure, line: Line, page: Page, y: float, anchor: str) -> None:
    figure.text(
        MARGIN * page.points / 72 / page.width,
        y,
        line.lines(page.width, page.points),
        va=anchor,
        fontsize=page.points * line.share,
        linespacing=1.25,
        **line.look,
    )


def wrap(text: str, inches: float, points: float) -> str:
    """Break a text into lines that fit a width, by the usual width of letters at a font size.

    Letters of double width (Korean, Japanese) count twice; a long word is broken.
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    share = 1 + wide / max(len(text), 1)
    columns = max(8, int(inches * 72 / (0.58 * points * share)))
    return textwrap.fill(text, columns)
