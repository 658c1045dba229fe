"""One context manager for everything that is watched and changed during one call of a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from interp_lab.capture.attention import Method, watch_attention
from interp_lab.capture.gates import watch_gates
from interp_lab.capture.hidden import watch_hidden
from interp_lab.capture.plans import (
    AttentionChange,
    AttentionPlan,
    ClampGate,
    GateChange,
    GatePlan,
    HiddenPlan,
    Intervention,
    Plan,
    SetGate,
)
from interp_lab.capture.reference import Reference
from interp_lab.errors import ConfigError
from interp_lab.models.base import LoadedModel, Prepared

METHODS: dict[str, Method] = {"auto": "fused", "eager": "eager"}


@dataclass
class Capture:
    """What was captured; complete when the `watch` block has ended.

    Attributes:
        rows: per batch row, plan name -> `capture.tally.Captured` for attention, what the plan's
            reducer returned for hidden states.
        how: method, paths, kernels and interventions of the attention, as plain values.
        changed: whether anything was changed while it was captured.
    """

    rows: list[dict[str, Any]]
    changed: bool = False
    how: dict[str, Any] = field(default_factory=dict)


@contextmanager
def watch(
    model: LoadedModel,
    prepared: Prepared,
    plans: Sequence[Mapping[str, Plan]],
    interventions: Sequence[Sequence[Intervention]] = (),
    method: str = "auto",
    reference: Reference | None = None,
) -> Iterator[Capture]:
    """Watch a model by plans while the block runs it once on `prepared`.

    Args:
        model: the model.
        prepared: its inputs; their padding tells where each row's own tokens are.
        plans: one mapping a batch row: name -> plan.
        interventions: what to change, per batch row; empty for nothing. Gates are changed in all
            rows alike, so every row must name the same gate changes.
        method: `auto` (the model's fused kernel, exact blocks beside it) or `eager`.
        reference: works the attention's numbers out by other means, from the same calls.

    Raises:
        UnsupportedModelError: if the model cannot be watched in this way.
    """
    gates = [{k: p for k, p in row.items() if isinstance(p, GatePlan)} for row in plans]
    attention_changes = [_attention_changes(row) for row in interventions]
    hidden = [{k: p for k, p in row.items() if isinstance(p, HiddenPlan)} for row in plans]
    attention = [{k: p for k, p in row.items() if isinstance(p, AttentionPlan)} for row in plans]
    with ExitStack() as stack:
        lengths = [len(row.tokens) for row in prepared.seen]
        seen = stack.enter_context(watch_hidden(model.module, model.hookpoints, hidden, lengths))
        gated = stack.enter_context(watch_gates(model.module, gates, _gate_changes(interventions)))
        capture = Capture(rows=[{} for _ in plans], changed=any(interventions))
        watched = None
        if any(attention) or any(attention_changes):
            watched = stack.enter_context(
                watch_attention(
                    model.module,
                    attention,
                    attention_changes,
                    method=METHODS[method],
                    attention_mask=prepared.inputs.get("attention_mask"),
                    reference=reference,
                )
            )
        yield capture
    # Attention results are read after their block has ended, so that every step is closed.
    for row, values in enumerate(seen):
        capture.rows[row] |= values | gated[row]
        if watched is not None:
            capture.rows[row] |= watched.results[row]
    if watched is not None:
        capture.how = watched.describe()


def _attention_changes(row: Sequence[Intervention]) -> list[AttentionChange]:
    return [change for change in row if not isinstance(change, SetGate | ClampGate)]


def _gate_changes(rows: Sequence[Sequence[Intervention]]) -> list[GateChange]:
    """Return the gate changes, which hold for the whole batch.

    Raises:
        ConfigError: if rows differ in them.
    """
    per_row = [[c for c in row if isinstance(c, SetGate | ClampGate)] for row in rows]
    if any(changes != per_row[0] for changes in per_row):
        raise ConfigError("gate changes differ between the rows of a batch; use batch_size=1")
    return per_row[0] if per_row else []
