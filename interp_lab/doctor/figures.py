"""What figures need: fonts for every script that a label may have, Agg, ffmpeg for videos."""

import io
import os
import subprocess
from collections.abc import Iterator

from matplotlib import font_manager
from matplotlib.figure import Figure

from interp_lab.doctor.findings import Finding
from interp_lab.errors import MissingInputError
from interp_lab.visualization import fonts
from interp_lab.visualization.base import Style
from interp_lab.visualization.film import find_ffmpeg

GROUP = "figures"
# Letters of each script that labels of the studies have.
LETTERS = {"IPA": "ˈʰŋæɕʑɾʌɯ", "Japanese": "かなカナ漢字", "Korean": "한글나비"}


def figure_findings() -> Iterator[Finding]:
    """Yield whether each script can be written, a figure drawn and a video made."""
    yield agg_finding()
    for script in LETTERS:
        yield font_finding(script)
    yield ffmpeg_finding()


def font_finding(script: str) -> Finding:
    """Return which font of the chain draws a script, or what to install for it."""
    letters = set(LETTERS[script])
    for family in fonts.chain(None):
        path = font_manager.findfont(family)
        drawn = {chr(code) for code in font_manager.get_font(path).get_charmap()}
        if letters <= drawn:
            return Finding(GROUP, f"font for {script}", "ok", family, {"path": str(path)})
    packages = {s.name: s.distribution for s in fonts.SCRIPTS}
    remedy = f"pip install {packages[script]}" if script in packages else "reinstall matplotlib"
    text = f"none: these letters become empty boxes in figures: {remedy}"
    return Finding(GROUP, f"font for {script}", "warning", text)


def agg_finding() -> Finding:
    """Return whether a figure is drawn, whatever backend the environment names."""
    named = os.environ.get("MPLBACKEND")
    page = io.BytesIO()
    with Style().context():
        figure = Figure((1, 1))
        figure.add_subplot().set_title("x")
        figure.savefig(page, format="png", dpi=30)
    text = f"a figure of {len(page.getvalue())} bytes was drawn"
    text += f"; MPLBACKEND={named} is not used" if named else ""
    return Finding(GROUP, "Agg", "ok", text, {"MPLBACKEND": named})


def ffmpeg_finding() -> Finding:
    """Return which ffmpeg makes videos, or what to do where there is none."""
    try:
        program = find_ffmpeg()
        done = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
    except (MissingInputError, OSError, subprocess.CalledProcessError) as error:
        text = f"no video can be drawn: {error}"
        return Finding(GROUP, "ffmpeg", "warning", text)
    first = done.stdout.splitlines()[0].split(" Copyright")[0]
    return Finding(GROUP, "ffmpeg", "ok", f"{first} ({program})", {"path": program})
