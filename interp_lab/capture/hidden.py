"""Watching hidden states: forward hooks on named modules of the unmodified model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from interp_lab.capture.plans import HiddenPlan
from interp_lab.capture.reruns import first_run
from interp_lab.errors import UnsupportedModelError, did_you_mean


def module_at(module: torch.nn.Module, path: str, hookpoint: str) -> torch.nn.Module:
    """Return the submodule at a dotted path.

    Raises:
        UnsupportedModelError: if there is none; lists the nearest paths.
    """
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        near = did_you_mean(path, [name for name, _ in module.named_modules()])
        raise UnsupportedModelError(
            f"hookpoint {hookpoint!r}: {type(module).__name__} has no module {path!r}.{near}"
        ) from error


@contextmanager
def watch_hidden(
    module: torch.nn.Module,
    hookpoints: Mapping[str, str],
    plans: Sequence[Mapping[str, HiddenPlan]],
) -> Iterator[list[dict[str, Any]]]:
    """Hand the hidden states at named hookpoints to the plans' reducers while the block runs.

    Args:
        module: the network.
        hookpoints: name -> dotted path of the module whose output is watched.
        plans: one mapping a batch row.

    Yields:
        One mapping a row: plan name -> what `reduce` returned for (positions, d_model). It stays on
        the device; reducing there is what keeps the run small.

    Raises:
        UnsupportedModelError: if a hookpoint is not there, or the block ran the model on another
            number of rows.
    """
    results: list[dict[str, Any]] = [{} for _ in plans]
    watchers: dict[str, list[tuple[int, str, HiddenPlan]]] = {}
    for row, row_plans in enumerate(plans):
        for name, plan in row_plans.items():
            if plan.hookpoint not in hookpoints:
                near = did_you_mean(plan.hookpoint, hookpoints)
                raise UnsupportedModelError(
                    f"hookpoint {plan.hookpoint!r}: this model has none of that name.{near} "
                    f"Known: {', '.join(hookpoints)}"
                )
            watchers.setdefault(plan.hookpoint, []).append((row, name, plan))

    def take(hookpoint: str, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if len(hidden) != len(plans):
            raise UnsupportedModelError(
                f"hookpoint {hookpoint!r}: the model ran on {len(hidden)} rows, "
                f"{len(plans)} were planned"
            )
        for row, name, plan in watchers[hookpoint]:
            results[row][name] = plan.reduce(hidden[row]) if plan.reduce else hidden[row].clone()

    with ExitStack() as stack:
        for hookpoint in watchers:
            target = module_at(module, hookpoints[hookpoint], hookpoint)
            handle = target.register_forward_hook(
                first_run(lambda _module, _inputs, output, name=hookpoint: take(name, output))
            )
            stack.callback(handle.remove)
        yield results
