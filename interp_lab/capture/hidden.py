"""Watching hidden states: forward hooks on named modules of the unmodified model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from interp_lab.capture.plans import HiddenPlan
from interp_lab.capture.reruns import first_run
from interp_lab.errors import UnsupportedModelError, did_you_mean
from interp_lab.models.base import INPUT_OF
from interp_lab.models.placing.calls import first_tensor


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
    lengths: Sequence[int] = (),
) -> Iterator[list[dict[str, Any]]]:
    """Hand the hidden states at named hookpoints to the plans' reducers while the block runs.

    Args:
        module: the network.
        hookpoints: name -> dotted path of the module whose output is watched, or its input, with
            `models.base.INPUT_OF` behind the path.
        plans: one mapping a batch row.
        lengths: tokens of each row, for towers that lay the rows end to end without a batch axis.

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
        hidden = _by_rows(output[0] if isinstance(output, tuple) else output, lengths)
        if len(hidden) != len(plans):
            raise UnsupportedModelError(
                f"hookpoint {hookpoint!r}: the model ran on {len(hidden)} rows, "
                f"{len(plans)} were planned"
            )
        for row, name, plan in watchers[hookpoint]:
            results[row][name] = plan.reduce(hidden[row]) if plan.reduce else hidden[row].clone()

    with ExitStack() as stack:
        for hookpoint in watchers:
            path = hookpoints[hookpoint]
            target = module_at(module, path.removesuffix(INPUT_OF), hookpoint)
            stack.callback(_hook(target, path, partial(take, hookpoint)).remove)
        yield results


def _hook(target: torch.nn.Module, path: str, take: Callable[[Any], None]) -> Any:
    """Hand what a module puts out, or gets where the path says so, to `take`; return the handle."""
    if path.endswith(INPUT_OF):
        into = first_run(lambda _module, args, kwargs: take(first_tensor(args, kwargs)))
        return target.register_forward_pre_hook(into, with_kwargs=True)
    return target.register_forward_hook(first_run(lambda _module, _inputs, out: take(out)))


def _by_rows(hidden: torch.Tensor, lengths: Sequence[int]) -> Sequence[torch.Tensor]:
    """Return (positions, d_model) of each row, also of rows that lie end to end."""
    packed = hidden[0] if hidden.dim() == 3 and len(hidden) == 1 and len(lengths) > 1 else hidden
    if packed.dim() == 2 and len(packed) == sum(lengths):
        return packed.split(list(lengths))
    return hidden.unbind()
