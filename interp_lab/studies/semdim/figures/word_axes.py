"""Axes along a word: token labels, seconds, groups and what separates them, phones and the sound.

Token i covers i - 0.5 to i + 0.5 on an axis, as a cell of an image does.
"""

import unicodedata
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from interp_lab.studies.semdim.figures.words import Token, Unit, spans
from interp_lab.visualization.panels import Grid

FRAME_SECONDS = 0.01
# Steps of time ticks, and the most of them on one axis.
TIME_STEPS = (0.04, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MOST_TIMES = 6
# Labels of tokens of text on one axis; beyond that every second, third, ... is labelled.
MOST_LABELS = 60
# Height of a line of letters as a share of their size, with some air.
LINE_SHARE = 1.3
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
    return np.asarray(np.interp(seconds, times, columns))


def token_ticks(axis: Axis, tokens: Sequence[Token], inches: float) -> None:
    """Label an axis: a token of text by its text, tokens of audio by seconds at their borders.

    Labels have the colour of their group. Those of neighbours that have no room beside each other
    are moved apart, and every second, third, ... is written where all have none.

    Args:
        axis: an x- or y-axis.
        tokens: along it.
        inches: of a token. On an x-axis labels of text that are longer stand upright.
    """
    points = matplotlib.rcParams["font.size"] * _label_share(len(tokens))
    across = isinstance(axis, XAxis)
    line = LINE_SHARE * points / 72
    written = [(i, token) for i, token in enumerate(tokens) if token.seconds is None]
    # Words that stand side by side would need their lengths; upright they need a line each.
    most = min(MOST_LABELS, max(1, int(0.95 * len(tokens) * inches / line)))
    written = written[:: max(1, -(-len(written) // most))]
    lengths = [text_inches(token.label, points) for _, token in written]
    is_long = [across and length > 0.9 * inches for length in lengths]
    flat = [across and not long for long in is_long]
    sizes = [length if own else line for length, own in zip(lengths, flat, strict=True)]
    places = np.array([float(i) for i, _ in written])
    moved = spread(places, np.array(sizes) / inches)
    timed = {
        text: column
        for text, column in _time_ticks(tokens).items()
        if _is_clear(column, text_inches(text, points) if across else line, moved, sizes, inches)
    }
    axis.set_ticks([*timed.values(), *places], [*timed, *(token.label for _, token in written)])
    length = matplotlib.rcParams["xtick.major.size"]
    for place, tick in enumerate(axis.get_major_ticks()):
        own = place - len(timed)
        tick.tick1line.set_markersize(length if own < 0 else 0)
        color = "0.2" if own < 0 else written[own][1].color
        upright = own >= 0 and is_long[own]
        tick.label1.set(color=color, fontsize=points, rotation=90 if upright else 0)
        if own >= 0 and moved[own] != places[own]:
            _move(tick.label1, (moved[own] - places[own]) * inches, across=across)


def spread(places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return places (n,), rising, moved as little as can be so that no two things overlap.

    The squared moves are the least possible: neighbours that touch move together.

    Args:
        places: where the middles should be.
        sizes: how long each is, in the same unit.
    """
    if len(places) == 0:
        return places
    behind = np.concatenate([[0.0], np.cumsum((sizes[1:] + sizes[:-1]) / 2)])
    groups: list[list[float]] = []
    for wanted in places - behind:
        groups.append([float(wanted)])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return behind + np.concatenate([np.full(len(g), np.mean(g)) for g in groups])


def _is_clear(
    column: float, size: float, others: np.ndarray, sizes: Sequence[float], inches: float
) -> bool:
    """Return whether a label at a column has room beside others: sizes and `inches` a token."""
    needed = (size + np.asarray(sizes)) / 2 / inches
    return bool((np.abs(others - column) > np.maximum(needed, 0.6)).all())


def _move(label: Text, inches: float, *, across: bool) -> None:
    """Move a label along its axis: to the right, or down."""
    assert label.figure is not None
    scale = label.figure.dpi_scale_trans
    by = (inches, 0.0) if across else (0.0, -inches)
    label.set_transform(label.get_transform() + ScaledTranslation(*by, scale))


def _label_share(n: int) -> float:
    """Return the size of labels as a share of the font size: small where tokens are many."""
    return 0.95 if n <= 8 else 0.8 if n <= 30 else 0.65


def _time_ticks(tokens: Sequence[Token]) -> dict[str, float]:
    """Return label -> place of round seconds on the axis, none for a written word."""
    times = [token.seconds for token in tokens if token.seconds is not None]
    if not times:
        return {}
    start, end = times[0][0], times[-1][1]
    step = next((s for s in TIME_STEPS if (end - start) / s <= MOST_TIMES), TIME_STEPS[-1])
    rounds = np.arange(np.ceil(start / step - 1e-6), np.floor(end / step + 1e-6) + 1) * step
    columns = column_of(tokens, rounds)
    # Adding 0.0 makes 0 of -0.
    return {f"{time + 0.0:g} s": float(c) for time, c in zip(rounds.round(6), columns, strict=True)}


def borders(tokens: Sequence[Token]) -> list[int]:
    """Return the tokens at which another group begins."""
    return [start for _, start, _ in spans(tokens)][1:]


def draw_separators(axes: Axes, columns: Sequence[int], rows: Sequence[int], size: Grid) -> None:
    """Draw a line before each of these columns and rows of a map of (n_rows, n_columns) tokens."""
    n_rows, n_columns = size
    lines = [[(c - 0.5, -0.5), (c - 0.5, n_rows - 0.5)] for c in columns]
    lines += [[(-0.5, r - 0.5), (n_columns - 0.5, r - 0.5)] for r in rows]
    width = matplotlib.rcParams["axes.linewidth"]
    # White beside black shows on any colour.
    for color, share in (("white", 3.0), ("0.1", 1.2)):
        axes.add_collection(
            LineCollection(lines, colors=color, linewidths=width * share, zorder=3), autolim=False
        )


def strip_height(
    tokens: Sequence[Token],
    names: Mapping[str, str],
    inches: float,
    points: float,
    *,
    has_sound: bool,
) -> float:
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
    axes: Axes,
    tokens: Sequence[Token],
    names: Mapping[str, str],
    inches: float,
    sound: np.ndarray | None,
    units: Sequence[Unit],
) -> None:
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
    pitch = inches / len(tokens)
    named = [
        (names.get(group, group), start, end)
        for group, start, end in spans(tokens)
        if not (has_sound and place is not None and start < place[1] and end > place[0])
        and names.get(group, group)
    ]
    is_narrow = [_is_narrow(name, (end - start) * pitch, points) for name, start, end in named]
    sizes = [
        LINE_SHARE * points / 72 if narrow else (end - start) * pitch
        for narrow, (_, start, end) in zip(is_narrow, named, strict=True)
    ]
    middles = np.array([(start + end - 1) / 2 for _, start, end in named])
    # The room is an estimate from above.
    moved = spread(middles, np.array(sizes) / (0.8 * pitch)) if any(is_narrow) else middles
    for (name, start, _), middle, narrow in zip(named, moved, is_narrow, strict=True):
        axes.text(
            float(middle),
            0.06,
            name,
            rotation=90 if narrow else 0,
            ha="center",
            va="bottom",
            fontsize=points,
            color=tokens[start].color,
        )


def draw_sound(axes: Axes, tokens: Sequence[Token], sound: np.ndarray) -> None:
    """Draw the spectrogram (mel, frame) over its tokens, every frame at its time."""
    times = [token.seconds for token in tokens if token.seconds is not None]
    first, last = times[0][0], times[-1][1]
    starts = np.arange(sound.shape[1]) * FRAME_SECONDS
    inside = (starts >= first - 1e-6) & (starts < last - 1e-6)
    if not inside.any():
        return
    begin = float(starts[inside][0])
    left, right = column_of(tokens, np.array([begin, begin + inside.sum() * FRAME_SECONDS]))
    heard = sound[:, inside].astype(np.float32)
    # Half of a sound is background: it is white, so that the voice stands out.
    axes.imshow(
        heard,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmin=float(np.median(heard)),
        extent=(left, right, 0.0, SOUND_TOP),
    )
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
        axes.text(
            middle,
            PHONE_HIGH if is_high else PHONE_LOW,
            unit.label,
            ha="center",
            va="bottom",
            fontsize=points,
        )


COLOR_OF_PHONES = "#b8860b"


def wide_letters(text: str) -> float:
    """Return how many letters of usual width a text is as wide as; accents take no room."""
    text = unicodedata.normalize("NFC", text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return sum(not unicodedata.combining(c) for c in text) + 0.7 * wide


def text_inches(text: str, points: float) -> float:
    """Return about how wide a text is drawn."""
    return 0.6 * points / 72 * wide_letters(text)
