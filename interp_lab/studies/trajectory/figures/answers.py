"""What figures of a written answer share: their style, and one sample's tokens, rows and pictures.

Everything here reads a result and returns plain values; drawing is in the modules beside it.
"""

import json
import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from interp_lab.config.signature import Distinct
from interp_lab.config.targets import Importable
from interp_lab.errors import ConfigError, StoreError
from interp_lab.fields import Document, Picture, Point, StepPattern
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.film_colors import (
    BLUE,
    ColorFunction,
    color_function,
)
from interp_lab.studies.trajectory.figures.film_images import Marker
from interp_lab.studies.trajectory.figures.film_text import CURRENT, DARK, first_shown
from interp_lab.tokens import TokenMap
from interp_lab.visualization import fonts
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.reading import read_field, read_ragged

log = logging.getLogger(__name__)

PHRASE = "Based on the following requirements"
POINTS = ("predicted", "reference")
VideoFormat = Literal["mp4", "gif", "webp"]
# Players show the pictures of a GIF for two hundredths of a second or more.
GIF_FPS = 50
# What options may say.
WORDS = {
    "stretch": ("video", "shown", "row"),
    "mark": ("predicted", "query"),
    "opacity": ("grows", "even"),
}
# Rows that are read from the file at a time.
BLOCK = 32


@dataclass(frozen=True)
class TrajectoryStyle(Style):
    """Style of figures about an answer that is being written (see `Style` for the rest).

    Args:
        gamma: the power of scaled attention; below 1 it lifts small weights.
        fps: generated tokens a second in a video.
        width: of a video in pixels, an even number; its height is 9/16 of it.
        colors: blue, red_green, a colormap of matplotlib, the dotted path of a function, or a
            function: weights (n,) from 0 to 1 -> (n, 3) uint8.
        start_phrase: text is shown from the last place of this phrase on; null = from the
            beginning of the prompt.
        overlay_alpha: how much of a picture its cells cover at most, above 0 to 1.
        opacity: whether what colours cover `grows` with attention, so that a cell without it shows
            the picture as it is, or is `even`; null = grows on one scale (`stretch: video`) and
            with one colour, else even.
        overlay_gray: draw the picture under the cells without its colours, so that every hue is
            a weight's.
        video: the formats of the video, one or several of mp4, gif and webp.
        frames: whether the configuration asks for every frame as PNG.
        layer: the one layer that is shown, by its number in the model, or a list of them;
            null = every layer whose rows are stored.
        head: the one head that is shown; null = the mean over the heads that are stored.
        stretch: what colours are scaled over. video: one scale from 0 on for all frames, tokens and
            cells alike. shown, row: each row is min-max scaled, cells over cells, text over the
            tokens that are shown or over the whole row, image tokens and hidden text included.
        scale_top: the attention that has the last colour of the one scale; null = the largest on
            one image cell in all frames, without images on one shown token.
        mark: which token a frame is about: the one that the row's query `predicted`, a frame for
            each generated token; or the `query` itself, which has one frame less, since nothing
            was written after the last token.
        text_font: of the text panel, a family or a font file; null = `font` if it is given, else
            letters of one width.
    """

    gamma: float = 1.0
    fps: float = 2.0
    width: int = 1280
    colors: Importable | Callable[[np.ndarray], np.ndarray] = BLUE
    start_phrase: str | None = PHRASE
    overlay_alpha: float = 0.7
    opacity: Literal["grows", "even"] | None = None
    overlay_gray: bool = False
    video: VideoFormat | Distinct[VideoFormat] = "mp4"
    frames: bool = False
    layer: int | list[int] | None = None
    head: int | None = None
    stretch: Literal["video", "shown", "row"] = "video"
    scale_top: float | None = None
    mark: Literal["predicted", "query"] = "predicted"
    text_font: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, words in WORDS.items():
            if getattr(self, key) is not None or key != "opacity":
                self._check_word(key, words, f"give {' or '.join(words)}.")
        self._check_font("text_font")
        self._check_number("gamma", 0.01, 100)
        self._check_number("fps", 0.1, 120)
        self._check_number("width", 480, 3840, whole=True)
        if self.width % 2:
            self.refuse("width", "give an even number: video has its colours at half resolution")
        self._check_number("overlay_alpha", 0.01, 1)
        for key in ("frames", "overlay_gray"):
            if not isinstance(getattr(self, key), bool):
                self.refuse(key, "give true or false")
        if self.head is not None:
            self._check_number("head", 0, 10_000, whole=True)
        if "gif" in self.video and self.fps > GIF_FPS:
            self.refuse("fps", f"a GIF shows at most {GIF_FPS} pictures a second")
        self._check_layers()
        self._check_scale()
        self._check_colors()

    def _check_scale(self) -> None:
        if self.scale_top is not None:
            self._check_number("scale_top", 1e-9, 1)
            if self.stretch != "video":
                self.refuse("scale_top", "has an effect with visualization.stretch=video alone")
        if self.colors == BLUE and not self.grows:
            self.refuse(
                "colors",
                "one colour for all attention: it needs visualization.opacity=grows; with even "
                "give a colormap of matplotlib or red_green",
            )

    def _check_layers(self) -> None:
        several = self.layer if isinstance(self.layer, Sequence) else [self.layer]
        for number in [] if self.layer is None else several:
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                self.refuse("layer", "give the number of a layer, or a list of numbers")

    def _check_colors(self) -> None:
        color_function(self.colors)
        if isinstance(self.colors, str) or not self.workers:
            return
        # A worker imports a function by its name; one of a notebook is not found there.
        try:
            is_found = self.colors.__module__ != "__main__" and bool(pickle.dumps(self.colors))
        except (pickle.PicklingError, AttributeError, TypeError):
            is_found = False
        if not is_found:
            self.refuse(
                "workers",
                "a colour function that no module holds cannot go to another "
                "process: set workers to 0",
            )

    @property
    def color_of(self) -> ColorFunction:
        """The function from weights to colours."""
        return color_function(self.colors)

    @property
    def grows(self) -> bool:
        """Whether what colours cover grows with attention."""
        if self.opacity is None:
            return self.stretch == "video" or self.colors == BLUE
        return self.opacity == "grows"

    @property
    def current_ground(self) -> np.ndarray:
        """The ground of the token that a frame is about, (3,) uint8: not a colour of attention."""
        return DARK if self.colors == BLUE else CURRENT

    @property
    def letters(self) -> str:
        """The font of the text panel."""
        return self.text_font or self.font or fonts.MONOSPACED

    @property
    def color_name(self) -> str:
        """What the colours are called, for a heading."""
        return self.colors if isinstance(self.colors, str) else self.colors.__name__


@dataclass(frozen=True)
class Trajectory:
    """One sample's written answer, as one layer attends.

    Args:
        results: the open result.
        sample: its id.
        layer: number in the model.
        tokens: of the prompt, then the generated ones.
        n_prompt: tokens of the prompt.
        start: position of the first token that is shown.
        note: what is to be said of `start`, such as a phrase that does not occur.
        heads: what is shown of the heads, in words.
        pictures: (y, x, 3) uint8 of each image, None where it was not kept.
        markers: the points on them.
        place: index on the layer axis; rows: indices on the head axis.
        ahead: 0 where a frame is about the token that its row predicts, 1 where it is about the
            token whose row it is: that row predicts the next one.
    """

    results: Results
    sample: str
    layer: int
    tokens: TokenMap
    n_prompt: int
    start: int
    note: str
    heads: str
    pictures: tuple[np.ndarray | None, ...]
    markers: tuple[Marker, ...]
    place: int
    head_rows: tuple[int, ...]
    ahead: int = 0

    @property
    def n_frames(self) -> int:
        """How many generated tokens have a row that a frame shows."""
        return self.n_steps - self.ahead

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """Yield the row of each frame from `first` to before `last`, (n_prompt + t + ahead,)."""
        last = self.n_frames if last is None else last
        return self.rows(first + self.ahead, last + self.ahead)

    @property
    def n_steps(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self.n_prompt

    def row(self, step: int) -> np.ndarray:
        """Return the attention of the query that predicts a generated token, (n_prompt + step,)."""
        return next(iter(self.rows(step, step + 1)))

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """Yield the row of each step in turn; a few are read at a time.

        Raises:
            StoreError: if the stored rows are not of these tokens.
        """
        last = self.n_steps if last is None else last
        for begin in range(first, last, BLOCK):
            end = min(begin + BLOCK, last)
            at = (self.place, slice(None), slice(begin, end))
            block = self.results.read("rows", self.sample, at=at)[list(self.head_rows)].mean(axis=0)
            for step in range(begin, end):
                n = self.n_prompt + step
                if len(block) != end - begin or block.shape[1] < n:
                    raise StoreError(
                        f"sample {self.sample!r}: rows has shape {block.shape} for steps {begin} "
                        f"to {end - 1}, the token map asks for {n} keys at step {step}"
                    )
                yield block[step - begin, :n]

    @cached_property
    def image_keys(self) -> np.ndarray:
        """Positions of the image tokens with a cell: image by image, row by row."""
        images = range(len(self.tokens.grids))
        return np.array([p for i in images for p in self.tokens.cells(i)], dtype=int)

    @cached_property
    def image_tokens(self) -> np.ndarray:
        """Positions of all image tokens, with a cell or without."""
        return np.array(self.tokens.where(modality="image"), dtype=int)

    @cached_property
    def _text_keys(self) -> np.ndarray:
        is_text = np.ones(len(self.tokens), dtype=bool)
        is_text[self.image_tokens] = False
        is_text[: self.start] = False
        return np.flatnonzero(is_text)

    @cached_property
    def peaks(self) -> np.ndarray:
        """The largest attention on one image cell in the row that predicts each token, (step,)."""
        found = [row[self.image_keys].max(initial=0.0) for row in self.rows()]
        return np.array(found, dtype=float)

    @cached_property
    def largest(self) -> tuple[float, float]:
        """The largest attention on one image cell, and on one shown token, in all frames."""
        cells = tokens = 0.0
        for step, row in enumerate(self.frames()):
            cells = max(cells, float(row[self.image_keys].max(initial=0.0)))
            tokens = max(tokens, float(row[self.shown(step)].max(initial=0.0)))
        return cells, tokens

    def shown(self, step: int) -> np.ndarray:
        """Return the positions of the text tokens that a step's colours compare."""
        keys = self._text_keys
        return keys[: np.searchsorted(keys, self.n_prompt + step)]

    def shares(self, row: np.ndarray) -> tuple[float, float, float]:
        """Return a row's sums over image tokens, the rest of the prompt, and generated text."""
        prompt = row[: self.n_prompt]
        image = float(prompt[self.image_tokens].sum())
        return image, float(prompt.sum()) - image, float(row[self.n_prompt :].sum())


def read_trajectory(
    results: Results, style: TrajectoryStyle, sample: str, layer: int
) -> Trajectory:
    """Return one sample's written answer.

    Args:
        results: an open result; it stays open as long as rows are read.
        style: gives head and start phrase.
        sample: its id.
        layer: number in the model.

    Raises:
        NothingToDrawError: if the result holds no rows, or the sample no generated token.
        ConfigError: if it does not hold the layer or the head.
    """
    if not isinstance(results.fields.get("rows"), StepPattern):
        raise NothingToDrawError("the result holds no StepPattern rows")
    tokens = TokenMap.from_json(str(results.read("tokens", sample)))
    n_prompt = len(tokens) - len(tokens.where(role="generated"))
    if n_prompt == len(tokens):
        raise NothingToDrawError(f"sample {sample!r}: no token was generated")
    layers = [int(number) for number in results.read("layers", sample)]
    if layer not in layers:
        listed = ", ".join(map(str, layers))
        raise ConfigError(f"layer {layer}: the result holds the rows of layers {listed}")
    head_rows, heads = _heads(results, style, sample)
    start = first_shown(tokens.tokens, tokens.prompt, style.start_phrase)
    note = f"from “{style.start_phrase}” on" if style.start_phrase else "from the beginning"
    if start is None:
        note = f"from the beginning: “{style.start_phrase}” does not occur"
        log.warning(
            "sample %r: visualization.start_phrase=%r does not occur in prompt and output: all "
            "text is shown",
            sample,
            style.start_phrase,
        )
    return Trajectory(
        results,
        sample,
        layer,
        tokens,
        n_prompt,
        start or 0,
        note,
        heads,
        tuple(picture_or_none(results, sample, i) for i in range(len(tokens.grids))),
        tuple(_markers(results, sample, tokens)),
        layers.index(layer),
        head_rows,
        int(style.mark == "query"),
    )


def _heads(results: Results, style: TrajectoryStyle, sample: str) -> tuple[tuple[int, ...], str]:
    """Return which rows of the head axis are averaged, and what to call them."""
    is_told = isinstance(results.fields.get("heads"), Document)
    kept = str(results.read("heads", sample)).strip('"') if is_told else "all"
    if kept == "mean":
        if style.head is not None:
            raise ConfigError(
                f"select.head={style.head}: the result holds one mean over the heads; "
                f"analysis.heads=[{style.head}], added to the command of the run, measures it"
            )
        return (0,), "mean over heads"
    n = results.read("rows", sample, at=(0, slice(None), 0, 0)).shape[0]
    numbers = list(range(n)) if kept == "all" else [int(number) for number in json.loads(kept)]
    if style.head is None:
        listed = f"all {n} heads" if kept == "all" else f"heads {', '.join(map(str, numbers))}"
        return tuple(range(n)), f"mean over {listed}" if n > 1 else f"head {numbers[0]}"
    if style.head not in numbers:
        listed = f"0 to {n - 1}" if kept == "all" else ", ".join(map(str, numbers))
        raise ConfigError(f"select.head={style.head}: the result holds heads {listed}")
    return (numbers.index(style.head),), f"head {style.head}"


def picture_or_none(results: Results, sample: str, index: int) -> np.ndarray | None:
    """Return a picture of a sample, (y, x, 3) uint8; None where it was not kept."""
    try:
        return read_field(results, sample, f"image_{index}", Picture)[1]
    except NothingToDrawError:
        return None


def _markers(results: Results, sample: str, tokens: TokenMap) -> Iterator[Marker]:
    for kind in POINTS:
        if not isinstance(results.fields.get(f"{kind}_point"), Point):
            continue
        try:
            image, x, y = np.asarray(read_ragged(results, f"{kind}_point", sample), float).tolist()
        except NothingToDrawError:  # this sample alone has none
            continue
        known = 0 <= image < len(tokens.grids) and math.isfinite(x) and math.isfinite(y)
        x, y = tokens.views[int(image)].inside(x, y) if known and tokens.views else (x, y)
        if known and 0 <= x <= 1 and 0 <= y <= 1:
            yield Marker(int(image), x, y, kind)
