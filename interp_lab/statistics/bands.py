"""Bands of layers: the one rule that says which layers are early, middle and late.

What a figure's title names and what a knock-out blocks are the same layers because both ask here.
"""

import itertools

# Number of bands -> what they are called, from the first layers on.
NAMES = {2: ("early", "late"), 3: ("early", "middle", "late")}
THIRDS = NAMES[3]


def layer_bands(n_layers: int, n_bands: int) -> list[range]:
    """Return the places of the layers in each band; together they are all, each once.

    Band i of n begins at layer round(n_layers * i / n), where a half goes to the even number.

    Raises:
        ValueError: if there is no band.
    """
    if n_bands < 1:
        raise ValueError(f"{n_bands} bands: give at least 1")
    edges = [round(n_layers * i / n_bands) for i in range(n_bands + 1)]
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
