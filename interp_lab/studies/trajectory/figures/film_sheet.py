"""The sheet of a film's frames: heading, the places of text and images, legend, changing numbers.

All sizes are shares of the frame's width, so a film looks the same at any size. What stays the same
is drawn once, into `blank`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_lab.studies.trajectory.figures.answers import Trajectory, TrajectoryStyle
from interp_lab.studies.trajectory.figures.film_colors import Scale, mixed
from interp_lab.studies.trajectory.figures.film_images import Slot, marker_sprite
from interp_lab.studies.trajectory.figures.film_letters import Letters
from interp_lab.studies.trajectory.figures.film_text import IMAGE_GROUND, TEXT_STRENGTH
from interp_lab.studies.trajectory.figures.standout import hint_beside

# Pixels at this width; everything grows with it.
BASE_WIDTH = 1280
MARGIN, HEADER, FOOTER, TITLES = 28, 86, 82, 46
TEXT_SHARE = 0.53  # of the width, where there are images beside the text
BLACK, GRAY, RED, RULE = (20, 20, 20), (96, 96, 96), (192, 0, 0), (214, 216, 220)


@dataclass(frozen=True)
class Room:
    """A rectangle of the frame in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, frame: np.ndarray) -> np.ndarray:
        """Return the room's pixels, as a view."""
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]


class FilmSheet:
    """The frame around text and images.

    Args:
        of: whose film it is.
        style: gives width, colours, fonts.
        scale: what the legend explains.

    Attributes:
        blank: (height, width, 3) uint8, a frame without text, images and numbers.
        text_room, image_room: where these go; image_room is None without images.
    """

    def __init__(self, of: Trajectory, style: TrajectoryStyle, scale: Scale) -> None:
        self.of, self.style, self.scale = of, style, scale
        self.width = style.width
        self.height = round(style.width * 9 / 16 / 2) * 2
        self._large, self._plain, self._small = map(self.letters_of, (21, 13, 11))
        self._hint = hint_beside(of.results, of.layer, of.heads)
        both = bool(self._hint and of.results.notes)
        self._header = self.pixels(HEADER) + both * (self._plain.height + self.pixels(2))
        self.text_room, self.image_room = self._rooms()
        self.blank = np.full((self.height, self.width, 3), 255, dtype=np.uint8)
        self._draw_heading()
        self._draw_legend()

    def pixels(self, size: float) -> int:
        """Return a length at the base width in this film's pixels."""
        return round(size * self.width / BASE_WIDTH)

    def letters_of(self, size: float, font: str | None = None) -> Letters:
        """Return letters of a height at the base width, of the style's font unless one is given."""
        return Letters(font or self.style.font, max(6, self.pixels(size)))

    def write(
        self,
        out: np.ndarray,
        text: str,
        left: int,
        top: int,
        *,
        letters: Letters | None = None,
        color: tuple[int, int, int] = GRAY,
        room: int | None = None,
        right: bool = False,
    ) -> int:
        """Write a line of text; return its width.

        Args:
            out: the frame.
            text: what.
            left, top: where it begins in pixels; with `right`, `left` is where it ends.
            letters: which; None = plain ones.
            color: of the letters.
            room: the most pixels it may take; the rest is cut.
            right: whether it ends at `left`.
        """
        letters = letters or self._plain
        text = "".join(c if c.isprintable() else " " for c in text)
        mask = letters.mask(letters.shortened(text, room) if room else text)
        begin = max(0, left - mask.shape[1] if right else left)
        part = out[top : top + mask.shape[0], begin : begin + mask.shape[1]]
        cover = mask[: part.shape[0], : part.shape[1], None] / 255
        part[...] = np.rint(part * (1 - cover) + np.array(color) * cover)
        return mask.shape[1]

    def count(self, out: np.ndarray, step: int, token: str) -> None:
        """Write which frame it is and which token is being written."""
        right, top = self.width - self.pixels(MARGIN), self.pixels(16)
        self.write(
            out,
            f"frame {step + 1} of {self.of.n_frames}",
            right,
            top,
            letters=self._large,
            color=BLACK,
            right=True,
        )
        does = "is the query" if self.of.ahead else "is being written"
        told = f"step {step}: “{token}” {does} · {self.style.fps:g} frames a second"
        self.write(
            out,
            told,
            right,
            top + self._large.height + self.pixels(4),
            room=self.pixels(460),
            right=True,
        )

    def tell_text(self, out: np.ndarray, shares: str, weights: np.ndarray) -> None:
        """Write the shares of text in a row, and what its colours span."""
        self._tell(out, self.text_room, shares, weights, "a token")

    def tell_image(self, out: np.ndarray, shares: str, weights: np.ndarray) -> None:
        """Write the share of images in a row, and what the cells' colours span."""
        assert self.image_room is not None
        self._tell(out, self.image_room, shares, weights, "a cell")

    def note_images(self, slots: Sequence[Slot], pictures: Sequence[np.ndarray | None]) -> None:
        """Say below the images where they are not what they seem."""
        assert self.image_room is not None
        said = []
        if any(slot.stretched for slot in slots):
            said.append("a long picture is stretched")
        if any(picture is None for picture in pictures):
            said.append("pictures were not kept: cells only")
        room = self.image_room
        top = room.top + room.height + self.pixels(3)
        self.write(self.blank, " · ".join(said), room.left, top, room=room.width)

    def _tell(
        self, out: np.ndarray, room: Room, shares: str, weights: np.ndarray, each: str
    ) -> None:
        span = f"{weights.min():.2g} to {weights.max():.2g} {each}" if weights.size else ""
        top = room.top - self._plain.height - self.pixels(6)
        text = " · ".join(part for part in (shares, span) if part)
        self.write(out, text, room.left, top, room=room.width)

    def _rooms(self) -> tuple[Room, Room | None]:
        margin = self.pixels(MARGIN)
        top = self._header + self.pixels(TITLES)
        height = self.height - top - self.pixels(FOOTER) - self.pixels(8)
        whole = self.width - 2 * margin
        if not self.of.tokens.grids:
            return Room(margin, top, whole, height), None
        text = round(whole * TEXT_SHARE) - margin // 2
        left = margin + text + margin
        below = self.pixels(20)
        return (
            Room(margin, top, text, height),
            Room(left, top, self.width - margin - left, height - below),
        )

    def _draw_heading(self) -> None:
        of, margin, top = self.of, self.pixels(MARGIN), self.pixels(16)
        left_room = self.width - 2 * margin - self.pixels(480)
        self.write(
            self.blank, of.sample, margin, top, letters=self._large, color=BLACK, room=left_room
        )
        known = of.results.attributes
        words = [f"layer {of.layer}", of.heads]
        words += [str(known[key]) for key in ("model", "dataset") if known.get(key)]
        top += self._large.height + self.pixels(4)
        self.write(self.blank, " · ".join(words), margin, top, room=left_room)
        notes = "; ".join(note[:1].upper() + note[1:] for note in of.results.notes)
        if notes:
            top += self._plain.height + self.pixels(2)
            self.write(self.blank, notes, margin, top, color=RED, room=self.width - 2 * margin)
        if self._hint:
            top += self._plain.height + self.pixels(2)
            self.write(self.blank, self._hint, margin, top, room=self.width - 2 * margin)
        self._rule(self._header)
        self._draw_titles()

    def _draw_titles(self) -> None:
        top = self._header + self.pixels(6)
        titles = [(self.text_room, f"Text {self.of.note}")]
        if self.image_room is not None:
            n = len(self.of.tokens.grids)
            titles.append((self.image_room, "Image" if n == 1 else f"{n} images, one scale"))
        for room, title in titles:
            self.write(self.blank, title, room.left, top, color=BLACK, room=room.width)

    def _draw_legend(self) -> None:
        top = self.height - self.pixels(FOOTER)
        self._rule(top)
        top += self.pixels(12)
        high, gap, x = self._plain.height, self.pixels(8), self.pixels(MARGIN)
        x = self._draw_colors(x, top) + 3 * gap
        kinds = dict.fromkeys(marker.kind for marker in self.of.markers)
        of_query = self.of.ahead > 0
        entries = [("current", "token whose row it is" if of_query else "token being written")]
        entries += [("image", "image tokens")] if self.of.tokens.grids else []
        for kind, words in [*entries, *((kind, f"{kind} point") for kind in kinds)]:
            x += self._draw_sign(kind, x, top) + gap
            x += self.write(self.blank, words, x, top) + 3 * gap
        top += high + self.pixels(5)
        for line in self.guide():
            room = self.width - 2 * self.pixels(MARGIN)
            self.write(self.blank, line, self.pixels(MARGIN), top, letters=self._small, room=room)
            top += self._small.height

    def _draw_colors(self, x: int, top: int) -> int:
        """Draw the colours on white, from `x` on, with the attention they are of; return the end.

        Where every row has a scale of its own there is no number to give.
        """
        high, gap, length = self._plain.height, self.pixels(8), self.pixels(150)
        highest = self.scale.top
        x += self.write(self.blank, "low" if highest is None else "0", x, top) + gap
        colors, covers = self.scale.ink(np.linspace(0, 1, length), TEXT_STRENGTH)
        self.blank[top : top + high, x : x + length] = mixed(colors, 255, covers[:, None])
        self._outline(top, x, high, length)
        x += length + gap
        words = (
            "high attention"
            if highest is None
            else f"attention {highest:.2g}{self._beyond(highest)}"
        )
        return x + self.write(self.blank, words, x, top)

    def _outline(self, top: int, left: int, height: int, width: int) -> None:
        """Draw a thin frame, without which colours that begin at white have no beginning."""
        part = self.blank[top : top + height, left : left + width]
        part[[0, -1]] = part[:, [0, -1]] = RULE

    def guide(self) -> tuple[str, str]:
        """Return two lines that say what the colours are."""
        style, top = self.style, self.scale.top
        power = f"raised to the power {style.gamma:g}" if style.gamma != 1 else ""
        if top is None:
            over = "the whole row" if style.stretch == "row" else "the shown tokens"
            told = f"Colours: min–max scaled in each row, text over {over}, cells over cells"
        else:
            whose = f"the largest on {self._whose()} in all frames"
            whose = "as it was set" if style.scale_top is not None else whose
            told = f"Colours: one scale for tokens and cells of all frames, 0 to {top:.2g}, {whose}"
        told += f", {power}." if power else "."
        covers = f"{style.overlay_alpha:.0%}"
        share = f"0% to {covers}, more with more attention" if self.scale.grows else covers
        below = f"Of a picture they cover {share}."
        if top is not None and self.of.tokens.grids:
            below += " Framed: cells of at least half of the scale."
        return told, f"{below} Attention alone does not show that the model uses what it looks at."

    def _beyond(self, top: float) -> str:
        return " or more" if max(self.of.largest) > top else ""

    def _whose(self) -> str:
        return "one image cell" if self.of.tokens.grids else "one shown token"

    def _draw_sign(self, kind: str, left: int, top: int) -> int:
        """Draw what the legend explains; return its width."""
        side = self._plain.height
        part = self.blank[top : top + side, left : left + side]
        if kind in ("current", "image"):
            part[...] = self.style.current_ground if kind == "current" else IMAGE_GROUND
            return side
        sprite = marker_sprite(kind, side if side % 2 else side - 1)
        part = part[: len(sprite), : len(sprite)]
        cover = sprite[..., 3:] / 255
        part[...] = np.rint(part * (1 - cover) + sprite[..., :3] * cover)
        return side

    def _rule(self, top: int) -> None:
        margin = self.pixels(MARGIN)
        self.blank[top : top + max(1, self.pixels(1)), margin : self.width - margin] = RULE
