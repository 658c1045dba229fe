"""Watching and changing gates: forward hooks on named modules of any torch network.

Nothing about the network is changed; a gate is what a module puts out, through the nonlinearity
that the plan names if that output is the logit.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.capture.plans import ClampGate, GateChange, GatePlan, SetGate
from interp_lab.capture.reruns import Reruns, first_run
from interp_lab.errors import ConfigError, UnsupportedModelError, did_you_mean

# Name -> (gate of a logit, logit of a gate, open range of the gate).
NONLINEARITIES: dict[str | None, Any] = {
    None: (lambda x: x, lambda x: x, (float("-inf"), float("inf"))),
    "tanh": (torch.tanh, torch.atanh, (-1.0, 1.0)),
    "sigmoid": (torch.sigmoid, torch.logit, (0.0, 1.0)),
}


def matching(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the paths of the submodules that the patterns name, in the network's order.

    Raises:
        UnsupportedModelError: if a pattern matches nothing; lists the nearest paths.
    """
    names = [name for name, _ in module.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UnsupportedModelError(
                f"gate hookpoint {pattern!r}: {type(module).__name__} has no such module."
                f"{did_you_mean(pattern.replace('*', '0'), names)}"
            )
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


@contextmanager
def watch_gates(
    module: nn.Module,
    plans: Sequence[Mapping[str, GatePlan]],
    changes: Sequence[GateChange] = (),
) -> Iterator[list[dict[str, dict[str, Tensor]]]]:
    """Watch gates, and change them, while the block runs the network.

    Args:
        module: the network.
        plans: one mapping a batch row: name -> plan.
        changes: made in all rows; what is watched is the changed gate.

    Yields:
        One mapping a row: plan name -> module path -> gate, without the batch axis. A module that
        runs several times leaves its last value.

    Raises:
        UnsupportedModelError: if a hookpoint matches nothing or puts out no tensor.
        ConfigError: if a change asks for a value that the nonlinearity cannot give, or no module
            that it names ran. A plan's module that did not run is left out of its mapping.
    """
    results: list[dict[str, dict[str, Tensor]]] = [{name: {} for name in row} for row in plans]
    ran: set[str] = set()
    reruns = Reruns()
    with ExitStack() as stack:
        # Changes are hooked first, so that what is watched is what the network goes on with.
        for change in changes:
            change_gate = _change_hook(change)
            for path in matching(module, change.hookpoints):
                hook = _noted(change_gate, path, ran, reruns)
                handle = module.get_submodule(path).register_forward_hook(hook)
                stack.callback(handle.remove)
        for row, row_plans in enumerate(plans):
            for name, plan in row_plans.items():
                for path in matching(module, plan.hookpoints):
                    hook = first_run(_watch_hook(results[row][name], path, row, plan))
                    handle = module.get_submodule(path).register_forward_hook(hook)
                    stack.callback(handle.remove)
        yield results
    for number, change in enumerate(changes):
        where = f"gate change {number} ({type(change).__name__})"
        _refuse_unrun(module, change.hookpoints, ran, f"{where} changed nothing")
    reruns.check()


def _noted(hook: Any, path: str, ran: set[str], reruns: Reruns) -> Any:
    """Return a change's hook that also takes note of where it was carried out."""

    def noted(module: nn.Module, inputs: Any, output: Any) -> Any:
        ran.add(path)
        reruns.changed(path)
        return hook(module, inputs, output)

    return noted


def _refuse_unrun(
    module: nn.Module, patterns: Sequence[str], ran: Container[str], what: str
) -> None:
    """Raise ConfigError if no module that a pattern names ran."""
    for pattern in patterns:
        paths = matching(module, [pattern])
        if not any(path in ran for path in paths):
            raise ConfigError(
                f"{what}: {paths[0]} did not run; run the network inside the block, with input "
                "that reaches the gate"
            )


def _watch_hook(kept: dict[str, Tensor], path: str, row: int, plan: GatePlan) -> Any:
    to_gate, _, _ = _nonlinearity(plan.nonlinearity)

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept[path] = to_gate(_tensor(output, path)[row].detach()).clone()

    return hook


def _change_hook(change: GateChange) -> Any:
    to_gate, to_logit, (low, high) = _nonlinearity(change.nonlinearity)
    wanted = [change.value] if isinstance(change, SetGate) else [change.low, change.high]
    if not all(low < value < high for value in wanted):
        raise ConfigError(
            f"{type(change).__name__}: {change.nonlinearity or 'a gate'} gives values strictly "
            f"between {low:g} and {high:g}, not {', '.join(f'{v:g}' for v in wanted)}"
        )
    if isinstance(change, ClampGate) and change.low > change.high:
        raise ConfigError(f"ClampGate: low {change.low:g} is above high {change.high:g}")

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        logits = _tensor(output, ", ".join(change.hookpoints))
        if isinstance(change, SetGate):
            gate = torch.full_like(logits, change.value)
        else:
            gate = to_gate(logits).clamp(change.low, change.high)
        return to_logit(gate)

    return hook


def _nonlinearity(name: str | None) -> Any:
    if name not in NONLINEARITIES:
        known = [str(n) for n in NONLINEARITIES if n]
        raise ConfigError(
            f"gate nonlinearity {name!r}: give one of {', '.join(known)}, or null."
            f"{did_you_mean(str(name), known)}"
        )
    return NONLINEARITIES[name]


def _tensor(output: Any, path: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise UnsupportedModelError(
            f"gate hookpoint {path}: puts out {type(output).__name__}, not one tensor; name the "
            "module that puts out the gate itself"
        )
    return output
