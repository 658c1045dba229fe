"""Axes along a word: token labels, seconds, groups and what separates them, phones and the sound.

Token i covers i - 0.5 to i + 0.5 on an axis, as a cell of an image does.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection

from interp_lab.visualization.words import Token, Unit, spans, text_inches

FRAME_SECONDS = 0.01
# Steps of time ticks, and the most of them on one axis.
TIME_STEPS = (0.04, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MOST_TIMES = 6
# Labels of tokens of text on one axis; beyond that every second, third, ... is labelled.
MOST_LABELS = 60
# Parts of the strip above a heat map that the sound and the phones take.
SOUND_TOP, PHONE_LOW, PHONE_HIGH = 0.6, 0.66, 0.84


def sounding(tokens: Sequence[Token]) -> tuple[int, int] | None:
    """Return the first and behind the last token that has a time; None for a written word."""
    places = [i for i, token in enumerate(tokens) if token.seconds is not None]
    return (places[0], places[-1] + 1) if places else None


def column_of(tokens: Sequence[Token], seconds: np.ndarray | float) -> np.ndarray:
    """Return where moments lie on the token axis, by the tokens' own times.

    Args:
        tokens: some of them with times.
        seconds: moments (n,).
    """
    timed = [(i, token.seconds) for i, token in enumerate(tokens) if token.seconds is not None]
    times = [time for _, span in timed for time in span]
    columns = [edge for i, _ in timed for edge in (i - 0.5, i + 0.5)]
    return np.interp(seconds, times, columns)


def token_ticks(axis: Axis, tokens: Sequence[Token], *, rotate: bool = False) -> None:
    """Label an axis: a token of text by its text, tokens of audio by seconds at their borders.

    Labels have the colour of their group; `rotate` turns those that are longer than two letters.
    """
    timed = _time_ticks(tokens)
    written = [(i, token) for i, token in enumerate(tokens) if token.seconds is None]
    step = -(-len(written) // MOST_LABELS)
    written = written[::step] if step else []
    places = [*timed.values(), *(float(i) for i, _ in written)]
    labels = [*timed, *(token.label for _, token in written)]
    axis.set_ticks(places, labels)
    colors = ["0.2"] * len(timed) + [token.color for _, token in written]
    is_long = rotate and any(len(label) > 2 for label in labels)
    size = "xx-small" if len(written) > 30 else "x-small"
    for tick, color, is_time in zip(
        axis.get_major_ticks(), colors, np.arange(len(places)) < len(timed), strict=True
    ):
        for line in (tick.tick1line, tick.tick2line):
            line.set_markersize(matplotlib.rcParams["xtick.major.size"] if is_time else 0)
        for label in (tick.label1, tick.label2):
            label.set(color=color, fontsize=size, rotation=90 if is_long else 0)


def _time_ticks(tokens: Sequence[Token]) -> dict[str, float]:
    """Return label -> place of round seconds on the axis, none for a written word."""
    times = [token.seconds for token in tokens if token.seconds is not None]
    if not times:
        return {}
    start, end = times[0][0], times[-1][1]
    step = next((s for s in TIME_STEPS if (end - start) / s <= MOST_TIMES), TIME_STEPS[-1])
    rounds = np.arange(np.ceil(start / step - 1e-6), np.floor(end / step + 1e-6) + 1) * step
    columns = column_of(tokens, rounds)
    return {f"{time:g} s": float(c) for time, c in zip(rounds.round(6), columns, strict=True)}


def draw_separators(axes: Axes, columns: Sequence[Token], rows: Sequence[Token] = ()) -> None:
    """Draw a line wherever the group changes: across for columns, along for rows."""
    lines = []
    for start in [span[1] for span in spans(columns)][1:]:
        lines.append([(start - 0.5, -0.5), (start - 0.5, len(rows) - 0.5)])
    for start in [span[1] for span in spans(rows)][1:]:
        lines.append([(-0.5, start - 0.5), (len(columns) - 0.5, start - 0.5)])
    width = matplotlib.rcParams["axes.linewidth"]
    # White beside black shows on any colour.
    for color, share in (("white", 3.2), ("0.1", 1.2)):
        axes.add_collection(
            LineCollection(lines, colors=color, linewidths=width * share, zorder=3), autolim=False
        )


def strip_height(
    tokens: Sequence[Token], names: Mapping[str, str], inches: float, points: float,
    *, has_sound: bool,
) -> float:  # fmt: skip
    """Return the inches that the strip above a heat map needs for sound, phones and group names."""
    size = points * 0.85
    upright = [
        text_inches(names.get(group, group), size)
        for group, start, end in spans(tokens)
        if _is_narrow(names.get(group, group), (end - start) / len(tokens) * inches, size)
    ]
    needed = max([size * 1.5 / 72, *(length + 0.05 for length in upright)])
    return max(needed, 0.85 * points / 10) if has_sound else needed


def _is_narrow(name: str, inches: float, points: float) -> bool:
    return text_inches(name, points) > inches * 1.05


def draw_strip(
    axes: Axes, tokens: Sequence[Token], names: Mapping[str, str], inches: float,
    sound: np.ndarray | None, units: Sequence[Unit],
) -> None:  # fmt: skip
    """Draw the strip above a heat map: the sound with its phones, and the names of the groups.

    Args:
        axes: it gets the x-axis of the heat map, and 0 to 1 upwards.
        tokens: of the x-axis.
        names: what a group is called on the figure.
        inches: width of the axes, about.
        sound: (mel, frame), or None.
        units: phones; those with seconds are written above the sound.
    """
    axes.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    place = sounding(tokens)
    has_sound = sound is not None and place is not None
    if sound is not None and place is not None:
        draw_sound(axes, tokens, sound)
        draw_phones(axes, tokens, units, inches / len(tokens))
    points = matplotlib.rcParams["font.size"] * 0.85
    for group, start, end in spans(tokens):
        if has_sound and place is not None and start < place[1] and end > place[0]:
            continue
        name, middle = names.get(group, group), (start + end - 1) / 2
        is_narrow = _is_narrow(name, (end - start) / len(tokens) * inches, points)
        axes.text(middle, 0.06, name, rotation=90 if is_narrow else 0, ha="center", va="bottom",
                  fontsize=points, color=tokens[start].color)  # fmt: skip


def draw_sound(axes: Axes, tokens: Sequence[Token], sound: np.ndarray) -> None:
    """Draw the spectrogram over its tokens, every frame at its time: (mel, frame), low bands down."""
    times = [token.seconds for token in tokens if token.seconds is not None]
    first, last = times[0][0], times[-1][1]
    starts = np.arange(sound.shape[1]) * FRAME_SECONDS
    inside = (starts >= first - 1e-6) & (starts < last - 1e-6)
    if not inside.any():
        return
    begin = float(starts[inside][0])
    left, right = column_of(tokens, np.array([begin, begin + inside.sum() * FRAME_SECONDS]))
    axes.imshow(sound[:, inside].astype(np.float32), origin="lower", aspect="auto", cmap="Greys",
                extent=(left, right, 0.0, SOUND_TOP))  # fmt: skip
    # An image sets the limits of its axes.
    axes.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(0, 1))


def draw_phones(
    axes: Axes, tokens: Sequence[Token], units: Sequence[Unit], inches_a_token: float
) -> None:
    """Write each phone above its stretch of sound, in two rows where neighbours would touch."""
    timed = [unit for unit in units if unit.unit == "second" and unit.label]
    points = matplotlib.rcParams["font.size"] * 0.9
    width = matplotlib.rcParams["axes.linewidth"]
    behind = -np.inf
    is_high = False
    for unit in sorted(timed, key=lambda u: u.start):
        left, right = column_of(tokens, np.array([unit.start, unit.end]))
        axes.vlines([left, right], 0, SOUND_TOP + 0.05, color=COLOR_OF_PHONES, linewidth=width)
        middle, half = (left + right) / 2, text_inches(unit.label, points) / inches_a_token / 2
        is_high = middle - half < behind and not is_high
        behind = middle + half
        axes.text(middle, PHONE_HIGH if is_high else PHONE_LOW, unit.label, ha="center",
                  va="bottom", fontsize=points)  # fmt: skip


COLOR_OF_PHONES = "#b8860b"
