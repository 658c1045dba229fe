"""Flow of attention: from a word's tokens through the options' tokens to where the answer is given.

A link is as wide as the later token's attention to the earlier one, on one scale in all panels and
for both kinds of links. It is what each layer reads, not a path that was traced: attention says
where a head looks, not what it carries on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from interp_lab.fields import Pattern
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.word_axes import text_inches
from interp_lab.studies.semdim.figures.words import (
    WORD_COLOR,
    Token,
    Unit,
    WordStyle,
    bands_of,
    facts_of,
    read_tokens,
    read_units,
    side_of,
    word_heading,
)
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import read_field, shown
from interp_lab.visualization.sheets import sheet

OPTIONS = ("option1", "option2", "option3")
# Places of the three kinds of tokens from left to right.
WORD_X, OPTION_X, ANSWER_X = 0.0, 1.0, 1.75
# Of the widest link, in points at letters of 10 points, and of the strongest and faintest colour.
WIDEST = 7.0
# And of all links of one token together: many even ones must not become a wall.
ALL_TOGETHER = 30.0
STRONG, FAINT = 0.85, 0.18
# Attention that the key may show; it shows the three largest steps that occur.
STEPS = tuple(part * 10.0**-power for power in range(4) for part in (1, 0.5, 0.2))
MOST_STEPS = 3
CURVE = np.linspace(0, 1, 25)


@dataclass(frozen=True)
class Links:
    """Links of one stage in one panel.

    Args:
        weights: (n,) attention.
        starts, ends: (n, 2) places.
        colors: (n,) of the option that a link belongs to.
    """

    weights: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    colors: tuple[str, ...]


def attention_flow(
    results: Results,
    style: WordStyle,
    sample: str,
    *,
    matrix: str = "flow_matrix",
    tokens: str = "flow_tokens",
    title: str = "{word}: {dimension1} or {dimension2}?",
) -> Figure:
    """Draw links from word to options and from options to the answer, one panel a band of layers.

    Args:
        results: an open result.
        style: how; a chosen layer has the only panel. Heads are averaged in the result already.
        sample: its id.
        matrix: name of the Pattern (layer, 1, query, key).
        tokens: Document that names its tokens: word, option1, option2, perhaps option3, answer.
        title: with names of fields in braces.

    Raises:
        NothingToDrawError: if the sample does not hold matrix and tokens, or no option's tokens.
        ConfigError: if it does not hold the chosen layer.
    """
    field, values = read_field(results, sample, matrix, Pattern)
    named = read_tokens(results, sample, tokens)
    bands = bands_of(results, len(values), style)
    means = [values[band.rows].mean(axis=(0, 1)) for band in bands]
    places = node_places(named)
    stages = [flow_links(mean, named, places) for mean in means]
    tops = [max(float(stage[k].weights.max(initial=0)) for stage in stages) for k in (0, 1)]
    top = max(tops)
    width = min(points_of([stage[k] for stage in stages], top) for k in (0, 1))
    direct = np.mean([_direct(mean, named) for mean in means])
    foot = (
        "A link's width is the later token's attention to the earlier one, on one scale in all "
        "panels and for both kinds of links; the key gives widths. The widest from word to "
        f"options is {tops[0]:.2g}, from options to the answer {tops[1]:.2g}. Not drawn: the "
        f"answer position's own attention to the word, {direct:.2g} in all."
    )
    head = word_heading(results, sample, title, [field], ["mean over heads"], foot)
    facts, units = facts_of(results, sample), read_units(results, sample)
    names = [facts.get("dimension1", "option 1"), facts.get("dimension2", "option 2")]
    # The third option's own text follows its number.
    names += ["".join(t.text for t in named if t.group == OPTIONS[2]).strip()[1:].strip(" :.)")]
    said = side_of(facts, "predicted")
    answer = shown(said) if said else ""
    n_word = sum(token.group == "word" for token in named)
    height = min(9.0, max(3.0, n_word * 0.21))
    page = style.page((max(6.0, len(bands) * 4.1 + 0.3), height + 2.3), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        row = figure.subplots(1, len(bands), squeeze=False)[0]
        for axes, band, stage in zip(row, bands, stages, strict=True):
            for links in stage:
                draw_links(axes, links, top, width * page.points / 10)
            _nodes(axes, named, places, units, answer)
            _headings(axes, places, named, [*names, "model says" if answer else ""])
            axes.set_title(band.name, loc="left", fontsize="small")
        _key(row[-1], top, width * page.points / 10)
    return figure


def node_places(tokens: Sequence[Token]) -> np.ndarray:
    """Return where each token stands (n, 2): words down the left, options right of them, answer.

    y runs from 0 (top) to 1; options keep a gap between each other.

    Raises:
        NothingToDrawError: if the word or both options have no token.
    """
    groups = np.array([token.group for token in tokens])
    places = np.full((len(tokens), 2), 0.5)
    word = np.flatnonzero(groups == "word")
    options = np.flatnonzero(np.isin(groups, OPTIONS))
    if not len(word) or not len(options):
        raise NothingToDrawError("the flow has no tokens of the word or of the options")
    places[word, 0] = WORD_X
    places[word, 1] = (np.arange(len(word)) + 0.5) / len(word)
    places[options, 0] = OPTION_X
    # The gap is two tokens wide.
    there = [name for name in OPTIONS if name in groups]
    gaps = 2 * np.array([there.index(group) for group in groups[options]])
    places[options, 1] = (np.arange(len(options)) + gaps + 1.5) / (len(options) + 2 * len(there))
    places[groups == "answer", 0] = ANSWER_X
    return places


def flow_links(
    mean: np.ndarray, tokens: Sequence[Token], places: np.ndarray
) -> tuple[Links, Links]:
    """Return the links from word to options, and from options to the answer.

    Args:
        mean: (query, key) attention over all tokens.
        tokens: of both axes.
        places: (n, 2) of the tokens.
    """
    groups = np.array([token.group for token in tokens])
    word, answer = np.flatnonzero(groups == "word"), np.flatnonzero(groups == "answer")
    options = np.flatnonzero(np.isin(groups, OPTIONS))
    found = []
    for queries, keys in ((options, word), (answer, options)):
        pairs = [(query, key) for query in queries for key in keys]
        at = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        of = [q if groups[q] in OPTIONS else k for q, k in pairs]
        found.append(
            Links(
                mean[at[:, 0], at[:, 1]],
                places[at[:, 1]],
                places[at[:, 0]],
                tuple(tokens[int(i)].color for i in of),
            )
        )
    return found[0], found[1]


def _direct(mean: np.ndarray, tokens: Sequence[Token]) -> float:
    groups = np.array([token.group for token in tokens])
    return float(mean[np.ix_(groups == "answer", groups == "word")].sum())


def points_of(stages: Sequence[Links], top: float) -> float:
    """Return the width in points of the weight `top`, the same for all panels of a stage."""
    most = 0.0
    for links in stages:
        _, of = np.unique(links.ends, axis=0, return_inverse=True)
        most = max(most, float(np.bincount(of.reshape(-1), links.weights).max(initial=0)))
    return min(WIDEST, ALL_TOGETHER * top / most) if most else WIDEST


def draw_links(axes: Axes, links: Links, top: float, width: float) -> LineCollection:
    """Draw curves whose width and strength follow the weights; `top` has `width` points.

    The collection's curves are in the order of rising weight, so that strong ones lie on top.
    """
    order = np.argsort(links.weights, kind="stable")
    share = links.weights[order] / (top or 1.0)
    starts, ends = links.starts[order][:, None], links.ends[order][:, None]
    # A smooth step: level at both ends, so that links leave and meet tokens straight.
    step = (CURVE**2 * (3 - 2 * CURVE))[None, :]
    x = starts[..., 0] + (ends[..., 0] - starts[..., 0]) * CURVE[None, :]
    y = starts[..., 1] + (ends[..., 1] - starts[..., 1]) * step
    colors = [
        (*to_rgba(links.colors[int(i)])[:3], FAINT + (STRONG - FAINT) * weight)
        for i, weight in zip(order, share, strict=True)
    ]
    lines = LineCollection(
        list(np.stack([x, y], axis=-1)), colors=colors, linewidths=width * share, capstyle="butt"
    )
    axes.add_collection(lines)
    return lines


def _key(axes: Axes, top: float, width: float) -> None:
    """Draw below a panel how wide links of a few round numbers are; `top` has `width` points."""
    steps = [step for step in STEPS if step <= top * 1.1][:MOST_STEPS]
    links = [
        Line2D([], [], color="0.35", linewidth=width * step / top, solid_capstyle="butt")
        for step in steps
    ]
    if links:
        axes.legend(
            links,
            [f"{step:g}" for step in steps],
            loc="upper right",
            bbox_to_anchor=(1, 0),
            ncols=len(links),
            title="width of a link: attention",
            title_fontsize="small",
            fontsize="small",
            handlelength=2.0,
            columnspacing=1.2,
            borderaxespad=0.1,
        )


def _nodes(
    axes: Axes, tokens: Sequence[Token], places: np.ndarray, units: Sequence[Unit], answer: str
) -> None:
    """Draw the tokens: dots with phones or seconds for audio, else their text; and the answer."""
    points = matplotlib.rcParams["font.size"]
    is_crowded = sum(token.group == "word" for token in tokens) > 24
    for token, (x, y) in zip(tokens, places, strict=True):
        if token.group == "word":
            axes.plot(
                x,
                y,
                marker="o",
                markersize=points * (0.25 if is_crowded else 0.4),
                color=WORD_COLOR,
                zorder=4,
            )
            if token.seconds is None:
                axes.annotate(
                    token.label,
                    (x, y),
                    xytext=(-points * 0.7, 0),
                    ha="right",
                    textcoords="offset points",
                    va="center",
                    fontsize=points * (0.6 if is_crowded else 0.95),
                )
        else:
            label = (answer or "answer") if token.group == "answer" else token.label
            axes.text(
                x,
                y,
                label,
                ha="center",
                va="center",
                color="white",
                zorder=5,
                fontsize=points * 0.8,
                bbox={
                    "boxstyle": "round,pad=0.25",
                    "facecolor": token.color,
                    "edgecolor": "white",
                    "linewidth": points * 0.08,
                },
            )
    word = [token for token in tokens if token.group == "word"]
    if any(token.seconds for token in word):
        _phones_beside(axes, word, units)
    left = max((text_inches(t.label, points) for t in word if t.seconds is None), default=0.45)
    axes.set(
        xlim=(WORD_X - 0.12 - left / 2.2, ANSWER_X + 0.3), ylim=(1.0, 0.0), xticks=[], yticks=[]
    )
    axes.spines[:].set_visible(False)


def _phones_beside(axes: Axes, word: Sequence[Token], units: Sequence[Unit]) -> None:
    """Bracket the audio tokens of each phone, with its label; without phones name the seconds."""
    points, n = matplotlib.rcParams["font.size"], len(word)
    width = matplotlib.rcParams["axes.linewidth"] * 1.6
    labels = [
        (unit.label, min(unit.keys), max(unit.keys))
        for unit in units
        if unit.keys and unit.label and unit.unit == "second"
    ]
    if not labels:
        step = max(1, n // 5)
        labels = [
            (f"{token.seconds[0]:g} s", i, i)
            for i, token in enumerate(word)
            if token.seconds and i % step == 0
        ]
    for label, first, last in labels:
        if last > first:
            axes.plot(
                [WORD_X - 0.06] * 2,
                [(first + 0.2) / n, (last + 0.8) / n],
                color="#b8860b",
                linewidth=width,
                solid_capstyle="butt",
            )
        axes.annotate(
            label,
            (WORD_X - 0.06, (first + last + 1) / 2 / n),
            ha="right",
            va="center",
            xytext=(-points * 0.45, 0),
            textcoords="offset points",
        )


def _headings(
    axes: Axes, places: np.ndarray, tokens: Sequence[Token], names: Sequence[str]
) -> None:
    """Name the options above and below their tokens, and the answer position (the last name)."""
    points = matplotlib.rcParams["font.size"]
    groups = [token.group for token in tokens]
    for group, name, side in zip(OPTIONS, names[:3], (-1, 1, 1), strict=True):
        rows = [y for (_, y), own in zip(places, groups, strict=True) if own == group]
        if rows:
            color = tokens[groups.index(group)].color
            axes.annotate(
                name,
                (OPTION_X, min(rows) if side < 0 else max(rows)),
                ha="center",
                xytext=(0, -side * points * 1.1),
                textcoords="offset points",
                fontsize="medium",
                va="bottom" if side < 0 else "top",
                color=color,
            )
    axes.annotate(
        names[3],
        (ANSWER_X, 0.5),
        ha="center",
        va="bottom",
        xytext=(0, points * 0.9),
        textcoords="offset points",
        fontsize="small",
        color="0.3",
        zorder=5,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
        if names[3]
        else None,
    )
