"""Fonts in one place: Latin and IPA, Japanese, Korean, by a chain that matplotlib walks per glyph.

System fonts come first. Where there is none, the font files inside two packages are used by their
path: importing those packages would change rcParams for the whole process.
"""

import dataclasses
import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from matplotlib import font_manager

log = logging.getLogger(__name__)
# Embedding a font in PDF or EPS drops tables that only hinting tools read; it need not be told.
logging.getLogger("fontTools.subset").setLevel(logging.ERROR)

# Part of every matplotlib; it has the letters of the International Phonetic Alphabet.
BASE_FAMILY = "DejaVu Sans"
# Part of every matplotlib too; all its letters have one width.
MONOSPACED = "DejaVu Sans Mono"
FONT_FILES = (".ttf", ".otf", ".ttc")


@dataclass(frozen=True)
class Script:
    """A script that the base font lacks, and who can draw it.

    Args:
        name: what a person calls it.
        system: families to look for on this machine, best first.
        distribution: the package to install where none of them is there.
        module: the package's module; it is located, never imported.
        files: its font files, the regular face first.
        letters: a regular-expression set of its letters.
    """

    name: str
    system: tuple[str, ...]
    distribution: str
    module: str
    files: tuple[str, ...]
    letters: str


# Japanese stands before Korean: both have Chinese characters, and kana beside them must match.
SCRIPTS = (
    Script(
        "Japanese",
        (
            "Noto Sans CJK JP",
            "Noto Sans JP",
            "IPAexGothic",
            "IPAGothic",
            "Hiragino Sans",
            "Yu Gothic",
            "Meiryo",
            "TakaoGothic",
        ),
        "matplotlib-fontja",
        "matplotlib_fontja",
        ("fonts/ipaexg.ttf",),
        "\u3000-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef",
    ),
    Script(
        "Korean",
        (
            "Noto Sans CJK KR",
            "Noto Sans KR",
            "NanumGothic",
            "Nanum Gothic",
            "Malgun Gothic",
            "Apple SD Gothic Neo",
            "UnDotum",
        ),
        "koreanize-matplotlib",
        "koreanize_matplotlib",
        ("fonts/NanumGothic.ttf", "fonts/NanumGothicBold.ttf"),
        "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
    ),
)


def known_families() -> set[str]:
    """Return the font families that matplotlib finds on this machine."""
    return {font.name for font in font_manager.fontManager.ttflist}


@cache
def default_chain() -> tuple[str, ...]:
    """Return the families that labels are drawn with, tried in order for each glyph."""
    found = (_family(script) for script in SCRIPTS)
    return (BASE_FAMILY, *(family for family in found if family))


def is_file(font: str) -> bool:
    """Return whether a choice of font is the path of a file, not the name of a family."""
    return font.lower().endswith(FONT_FILES) or os.sep in font


@cache
def family_of_file(path: str) -> str:
    """Return a family that this font file alone has; matplotlib knows it from then on.

    A font may be called as one of the system is, so the file goes by a name of its own.

    Raises:
        OSError: if there is no such file, or it is no font.
    """
    file = str(Path(path).expanduser().absolute())
    try:
        font_manager.fontManager.addfont(file)
    except RuntimeError as error:  # of the font library, which reads anything else
        raise OSError(f"is no font ({error})") from error
    entry = font_manager.fontManager.ttflist[-1]
    # matplotlib reads a name as a pattern in which dashes and colons have a meaning.
    name = re.sub(r"\W", " ", entry.name)
    own = dataclasses.replace(entry, name=f"{name} {hashlib.sha256(file.encode()).hexdigest()[:8]}")
    font_manager.fontManager.ttflist.append(own)
    return own.name


def chain(preferred: str | None) -> list[str]:
    """Return the default chain with the reader's own choice, a family or a file, before it."""
    preferred = family_of_file(preferred) if preferred and is_file(preferred) else preferred
    rest = [family for family in default_chain() if family != preferred]
    return [preferred, *rest] if preferred else rest


def _family(script: Script) -> str | None:
    known = known_families()
    for family in script.system:
        if family in known:
            return family
    # find_spec locates a top-level package without running it.
    spec = importlib.util.find_spec(script.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    paths = [folder / name for name in script.files if (folder / name).is_file()]
    for path in paths:
        font_manager.fontManager.addfont(path)
    return font_manager.get_font(paths[0]).family_name if paths else None


def missing_glyph(message: str) -> str | None:
    """Return the character that matplotlib's warning says no font has, or None for another."""
    match = re.match(r"Glyph (\d+) .*missing from", message)
    return chr(int(match[1])) if match else None


def report_missing(characters: Iterable[str], where: str) -> None:
    """Log one warning a script: which characters are not drawn, and what to install for them."""
    left = set(characters)
    for script in SCRIPTS:
        letters = {c for c in left if re.match(f"[{script.letters}]", c)}
        if letters:
            _warn(letters, where, f"pip install {script.distribution}")
        left -= letters
    if left:
        _warn(left, where, "install a font that has them and name it in visualization.font")


def _warn(characters: set[str], where: str, remedy: str) -> None:
    shown = "".join(sorted(characters)[:8]) + ("..." if len(characters) > 8 else "")
    log.warning("%s: no font here draws %s: %s", where, shown, remedy)
