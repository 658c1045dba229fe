"""That the atlas can find fault: numbers that are off, a raw error, and what it says of them."""

from typing import Any

import pytest
import torch
from atlas_page import faults, page
from torch import Tensor
from trial import one

from interp_lab.capture import Keep, plans
from interp_lab.capture.fused import FusedObserver


@pytest.fixture(autouse=True)
def _as_it_was():
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)


def statuses(row: dict[str, Any], scenario: str) -> set[str]:
    return {t["outcomes"][scenario]["status"] for t in row["towers"] if scenario in t["outcomes"]}


def test_a_hundredth_too_much_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def more(self: Keep, block: Tensor) -> Tensor:
        return block + 0.01

    monkeypatch.setattr(Keep, "partial", more)
    row = one("llama")
    assert statuses(row, "prefill") == {"wrong"}
    assert "llama, language, prefill: wrong" in faults([row])[0]
    assert "differs by 1.0e-02" in faults([row])[0]
    assert "## Wrong" in page([row], 1)


def test_a_block_that_does_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans.BlockAttention, "log_factor", property(lambda self: 0.0))
    row = one("llama")
    assert statuses(row, "prefill") == {"equal"}
    assert statuses(row, "blocked") == {"wrong"}


def test_a_raw_error_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("stack expects each tensor to be equal size")

    monkeypatch.setattr(FusedObserver, "attend", fail)
    row = one("llama")
    assert statuses(row, "prefill") == {"raised"}
    assert "RuntimeError: stack expects" in faults([row])[0]


def outcome(status: str, said: str = "") -> dict[str, Any]:
    return {"status": status, "difference": 2e-6, "paths": ["lse"], "said": said}


def test_a_reason_stands_once_with_its_types() -> None:
    rows = []
    for name in ("one", "two"):
        said = f"model.layers.{len(rows)}.self_attn: is packed; name another tower"
        towers = [
            {"tower": "language", "named": True, "outcomes": {"prefill": outcome("equal")}},
            {"tower": "model", "named": False, "outcomes": {"prefill": outcome("refused", said)}},
        ]
        rows.append({"type": name, "class": "Class", "own_difference": 0.0, "towers": towers})
    rows.append({"type": "three", "reason": "package missing", "why": "timm", "towers": []})
    text = page([{"reason": "", "why": "", **row} for row in rows], len(rows))
    assert text.count("is packed") == 1
    assert "| one | Class | = | . | . | . | . | . | R1 | 2e-06 | lse |" in text
    assert "2 types</summary>\n\none, two" in text
    assert "| not watched: package missing | 1 |" in text
    assert faults(rows) == []
