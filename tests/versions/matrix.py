"""The table of versions: contracts, the small atlas and the five studies on every version claimed.

    python tests/versions/matrix.py                          every row; writes README's table
    python tests/versions/matrix.py --only 5.20.2 --only torch-2.6.0     these rows; only prints

A row that was filled on the same code is not filled again, so a table that was stopped goes on;
`--again` fills all.

Each row has an environment of its own below `.venv-versions`, kept for the next time. It lies over
the environment that runs this script, so a row of transformers takes seconds to install and shares
its torch; a row of torch takes some 3 GB.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import distributions, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-versions"
README = ROOT / "README.md"
TASKS = ("clip_similarity", "scienceqa", "semdim", "trajectory", "avigate")
# Checks that are tests, and their folder.
TESTED = {"contracts": "tests/libraries", "atlas": "tests/atlas"}
CHECKS = (*TESTED, *TASKS)
# The oldest that is supported first; the newest is asked of the registry.
BOUNDED = ("transformers", "torch")
TRANSFORMERS = ("5.6.2", "5.8.1", "5.10.4", "5.13.1", "5.16.1", "5.20.2", "5.22.2", "5.23.0")
TORCH = ("2.6.0",)
# torchvision is built for one torch, whose number it does not bear. Elsewhere pip finds the pair.
TORCHVISION = {"2.6.0": "torchvision==0.21.0"}
BEGIN, END = "<!-- versions:begin -->", "<!-- versions:end -->"
LONGEST = 900
OK = "ok"


@dataclass
class Row:
    """One environment and what became of it.

    Args:
        package: `transformers`, `torch`, or `constraints` for an environment made elsewhere.
        version: of the package.
        outcomes: check -> `ok`, or one line that says what failed.
    """

    package: str
    version: str
    outcomes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The row's title, and its folder's name."""
        return f"{self.package}-{self.version}"

    @property
    def passed(self) -> bool:
        """Whether every check ran and passed."""
        return set(self.outcomes) == set(CHECKS) and set(self.outcomes.values()) == {OK}


class InstallError(Exception):
    """An environment cannot be built; its text is one line."""


def resolved(wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what pip would install into an empty environment: name -> metadata of the newest fit.

    Raises:
        InstallError: if the requirements contradict each other or the registry does not answer.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--disable-pip-version-check", "--report", "-", *wanted]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise InstallError(f"{' '.join(wanted)}: {last_line(done.stderr)}")
    return {
        found["metadata"]["name"]: found["metadata"] for found in json.loads(done.stdout)["install"]
    }


def newest(package: str) -> str:
    """Return the newest release of a package in the registry that pip is set up with."""
    # A torch for which there is no torchvision yet cannot be had.
    beside = ["torchvision"] if package == "torch" else []
    return resolved([package, *beside])[package]["version"]


def site_packages(python: Path) -> Path:
    """Return where an environment keeps its packages."""
    code = "import site; print(site.getsitepackages()[0])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def environment(name: str, wanted: Sequence[str], minutes: float = 10) -> Path:
    """Return the Python of an environment over this one, with the wanted packages in it.

    Args:
        name: of its folder.
        wanted: requirements, as pip takes them.
        minutes: how long pip may take.

    Raises:
        InstallError: if pip fails.
    """
    folder = ENVIRONMENTS / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == "\n".join(wanted):
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    (site_packages(python) / "main.pth").write_text(f"{site_packages(Path(sys.executable))}\n")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{name}: pip took more than {minutes:g} minutes") from error
    if done.returncode:
        raise InstallError(f"{name}: {last_line(done.stderr)}")
    ready.write_text("\n".join(wanted))
    return python


def requirements(row: Row) -> list[str]:
    """Return what an environment of a row is asked to hold."""
    beside = [TORCHVISION.get(row.version, "torchvision")] if row.package == "torch" else []
    return [f"{row.package}=={row.version}", *beside]


def last_line(text: str) -> str:
    """Return the line of a program's complaint that says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.lower().startswith("error:")]
    return (said or lines or ["no reason given"])[-1][:300]


def fingerprint() -> str:
    """Return a hash of the code that the checks run, and of this environment's packages."""
    found = hashlib.sha256(
        "".join(sorted(f"{d.name} {d.version}" for d in distributions())).encode()
    )
    for folder, pattern in (
        ("interp_lab", "*.py"),
        ("conf", "*.yaml"),
        *((folder, "*.py") for folder in TESTED.values()),
    ):
        for path in sorted((ROOT / folder).rglob(pattern)):
            found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def tested(python: Path, folder: str) -> str:
    """Run the tests of a folder; return `ok` or the tests that failed."""
    done = run(python, "-m", "pytest", folder, "-p", "no:cacheprovider", "-rfE")
    if done.returncode == 0:
        return OK
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?(?:::(\S+))?(?: - (.*))?$", done.stdout, re.M)
    lines = [f"{test} ({why})" if why else test for test, why in failed]
    return "; ".join(lines)[:600] or last_line(done.stderr or done.stdout)


def study(python: Path, task: str, draw: bool) -> str:
    """Run a study on its tiny model; return `ok` or the line that it ended with.

    Figures need neither transformers nor torch and take most of the time, so rows of these leave
    them out.
    """
    figures = [] if draw else ["visualization.figures=null"]
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            python,
            "-m",
            "interp_lab",
            f"task={task}",
            f"output.root={folder}/outputs",
            f"hydra.run.dir={folder}/hydra",
            *figures,
        )
        made = any(Path(folder).rglob("results.h5"))
    if done.returncode == 0:
        return OK if made else "no results.h5 was made"
    # Where samples failed, the last line points to the log, which is in front of it.
    failures = re.findall(r"\[WARNING\] - (.*)", done.stdout + done.stderr)
    return "; ".join([last_line(done.stderr), *failures[:1]])[:600]


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python of an environment on this checkout, offline and without a display."""
    settings = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    command = [str(python), *arguments]
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"took more than {LONGEST} s")


def filled(row: Row, again: bool) -> Row:
    """Return a row with its outcomes: those of the same code before, or new ones."""
    kept, code = ENVIRONMENTS / f"{row.name}.json", fingerprint()
    if kept.is_file() and not again:
        before = json.loads(kept.read_text())
        if before["code"] == code:
            row.outcomes = before["outcomes"]
            return row
    try:
        fill(row, environment(row.name, requirements(row)))
    except InstallError as error:
        row.outcomes = dict.fromkeys(CHECKS, str(error))
        return row
    kept.write_text(json.dumps({"code": code, "outcomes": row.outcomes}))
    return row


def fill(row: Row, python: Path, draw: bool = False) -> None:
    """Run every check of a row, one after the other; `draw` for studies with their figures.

    Raises:
        InstallError: if the environment imports another version than the row's.
    """
    if row.package in BOUNDED:
        found = run(python, "-c", f"import {row.package} as p; print(p.__version__)").stdout.strip()
        if plain(found) != row.version:
            raise InstallError(f"{row.name}: its environment imports {found or 'nothing'}")
    for check in CHECKS:
        start = time.monotonic()
        row.outcomes[check] = (
            tested(python, TESTED[check]) if check in TESTED else study(python, check, draw)
        )
        seconds = time.monotonic() - start
        print(f"{row.name} {check}: {row.outcomes[check]} ({seconds:.0f} s)", flush=True)


def rows(only: Iterable[str]) -> list[Row]:
    """Return the rows to run: all, or those of some versions, which need not be in the list."""
    only = set(only)
    known = [Row("transformers", v) for v in TRANSFORMERS] + [Row("torch", v) for v in TORCH]
    if not only:
        # Every row of transformers has this environment's torch, which needs no row of its own.
        had = [*known, Row("torch", plain(version("torch")))]
        last = [Row(name, plain(newest(name))) for name in BOUNDED]
        known += [row for row in last if row not in had]
        return sorted(known, key=lambda r: (BOUNDED.index(r.package), numbers(r.version)))
    found = [r for r in known if {r.version, r.name} & only]
    others = only - {r.version for r in found} - {r.name for r in found}
    for name in sorted(others):
        package, _, number = name.rpartition("-")
        found.append(Row(package or "transformers", number))
    return found


def table(done: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, and the reason of everything that failed below it."""
    lines = [f"| version | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 1) + "|"]
    for row in done:
        cells = [OK if row.outcomes.get(c) == OK else "fails" for c in CHECKS]
        lines.append(f"| {row.package} {row.version} | {' | '.join(cells)} |")
    reasons = dict.fromkeys(
        f"- {row.package} {row.version}, {check}: {said}"
        for row in done
        for check, said in row.outcomes.items()
        if said != OK
    )
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def write_readme(text: str) -> None:
    """Put the table between its marks in README."""
    page = README.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    about = (
        f"Run on {date.today():%Y-%m-%d}, CPU, Python {sys.version_info[0]}.{sys.version_info[1]}; "
        f"rows of transformers with torch {plain(version('torch'))}, rows of torch with "
        f"transformers {version('transformers')}."
    )
    README.write_text(f"{before}{BEGIN}\n{text}\n\n{about}\n{END}{after}", encoding="utf-8")


def numbers(release: str) -> list[int]:
    """Return a release as numbers, to sort by."""
    return [int(part) for part in re.findall(r"\d+", release)]


def plain(number: str) -> str:
    """Return a version without the mark of its build."""
    return number.partition("+")[0]


def main() -> int:
    """Run the table; 0 if every check of every row passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="VERSION",
        help="of transformers, or torch-VERSION; only prints",
    )
    parser.add_argument("--again", action="store_true", help="fill rows again that are filled")
    options = parser.parse_args()
    done = [filled(row, options.again) for row in rows(options.only)]
    text = table(done)
    print(text)
    if not options.only:
        write_readme(text)
    return 0 if all(row.passed for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
