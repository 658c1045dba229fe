"""What blocking heads changes: accuracy and logit difference, with the heads and without them.

Attention shows where a head looks; this figure shows whether the answer depends on it.
"""

from collections.abc import Sequence

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
)

WORDS = {
    "baseline": "nothing\nblocked",
    "winners": "winning heads\nblocked",
    "chosen": "chosen heads\nblocked",
    "random": "random heads\nblocked",
}
COLORS = {"baseline": REST, "winners": TOP, "chosen": TOP, "random": SECOND}


def knockout(
    results: Results,
    style: Style,
    *,
    prefix: str = "knockout",
    measures: Sequence[str] = ("accuracy", "logit_difference"),
    interval: str = "95 % bootstrap interval over samples",
) -> Figure:
    """Draw a panel a measure and a bar a condition, with intervals where the result has them.

    The numbers are Scalars named `<prefix>_<condition>_<measure>`, and their intervals the same
    with `_low` and `_high`. Known conditions come first, others by name.

    Args:
        results: an open result.
        style: how.
        prefix: of the fields' names.
        measures: which panels; those that the result does not hold are left out.
        interval: what the intervals are.

    Raises:
        NothingToDrawError: if the result holds no such numbers.
    """
    panels = {m: found for m in measures if (found := _conditions(results, prefix, m))}
    if not panels:
        raise NothingToDrawError(f"the result holds no {prefix}_<condition>_{measures[0]}")
    fields: list[Field] = [
        results.aggregates[_name(prefix, c, m)] for m, found in panels.items() for c in found
    ]
    width = sum(max(2.6, 1.15 * len(found)) for found in panels.values())
    page = style.page((max(6.0, width + 0.8), 4.6), fill=True)
    foot = (
        f"Bars: mean over samples; lines: {interval}. A head matters if blocking it changes the "
        "answer more than blocking as many random heads of the same layers."
    )
    with style.context(page.points):
        title = "Do the winning heads matter?"
        figure = head_sheet(results, style, page, title, fields, foot)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, conditions) in zip(row, panels.items(), strict=True):
            _bars(axes, results, prefix, measure, conditions)
    return figure


def _name(prefix: str, condition: str, measure: str) -> str:
    return f"{prefix}_{condition}_{measure}"


def _conditions(results: Results, prefix: str, measure: str) -> list[str]:
    """Return the conditions that the result has this measure of."""
    start, end = f"{prefix}_", f"_{measure}"
    found = [
        name[len(start) : -len(end)]
        for name, field in results.aggregates.items()
        if isinstance(field, Scalar) and name.startswith(start) and name.endswith(end)
    ]
    known = list(WORDS)
    return sorted(found, key=lambda c: (known.index(c) if c in WORDS else len(known), c))


def _bars(
    axes: Axes, results: Results, prefix: str, measure: str, conditions: Sequence[str]
) -> None:
    for place, condition in enumerate(conditions):
        name = _name(prefix, condition, measure)
        value = float(results.aggregate(name))
        axes.bar(place, value, width=0.66, color=COLORS.get(condition, REST))
        low, high = (aggregate_or_none(results, f"{name}_{end}", Scalar) for end in ("low", "high"))
        end = value
        if low is not None and high is not None:
            intervals(axes, np.array([place]), low.reshape(1), high.reshape(1), "0.15")
            end = float(high if value >= 0 else low)
        away, side = (4, "bottom") if value >= 0 else (-4, "top")
        axes.annotate(
            f"{value:.3g}".replace("-", "−"),
            (place, end),
            xytext=(0, away),
            va=side,
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    axes.axhline(0, color=LINE, linewidth=matplotlib.rcParams["axes.linewidth"])
    words = [WORDS.get(c, c.replace("_", " ")) for c in conditions]
    axes.set_xticks(np.arange(len(words)), words, fontsize="x-small")
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(measure.replace("_", " "))
    axes.margins(y=0.14)
    if measure == "accuracy":
        axes.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
