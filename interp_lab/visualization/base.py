"""What every figure shares: a checked style and one way of saving.

A figure is a `matplotlib.figure.Figure` of its own. The global state of pyplot is never touched, so
figures can be drawn in any process, thread or notebook.
"""

import logging
import math
import numbers
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interp_lab import __version__
from interp_lab.errors import ConfigError, InterpLabError, did_you_mean
from interp_lab.visualization import fonts
from interp_lab.visualization.looks import LOOKS, NATURAL_POINTS, Look

log = logging.getLogger(__name__)

# pgf needs a TeX installation, raw and rgba have no header that a viewer could read.
FORMATS = sorted(set(FigureCanvasAgg.get_supported_filetypes()) - {"pgf", "raw", "rgba"})
MAX_PIXELS = 2**16 - 1  # a side, Agg's limit

PAPER_LOOK: dict[str, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "axes.formatter.useoffset": False,
    # A sample id may hold two dollar signs; it is not a formula.
    "text.parse_math": False,
    # Type 42 keeps letters as letters in PDF, which journals ask for; SVG must look alike anywhere.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    # The same figure gives the same bytes.
    "svg.hashsalt": "interp_lab",
}


# Shares of the font size, and points at a font size of 10.
LETTER_SIZES = {
    "axes.titlesize": 1.05,
    "axes.labelsize": 0.9,
    "xtick.labelsize": 0.85,
    "ytick.labelsize": 0.85,
}
LINE_SIZES = {
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
}


# The smallest letters there are on a tiny figure.
MIN_POINTS = 4.0
# What only a printed page has.
OF_PAPER = ("columns", "column_mm")


@runtime_checkable
class LaidOut(Protocol):
    """A figure that finds its layout by itself, before it is drawn.

    Of any other matplotlib draws the whole once more, for its layout alone.
    """

    def lay_out(self) -> None:
        """Place the panels; called once, before the figure is drawn."""
        ...


class NothingToDrawError(InterpLabError):
    """The result holds nothing of what a figure shows.

    Args:
        reason: why, for a reader of the log.
        absent: the name of a field, if it is that which is not there.
        held: the names of its kind that are.
    """

    def __init__(self, reason: str, absent: str = "", held: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.absent = absent
        self.held = tuple(held)


class FigureError(InterpLabError):
    """Some figures of a run could not be drawn."""


@dataclass(frozen=True)
class Page:
    """A figure's width and height in inches, and the size of its letters in points.

    `natural` is the width and height that its panels would choose.
    """

    width: float
    height: float
    points: float
    natural: tuple[float, float] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Style:
    """How figures look, which are drawn, and by how many processes.

    Args:
        style: screen | paper | slides, see `looks`. On paper and slides heading and caption are
            no part of the picture but lie beside it as text.
        name: figures go to figures/NAME and leave those of other names as they are; null = they
            lie in figures itself and replace the ones before.
        columns: of a page that a figure spans, 1 or 2; null = as many as its letters need.
        column_mm: [one column, both] in millimetres; null = 89 and 183.
        cmap: a colormap that matplotlib knows; null = the style's.
        figsize: [width, height] in inches of the box that figures fill or fit in; null = each
            figure's own size.
        dpi: pixels an inch.
        format: file format: png, pdf, svg and what else matplotlib writes.
        max_samples: how many samples get figures of their own, in data-set order; -1 = all.
        workers: processes that draw; 0 = this one.
        font: a font family to prefer, or the path of a font file; null = DejaVu Sans.
        font_size: in points; null = grows with the figure, so that a large one stays legible
            when it is printed small.

    Raises:
        ConfigError: for a value that could only fail later.
    """

    style: str = "screen"
    name: str | None = None
    columns: int | None = None
    column_mm: tuple[float, float] | None = None
    cmap: str | None = None
    figsize: tuple[float, float] | None = None
    dpi: int = 150
    format: str = "png"
    max_samples: int = 16
    workers: int = 1
    font: str | None = None
    font_size: float | None = None

    def __post_init__(self) -> None:
        self._check_word("style", LOOKS, f"give one of {', '.join(LOOKS)}.")
        self._check_columns()
        self._check_name()
        if self.cmap is not None:
            self._check_word("cmap", matplotlib.colormaps, "matplotlib has no such colormap.")
        self._check_word("format", FORMATS, f"give one of {', '.join(FORMATS)}.")
        self._check_number("dpi", 10, 4800, whole=True)
        self._check_number("max_samples", -1, math.inf, whole=True)
        self._check_number("workers", 0, 1024, whole=True)
        self._check_font("font")
        if self.font_size is not None:
            self._check_number("font_size", 2, 100)
        if self.figsize is not None:
            self._check_figsize()

    @property
    def colormap(self) -> str:
        """The colormap's name: the one that was given, else the style's."""
        return self.cmap or self.look.cmap

    @property
    def look(self) -> Look:
        """How figures are set, with the widths that were given."""
        look = LOOKS[self.style]
        if self.column_mm is None:
            return look
        return replace(look, widths=tuple(mm / 25.4 for mm in self.column_mm))

    def _check_columns(self) -> None:
        for key in OF_PAPER:
            if getattr(self, key) is not None and self.style != "paper":
                self.refuse(key, "has an effect with visualization.style=paper alone")
            if getattr(self, key) is not None and self.figsize is not None:
                self.refuse(key, "has no effect beside visualization.figsize; give one of them")
        if self.columns is not None and self.columns not in (1, 2):
            self.refuse("columns", "give 1, 2 or null")
        if self.column_mm is not None:
            self._check_pair("column_mm", "give [one column, both] in millimetres")
            one, both = self.column_mm
            if not 20 <= one <= both <= 1000:
                self.refuse("column_mm", "give two widths from 20 to 1000, the smaller one first")

    def _check_name(self) -> None:
        good = self.name is None or (
            isinstance(self.name, str) and re.fullmatch(r"\w[\w.\- ]{0,99}", self.name)
        )
        if not good:
            self.refuse("name", "give a folder's name: letters, digits, dots, dashes, underscores")

    def _check_figsize(self) -> None:
        self._check_pair("figsize", "give [width, height] in inches")
        for side in self.figsize or ():
            if not 1 <= side <= 200:
                self.refuse("figsize", "each side must be from 1 to 200 inches")
            if side * self.dpi > MAX_PIXELS:
                self.refuse(
                    "figsize",
                    f"with visualization.dpi={self.dpi} a side has {side * self.dpi:.0f} pixels, "
                    f"the most is {MAX_PIXELS}",
                )

    def refuse(self, key: str, why: str) -> None:
        """Raise the error for the value of `key`."""
        value = getattr(self, key)
        shown = list(value) if isinstance(value, tuple) else value
        raise ConfigError(f"visualization.{key}={shown!r}: {why}")

    def _check_word(self, key: str, known: Any, why: str) -> None:
        value = getattr(self, key)
        if not isinstance(value, str) or value not in known:
            near = did_you_mean(str(value), known, 1) or did_you_mean(str(value).lower(), known, 1)
            self.refuse(key, why + near)

    def _check_font(self, key: str) -> None:
        value = getattr(self, key)
        if value is None:
            return
        if not isinstance(value, str) or not fonts.is_file(value):
            fonts.default_chain()  # finds the fonts that lie in packages
            self._check_word(key, fonts.known_families(), "no such font family or file here.")
            return
        try:
            fonts.family_of_file(value)
        except OSError as error:
            self.refuse(
                key, f"{error.strerror or error}; give the path of a .ttf, .otf or .ttc file"
            )

    def _check_number(self, key: str, low: float, high: float, *, whole: bool = False) -> None:
        value: Any = getattr(self, key)
        kind = int if whole else (int, float)
        right_kind = isinstance(value, kind) and not isinstance(value, bool)
        if not right_kind or not low <= value <= high:
            span = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            self.refuse(key, f"give a {'whole ' if whole else ''}number {span}")

    def _check_pair(self, key: str, why: str) -> None:
        """Make a pair of numbers of the value, also of a list as YAML gives it."""
        values = getattr(self, key)
        is_sequence = isinstance(values, Sequence) and not isinstance(values, str)
        if not is_sequence or len(values) != 2:
            self.refuse(key, why)
        if not all(isinstance(v, numbers.Real) and math.isfinite(v) for v in values):
            self.refuse(key, why)
        object.__setattr__(self, key, tuple(float(v) for v in values))

    def page(self, natural: tuple[float, float], *, fill: bool = False) -> Page:
        """Return a figure's size and that of its letters.

        Args:
            natural: width and height in inches that its panels would choose.
            fill: its layout adapts to any box; else its proportions are kept within `figsize`.
        """
        look = self.look
        if self.figsize is None:
            width, height = look.size(natural, self.columns, fill=fill)
            return Page(width, height, self.font_size or look.points, natural)
        box = self.figsize
        scale = min(box[0] / natural[0], box[1] / natural[1])
        # On a page letters have the page's size, on a screen they grow with the figure.
        points = self.font_size or (
            max(MIN_POINTS, look.points * scale) if look.words else look.points
        )
        if fill:
            return Page(box[0], box[1], points, natural)
        return Page(natural[0] * scale, natural[1] * scale, points, natural)

    @contextmanager
    def context(self, base: float = NATURAL_POINTS) -> Iterator[None]:
        """Draw with this style; matplotlib's settings are as before afterwards.

        It starts from matplotlib's defaults, so that a figure looks the same on every machine.

        Args:
            base: the size of the letters in points; lines follow it.
        """
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            look: dict[Any, Any] = PAPER_LOOK | {
                key: share * base for key, share in LETTER_SIZES.items()
            }
            look |= {key: points * base / 10 for key, points in LINE_SIZES.items()}
            look |= {"font.family": fonts.chain(self.font), "font.size": base}
            look |= self.look.settings
            matplotlib.rcParams.update(look)
            yield


def save(figure: Figure, path: Path, style: Style, about: Mapping[str, str] | None = None) -> Path:
    """Write a figure, whole or not at all, and release it.

    Words that are no part of the picture (see `looks`) lie beside it, as NAME.txt; where they are
    part of it, such a file of before is removed.

    Args:
        figure: the figure; it is empty afterwards.
        path: where; its suffix decides the format. The folder is made.
        style: gives resolution and fonts.
        about: `title` and `description`, stored in the file where the format can.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".").lower()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with style.context(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(figure, LaidOut):
                figure.lay_out()
            figure.savefig(temporary, format=kind, dpi=style.dpi, metadata=_metadata(kind, about))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        # Not `clear`, which makes every panel anew before it is thrown away.
        for axes in list(figure.axes):
            figure.delaxes(axes)
    caption = "" if style.look.words else getattr(figure, "caption", "")
    beside = path.with_suffix(".txt")
    if caption:
        beside.write_text(f"{caption}\n", encoding="utf-8")
    else:
        beside.unlink(missing_ok=True)  # of a figure that had its words beside it before
    _pass_on(caught, path.name)
    return path


def _metadata(kind: str, about: Mapping[str, str] | None) -> dict[str, Any] | None:
    maker = f"interp_lab {__version__}"
    title, text = (about or {}).get("title", ""), (about or {}).get("description", "")
    known: dict[str, dict[str, Any]] = {
        "png": {"Software": maker, "Title": title, "Description": text},
        "pdf": {"Creator": maker, "Title": title, "Subject": text, "CreationDate": None},
        "svg": {"Creator": maker, "Title": title, "Description": text, "Date": None},
        "ps": {"Creator": maker},
    }
    known |= {"svgz": known["svg"], "eps": known["ps"]}
    return known.get(kind)


def _pass_on(caught: Sequence[warnings.WarningMessage], where: str) -> None:
    """Turn warnings that a reader can mend into log lines with the remedy; repeat the others."""
    messages = [str(warning.message) for warning in caught]
    characters = [fonts.missing_glyph(message) for message in messages]
    fonts.report_missing([c for c in characters if c], where)
    for warning, message, character in zip(caught, messages, characters, strict=True):
        if "layout not applied" in message:
            log.warning(
                "%s: too small for its labels: raise visualization.figsize or set "
                "visualization.font_size",
                where,
            )
        elif character is None:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
