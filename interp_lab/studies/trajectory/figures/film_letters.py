"""Letters as masks of pixels: each character by the first font of the chain that has it.

matplotlib would lay out a whole figure for each frame; a film draws its letters once.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from interp_lab.visualization import fonts


@cache
def _font_files(family: str | None) -> tuple[tuple[str, frozenset[int]], ...]:
    """Return the files of the chain's fonts, with the characters that each has."""
    paths = [font_manager.findfont(name) for name in fonts.chain(family)]
    return tuple((path, frozenset(FT2Font(path).get_charmap())) for path in paths)


class Letters:
    """Letters of one size.

    Args:
        family: a font family to prefer, or a font file; None = the default chain.
        size: height of the letters in pixels.

    Attributes:
        size: as given.
        ascent, descent: pixels above and below the baseline.
        missing: characters asked for that no font has.
    """

    def __init__(self, family: str | None, size: int) -> None:
        self.size = size
        files = _font_files(family)
        self._fonts = [(ImageFont.truetype(path, size), known) for path, known in files]
        metrics = [font.getmetrics() for font, _ in self._fonts]
        self.ascent, self.descent = metrics[0]
        self.missing: set[str] = set()

    @property
    def height(self) -> int:
        """Pixels from the highest to the lowest part of a letter."""
        return self.ascent + self.descent

    def width(self, text: str) -> int:
        """Return how many pixels wide a text is."""
        return int(np.ceil(sum(font.getlength(part) for font, part in self._runs(text))))

    def draw(self, image: Image.Image, x: float, baseline: float, text: str) -> None:
        """Draw a text into a picture of mode L, in white."""
        draw = ImageDraw.Draw(image)
        for font, part in self._runs(text):
            draw.text((x, baseline), part, font=font, fill=255, anchor="ls")
            x += font.getlength(part)

    def mask(self, text: str) -> np.ndarray:
        """Return a text as coverage 0 to 255, (height, width) uint8."""
        image = Image.new("L", (max(1, self.width(text)), self.height))
        self.draw(image, 0, self.ascent, text)
        return np.asarray(image)

    def shortened(self, text: str, width: int) -> str:
        """Return a text, its end replaced by an ellipsis if it is wider than `width` pixels."""
        if self.width(text) <= width:
            return text
        while text and self.width(f"{text}…") > width:
            text = text[:-1]
        return f"{text}…"

    def fitting(self, text: str, width: int) -> int:
        """Return how many characters of a text fit in a width, at least one."""
        n = len(text)
        while n > 1 and self.width(text[:n]) > width:
            n = n - 1 if n < 16 else n * 7 // 8
        return n

    def _runs(self, text: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
        """Divide a text into stretches that one font can draw."""
        held: ImageFont.FreeTypeFont | None = None
        part = ""
        for character in text:
            font = self._font_of(character)
            if font is not held and held is not None:
                yield held, part
                part = ""
            held, part = font, part + character
        if held is not None:
            yield held, part

    def _font_of(self, character: str) -> ImageFont.FreeTypeFont:
        for font, known in self._fonts:
            if ord(character) in known:
                return font
        self.missing.add(character)
        return self._fonts[0][0]
