"""The text panel of a film: tokens in wrapped lines, coloured by attention, scrolling as they grow.

Where each token stands is decided once, for all tokens that will ever be there; a frame only fills
colours and shows what is written so far. Letters are drawn a line at a time, when it is first seen.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from interp_lab.studies.trajectory.figures.film_colors import mixed
from interp_lab.studies.trajectory.figures.film_letters import Letters
from interp_lab.tokens import Token

# How much of a token's ground is its colour; the rest is white, so that black letters stay legible.
TEXT_STRENGTH = 0.55
INK, PAPER = 20, 255
# The ground of the token that a frame is about: blue, and dark where blue is attention.
CURRENT = np.array([28, 88, 214], dtype=np.uint8)
DARK = np.array([32, 32, 32], dtype=np.uint8)
CURRENT_INK = 255
IMAGE_GROUND = np.array([226, 228, 232], dtype=np.uint8)
SPECIAL = re.compile(r"<\|(.+)\|>|(</?s>|<pad>|<unk>|<bos>|<eos>)")
MARKS = {"\t": "⇥", "\r": "", "\n": "↵"}
LINES_KEPT = 128


@dataclass(frozen=True)
class Chip:
    """A stretch of text with one ground: a token, or all tokens of one image.

    Args:
        first, end: half-open range of positions.
        text: as it is written.
        kind: text, special, image.
        breaks: whether the line ends behind it.
    """

    first: int
    end: int
    text: str
    kind: str = "text"
    breaks: bool = False


@dataclass(frozen=True)
class Box:
    """Where a chip, or a part of a long one, stands: columns [left, right) of its line."""

    chip: Chip
    text: str
    left: int
    right: int


def chips_of(tokens: Sequence[Token], start: int) -> Iterator[Chip]:
    """Yield what is written for the tokens from `start` on; an image's tokens are one chip."""
    position = start
    while position < len(tokens):
        token = tokens[position]
        end = position + 1
        if token.image is not None:
            while end < len(tokens) and tokens[end].image == token.image:
                end += 1
            n = end - position
            text = f"image {token.image + 1}: {n} token{'s' * (n != 1)}"
            yield Chip(position, end, text, "image")
        else:
            yield from _chips_of_text(token, position)
        position = end


def _chips_of_text(token: Token, position: int) -> Iterator[Chip]:
    text = unicodedata.normalize("NFC", token.text)
    special = SPECIAL.fullmatch(text.strip())
    if special or token.role == "special":
        label = (special[1] or special[2]) if special else text.strip()
        yield Chip(position, position + 1, label or "∅", "special")
        return
    # A token may hold several ends of line, and letters between them.
    for part in re.findall(r"[^\n]*\n+|[^\n]+", text) or ["∅"]:
        shown = "".join(
            MARKS.get(c, c if c.isprintable() or c in "\u200d\ufe0f" else "�") for c in part
        )
        yield Chip(position, position + 1, shown, "text", part.endswith("\n"))


class TextPanel:
    """Tokens in lines.

    Args:
        tokens: of the prompt, then the generated ones.
        start: the first one that is shown.
        size: (height, width) in pixels.
        letters: of text; small: of special tokens and images.
        ground: of the token that is being written, (3,) uint8.
    """

    def __init__(
        self,
        tokens: Sequence[Token],
        start: int,
        size: tuple[int, int],
        letters: Letters,
        small: Letters,
        ground: np.ndarray = CURRENT,
    ) -> None:
        self.height, self.width = size
        self.letters, self.small, self.current_ground = letters, small, ground
        self.line_height = round(letters.height * 1.32)
        self.n_visible = max(1, self.height // self.line_height)
        self.lines = self._laid_out(chips_of(tokens, start))
        self.line_of = {
            box.chip.end - 1: line for line, boxes in enumerate(self.lines) for box in boxes
        }
        self._raster = lru_cache(LINES_KEPT)(self._draw_line)

    def window(self, current: int) -> range:
        """Return the lines in view when the token `current` is being written."""
        last = self.line_of.get(current, 0)
        first = max(0, last + 1 - self.n_visible)
        return range(first, min(len(self.lines), first + self.n_visible))

    def place(self, position: int, current: int) -> tuple[int, int, int, int] | None:
        """Return (top, bottom, left, right) of a token's first part in view, or None."""
        window = self.window(current)
        for row, line in enumerate(window):
            for box in self.lines[line]:
                if box.chip.first <= position < box.chip.end:
                    top, bottom = self._band(row)
                    return top, bottom, box.left, box.right
        return None

    def draw(
        self,
        out: np.ndarray,
        colors: np.ndarray,
        strengths: np.ndarray,
        first: int,
        current: int,
    ) -> None:
        """Draw the panel.

        Args:
            out: (height, width, 3) uint8; filled.
            colors: (n, 3) uint8, the colour of each position from `first` to `current`.
            strengths: (n,) how much of each ground is its colour, 0 to 1; the rest is white.
            first: the position of the first colour.
            current: the token that is being written; later ones are not drawn.
        """
        out[...] = PAPER
        grounds = mixed(colors, PAPER, strengths[:, None])
        for row, line in enumerate(self.window(current)):
            top, bottom = self._band(row)
            ink = np.full((self.width, 1), INK, dtype=np.uint16)
            end = 0
            for box in self.lines[line]:
                if box.chip.first > current:
                    break
                ground = grounds[box.chip.first - first]
                if box.chip.kind == "image":
                    ground = IMAGE_GROUND
                elif box.chip.first == current:
                    ground = self.current_ground
                    ink[box.left : box.right] = CURRENT_INK
                out[top:bottom, box.left : box.right] = ground
                end = box.right
            y = row * self.line_height
            band = out[y : y + self.line_height, :end]
            mask = self._raster(line)[: len(band), :end, None]
            blended = band * (255 - mask) + ink[:end] * mask
            band[...] = (blended + 127) // 255

    def _band(self, row: int) -> tuple[int, int]:
        gap = max(1, round(self.line_height * 0.06))
        return row * self.line_height + gap, (row + 1) * self.line_height - gap

    def _draw_line(self, line: int) -> np.ndarray:
        """Return the coverage of a line's letters and frames, (line_height, width) uint16."""
        image = Image.new("L", (self.width, self.line_height))
        draw = ImageDraw.Draw(image)
        baseline = (self.line_height - self.letters.height) // 2 + self.letters.ascent
        top, bottom = self._band(0)
        for box in self.lines[line]:
            letters = self._letters_of(box.chip)
            if box.chip.kind != "text":
                draw.rectangle((box.left, top, box.right - 1, bottom - 1), outline=150)
            letters.draw(image, box.left + self._pad(box.chip), baseline, box.text)
        return np.asarray(image).astype(np.uint16)

    def _letters_of(self, chip: Chip) -> Letters:
        return self.letters if chip.kind == "text" else self.small

    def _pad(self, chip: Chip) -> int:
        """Return the pixels that a chip's ground has on either side of its letters."""
        share = 0.06 if chip.kind == "text" else 0.3
        return max(1, round(self.letters.height * share))

    def _laid_out(self, chips: Iterator[Chip]) -> list[list[Box]]:
        """Return the boxes of each line; a chip wider than a line is broken between letters."""
        gap = max(1, round(self.letters.height * 0.06))
        lines: list[list[Box]] = [[]]
        x = 0
        for chip in chips:
            letters, pad = self._letters_of(chip), self._pad(chip)
            rest = chip.text
            while rest:
                width = letters.width(rest) + 2 * pad
                if x and x + width > self.width:
                    lines.append([])
                    x = 0
                n = letters.fitting(rest, self.width - 2 * pad) if width > self.width else len(rest)
                right = x + min(letters.width(rest[:n]) + 2 * pad, self.width)
                lines[-1].append(Box(chip, rest[:n], x, right))
                rest, x = rest[n:], right + gap
            if chip.breaks:
                lines.append([])
                x = 0
        return lines


def first_shown(tokens: Sequence[Token], prompt: str, phrase: str | None) -> int | None:
    """Return the position of the token in which a phrase begins where it occurs last.

    Args:
        tokens: of the prompt, then the generated ones.
        prompt: the rendered text that the prompt tokens' characters count in.
        phrase: what to look for in the prompt and the output that follows; None = the beginning.

    Returns:
        The position, or None if the phrase does not occur.
    """
    if not phrase:
        return 0
    text, ends = prompt, []
    for position, token in enumerate(tokens):
        if token.role == "generated":
            text += token.text
            ends.append((len(text), position))
        elif token.chars is not None:
            ends.append((token.chars[1], position))
    place = text.rfind(phrase)
    if place < 0:
        return None
    return next(position for end, position in ends if end > place)
