"""The film of an answer: what each generated token attends to, in the text and on the images.

Frame t shows the row of attention of the query that predicts generated token t, or, with `mark:
query`, the row of token t itself. One scale of colours holds for tokens and cells of all frames
(`stretch: video`). With `shown` and `row` each row is min-max scaled over the tokens that are
shown, or over all of it, and over all cells of all images.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from interp_lab.errors import ConfigError
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import (
    Trajectory,
    TrajectoryStyle,
    read_trajectory,
)
from interp_lab.studies.trajectory.figures.film_colors import Scale
from interp_lab.studies.trajectory.figures.film_images import CellImage, arranged, grayed
from interp_lab.studies.trajectory.figures.film_sheet import FilmSheet
from interp_lab.studies.trajectory.figures.film_text import TEXT_STRENGTH, TextPanel
from interp_lab.visualization import fonts
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.film import Film
from interp_lab.visualization.reading import shown

# Heights of letters to choose from, and those of special tokens as a share of them.
TEXT_SIZES = (22, 19, 17, 15)
SMALL = 0.75
# Pixels of a cell of a picture that was not kept.
BLANK_CELL = 28


def attention_video(results: Results, style: TrajectoryStyle, sample: str, layer: int) -> Film:
    """Return the film of one sample and layer, a frame a generated token (`mark: query`: less one).

    Args:
        results: an open result; it stays open until the film is saved.
        style: how.
        sample: its id.
        layer: number in the model.

    Raises:
        NothingToDrawError: if the sample holds no rows or no generated token.
        ConfigError: if it does not hold the layer or the head.
    """
    shot = Shot(read_trajectory(results, style, sample, layer), style)
    return Film(shot.frames, shot.of.n_frames, style.fps)


def attention_poster(
    results: Results, style: TrajectoryStyle, sample: str, layer: int, *, step: int | None = None
) -> Film:
    """Return one frame of the film.

    Args:
        results, style, sample, layer: as for `attention_video`.
        step: which generated token, from 0; negative ones count from the end; None = the one with
            the highest share of attention on the images, the last one without images.

    Raises:
        ConfigError: if there is no such step.
    """
    shot = Shot(read_trajectory(results, style, sample, layer), style)
    n = shot.of.n_frames
    if step is None:
        step = shot.most_seeing()
    if not -n <= step < n:
        raise ConfigError(f"step={step}: sample {sample!r} has steps 0 to {n - 1}")
    return Film(partial(shot.frames, step % n, step % n + 1), 1, style.fps)


class Shot:
    """Everything of a film that does not change from frame to frame, and how a frame is drawn."""

    def __init__(self, of: Trajectory, style: TrajectoryStyle) -> None:
        if of.n_frames < 1:
            raise NothingToDrawError(
                f"sample {of.sample!r}: nothing was written after its one token, so there is no "
                "row of which it is the query (visualization.mark=query)"
            )
        self.of, self.style = of, style
        self.scale = Scale(style.color_of, style.gamma, top_of(of, style), style.grows)
        self.sheet = FilmSheet(of, style, self.scale)
        self.text = self._text_panel()
        images = self.sheet.image_room
        self.cells: list[CellImage] = []
        if images is not None:
            self.cells = self._cells((images.height, images.width))
        missing = self.text.letters.missing | self.text.small.missing
        fonts.report_missing(missing, f"sample {of.sample!r}")

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """Yield the frames of the steps from `first` to before `last`, all of them by default."""
        for step, row in enumerate(self.of.frames(first, last), first):
            yield self.draw(step, row)

    def draw(self, step: int, row: np.ndarray) -> np.ndarray:
        """Return the frame of a step, (height, width, 3) uint8.

        Args:
            step: which generated token.
            row: the row that it is predicted by, (n_prompt + step,), or its own, one key longer.
        """
        of, sheet = self.of, self.sheet
        out = sheet.blank.copy()
        current = of.n_prompt + step
        keys = of.shown(step)
        whole_row = self.style.stretch == "row"
        span = row if whole_row else row[keys]
        weights = self.scale.weights(span)
        n = max(0, current - of.start) + 1
        colors, covers = np.zeros((n, 3), dtype=np.uint8), np.zeros(n)
        ink = self.scale.ink(weights[keys] if whole_row else weights, TEXT_STRENGTH)
        colors[keys - of.start], covers[keys - of.start] = ink
        self.text.draw(sheet.text_room.of(out), colors, covers, of.start, current)
        window = self.text.window(current)
        above = f"{window.start} lines above · " if window.start else ""
        above = "nothing of it is written yet · " if current < of.start else above
        image, prompt, generated = of.shares(row)
        sheet.count(out, step, shown(of.tokens.tokens[current].text))
        whole = f"{prompt:.0%} on prompt text, {generated:.0%} on written text"
        sheet.tell_text(out, f"{above}{whole}", span)
        if sheet.image_room is not None:
            self._draw_images(sheet.image_room.of(out), row)
            where = "images" if len(self.cells) > 1 else "the image"
            sheet.tell_image(out, f"{image:.0%} on {where}", row[of.image_keys])
        return out

    def most_seeing(self) -> int:
        """Return the step with the highest share of attention on the images; the last without."""
        if not self.of.image_keys.size:
            return self.of.n_frames - 1
        return int(np.argmax([row[self.of.image_keys].sum() for row in self.of.frames()]))

    def _draw_images(self, out: np.ndarray, row: np.ndarray) -> None:
        values = row[self.of.image_keys]
        colors, covers = self.scale.ink(self.scale.weights(values), self.style.overlay_alpha)
        framed = self.scale.stands_out(values)
        begin = 0
        for image in self.cells:
            n = image.grid[0] * image.grid[1]
            slot = image.slot
            part = out[slot.top : slot.top + slot.height, slot.left : slot.left + slot.width]
            own = slice(begin, begin + n)
            image.draw(part, colors[own], covers[own], None if framed is None else framed[own])
            begin += n

    def _text_panel(self) -> TextPanel:
        """Return the panel with the largest letters at which all text fits; else it scrolls."""
        room = self.sheet.text_room
        panels = (
            TextPanel(
                self.of.tokens.tokens,
                self.of.start,
                (room.height, room.width),
                self.sheet.letters_of(size, self.style.letters),
                self.sheet.letters_of(size * SMALL, self.style.letters),
                self.style.current_ground,
            )
            for size in TEXT_SIZES
        )
        panel = next(panels)
        while len(panel.lines) > panel.n_visible and (smaller := next(panels, None)):
            panel = smaller
        return panel

    def _cells(self, room: tuple[int, int]) -> list[CellImage]:
        of, style, grids = self.of, self.style, self.of.tokens.grids
        pictures = [p if p is None or not style.overlay_gray else grayed(p) for p in of.pictures]
        sides = [
            (grid[0] * BLANK_CELL, grid[1] * BLANK_CELL) if picture is None else picture.shape[:2]
            for picture, grid in zip(pictures, grids, strict=True)
        ]
        slots = arranged(sides, room, self.sheet.pixels(12))
        self.sheet.note_images(slots, pictures)
        size, letters = self.sheet.pixels(22), self.sheet.letters_of(13)
        tags = [letters.mask(str(i + 1)) if len(grids) > 1 else None for i in range(len(grids))]
        return [
            CellImage(
                picture,
                grid,
                slot,
                [m for m in of.markers if m.image == index],
                size,
                tags[index],
            )
            for index, (picture, grid, slot) in enumerate(zip(pictures, grids, slots, strict=True))
        ]


def top_of(of: Trajectory, style: TrajectoryStyle) -> float | None:
    """Return the attention that has the last colour in all frames; None if each has a scale.

    It is the style's, else the largest on one cell of the images, of all frames; without images the
    largest on one shown token.
    """
    if style.stretch != "video":
        return None
    if style.scale_top is not None:
        return style.scale_top
    cells, tokens = of.largest
    return cells if of.image_keys.size else tokens
