"""Videos of events as feature rows, with a soundtrack that is informative or misleading.

Every clip is one row of "seen", one of "heard"; a query names an event in words. Each video shows
the asked event twice and another event once. Only one of the two is right, and what tells which:

- informative: both look alike, and the event is heard where it is right.
- misleading: the wrong one looks fainter, and the sound is of no use: a loud hum over the whole
  video, and the event's sound in a random place.

So a network that listens always is wrong on one half, and one that never listens on the other.
The events themselves (what they look and sound like) are the same in every draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["informative", "misleading"]

EVENTS = (
    "dog bark",
    "door slam",
    "bell ring",
    "car horn",
    "drum roll",
    "glass break",
    "hand clap",
    "water splash",
)
TEMPLATES = (
    "when does the {0} {1}",
    "find the {0} {1}",
    "the {0} {1} in this video",
    "show me where there is a {0} {1}",
)
SEEN_WIDTH, HEARD_WIDTH, WORD_WIDTH = 16, 16, 16
CLIPS = (20, 28)  # fewest and most clips of a video
LENGTH = (3, 6)  # fewest and most clips of an event
SEEN_NOISE, HEARD_NOISE, WORD_NOISE = 0.8, 0.7, 0.1
FAINT = 0.6  # how strongly the wrong one shows in a misleading video
HUM = (0.7, 1.2)  # strength of the hum, against 1 of a sound
WORLD_SEED = 7


@dataclass(frozen=True)
class World:
    """What events look, sound and read like; vectors of variance 1 a column.

    Args:
        seen: (events, 2 * SEEN_WIDTH), for the two video files.
        heard: (events, HEARD_WIDTH).
        hum: (HEARD_WIDTH,).
        words: word -> (WORD_WIDTH,).
    """

    seen: NDArray[np.float32]
    heard: NDArray[np.float32]
    hum: NDArray[np.float32]
    words: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Video:
    """One video with its query, as feature rows before any normalisation.

    Args:
        kind: whether the sound tells which of the two is right.
        query: the words.
        seen: (clips, 2 * SEEN_WIDTH).
        heard: (clips, HEARD_WIDTH).
        words: (words, WORD_WIDTH).
        right, wrong: first clip and clip after the last of the asked event.
        event: which of `EVENTS` is asked.
    """

    kind: Kind
    query: str
    seen: NDArray[np.float32]
    heard: NDArray[np.float32]
    words: NDArray[np.float32]
    right: tuple[int, int]
    wrong: tuple[int, int]
    event: int


def world() -> World:
    """Return the one world; the same every time."""
    rng = np.random.default_rng(WORLD_SEED)
    texts = [t.format(*e.split()) for t in TEMPLATES for e in EVENTS]
    vocabulary = sorted({word for text in texts for word in text.split()})

    def vectors(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    return World(
        vectors(len(EVENTS), 2 * SEEN_WIDTH),
        vectors(len(EVENTS), HEARD_WIDTH),
        vectors(HEARD_WIDTH),
        {word: vectors(WORD_WIDTH) for word in vocabulary},
    )


def draw_videos(count: int, stream: Sequence[int]) -> list[Video]:
    """Return videos, informative and misleading in turn; the same for the same stream."""
    rng = np.random.default_rng([WORLD_SEED, *stream])
    there = world()
    kinds: tuple[Kind, Kind] = ("informative", "misleading")
    return [draw_video(kinds[n % 2], there, rng) for n in range(count)]


def draw_video(kind: Kind, there: World, rng: np.random.Generator) -> Video:
    """Return one video."""
    clips = int(rng.integers(CLIPS[0], CLIPS[1] + 1))
    event, other = (int(e) for e in rng.choice(len(EVENTS), 2, replace=False))
    # One window in each third, so that windows never touch; which is which is drawn.
    thirds = [_window(clips * i // 3, clips * (i + 1) // 3, rng) for i in range(3)]
    right, wrong, beside = (thirds[i] for i in rng.permutation(3))
    faint = FAINT if kind == "misleading" else 1.0
    seen = SEEN_NOISE * rng.standard_normal((clips, 2 * SEEN_WIDTH))
    for (start, end), which, strength in (
        (right, event, 1.0),
        (wrong, event, faint),
        (beside, other, 1.0),
    ):
        seen[start:end] += strength * there.seen[which]
    heard = HEARD_NOISE * rng.standard_normal((clips, HEARD_WIDTH))
    if kind == "informative":
        heard[right[0] : right[1]] += there.heard[event]
        heard[beside[0] : beside[1]] += there.heard[other]
    else:
        heard += rng.uniform(*HUM) * there.hum
        start, end = _window(0, clips, rng)
        heard[start:end] += there.heard[event]
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    query = template.format(*EVENTS[event].split())
    words = np.stack([there.words[word] for word in query.split()])
    words = words + WORD_NOISE * rng.standard_normal(words.shape)
    rows = [x.astype(np.float32) for x in (seen, heard, words)]
    return Video(kind, query, rows[0], rows[1], rows[2], right, wrong, event)


def _window(low: int, high: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return a window of an event's length that lies in [low, high)."""
    length = int(rng.integers(LENGTH[0], LENGTH[1] + 1))
    start = int(rng.integers(low, high - length + 1))
    return start, start + length
