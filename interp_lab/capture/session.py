"""One context manager for everything that is watched and changed during one call of a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from interp_lab.capture.attention import Method, watch_attention
from interp_lab.capture.hidden import watch_hidden
from interp_lab.capture.plans import AttentionPlan, HiddenPlan, Intervention, Plan
from interp_lab.models.base import LoadedModel, Prepared

METHODS: dict[str, Method] = {"auto": "fused", "eager": "eager"}


@dataclass
class Capture:
    """What was captured; complete when the `watch` block has ended.

    Attributes:
        rows: per batch row, plan name -> `capture.tally.Captured` for attention, what the plan's
            reducer returned for hidden states.
        how: method, paths, kernels and interventions of the attention, as plain values.
    """

    rows: list[dict[str, Any]]
    how: dict[str, Any] = field(default_factory=dict)


@contextmanager
def watch(
    model: LoadedModel,
    prepared: Prepared,
    plans: Sequence[Mapping[str, Plan]],
    interventions: Sequence[Sequence[Intervention]] = (),
    method: str = "auto",
) -> Iterator[Capture]:
    """Watch a model by plans while the block runs it once on `prepared`.

    Args:
        model: the model.
        prepared: its inputs; their padding tells where each row's own tokens are.
        plans: one mapping a batch row: name -> plan.
        interventions: what to change, per batch row; empty for nothing.
        method: `auto` (the model's fused kernel, exact blocks beside it) or `eager`.

    Raises:
        UnsupportedModelError: if the model cannot be watched in this way.
    """
    hidden = [{k: p for k, p in row.items() if isinstance(p, HiddenPlan)} for row in plans]
    attention = [{k: p for k, p in row.items() if isinstance(p, AttentionPlan)} for row in plans]
    with ExitStack() as stack:
        seen = stack.enter_context(watch_hidden(model.module, model.hookpoints, hidden))
        capture = Capture(rows=[{} for _ in plans])
        watched = None
        if any(attention) or any(interventions):
            watched = stack.enter_context(
                watch_attention(
                    model.module,
                    attention,
                    interventions,
                    method=METHODS[method],
                    attention_mask=prepared.inputs.get("attention_mask"),
                )
            )
        yield capture
    # Attention results are read after their block has ended, so that every step is closed.
    for row, values in enumerate(seen):
        capture.rows[row] |= values
        if watched is not None:
            capture.rows[row] |= watched.results[row]
    if watched is not None:
        capture.how = watched.describe()
