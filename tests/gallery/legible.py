"""Whether every letter of a drawn figure can be read: measured on what matplotlib has drawn.

A text is looked at when it is drawn, so that what only exists (ticks outside the view) does not
count. Tolerances: a pixel at the border, and an overlap of a tenth of the smaller text's box, since
boxes hold some air above and below their letters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

BORDER = 1.0  # pixels
SHARE = 0.1  # of the smaller box


# x0, y0, x1, y1 in pixels.
Box = tuple[float, float, float, float]


@dataclass
class Drawn:
    """The texts of one saved figure, as they were drawn last: words, box, and whether slanted.

    A figure is drawn twice where its layout is found by drawing.
    """

    name: str
    size: tuple[float, float]
    texts: dict[int, tuple[str, Box, bool]] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The texts, in the order in which they were first drawn."""
        return [text for text, _, _ in self.texts.values()]

    def cut_off(self) -> list[str]:
        """Return the texts that leave the figure."""
        width, height = self.size
        return [
            word
            for word, (x0, y0, x1, y1), _ in self.texts.values()
            if min(x0, y0) < -BORDER or x1 > width + BORDER or y1 > height + BORDER
        ]

    def overlapping(self) -> list[tuple[str, str]]:
        """Return pairs of texts that lie on each other; slanted ones, whose boxes do, apart."""
        words, boxes = self.words, np.array([b for _, b, _ in self.texts.values()], float)
        boxes = boxes.reshape(-1, 4)
        low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        common = np.clip(high - low, 0, None).prod(axis=-1)
        area = np.clip((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1), 1, None)
        shares = common / np.minimum(area[:, None], area[None])
        straight = ~np.array([slanted for _, _, slanted in self.texts.values()], bool)
        shares *= straight[:, None] & straight[None]
        first, second = np.nonzero(np.triu(shares, 1) > SHARE)
        return [(words[a], words[b]) for a, b in zip(first, second, strict=True)]

    def faults(self) -> list[str]:
        """Return one line for each text that cannot be read."""
        lines = [f"{self.name}: {word!r} is cut off" for word in self.cut_off()]
        return lines + [f"{self.name}: {a!r} lies on {b!r}" for a, b in self.overlapping()]


@contextmanager
def watching() -> Iterator[list[Drawn]]:
    """Give the texts of every figure that is saved inside the block."""
    saved: list[Drawn] = []
    open_now: list[Drawn] = []
    real_save, real_draw = Figure.savefig, Text.draw

    def savefig(self: Figure, fname: Any, **options: Any) -> None:
        pixels = self.get_size_inches() * float(options.get("dpi") or self.dpi)
        name = Path(fname).name.removeprefix(".").partition(".")[0]
        open_now.append(Drawn(name, (float(pixels[0]), float(pixels[1]))))
        try:
            real_save(self, fname, **options)
        finally:
            saved.append(open_now.pop())

    def draw(self: Text, renderer: Any) -> None:
        real_draw(self, renderer)
        if not open_now or not self.get_visible() or not self.get_text().strip():
            return
        box = self.get_window_extent(renderer)
        slanted = self.get_rotation() % 90 != 0
        bounds = (box.x0, box.y0, box.x1, box.y1)
        open_now[-1].texts[id(self)] = (self.get_text(), bounds, slanted)

    Figure.savefig, Text.draw = savefig, draw  # type: ignore[method-assign]
    try:
        yield saved
    finally:
        Figure.savefig, Text.draw = real_save, real_draw  # type: ignore[method-assign]
