"""Renews `constraints.txt`: the newest of everything, once all checks have passed on it.

    python tests/versions/constraints.py            asks the registry, runs the checks, writes
    python tests/versions/constraints.py --installed     pins what this environment holds

torch and torchvision are left open, because which build is right depends on the machine.
"""

import argparse
import re
import subprocess
import sys
from importlib.metadata import distributions

from matrix import ENVIRONMENTS, ROOT, InstallError, Row, environment, fill, resolved, table

FILE = ROOT / "constraints.txt"
# What torch brings for its build, what is installed from here, and what every venv has.
LEFT_OUT = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*|interp-lab|pip|setuptools|wheel")
OLDEST_PYTHON = (3, 10)
HEADER = """\
# The versions that the checks passed with (make constraints); all but torch and torchvision.
"""


def installed() -> dict[str, dict[str, str]]:
    """Return the packages of this environment: name -> version and requires_python."""
    return {
        d.metadata["Name"]: {
            "version": d.version,
            "requires_python": d.metadata.get("Requires-Python") or "",
        }
        for d in distributions()
    }


def pins(found: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for each package, sorted; those that older Pythons cannot have say so."""
    lines = []
    for name, about in sorted(found.items(), key=lambda item: item[0].lower()):
        plain = re.sub(r"[-_.]+", "-", name).lower()
        if LEFT_OUT.fullmatch(plain):
            continue
        lines.append(f"{plain}=={about['version']}{marker(about.get('requires_python') or '')}")
    return lines


def marker(requires_python: str) -> str:
    """Return the condition for a version that the oldest supported Python cannot have."""
    lowest = re.search(r">=?\s*3\.(\d+)", requires_python)
    if lowest is None or (3, int(lowest[1])) <= OLDEST_PYTHON:
        return ""
    return f' ; python_version >= "3.{lowest[1]}"'


def checked(lines: list[str]) -> bool:
    """Install the pins over this environment's torch and run the checks; return if all passed."""
    wanted = ENVIRONMENTS / "wanted.txt"
    ENVIRONMENTS.mkdir(exist_ok=True)
    wanted.write_text("\n".join(lines) + "\n")
    row = Row("constraints", "new")
    (ENVIRONMENTS / row.name / ".ready").unlink(missing_ok=True)
    fill(row, environment(row.name, ["-r", str(wanted)]), draw=True)
    print(table([row]))
    return row.passed


def main() -> int:
    """Write the file; 1 if a check failed, and then nothing is written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--installed", action="store_true", help="pin this environment, without asking the registry"
    )
    if parser.parse_args().installed:
        lines, passed = pins(installed()), True
    else:
        try:
            lines = pins(resolved([f"{ROOT}[dev]"]))
            passed = checked(lines)
        except (InstallError, subprocess.TimeoutExpired) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if not passed:
        print("error: constraints.txt is left as it was: a check failed", file=sys.stderr)
        return 1
    FILE.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{FILE.name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
