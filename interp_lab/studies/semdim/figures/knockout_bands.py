"""What hiding a word from the options changes, by the layers in which it is hidden.

Attention shows where a head looks; this figure shows whether the answer depends on it.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp_lab.fields import Field, Scalar
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.toolbox import (
    LINE,
    REST,
    SECOND,
    TOP,
    aggregate_or_none,
    head_sheet,
    intervals,
    reference_line,
)

# The order of the bars, and what they are called; other bands follow by name.
WORDS = {
    "baseline": "nothing\nhidden",
    "all": "all\nlayers",
    "early": "early\nlayers",
    "middle": "middle\nlayers",
    "late": "late\nlayers",
}
COLORS = {"baseline": REST, "all": TOP}


def knockout_bands(
    results: Results,
    style: Style,
    *,
    prefix: str = "knockout",
    measures: Sequence[str] = ("accuracy", "answer_change"),
    chance: Mapping[str, float] | None = None,
    interval: str = "95 % bootstrap interval over words",
) -> Figure:
    """Draw a panel a measure and a bar a band of layers, with intervals where there are.

    The numbers are Scalars named `<prefix>_<band>_<measure>`, their intervals the same with `_low`
    and `_high`.

    Args:
        results: an open result.
        style: how.
        prefix: of the fields' names.
        measures: which panels; those that the result does not hold are left out.
        chance: what guessing gives, by measure, where the result has no `chance_<measure>`; drawn
            as a line.
        interval: what the intervals are.

    Raises:
        NothingToDrawError: if the result holds no such numbers.
    """
    panels = {m: found for m in measures if (found := _bands(results, prefix, m))}
    if not panels:
        raise NothingToDrawError(f"the result holds no {prefix}_<band>_{measures[0]}")
    fields: list[Field] = [
        results.aggregates[f"{prefix}_{band}_{m}"] for m, found in panels.items() for band in found
    ]
    width = sum(max(2.4, 0.85 * len(found)) for found in panels.values())
    page = style.page((max(6.0, width + 0.8), 4.4), fill=True)
    foot = (
        "In these layers options and answer cannot attend to the word. Bars: mean over words; "
        f"lines: {interval}."
    )
    with style.context(page.points):
        title = "In which layers do the options need the word?"
        figure = head_sheet(results, style, page, title, fields, foot)
        row = figure.subplots(
            1, len(panels), squeeze=False, width_ratios=[*map(len, panels.values())]
        )
        for axes, (measure, bands) in zip(row[0], panels.items(), strict=True):
            _bars(axes, results, {band: f"{prefix}_{band}_{measure}" for band in bands})
            axes.set_ylabel(
                "share of answers that change"
                if measure == "answer_change"
                else measure.replace("_", " ")
            )
            guessed = aggregate_or_none(results, f"chance_{measure}", Scalar)
            level = (chance or {}).get(measure) if guessed is None else float(guessed)
            if level is not None:
                reference_line(axes, level, "chance", beside=True)
    return figure


def _bands(results: Results, prefix: str, measure: str) -> list[str]:
    """Return the bands that the result has this measure of, in the order of `WORDS`."""
    start, end = f"{prefix}_", f"_{measure}"
    found = [
        name[len(start) : -len(end)]
        for name, field in results.aggregates.items()
        if isinstance(field, Scalar) and name.startswith(start) and name.endswith(end)
    ]
    known = list(WORDS)
    return sorted(found, key=lambda band: (known.index(band) if band in WORDS else 99, band))


def _bars(axes: Axes, results: Results, names: Mapping[str, str]) -> None:
    """Draw one bar a band from its field, on a scale of shares."""
    for place, (band, name) in enumerate(names.items()):
        value = float(results.aggregate(name))
        axes.bar(place, value, width=0.66, color=COLORS.get(band, SECOND))
        low, high = (aggregate_or_none(results, f"{name}_{e}", Scalar) for e in ("low", "high"))
        top = value
        if low is not None and high is not None:
            intervals(axes, np.array([place]), low.reshape(1), high.reshape(1), "0.15")
            top = float(high)
        axes.annotate(
            f"{value:.2f}",
            (place, top),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize="small",
        )
    axes.axhline(0, color=LINE, linewidth=matplotlib.rcParams["axes.linewidth"])
    words = [WORDS.get(band, band.replace("_", " ")) for band in names]
    axes.set_xticks(np.arange(len(words)), words, fontsize="x-small")
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
