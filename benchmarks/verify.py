"""The check of captured numbers at real ranges: what it finds of right ones and of planted faults.

    PYTHONPATH=.:tests/capture python benchmarks/verify.py

Queries and keys have the ranges of Qwen2-7B's (`tests/capture/test_reference.py` makes them); the
faults are those that the tests plant. Prints a table for benchmarks/README.md.
"""

import pytest
import test_reference as planted
import torch

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.checks import eager_difference
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep

ROWS = AttentionPlan(tuple(range(5, 20)), tuple(range(3, 20)), Keep())


def found(dtype: torch.dtype, fault: object, plan: AttentionPlan, steps: int = 0) -> str:
    """Return what the check says with a fault planted, or none."""
    with pytest.MonkeyPatch.context() as patch:
        if fault is not None:
            fault(patch)
        plans = [{"rows": plan}, {"rows": plan}]
        model, inputs = planted.ranged(dtype), planted.padded_pair()
        finding = planted.checked(model, inputs, plans, steps)[0]["rows"]
    difference = min(finding.difference, 1e9)
    says = "passes" if finding.holds else "caught"
    return f"{difference:.1e} of {finding.bound:.1e}, {says}"


def eager(dtype: torch.dtype) -> str:
    """Return how far the model's own eager forward is from what was captured."""
    model, inputs = planted.ranged(dtype), planted.padded_pair()
    plans, mask = [{"rows": ROWS}, {"rows": ROWS}], inputs["attention_mask"]
    with torch.inference_mode():
        with watch_attention(model, plans, attention_mask=mask) as seen:
            model(**inputs)
        differences = eager_difference(
            lambda: model(**inputs), model, plans, seen.results, attention_mask=mask
        )
    return f"{differences['rows']:.2g}"


def main() -> None:
    """Print the table."""
    print(f"| | {' | '.join(planted.DTYPES)} |\n{'|---' * (len(planted.DTYPES) + 1)}|")
    for fault in (None, *planted.FAULTS):
        name = "right numbers" if fault is None else fault.__name__.replace("_", " ")
        cells = [found(dtype, fault, ROWS) for dtype in planted.DTYPES.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    early = planted.one_key_of_a_decode_step
    cells = [found(dtype, early, planted.LAST, 6) for dtype in planted.DTYPES.values()]
    print(f"| decode steps one column early | {' | '.join(cells)} |")
    cells = [eager(dtype) for dtype in planted.DTYPES.values()]
    print(f"| the model's eager forward, for comparison | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
