"""Every text of every figure can be read, at small and medium size, on a screen, a slide and paper.

`make gallery` draws the large sizes too, for a person to look at.
"""

from pathlib import Path

import matplotlib
import pytest
from gallery import draw, sheet
from legible import Drawn, watching
from matplotlib.figure import Figure
from PIL import Image
from stories import MEDIUM, SMALL, STUDIES, Size

SHOWN = [
    (SMALL, "screen"),
    (MEDIUM, "screen"),
    pytest.param(SMALL, "slides", marks=pytest.mark.slow),
    pytest.param(MEDIUM, "paper", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("size", "style"), SHOWN, ids=lambda shown: getattr(shown, "name", shown))
@pytest.mark.parametrize("study", STUDIES)
def test_every_text_can_be_read(study: str, size: Size, style: str, tmp_path: Path) -> None:
    paths, drawn = draw(study, size, tmp_path, style=style)
    assert paths and drawn and all(one.words for one in drawn)
    assert [line for one in drawn for line in one.faults()] == []
    pages = sheet([p for p in paths if p.suffix == ".png" and p.is_file()], study)
    assert pages.width > 600 and pages.height > 100


# As many layers and heads as LLaVA 1.5 7B has.
WIDE = Size("wide", layers=32, heads=32, samples=12, tokens=144)


@pytest.mark.parametrize("size", [MEDIUM, WIDE], ids=lambda size: size.name)
@pytest.mark.slow
def test_heads_can_be_read_in_one_column_of_a_page(size: Size, tmp_path: Path) -> None:
    paths, drawn = draw("scienceqa", size, tmp_path, style="paper", columns=1)
    assert len(drawn) == len([p for p in paths if p.suffix == ".png"]) >= 9
    assert [line for one in drawn for line in one.faults()] == []


def drawn_with(*texts: tuple[float, float, str], folder: Path) -> Drawn:
    figure = Figure(figsize=(2, 1), dpi=100)
    for x, y, text in texts:
        figure.text(x, y, text, fontsize=10)
    with watching() as saved:
        figure.savefig(folder / "a.png")
    return saved[0]


def test_what_cannot_be_read_is_found(tmp_path: Path) -> None:
    with matplotlib.rc_context():
        cut = drawn_with((0.9, 0.5, "a long text"), (0.1, 0.1, "short"), folder=tmp_path)
        both = drawn_with((0.1, 0.5, "first"), (0.12, 0.5, "second"), folder=tmp_path)
        apart = drawn_with((0.1, 0.1, "first"), (0.1, 0.5, "second"), folder=tmp_path)
    assert cut.faults() == ["a: 'a long text' is cut off"]
    assert both.faults() == ["a: 'first' lies on 'second'"]
    assert apart.faults() == [] and apart.words == ["first", "second"]
    assert Image.open(tmp_path / "a.png").size == (200, 100)
