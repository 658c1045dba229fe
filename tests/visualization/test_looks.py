"""Paper and slides: the width of a column, letters of the page, and the words beside the file.

Sizes are read from the drawn files and figures: pixels against millimetres, letters in points.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from omegaconf import OmegaConf
from PIL import Image

from interp_lab.errors import ConfigError
from interp_lab.store.results import open_results
from interp_lab.visualization.base import Page, Style, save
from interp_lab.visualization.draw import draw_all
from interp_lab.visualization.sheets import Heading, caption_of, is_loud, sheet

ROOT = Path(__file__).parents[2]
STUDIES = ("avigate", "clip_similarity", "scienceqa", "semdim")
QUICK = {"max_samples": 1, "workers": 0}


def figures_of(study: str) -> dict[str, Any]:
    node = OmegaConf.load(ROOT / f"conf/visualization/{study}.yaml")
    found = OmegaConf.to_container(OmegaConf.create({"visualization": node}), resolve=True)
    assert isinstance(found, dict)
    return found["visualization"]["figures"]


def style_of(study: str, **options: Any) -> Style:
    from hydra.utils import get_class

    node = OmegaConf.load(ROOT / f"conf/visualization/{study}.yaml")
    return get_class(node._target_)(**(QUICK | options))


@pytest.fixture(scope="module", params=STUDIES)
def paper(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], list[list[tuple[str, float]]]]:
    """Every figure of a study as for a paper, and the letters that it was drawn with."""
    study: str = request.param
    folder = tmp_path_factory.mktemp(study)
    result = folder / "results.h5"
    shutil.copy(ROOT / "tests/golden" / study / "results.h5", result)
    letters: list[list[tuple[str, float]]] = []
    real = Figure.savefig

    def look(self: Figure, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        shown = [t for t in self.findobj(Text) if t.get_visible() and t.get_text().strip()]
        letters.append([(t.get_text(), float(t.get_fontsize())) for t in shown])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", look)
        paths = draw_all(result, figures_of(study), style_of(study, style="paper"), folder)
    return paths, letters


def test_every_figure_is_a_column_or_two_wide(paper: tuple[list[Path], Any]) -> None:
    assert paper[0]
    for path in paper[0]:
        width, height = Image.open(path).size
        # Pixels are whole: at 150 an inch half of one is 0.08 mm.
        assert min(abs(width / 150 * 25.4 - mm) for mm in (89, 183)) < 0.2, path
        assert height / 150 * 25.4 <= 247.2, path


def test_letters_are_those_of_the_page(paper: tuple[Any, list[list[tuple[str, float]]]]) -> None:
    sizes = [size for figure in paper[1] for _, size in figure]
    assert sizes and min(sizes) >= 7 and max(sizes) <= 9


def test_words_lie_beside_the_figure_and_not_in_it(
    paper: tuple[list[Path], list[list[tuple[str, float]]]],
) -> None:
    for path, letters in zip(paper[0], paper[1], strict=True):
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert caption.endswith(".\n") and caption.count("\n") == 1 and len(caption) > 60
        inside = " ".join(text for text, _ in letters).replace("\n", " ")
        assert "does not show that the model uses" not in inside
        assert caption.split(" (")[0] not in inside


def test_words_beside_a_figure_go_when_it_has_them_inside_again(tmp_path: Path) -> None:
    for style, beside in ((Style(style="paper"), True), (Style(), False)):
        figure, _ = small(style)
        path = save(figure, tmp_path / "a.png", style)
        assert path.with_suffix(".txt").exists() is beside


def small(style: Style, notes: tuple[str, ...] = ()) -> tuple[Figure, Page]:
    page = style.page((6.0, 5.0), fill=True)
    with style.context(page.points):
        figure = sheet(style, page, Heading("A title", "task · model", notes, "How to read it."))
        figure.add_subplot().set(xlabel="layer", title="panel")
    return figure, page


def test_a_figure_with_words_is_as_it_was(tmp_path: Path) -> None:
    figure, page = small(Style())
    assert (page.width, page.height, page.points) == (6.0, 5.0, 10.5)
    assert {t.get_text() for t in figure.texts} == {"A title", "task · model", "How to read it."}
    save(figure, tmp_path / "a.png", Style())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_caption_is_ready_to_paste_and_the_room_of_the_words_is_given_up() -> None:
    heading = Heading("A title", "task · model", ("imported: by hand",), "How to read it.")
    assert caption_of(heading) == "A title (task, model). Imported: by hand. How to read it."
    style = Style(style="paper")
    figure, page = small(style, ("imported: by hand",))
    assert not figure.texts
    assert figure.get_size_inches()[1] < 0.9 * page.height


def test_a_note_that_forbids_the_numbers_stays_in_every_picture() -> None:
    loud = "RANDOM WEIGHTS: the architecture is real, the numbers mean nothing"
    assert is_loud(loud) and not is_loud("CLS is not there") and not is_loud("masked: false")
    figure, _ = small(Style(style="paper"), (loud, "masked: false"))
    assert [t.get_text().split(":")[0] for t in figure.texts] == ["RANDOM WEIGHTS"]


@pytest.mark.parametrize(
    ("natural", "options", "mm"),
    [
        ((4.0, 3.0), {}, 89),
        ((9.0, 3.0), {}, 183),
        ((9.0, 3.0), {"columns": 1}, 89),
        ((4.0, 3.0), {"columns": 2, "column_mm": (77, 160)}, 160),
    ],
)
def test_columns(natural: tuple[float, float], options: Mapping[str, Any], mm: float) -> None:
    page = Style(style="paper", **options).page(natural, fill=True)
    assert page.width * 25.4 == pytest.approx(mm) and page.points == 8.25
    # Rows of letters are as high as letters are: 8.25 of 10.5 points, or more where there is room.
    assert page.height / natural[1] >= 8.25 / 10.5 - 1e-9


def test_proportions_are_kept_where_a_picture_is_shown() -> None:
    page = Style(style="paper", columns=2).page((6.0, 3.0))
    assert page.width / page.height == pytest.approx(2.0)
    tall = Style(style="slides").page((4.0, 8.0))
    assert tall.height == pytest.approx(6.0) and tall.width == pytest.approx(3.0)


def test_panels_are_not_squeezed_into_a_slide() -> None:
    # 16 points where 10.5 were planned for: each row of letters needs half as much again.
    page = Style(style="slides").page((4.0, 8.0), fill=True)
    assert page.width == pytest.approx(12.2) and page.height >= 8.0 * 16 / 10.5


def test_letters_of_a_drawing_for_print_can_be_edited(tmp_path: Path) -> None:
    for name, editable in (("paper", True), ("screen", False)):
        style = Style(style=name, format="svg")
        figure, _ = small(style)
        text = save(figure, tmp_path / f"{name}.svg", style).read_text(encoding="utf-8")
        assert bool(re.search(r"<text[^>]*>layer</text>", text)) == editable


def test_the_style_gives_the_colormap_unless_one_is_named() -> None:
    assert (Style().colormap, Style(style="paper").colormap) == ("viridis", "cividis")
    assert Style(style="paper", cmap="magma").colormap == "magma"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"style": "papr"},
            "visualization.style='papr': give one of screen, paper, slides. Did you mean 'paper'?",
        ),
        (
            {"columns": 1},
            "visualization.columns=1: has an effect with visualization.style=paper alone",
        ),
        ({"style": "paper", "columns": 3}, "visualization.columns=3: give 1, 2 or null"),
        (
            {"style": "paper", "column_mm": [183, 89]},
            "visualization.column_mm=[183.0, 89.0]: give two widths from 20 to 1000, the smaller "
            "one first",
        ),
    ],
)
def test_wrong_values_are_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Style(**values)
    assert str(caught.value) == line


def test_results_of_before_that_name_a_colormap_keep_it() -> None:
    with open_results(ROOT / "tests/golden/scienceqa/results.h5") as results:
        stored = OmegaConf.create(str(results.attributes["config"]))
    assert stored.visualization.cmap == "viridis"
