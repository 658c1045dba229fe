"""Figures do not depend on the matplotlib backend that the environment names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
import sys
from pathlib import Path
from interp_lab.visualization.base import Style, save
from matplotlib.figure import Figure
style = Style(dpi=30)
with style.context():
    figure = Figure((2, 2))
    figure.add_subplot().plot([0, 1])
save(figure, Path(sys.argv[1]), style)
import os, matplotlib
print(os.environ.get("MPLBACKEND"), "matplotlib.pyplot" in sys.modules)
"""


def drawn(backend: str, path: Path) -> str:
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    return done.stdout.strip()


def test_a_notebooks_backend_that_is_not_installed_is_dropped(tmp_path: Path) -> None:
    missing = "module://no_such_inline_package.backend_inline"
    assert drawn(missing, tmp_path / "x.png") == "None False"


def test_a_backend_that_is_there_is_left_alone_and_not_used(tmp_path: Path) -> None:
    there = "module://matplotlib.backends.backend_pdf"
    assert drawn(there, tmp_path / "x.png") == f"{there} False"


@pytest.mark.slow
def test_a_whole_study_with_a_notebooks_backend(tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "module://no_such_inline_package.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-m", "interp_lab", f"output.root={tmp_path}", "device=cpu"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("figures/*.png"))
