"""Maps with foreseeable numbers, and draw functions that draw nothing, for the tests beside it."""

import numpy as np
from matplotlib.figure import Figure

from interp_lab.fields import CellMap, DownEdgeMap, Field, RightEdgeMap
from interp_lab.store.results import Results
from interp_lab.visualization.base import Style

GRID = 4
SIDE = 32
MAPS: dict[str, tuple[type[Field], tuple[int, int], str]] = {
    "horizontal_right": (RightEdgeMap, (GRID, GRID - 1), "similarity to the right neighbour"),
    "vertical_down": (DownEdgeMap, (GRID - 1, GRID), "similarity to the neighbour below"),
    "cls_similarity": (CellMap, (GRID, GRID), "similarity to CLS"),
}


def values_of(name: str, sample: int) -> np.ndarray:
    """The map `name` of the sample: rising in steps of 0.01 from a start of its own."""
    shape = MAPS[name][1]
    start = {"horizontal_right": 0.1, "vertical_down": 0.3, "cls_similarity": -0.2}[name]
    return start + 0.1 * sample + np.arange(np.prod(shape)).reshape(shape) / 100


def fails_on_b(results: Results, style: Style, sample: str) -> Figure:
    """Draw nothing; fail on one sample."""
    if sample == "b":
        raise RuntimeError("no ink")
    return Figure()


def blank(results: Results, style: Style, sample: str) -> Figure:
    """Draw nothing, quickly."""
    return Figure(figsize=(1, 1))


def blank_run(results: Results, style: Style) -> Figure:
    """Draw nothing, quickly."""
    return Figure(figsize=(1, 1))
