"""Toward which dimension each phone of a word is attended to, and how much, layer by layer."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from interp_lab.fields import UnitScores
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.phones import even_norm
from interp_lab.studies.semdim.figures.squares import (
    ALIKE,
    colour_words,
    draw_keys,
    share_squares,
    size_words,
)
from interp_lab.studies.semdim.figures.words import (
    WordStyle,
    facts_of,
    heads_of,
    numbers_of,
    read_units,
    word_heading,
)
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.reading import read_field
from interp_lab.visualization.sheets import sheet
from interp_lab.visualization.toolbox import index_ticks


def fraction_by_unit(
    results: Results,
    style: WordStyle,
    sample: str,
    *,
    fraction: str = "fraction_sum",
    mass: str = "mass",
    title: str = "{word}: {dimension1} or {dimension2}?",
    cmap: str = "RdBu_r",
) -> Figure:
    """Draw layers (down) by phones or tokens (across), in colours whose middle is 0.5.

    A cell is filled as far as it is attended to; all are full where the result does not say.

    Args:
        results: an open result.
        style: how; its head is shown, else the mean over heads.
        sample: its id.
        fraction: UnitScores (layer, head, unit), the share toward the first dimension.
        mass: UnitScores of the attention of both dimensions' tokens on the unit, summed.
        title: with names of fields in braces.
        cmap: a diverging colormap.

    Raises:
        NothingToDrawError: if the sample does not hold it, or its units.
        ConfigError: if it does not hold the chosen head.
    """
    field, values = read_field(results, sample, fraction, UnitScores)
    units = read_units(results, sample)
    if len(units) != values.shape[-1]:
        raise NothingToDrawError(f"{len(units)} units have labels, {values.shape[-1]} have shares")
    heads, words = heads_of(results, values.shape[1], style)
    mean = np.ma.masked_array(values[:, heads].mean(axis=1))
    facts = facts_of(results, sample)
    sides = [facts.get(key, key) for key in ("dimension1", "dimension2")]
    norm = even_norm([mean])
    look = _look(results, sample, mass, heads, facts)
    top = None if look is None else float(look.max()) or None
    foot = (
        f"Above 0.5 a unit is attended to more from {sides[0]}, below 0.5 from {sides[1]}. "
        f"{colour_words(norm)}"
    )
    if top is not None:
        foot += f" {size_words(top, f', {words}')} {ALIKE * (len(heads) > 1)}"
    head = word_heading(results, sample, title, [field], [words], foot.strip())
    n_layers, n_units = mean.shape
    page = style.page((max(6.0, n_units * 0.4 + 2.0), max(2.0, n_layers * 0.13) + 2.4), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, head)
        axes = figure.add_subplot()
        share_squares(axes, mean, look, norm, cmap, top or 1.0)
        axes.set_xticks(np.arange(n_units), [unit.label for unit in units])
        index_ticks(axes.yaxis, n_layers, 16)
        numbers = numbers_of(results, "layer", n_layers)
        axes.set_yticks(ticks := axes.get_yticks(), [str(numbers[int(tick)]) for tick in ticks])
        is_token = units[0].unit == "token"
        axes.set(xlabel="token of the word" if is_token else "phone", ylabel="layer")
        draw_keys(axes, norm, cmap, top, f"share toward {sides[0]}")
    return figure


def _look(
    results: Results, sample: str, name: str, heads: np.ndarray, facts: Mapping[str, str]
) -> np.ndarray | None:
    """Return a dimension word's token's attention on each unit (layer, unit), mean over heads.

    None if the result does not hold it.
    """
    sizes = [facts.get(f"n_dim{n}_tokens") for n in (1, 2)]
    if name not in results.fields or None in sizes:
        return None
    _, values = read_field(results, sample, name, UnitScores)
    return values[:, heads].mean(axis=1) / sum(float(size or 0) for size in sizes)
