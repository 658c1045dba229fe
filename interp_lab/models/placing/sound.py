"""Which stretch of a clip each audio token hears, measured on the model.

The clip is white noise, and stretches of it are changed to other noise while every position of the
towers sees only itself: what moves a token is what it is made of. Silence would be a bad base, for
log spectra are cut below the clip's loudest value, and a loud change would move silent frames. For
the same reason all clips begin with the same loud click: it is the loudest of each, so that what is
padded behind them stays as it is.

Every `PERIOD` seconds the same short band is changed, so a few forwards tell where within a period
every token hears; a few more, with stretches coded in binary, tell which period. What a token hears
shorter than half a period has one answer; longer is refused as mixing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from interp_lab.errors import UnsupportedModelError

# Seconds. A band is no divisor of the steps that models take, so that tokens meet all its phases.
BAND, PERIOD = 0.03, 0.75
BANDS = round(PERIOD / BAND)
# The click's length in seconds, and its amplitude over the noise's.
CLICK, LOUD = 0.02, 30.0
# A token that moves less than this share of the most does not hear the clip.
DEAD = 0.01
# Of a token's largest response: what counts as heard.
HEARD = 0.2
# Tokens stand evenly if none is further from a line than this, in seconds.
EVEN = 0.015
# Where a check must see a token move, or stand still: of its response to a change of everything.
MOVES, STILL = 0.5, 0.1
# Seconds on both sides of what a token hears, within which a check decides nothing.
MARGIN = 0.01

# Returns what the language model gets of the audio tokens: (clips, tokens, d_model).
Listen = Callable[[Sequence[np.ndarray]], np.ndarray]
Times = tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class Heard:
    """When the tokens of a clip hear it.

    Attributes:
        centres: of what each token hears, in seconds; NaN for a token that hears only padding.
        width: how long a token hears at once, in seconds; neighbours overlap where it is longer
            than their distance.
        even: whether the centres lie on a line, and were put on it.
    """

    centres: np.ndarray = field(compare=False)
    width: float
    even: bool

    @property
    def step(self) -> float:
        """The distance of neighbouring tokens in seconds: the median."""
        own = self.centres[~np.isnan(self.centres)]
        return float(np.median(np.diff(own))) if len(own) > 1 else self.width

    def times(self) -> Times:
        """Return (start, end) of each token, which meet half way between centres; None for none."""
        live = np.flatnonzero(~np.isnan(self.centres))
        own = self.centres[live]
        if not len(own):
            return (None,) * len(self.centres)
        half = self.step / 2
        edges = [own[0] - half, *((a + b) / 2 for a, b in pairwise(own)), own[-1] + half]
        found: list[tuple[float, float] | None] = [None] * len(self.centres)
        for place, (start, end) in zip(live.tolist(), pairwise(edges), strict=True):
            found[place] = (max(0.0, round(float(start), 4)), round(float(end), 4))
        return tuple(found)


def measure(listen: Listen, samples: int, rate: int, name: str) -> Heard:
    """Measure when each audio token of a clip hears it.

    Args:
        listen: makes audio tokens of clips of one length, with position-wise attention.
        samples: of a clip.
        rate: samples a second.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: if no token hears a short stretch; says what was seen.
    """
    base, other = _noises(samples, rate)
    seconds = samples / rate
    at = np.arange(samples) / rate
    bands = [(at % PERIOD / BAND).astype(int) == r for r in range(BANDS)]
    cells = (at / (PERIOD / 2)).astype(int)
    width = max(1, int(cells.max()).bit_length())
    coded = [((cells ^ cells >> 1) >> bit & 1).astype(bool) for bit in range(width)]
    masks = [np.ones(samples, bool), *bands, *coded, *(~mask for mask in coded)]
    moved = _moved(listen, base, [np.where(mask, other, base) for mask in masks])
    whole, profile = moved[0], moved[1 : 1 + BANDS]
    ones, zeros = moved[1 + BANDS : 1 + BANDS + width], moved[1 + BANDS + width :]
    live = whole > DEAD * whole.max(initial=0)
    if not live.any():
        raise UnsupportedModelError(
            f"{name}: none of its {len(whole)} audio tokens follows the sound, so no time can be "
            "given to them"
        )
    phase, heard = _phases(profile[:, live])
    if np.median(heard) > PERIOD / 2:
        raise UnsupportedModelError(
            f"{name}: its {int(live.sum())} audio tokens hear {np.median(heard):.2f} s or more "
            "each: they mix the clip, and no time can be given to them"
        )
    cell = _decoded((ones > zeros)[:, live])
    # The one time at this phase that is nearest to the middle of the coded stretch.
    middle = (cell + 0.5) * PERIOD / 2
    centres = np.full(len(whole), np.nan)
    centres[live] = phase + PERIOD * np.round((middle - phase) / PERIOD)
    return _settled(centres, float(np.median(heard)), seconds, name)


def check(heard: Heard, listen: Listen, samples: int, rate: int, name: str) -> Heard:
    """Check the first tokens of a map against a clip of another length; return its map.

    Args:
        heard: of a clip at least as long.
        listen, samples, rate, name: as in `measure`.

    Raises:
        UnsupportedModelError: if other tokens move than the map says.
    """
    base, other = _noises(samples, rate)
    at = np.arange(samples) / rate
    stretch = max(3 * heard.width, 1.5 * heard.step)
    odd = (at / stretch).astype(int) % 2 == 1
    if not odd.any():
        odd = at < at[-1] / 2
    moved = _moved(listen, base, [other, np.where(odd, other, base)])
    whole, half = moved
    count = len(whole)
    live = whole > DEAD * whole.max(initial=0)
    live |= heard.centres[:count] < CLICK + heard.width / 2
    if count > len(heard.centres):
        raise UnsupportedModelError(f"{name}: {count} audio tokens where fewer were measured")
    centres = np.where(live, heard.centres[:count], np.nan)
    share = _share_changed(centres, heard.width, odd, rate)
    wrong = (share > 0.99) & (half < MOVES * whole) | (share < 0.01) & (half > STILL * whole)
    wrong |= live & np.isnan(heard.centres[:count])
    if wrong.sum() > 0:
        raise UnsupportedModelError(
            f"{name}: for a clip of {samples / rate:.2f} s {int(wrong.sum())} of {count} audio "
            "tokens do not hear the stretch that was measured for them on a longer clip"
        )
    return Heard(centres, heard.width, heard.even)


def _noises(samples: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two clips of noise with the same click at their beginning."""
    rng = np.random.default_rng(0)
    one, other = (rng.normal(0, 0.03, samples).astype(np.float32) for _ in range(2))
    click = min(samples, round(CLICK * rate))
    one[:click] *= LOUD
    other[:click] = one[:click]
    return one, other


def _moved(listen: Listen, base: np.ndarray, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far each token of each clip is from its place in the base (clips, tokens)."""
    states = listen([base, *clips])
    return np.linalg.norm(states[1:] - states[:1], axis=-1)


def _phases(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where in a period each token hears, and for how long, both in seconds.

    Args:
        profile: (band of the period, token) responses.
    """
    weight = np.where(profile > HEARD * profile.max(0), profile, 0.0)
    angle = 2 * np.pi * (np.arange(BANDS) + 0.5) / BANDS
    turn = (weight * np.exp(1j * angle)[:, None]).sum(0)
    phase = np.angle(turn) % (2 * np.pi) / (2 * np.pi) * PERIOD
    return phase, (weight > 0).sum(0) * BAND


def _decoded(bits: np.ndarray) -> np.ndarray:
    """Return the number of each column of a Gray code (bit, token), the lowest bit first."""
    code = (bits.astype(int) << np.arange(len(bits))[:, None]).sum(0)
    number = code.copy()
    for shift in range(1, len(bits)):
        number ^= code >> shift
    return number


def _settled(centres: np.ndarray, width: float, seconds: float, name: str) -> Heard:
    """Return the centres, put on the line that they lie on if they do.

    The first and the last hear beyond the clip's ends or the click, which shifts their measured
    centre: they are as far from their neighbours as the tokens beside those.
    """
    centres = centres.copy()
    live = np.flatnonzero(~np.isnan(centres))
    if len(live) > 4:
        third, second, last = live[-3:]
        centres[last] = 2 * centres[second] - centres[third]
        second, third = live[1:3]
        # The click may drown what the first ones hear besides.
        for first in range(second - 1, -1, -1):
            back = centres[second] - (second - first) * (centres[third] - centres[second])
            if first == live[0] or back > -width:
                centres[first] = back
        live = np.flatnonzero(~np.isnan(centres))
    own = centres[live]
    if (np.diff(own) <= 0).any() or own[0] < -width or own[-1] > seconds + width:
        raise UnsupportedModelError(
            f"{name}: the times of its {len(live)} audio tokens do not rise from token to token, "
            "so none can be given to them"
        )
    inner = slice(1, -1) if len(live) > 4 else slice(None)
    step, first = np.polyfit(live[inner], own[inner], 1)
    line = first + step * np.arange(len(centres))
    even = bool(np.abs(line[live][inner] - own[inner]).max() < EVEN)
    return Heard(np.where(np.isnan(centres), np.nan, line) if even else centres, width, even)


def _share_changed(centres: np.ndarray, width: float, odd: np.ndarray, rate: int) -> np.ndarray:
    """Return the share of what each token hears that was changed; 0.5 for tokens at the ends."""
    total = np.concatenate([[0], np.cumsum(odd)])
    found = np.full(len(centres), 0.5)
    for i in np.flatnonzero(~np.isnan(centres)):
        start, end = centres[i] - width / 2 - MARGIN, centres[i] + width / 2 + MARGIN
        low, high = round(start * rate), round(end * rate)
        if 0 <= low < high < len(total):
            found[i] = (total[high] - total[low]) / (high - low)
    return found
