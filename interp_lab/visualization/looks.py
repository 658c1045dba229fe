"""The ways in which a figure can be set: for a screen, for a printed page, for a slide.

On a screen a figure explains itself: its heading and how to read it are part of the picture. A
paper and a slide have a caption of their own, so there the words lie beside the file as text, the
width is that of a column, and letters have the size of the page's however wide the figure is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Letters on a screen, in points, at a figure's natural size.
NATURAL_POINTS = 10.5


@dataclass(frozen=True)
class Look:
    """One way of setting figures.

    Args:
        points: size of the letters.
        limits: the smallest and largest letters that may stand in the picture; None for any.
        widths: of a figure in inches, narrow first; none for its natural width.
        tallest: the greatest height in inches; None for any.
        squeezed: whether panels, too, are made as low as that; else only pictures are.
        words: whether heading and caption are part of the picture.
        cmap: the colormap of quantities that have no sign.
        settings: further settings of matplotlib.
    """

    points: float = NATURAL_POINTS
    limits: tuple[float, float] | None = None
    widths: tuple[float, ...] = ()
    tallest: float | None = None
    squeezed: bool = True
    words: bool = True
    cmap: str = "viridis"
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def size(
        self, natural: tuple[float, float], columns: int | None, *, fill: bool
    ) -> tuple[float, float]:
        """Return width and height in inches of a figure whose panels would choose `natural`.

        Args:
            natural: width and height in inches, at letters of `NATURAL_POINTS`.
            columns: how many columns of the page it spans; None = as many as its letters need.
            fill: its layout adapts to any box; else its proportions are kept.
        """
        if not self.widths:
            return natural
        letters = self.points / NATURAL_POINTS
        if columns is None:
            # A tenth is given away between panels before a figure asks for another column.
            enough = [w for w in self.widths if natural[0] * letters <= 1.1 * w]
            width = enough[0] if enough else self.widths[-1]
        else:
            width = self.widths[min(columns, len(self.widths)) - 1]
        share = width / natural[0]
        # Rows of letters keep their height where the figure becomes narrower than its letters do.
        height = natural[1] * (max(share, letters) if fill else share)
        bound = self.tallest is not None and (self.squeezed or not fill)
        if self.tallest is not None and bound and height > self.tallest:
            return (width if fill else width * self.tallest / height), self.tallest
        return width, height


MM = 1 / 25.4
# A page of two columns of 89 mm, 183 mm together and 247 mm high: the sizes of Nature's guide for
# final artwork (2024), near those of most journals. cividis (Nunez et al. 2018) is even in
# brightness, alike to colour-blind readers, and within what four inks can print.
LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "screen": Look(),
        "paper": Look(
            points=8.25,
            limits=(7.0, 9.0),
            widths=(89 * MM, 183 * MM),
            tallest=247 * MM,
            words=False,
            cmap="cividis",
            settings=MappingProxyType({"svg.fonttype": "none"}),
        ),
        # A slide of 13.33 by 7.5 inches, less its margins and its title. A figure of many rows is
        # higher than a slide: squeezed into one, its letters would lie on each other.
        "slides": Look(
            points=16, limits=(13, 20), widths=(12.2,), tallest=6.0, squeezed=False, words=False
        ),
    }
)
