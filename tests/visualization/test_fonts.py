"""Labels in every script: drawn, or a log line that says what to install."""

import logging
import shutil
import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from interp_lab.errors import ConfigError
from interp_lab.visualization import fonts
from interp_lab.visualization.base import Style, save
from interp_lab.visualization.sheets import Heading, sheet, wrap

KOREAN, JAPANESE, IPA = "고양이 사진", "ネコの写真", "ˈpʰo.ŋæ̃ ɕʑɾ"


def draw(title: str, path: Path) -> Figure:
    style = Style(dpi=30)
    page = style.page((6, 3))
    with style.context(page.points):
        figure = sheet(style, page, Heading(title, f"{title} $a$ $b_$", (title,)))
        figure.add_subplot().set_title(title)
    save(figure, path, style)
    return figure


@pytest.mark.parametrize("title", [KOREAN, JAPANESE, IPA])
def test_scripts_are_drawn_without_a_missing_glyph(
    title: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(title, tmp_path / "x.png")
    assert caplog.text == ""


def test_fonts_of_packages_do_not_change_matplotlib() -> None:
    before = dict(matplotlib.rcParams)
    assert len(fonts.default_chain()) == 3
    assert fonts.chain("DejaVu Serif")[:2] == ["DejaVu Serif", "DejaVu Sans"]
    assert dict(matplotlib.rcParams) == before


def test_a_font_by_its_file_is_that_file(tmp_path: Path) -> None:
    """Also where its name is that of a family that matplotlib has in another file."""
    own = tmp_path / "mine.ttf"
    shutil.copy(font_manager.findfont("DejaVu Serif"), own)
    first = Style(font=str(own))
    assert font_manager.findfont(fonts.chain(first.font)[0]) == str(own)
    assert fonts.chain(None)[0] == "DejaVu Sans"
    draw("a title", tmp_path / "plain.png")
    with first.context():
        assert font_manager.findfont(font_manager.FontProperties()) == str(own)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.ttf", "gone.ttf': No such file or directory; give the path of a .ttf"),
        ("text.otf", "text.otf': is no font .*; give the path of a .ttf, .otf or .ttc file"),
        ("DejaVu Sanz", "no such font family or file here"),
    ],
)
def test_a_font_that_is_none(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "text.otf").write_text("no font")
    with pytest.raises(ConfigError, match=rf"visualization.font='.*{says}"):
        Style(font=name if "." not in name else str(tmp_path / name))


def test_a_letter_that_no_font_has_is_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "chain", lambda preferred: ["DejaVu Sans"])
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("고양이ネ\U00013000", tmp_path / "x.png")
    lines = [r.message for r in caplog.records]
    assert lines == [
        "x.png: no font here draws ネ: pip install matplotlib-fontja",
        "x.png: no font here draws 고양이: pip install koreanize-matplotlib",
        "x.png: no font here draws \U00013000: install a font that has them and name it in "
        "visualization.font",
    ]


def test_wide_letters_are_broken_sooner() -> None:
    latin, korean = wrap("a" * 200, 4, 10), wrap("가" * 200, 4, 10)
    assert korean.count("\n") > 1.5 * latin.count("\n") > 0
    assert wrap("a\nb\tc", 4, 10) == "a b c"


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    class Broken(Figure):
        def draw(self, renderer: object) -> None:
            raise RuntimeError("no ink")

    with pytest.raises(RuntimeError, match="no ink"):
        save(Broken(), tmp_path / "x.png", Style())
    assert list(tmp_path.iterdir()) == []
