"""docs/atlas.md from the rows of all types: counts, each refusal once, and a line for each type."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import torch
import transformers
from scenarios import SCENARIOS, TOLERANCE
from trial import NAMED, is_at_odds

Row = dict[str, Any]
FAULTS = ("wrong", "raised")
WORDS = {"equal": "equal", "odds": "at odds", "refused": "refused", "wrong": "**wrong**"}
ABOUT = {
    "prefill": "one row by itself",
    "padded": "two rows, one of them padded",
    "generated": "a generation, each decode step",
    "blocked": "a key blocked in the first layer",
}


def faults(rows: Iterable[Row]) -> list[str]:
    """Return one line for every tower that is wrong or raised something raw."""
    return [
        f"{row['type']}, {name_of(tower)}, {scenario}: {outcome['status']}: {outcome['said']}"
        for row in rows
        for tower in row["towers"]
        for scenario, outcome in tower["outcomes"].items()
        if outcome["status"] in FAULTS
    ]


def page(rows: Sequence[Row], n_types: int) -> str:
    """Return the whole page, of the rows that there are of so many types."""
    rows = sorted(rows, key=lambda r: r["type"])
    measured = [r for r in rows if r["towers"]]
    numbers = refusals(measured)
    parts = [heading(rows), counts(rows, measured, n_types), verdicts(measured)]
    parts += [found_wrong(rows), refused(measured, numbers), odds(measured)]
    parts += [table(measured, numbers), unmeasured(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(rows: Sequence[Row]) -> str:
    """Return what the page is and how to read it."""
    double = ", ".join(r["type"] for r in rows if r.get("dtype") == "float64")
    where = f"fp32; float64 where the model magnifies rounding: {double}" if double else "fp32"
    return f"""# Atlas: captured attention on every architecture

A tiny random model of every model type in transformers {transformers.__version__}, watched by
interp_lab's capture and held against its own eager attention, which is recorded without the
capture. `make atlas` renews this page ({date.today():%Y-%m-%d}, torch {torch.__version__}, CPU,
{where}). A captured pattern is *equal* if no number of it is further than {TOLERANCE:g} from the
true one. What cannot be captured right is *refused* with a reason. *At odds* are models whose eager
attention returns another pattern than that by which the attention that ran weighs its values
(found by giving it the identity matrix as values): there the captured pattern is equal to those
weights."""


def counts(rows: Sequence[Row], measured: Sequence[Row], n_types: int) -> str:
    """Return how many types there are and what became of them."""
    by_reason: dict[str, int] = defaultdict(int)
    for row in rows:
        by_reason[row["reason"]] += not row["towers"]
    clean = [r for r in measured if statuses(r) <= {"equal"}]
    some = [r for r in measured if "equal" in statuses(r)]
    lines = [
        ("model types in the library", n_types),
        *([("not tried yet", n_types - len(rows))] if len(rows) < n_types else []),
        ("watched: built, run, and with attention that leaves a pattern", len(measured)),
        ("every tower equal in every way of watching it", len(clean)),
        ("at least one tower equal", len(some)),
        ("at odds with themselves", sum(map(is_at_odds, measured))),
        *((f"not watched: {why}", n) for why, n in sorted(by_reason.items()) if n),
    ]
    return "\n".join(["| | types |", "|---|---|", *(f"| {what} | {n} |" for what, n in lines)])


def statuses(row: Row) -> set[str]:
    """Return every status of a type's towers."""
    return {o["status"] for t in row["towers"] for o in t["outcomes"].values()}


def verdicts(measured: Sequence[Row]) -> str:
    """Return the verdicts by the way of watching; a tower counts once under each name."""
    lines = [
        "| towers | equal | at odds | refused | wrong | largest difference |",
        "|---" * 6 + "|",
    ]
    for scenario in SCENARIOS:
        found = [
            t["outcomes"][scenario]
            for r in measured
            for t in r["towers"]
            if scenario in t["outcomes"]
        ]
        equal = [o["difference"] for o in found if o["status"] == "equal"]
        number = {s: sum(o["status"] == s for o in found) for s in ("odds", "refused")}
        wrong = sum(o["status"] in FAULTS for o in found)
        lines.append(
            f"| {ABOUT[scenario]} | {len(equal)} | {number['odds']} | {number['refused']} | "
            f"{wrong} | {max(equal, default=0):.1e} |"
        )
    return "\n".join(lines)


def found_wrong(rows: Sequence[Row]) -> str:
    """Return what must not be there."""
    lines = faults(rows)
    return "\n".join(["## Wrong", "", *(f"- {line}" for line in lines)]) if lines else ""


# What differs between models in a refusal that is the same, and what stands for it.
OWN = (
    (r" Did you mean .*$", ""),
    (r"(?<!\w)'[^']*'(?!\w)", "'...'"),
    (r"\(\w+: .*?\)|\((?=[^)]*[._*,=])[^)]*\)|\([a-z0-9_-]+\)", "(...)"),
    (r"it has [^;]*;", "it has ...;"),
    (r"there are: .*", "there are: ..."),
    (r"(?<=\w )(is|are) not known; name one of .*", r"\1 not known; name one of ..."),
    (r"\b\w+(?:\.\w+)*\.\d+(?:\.\w+)*\b", "LAYER"),
    (r"\b(?!AttentionInterface)[A-Z]\w+[a-z][A-Z]\w*\b", "CLASS"),
    (r"^[\w.]+:", "CLASS:"),
    (r"\d+", "n"),
)


def general(said: str) -> str:
    """Return a refusal without the names and numbers of the model that it was said of."""
    for pattern, instead in OWN:
        said = re.sub(pattern, instead, said)
    return said.strip()


def refusals(measured: Sequence[Row]) -> dict[str, str]:
    """Return each reason's mark, the most frequent first."""
    often: dict[str, int] = defaultdict(int)
    for _, said in all_refused(measured):
        often[said] += 1
    ranked = sorted(often, key=lambda said: (-often[said], said))
    return {said: f"R{i + 1}" for i, said in enumerate(ranked)}


def all_refused(measured: Iterable[Row]) -> list[tuple[str, str]]:
    """Return (type, general reason) of every refusal."""
    return [
        (row["type"], general(outcome["said"]))
        for row in measured
        for tower in row["towers"]
        for outcome in tower["outcomes"].values()
        if outcome["status"] == "refused"
    ]


def refused(measured: Sequence[Row], numbers: dict[str, str]) -> str:
    """Return every reason once, with the types that it holds for."""
    types: dict[str, list[str]] = defaultdict(list)
    for name, said in all_refused(measured):
        types[said].append(name)
    lines = ["## Refused, and why"]
    for said, mark in numbers.items():
        names = sorted(set(types[said]))
        lines.append(
            f"**{mark}** {said}\n\n<details><summary>{len(names)} types</summary>"
            f"\n\n{', '.join(names)}\n\n</details>"
        )
    return "\n\n".join(lines) if numbers else ""


def odds(measured: Sequence[Row]) -> str:
    """Return the models whose own two ways differ."""
    lines = []
    for row in measured:
        towers = [
            name_of(t)
            for t in row["towers"]
            if any(o["status"] == "odds" for o in t["outcomes"].values())
        ]
        if is_at_odds(row) or towers:
            apart = row["own_difference"]
            where = ", ".join(towers) or "no pattern differs"
            lines.append(f"| {row['type']} | {apart:.1e} | {where} |")
    if not lines:
        return ""
    head = ["## At odds with themselves", ""]
    head += ["Without interp_lab, the output under eager attention differs from that under the"]
    head += ["default implementation. Captured is what the default one attended to.", ""]
    head += [
        "| type | difference of the outputs, in parts of the largest | towers |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *lines])


def table(measured: Sequence[Row], numbers: dict[str, str]) -> str:
    """Return a line for each type that was watched."""
    lines = [
        "## Every type",
        "",
        "`=` equal in every way of watching, `≠` at odds, `R1` refused for that reason, `.` no",
        "such tower; a way that alone is refused is named. *By path* are towers named by their",
        "place in the model. The last column: made from the kernel's log-sum-exp, from full score",
        "rows, or from the model's own eager pattern.",
        "",
        f"| type | class | {' | '.join(NAMED)} | by path | largest difference | how |",
        "|---" * (len(NAMED) + 5) + "|",
    ]
    return "\n".join([*lines, *(line(row, numbers) for row in measured)])


def line(row: Row, numbers: dict[str, str]) -> str:
    """Return one type's line."""
    named = {t["tower"]: cell(t, numbers) for t in row["towers"] if t["named"]}
    cells = [named.get(tower, ".") for tower in NAMED]
    others = [cell(t, numbers) for t in row["towers"] if not t["named"]]
    by_path = ", ".join(
        f"{others.count(c)} {c}" if others.count(c) > 1 else c for c in dict.fromkeys(others)
    )
    outcomes = [o for t in row["towers"] for o in t["outcomes"].values() if o["paths"]]
    worst = max((o["difference"] for o in outcomes), default=None)
    how = ", ".join(sorted({p for o in outcomes for p in o["paths"]}))
    shown = "" if worst is None else f"{worst:.0e}"
    return f"| {row['type']} | {row['class']} | {' | '.join(cells)} | {by_path} | {shown} | {how} |"


def cell(tower: Row, numbers: dict[str, str]) -> str:
    """Return a tower's verdict in few characters."""
    marks = {name: mark(o, numbers) for name, o in tower["outcomes"].items()}
    first = marks.get("prefill", ".")
    others = [f"{name} {m}" for name, m in marks.items() if m != first and m != "="]
    return " ".join([first, *(f"({o})" for o in others)])


def mark(outcome: Row, numbers: dict[str, str]) -> str:
    """Return the sign of an outcome."""
    if outcome["status"] == "refused":
        return numbers[general(outcome["said"])]
    return {"equal": "=", "odds": "≠"}.get(outcome["status"], "**wrong**")


def name_of(tower: Row) -> str:
    """Return a tower's name; the whole model has none."""
    return tower["tower"] or "(whole model)"


def unmeasured(rows: Sequence[Row]) -> str:
    """Return the types that could not be watched, by reason."""
    lines = ["## Not watched"]
    reasons = sorted({r["reason"] for r in rows if not r["towers"]})
    for reason in reasons:
        found = [r for r in rows if r["reason"] == reason and not r["towers"]]
        lines.append(f"<details><summary>{reason}: {len(found)} types</summary>\n")
        short = [
            f"{r['type']}: {escaped(r['why'][:160])}" if r["why"] else r["type"] for r in found
        ]
        told = any(r["why"] for r in found)
        lines.append("\n".join(f"- {s}" for s in short) if told else ", ".join(short))
        lines.append("</details>")
    return "\n\n".join(lines) if reasons else ""


def escaped(text: str) -> str:
    """Return text that Markdown leaves as it is."""
    return re.sub(r"([<>|`*])", r"\\\1", text)
