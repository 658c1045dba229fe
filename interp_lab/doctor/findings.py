"""What a check found, and a list of findings as a table for people or JSON for bug reports."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "warning", "failure"]
WELL = "every promise holds on this machine"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        group: the heading that it stands under.
        name: what was looked at.
        state: "ok"; "note", which costs nothing; "warning", something optional will not work;
            "failure", a promise of the package does not hold here.
        text: what was found, and the remedy where there is one; one line.
        details: the same as values, for JSON.
    """

    group: str
    name: str
    state: State
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that break a promise."""
    return [f for f in findings if f.state == "failure"]


def verdict(findings: Sequence[Finding], well: str = WELL) -> str:
    """Return one line: whether the promises hold here, which is said as `well`."""
    broken = failures(findings)
    warned = sum(f.state == "warning" for f in findings)
    beside = f" ({_count(warned, 'warning')})" if warned else ""
    if not broken:
        return f"{well}{beside}"
    named = ", ".join(dict.fromkeys(f"{f.group}: {f.name}" for f in broken))
    return f"{_count(len(broken), 'failure')}{beside}: {named}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def as_text(findings: Sequence[Finding], well: str = WELL) -> str:
    """Return an aligned table by group; the last line says the verdict."""
    width = max((len(f.name) for f in findings), default=0)
    lines: list[str] = []
    for group, members in itertools.groupby(findings, lambda f: f.group):
        lines.append(group)
        lines += [f"  {f.state:<8} {f.name:<{width}}  {f.text}".rstrip() for f in members]
        lines.append("")
    return "\n".join([*lines, f"verdict: {verdict(findings, well)}"])


def as_json(findings: Sequence[Finding], well: str = WELL) -> str:
    """Return the findings and the verdict as JSON."""
    values = {
        "verdict": verdict(findings, well),
        "holds": not failures(findings),
        "findings": [asdict(f) for f in findings],
    }
    return json.dumps(values, indent=2, ensure_ascii=False, default=str)
