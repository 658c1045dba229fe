"""The table of versions and the constraints file, as texts; no environment is built here."""

import re
from importlib.metadata import requires
from pathlib import Path

import constraints
import matrix
import pytest
from matrix import CHECKS, OK, Row

ROOT = Path(__file__).parents[2]


def row(version: str, **failed: str) -> Row:
    return Row("transformers", version, dict.fromkeys(CHECKS, OK) | failed)


def test_a_row_passes_only_if_every_check_ran_and_passed() -> None:
    assert row("5.1").passed
    assert not row("5.1", semdim="error: x").passed
    assert not Row("transformers", "5.1", {"contracts": OK}).passed


def test_a_failure_is_a_cell_and_a_reason() -> None:
    lines = matrix.table([row("5.1"), row("5.2", semdim="error: no tower")]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == len(CHECKS) + 2
    assert lines[2] == "| transformers 5.1 | ok | ok | ok | ok | ok | ok | ok |"
    assert lines[3] == "| transformers 5.2 | ok | ok | ok | ok | fails | ok | ok |"
    assert lines[5:] == ["- transformers 5.2, semdim: error: no tower"]


def test_the_table_stands_between_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    monkeypatch.setattr(matrix, "README", page)
    matrix.write_readme("new")
    text = page.read_text()
    assert text.startswith(f"before\n{matrix.BEGIN}\nnew\n\nRun on ")
    assert text.endswith(f"{matrix.END}\nafter\n") and "old" not in text


def test_the_line_that_says_what_was_wrong() -> None:
    said = "[INFO] loading\nerror: no tower\n[notice] a new pip\n"
    assert matrix.last_line(said) == "error: no tower"
    assert matrix.last_line("Traceback\nKeyError: 'x'\n\n") == "KeyError: 'x'"
    assert matrix.last_line("") == "no reason given"


def test_chosen_rows_need_not_be_in_the_list() -> None:
    chosen = {r.name for r in matrix.rows(["5.20.2", "5.1.0", "torch-2.6.0", "torch-2.9.1"])}
    assert chosen == {"transformers-5.20.2", "transformers-5.1.0", "torch-2.6.0", "torch-2.9.1"}


def test_pins_leave_out_the_builds_of_torch_and_mark_what_old_pythons_lack() -> None:
    found = {
        "Zeta_x": {"version": "2", "requires_python": ">=3.9"},
        "alpha": {"version": "1", "requires_python": "!=3.14.1,>=3.11"},
        "plain": {"version": "3", "requires_python": ""},
    }
    found |= {
        name: {"version": "1", "requires_python": ""}
        for name in ("torch", "torchvision", "triton", "nvidia-cudnn-cu13", "interp_lab", "pip")
    }
    assert constraints.pins(found) == [
        'alpha==1 ; python_version >= "3.11"',
        "plain==3",
        "zeta-x==2",
    ]


def test_the_shipped_constraints_pin_all_that_the_package_needs() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0] for line in text.splitlines() if not line.startswith("#")}
    needed = [r for r in requires("interp-lab") or [] if "extra ==" not in r]
    names = {re.split(r"[<>=!~\[; ]", r)[0].replace("_", "-").lower() for r in needed}
    assert names - pinned == {"torch", "torchvision"}
    assert "://" not in text
