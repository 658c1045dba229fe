"""The layers of a tower and its hidden states, found in the network and not written for a family.

Hidden state 0 is what the first layer reads, hidden state n what layer n wrote, as transformers
numbers them; the final norm comes after the last.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.base import INPUT_OF
from interp_lab.models.placing.calls import first_tensor, inputs_of
from interp_lab.models.placing.local import is_attention


def layers_of(tower: nn.Module, name: str) -> tuple[str, ...]:
    """Return the dotted paths of a tower's layers: the entries of its one list that attend.

    Args:
        tower: the network.
        name: of it, for messages.

    Raises:
        UnsupportedModelError: if no list of it attends, or several do.
    """
    lists = {
        path: part
        for path, part in tower.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) and all(map(_attends, part))
    }
    outer = {
        path: part
        for path, part in lists.items()
        if not any(path.startswith(f"{other}.") for other in lists if other != path)
    }
    if len(outer) != 1:
        found = ", ".join(f"{path} ({len(part)})" for path, part in outer.items())
        raise UnsupportedModelError(
            f"{name}: {type(tower).__name__} has {len(outer)} lists of layers that attend"
            f"{f' ({found})' if found else ''}, and not one; name its tower with model.tower=PATH"
        )
    [(path, part)] = outer.items()
    return tuple(f"{path}.{i}" for i in range(len(part)))


def hidden_states(
    tower: nn.Module,
    layers: tuple[str, ...],
    run: Callable[[], Any],
    name: str,
    whole: bool = True,
) -> dict[str, str]:
    """Return `hidden.0` to `hidden.n` -> the dotted path in the tower that puts each out.

    Hidden state 0 is a module's output where one hands it to the first layer as it is; else its
    path is the first layer's with `base.INPUT_OF` behind it.

    Args:
        tower: the network.
        layers: paths of its layers, in order.
        run: runs the tower on something.
        name: of it, for messages.
        whole: run all layers and see that they follow one another; else stop at the first.

    Raises:
        UnsupportedModelError: if the layers do not run one after the other, each on what the one
            before it wrote.
    """
    order = _Order(layers)
    with order.watching(tower):
        if whole:
            run()
        else:
            inputs_of(tower.get_submodule(layers[0]), run)
    if whole and (order.ran != list(layers) or order.wrong):
        raise UnsupportedModelError(
            f"{name}: the layers of {type(tower).__name__} do not run one after the other, each on "
            f"what the one before it wrote ({(order.wrong or list(layers))[0]} does not), so its "
            "hidden states have no numbers here"
        )
    return {"hidden.0": order.first or layers[0] + INPUT_OF} | {
        f"hidden.{i + 1}": path for i, path in enumerate(layers)
    }


class _Order:
    """In which order layers run, and what each reads.

    Attributes:
        ran: the layers in the order in which they ran.
        wrong: those that read what the one before them did not write.
        first: the module that wrote what the first layer reads; None for none.
    """

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers
        self.ran: list[str] = []
        self.wrong: list[str] = []
        self.first: str | None = None
        self._wrote: list[tuple[str, torch.Tensor]] = []

    @contextmanager
    def watching(self, tower: nn.Module) -> Iterator[None]:
        """Watch a tower run inside the block: its layers, and what is outside of them."""
        with ExitStack() as stack:
            for path, part in tower.named_modules():
                if path in self.layers:
                    into = partial(self._enters, path)
                    handle = part.register_forward_pre_hook(into, with_kwargs=True)
                    stack.callback(handle.remove)
                if path and (path in self.layers or not self._inside(path)):
                    stack.callback(part.register_forward_hook(partial(self._leaves, path)).remove)
            yield

    def _leaves(self, path: str, _: nn.Module, __: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        if isinstance(tensor, torch.Tensor):
            self._wrote.append((path, tensor))

    def _enters(self, path: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        tensor = first_tensor(args, kwargs)
        wrote = [p for p, t in self._wrote if t is tensor]
        at = self.layers.index(path)
        if at == 0:
            self.first = wrote[-1] if wrote else None
        elif self.layers[at - 1] not in wrote:
            self.wrong.append(path)
        self.ran.append(path)

    def _inside(self, path: str) -> bool:
        return any(path.startswith(f"{layer}.") for layer in self.layers)


@contextmanager
def outputs_at(module: nn.Module, paths: tuple[str, ...]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect what goes out (or in, with `INPUT_OF`) at paths while the block runs a network."""
    kept: dict[str, torch.Tensor] = {}

    def out(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            kept.setdefault(path, output[0] if isinstance(output, tuple) else output)

        return hook

    def into(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept.setdefault(path, first_tensor(args, kwargs))

        return hook

    with ExitStack() as stack:
        for path in paths:
            part = module.get_submodule(path.removesuffix(INPUT_OF))
            if path.endswith(INPUT_OF):
                handle = part.register_forward_pre_hook(into(path), with_kwargs=True)
            else:
                handle = part.register_forward_hook(out(path))
            stack.callback(handle.remove)
        yield kept


def refuse_other_numbering(
    watched: list[torch.Tensor], given: Any, last: torch.Tensor | None, name: str
) -> None:
    """Refuse hidden states that are not those that the model itself gives.

    Args:
        watched: hidden states 0 to n as they are watched.
        given: the model's own `hidden_states`; None where it gives none, or not all of them (a
            larger model asks for those that it uses), which is no fault.
        last: its last_hidden_state, which some give as the last of `given`, after the final norm.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: names the first that differs.
    """
    if given is None:
        return
    if len(given) != len(watched):
        raise UnsupportedModelError(
            f"{name}: {len(watched)} hidden states are watched, the model itself gives {len(given)}"
        )
    for i, (own, its) in enumerate(zip(watched, given, strict=True)):
        if its is None:
            continue
        normed = last is not None and i == len(given) - 1 and torch.equal(its, last)
        if not normed and not torch.equal(own, its):
            raise UnsupportedModelError(
                f"{name}: hidden state {i} is not what the model itself gives under this number"
            )


def _attends(part: nn.Module) -> bool:
    return any(map(is_attention, part.modules()))
