"""One context manager for everything that is watched during one call of a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from interp_lab.capture.hidden import watch_hidden
from interp_lab.capture.plans import HiddenPlan, Plan
from interp_lab.models.base import LoadedModel


@contextmanager
def watch(
    model: LoadedModel, plans: Sequence[Mapping[str, Plan]]
) -> Iterator[list[dict[str, Any]]]:
    """Watch a model by plans while the block runs it once.

    Args:
        model: the model.
        plans: one mapping a batch row: name -> plan.

    Yields:
        One mapping a row: plan name -> what was captured; filled while the block runs.
    """
    hidden = [{k: p for k, p in row.items() if isinstance(p, HiddenPlan)} for row in plans]
    with watch_hidden(model.module, model.hookpoints, hidden) as results:
        yield results
