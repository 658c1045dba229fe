"""Every command of the README composes, and its examples of drawing again run on shipped data."""

import re
import shlex
from pathlib import Path

import pytest

from interp_lab.config.folders import all_folders
from interp_lab.config.former import instead
from interp_lab.config.nodes import conf_dir
from interp_lab.config.typed import understood
from interp_lab.libraries.hydra_inside import composed, parsed

README = Path("README.md")
TYPED = "python -m interp_lab "
# What small run of a section's task its results=PATH may be of.
RUNS = {
    "semdim": ("dataset.language=ko", "dataset.max_samples=4", "numbers.bootstrap=100"),
    "trajectory": ("dataset.max_samples=1", "analysis.layers=0"),
}


def commands() -> list[tuple[str, list[str]]]:
    """Return section and arguments of every command in a block of code, its lines joined."""
    found, section = [], ""
    lines = iter(README.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("### "):
            section = line.removeprefix("### ").strip()
        if not line.startswith(f"    {TYPED}"):
            continue
        text = line.strip()
        while text.endswith("\\") or text.count("'") % 2:
            text = f"{text.rstrip(chr(92))} {next(lines).strip()}"
        found.append((section, shlex.split(text.removeprefix(TYPED), comments=True)))
    return found


COMMANDS = commands()
IDS = [" ".join(arguments)[:60] for _, arguments in COMMANDS]


@pytest.mark.parametrize(("section", "arguments"), COMMANDS, ids=IDS)
def test_every_command_composes(section: str, arguments: list[str]) -> None:
    words = [a for a in arguments if not a.startswith("-") and a != "..." and a != "mine"]
    assert words or "--help" in arguments
    assert not instead(words, all_folders(()))
    if "--multirun" in arguments:
        # A job of the sweep has the first of its values.
        first = (o for o in parsed([w for w in words if not w.startswith("hydra")]))
        words = [f"{o.key}={o.text.partition('=')[2].split(',')[0]}" for o in first]
    if "mode=render" in words and section:
        words.insert(0, f"task={section}")  # as the command learns from the result
    if not any(word.startswith("hydra/") for word in words):
        composed(conf_dir(), understood(words))


AGAIN = [(s, a) for s, a in COMMANDS if s in RUNS and "mode=render" in a]


@pytest.mark.parametrize(("section", "arguments"), AGAIN, ids=[s for s, _ in AGAIN])
def test_drawing_again_as_the_readme_says(command, section: str, arguments: list[str]) -> None:
    quick = ("visualization.workers=0", "visualization.dpi=30")
    small = (*RUNS[section], *quick, "visualization.max_samples=0", "device=cpu")
    said = command(f"task={section}", *small)
    assert said.code == 0, said.err
    (path,) = re.findall(r"^results: (.*)$", said.out, re.MULTILINE)
    before = {p for p in Path(path).parent.joinpath("figures").rglob("*.*")}
    typed = [a.replace("results=PATH", f"results={path}") for a in arguments]
    again = command(*typed, *quick, "visualization.max_samples=1")
    assert again.code == 0, again.err
    assert {p for p in Path(path).parent.joinpath("figures").rglob("*.*")} > before
