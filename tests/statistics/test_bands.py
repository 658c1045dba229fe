"""One rule of bands: its borders, and that titles and knock-outs follow it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_lab.statistics.bands import layer_bands, layers_of
from interp_lab.studies.semdim.figures.words import WordStyle, bands_of
from interp_lab.studies.semdim.knockout import word_blocks

PACKAGE = Path(__file__).parents[2] / "interp_lab"


@pytest.mark.parametrize(
    ("n_layers", "n_bands", "starts"),
    [
        (28, 3, [0, 9, 19]),  # 9.33 and 18.67: neither floor nor ceiling gives both
        (32, 3, [0, 11, 21]),  # 10.67, 21.33
        (5, 2, [0, 2]),  # 2.5 goes down to the even number
        (7, 2, [0, 4]),  # 3.5 goes up to it
        (28, 4, [0, 7, 14, 21]),
        (2, 3, [0, 1, 1]),  # the middle third of two layers is empty
        (3, 1, [0]),
    ],
)
def test_the_borders(n_layers: int, n_bands: int, starts: list[int]) -> None:
    bands = layer_bands(n_layers, n_bands)
    assert [band.start for band in bands] == starts
    assert [layer for band in bands for layer in band] == list(range(n_layers))


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        layer_bands(4, 0)
    with pytest.raises(ValueError, match="no band 'first': all, early, middle, late"):
        layers_of("first", 4)


class AllLayers:
    """A result that stores all layers: it has no list of them."""

    aggregates: dict[str, Any] = {}  # noqa: RUF012


@pytest.mark.parametrize("n_layers", [4, 7, 28, 32, 36])
def test_what_a_title_names_is_what_was_blocked(n_layers: int) -> None:
    blocks = word_blocks([1], [2], 4, n_layers)
    panels = bands_of(AllLayers(), n_layers, WordStyle(bands=3))  # pyright: ignore
    for name, panel in zip(("early", "middle", "late"), panels, strict=True):
        (blocked,) = blocks[f"knockout_{name}"]
        assert panel.rows.tolist() == list(blocked.layers)
        first, last = blocked.layers[0], blocked.layers[-1]
        layers = f"layer {first}" if first == last else f"layers {first}–{last}"
        assert panel.name == f"{name} {layers}"
    (everywhere,) = blocks["knockout_all"]
    assert np.array_equal(everywhere.layers, range(n_layers))


def test_nobody_else_divides_layers() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # The zoo makes data; it divides features and samples.
        if path.name != "bands.py" and "zoo" not in path.parts:
            assert "array_split" not in text and "np.split(" not in text, path
            assert "round(n_layers" not in text, path
