"""Bands of layers: the one rule that says which layers are early, middle and late.

What a figure's title names and what a knock-out blocks are the same layers because both ask here.
"""

import itertools
from typing import Literal

# Number of bands -> what they are called, from the first layers on.
NAMES = {2: ("early", "late"), 3: ("early", "middle", "late")}
THIRDS = NAMES[3]
BandRule = Literal["nearest", "floor"]


def layer_bands(n_layers: int, n_bands: int, rule: BandRule = "nearest") -> list[range]:
    """Return the places of the layers in each band; together they are all, each once.

    Args:
        n_layers: to divide.
        n_bands: into how many.
        rule: `nearest`: band i of n begins at layer round(n_layers * i / n), where a half goes to
            the even number. `floor`: at i * (n_layers // n), so that the last band has what is
            left: 0-8, 9-17, 18-27 of 28, the bands of LEX-ICON (arXiv 2511.10045).

    Raises:
        ValueError: if there is no band.
    """
    if n_bands < 1:
        raise ValueError(f"{n_bands} bands: give at least 1")
    edges = [round(n_layers * i / n_bands) for i in range(n_bands + 1)]
    if rule == "floor":
        edges = [n_layers // n_bands * i for i in range(n_bands)] + [n_layers]
    return [range(start, end) for start, end in itertools.pairwise(edges)]


def layers_of(band: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers of `all`, or of the `early`, `middle` or `late` third.

    Raises:
        ValueError: for another name.
    """
    bands = dict(zip(THIRDS, layer_bands(n_layers, len(THIRDS)), strict=True))
    if band not in ("all", *bands):
        raise ValueError(f"no band {band!r}: all, {', '.join(THIRDS)}")
    return tuple(range(n_layers) if band == "all" else bands[band])
