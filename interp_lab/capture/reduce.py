"""Reducers: pure functions that make a block of the attention pattern small on the device.

A block is (head, query, key). Each reducer streams over chunks of the query axis: `partial` of a
chunk, `combine` of neighbours, `finish`. One that works in log space gets log A instead of A, so
that a maximum or an argmax over a large block needs no exponential; its result is A all the same.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from interp_lab.errors import ConfigError

Axis = Literal["head", "query", "key"]
_AXES: dict[str, int] = {"head": 0, "query": 1, "key": 2}
_QUERY = 1


@dataclass(frozen=True)
class Keep:
    """Keep the block as it is: (head, query, key). The only reducer whose result may be N x N."""

    name: ClassVar[str] = "keep"
    in_log_space: ClassVar[bool] = False

    def partial(self, block: Tensor) -> Tensor:
        """Return a copy of the chunk."""
        return block.clone()

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the chunks one after the other."""
        return torch.cat((first, second), dim=_QUERY)

    def finish(self, state: Tensor) -> Tensor:
        """Return the block."""
        return state


@dataclass(frozen=True)
class Sum:
    """Sum over axes. Over "key" it is the attention mass on the key span, per head and query.

    Args:
        over: axes to sum over, of "head", "query", "key".
    """

    over: tuple[Axis, ...] = ("key",)
    name: ClassVar[str] = "sum"
    in_log_space: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", check_axes(self.over))

    def partial(self, block: Tensor) -> Tensor:
        """Return the chunk's sum, axes kept with length 1."""
        return block.sum(_dims(self.over), keepdim=True)

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """Add, or put one after the other where queries are kept."""
        return first + second if "query" in self.over else torch.cat((first, second), _QUERY)

    def finish(self, state: Tensor) -> Tensor:
        """Return the sum without the summed axes."""
        return _squeeze(state, self.over)


@dataclass(frozen=True)
class Mean:
    """Mean over axes. Over "query" it is the profile over keys, per head.

    Args:
        over: axes to average over, of "head", "query", "key".
    """

    over: tuple[Axis, ...] = ("query",)
    name: ClassVar[str] = "mean"
    in_log_space: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", check_axes(self.over))

    def partial(self, block: Tensor) -> tuple[Tensor, int]:
        """Return the chunk's sum and how many entries went into each number of it."""
        sums = block.sum(_dims(self.over), keepdim=True)
        return sums, block.numel() // max(1, sums.numel())

    def combine(self, first: tuple[Tensor, int], second: tuple[Tensor, int]) -> tuple[Tensor, int]:
        """Add sums and counts, or put one after the other where queries are kept."""
        if "query" in self.over:
            return first[0] + second[0], first[1] + second[1]
        return torch.cat((first[0], second[0]), _QUERY), first[1]

    def finish(self, state: tuple[Tensor, int]) -> Tensor:
        """Return the mean without the averaged axes."""
        return _squeeze(state[0] / state[1], self.over)


@dataclass(frozen=True)
class Max:
    """Maximum over axes, in log space.

    Args:
        over: axes to take the maximum over, of "head", "query", "key".
    """

    over: tuple[Axis, ...] = ("query", "key")
    name: ClassVar[str] = "max"
    in_log_space: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", check_axes(self.over))

    def partial(self, block: Tensor) -> Tensor:
        """Return the chunk's maximum, axes kept with length 1."""
        return block.amax(_dims(self.over), keepdim=True)

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the larger, or one after the other where queries are kept."""
        if "query" in self.over:
            return torch.maximum(first, second)
        return torch.cat((first, second), _QUERY)

    def finish(self, state: Tensor) -> Tensor:
        """Return the maximum of the pattern without the reduced axes."""
        return _squeeze(state.exp(), self.over)


@dataclass(frozen=True)
class ArgMax:
    """Index of the maximum along one axis (the first, if several are equal), in log space.

    Over "head": which head attends most, per query and key. The index counts the plan's own heads,
    queries or keys.

    Args:
        over: the axis.
    """

    over: Axis = "head"
    name: ClassVar[str] = "argmax"
    in_log_space: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_axes((self.over,))

    def partial(self, block: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the chunk's maximum, its index and the number of queries."""
        values, indices = block.max(_AXES[self.over], keepdim=True)
        return values, indices, block.shape[_QUERY]

    def combine(
        self, first: tuple[Tensor, Tensor, int], second: tuple[Tensor, Tensor, int]
    ) -> tuple[Tensor, Tensor, int]:
        """Return the earlier of the larger, or one after the other where queries are kept."""
        count = first[2] + second[2]
        if self.over != "query":
            values, indices = zip(first[:2], second[:2], strict=True)
            return torch.cat(values, _QUERY), torch.cat(indices, _QUERY), count
        later = second[0] > first[0]
        index = torch.where(later, second[1] + first[2], first[1])
        return torch.maximum(first[0], second[0]), index, count

    def finish(self, state: tuple[Tensor, Tensor, int]) -> Tensor:
        """Return the index (int64) without the reduced axis."""
        return state[1].squeeze(_AXES[self.over])


@dataclass(frozen=True)
class Entropy:
    """Shannon entropy in nats over the key span, per head and query: (head, query).

    The row is normalised within the span first, so spans of other mass compare; a row without
    mass on the span has no entropy (nan).
    """

    name: ClassVar[str] = "entropy"
    in_log_space: ClassVar[bool] = True

    def partial(self, block: Tensor) -> Tensor:
        """Return the chunk's entropies."""
        mass = block.logsumexp(dim=-1)
        weight = (block - mass[:, :, None]).exp_()
        return -torch.nan_to_num(weight * block, nan=0.0).sum(-1) + mass * weight.sum(-1)

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """Put one after the other."""
        return torch.cat((first, second), dim=_QUERY)

    def finish(self, state: Tensor) -> Tensor:
        """Return the entropies."""
        return state


@dataclass(frozen=True)
class TopK:
    """The `k` most attended keys of each head and query: (head, query, k), best first.

    Args:
        k: how many; no more than there are keys.
        give: "index" (int64, counting the plan's keys) or "value".
    """

    k: int = 5
    give: Literal["index", "value"] = "index"
    name: ClassVar[str] = "top_k"
    in_log_space: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.give not in ("index", "value"):
            raise ConfigError(f"TopK.give is {self.give!r}; use index or value")

    def partial(self, block: Tensor) -> Tensor:
        """Return the chunk's best keys."""
        if self.k > block.shape[2]:
            raise ConfigError(f"TopK.k is {self.k}, but the plan has {block.shape[2]} keys")
        values, indices = block.topk(self.k, dim=-1)
        return values if self.give == "value" else indices

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """Put one after the other."""
        return torch.cat((first, second), dim=_QUERY)

    def finish(self, state: Tensor) -> Tensor:
        """Return indices, or values of the pattern."""
        return state.exp() if self.give == "value" else state


@dataclass(frozen=True)
class Beside:
    """Two reductions of the same block side by side: (head, n), the first one's numbers in front.

    Each works as it does alone, so its numbers are those of a plan of its own, to the last bit.

    Args:
        first, second: `Sum`, `Mean` or `Max` that keep the head, both in log space or neither.
    """

    first: Sum | Mean | Max
    second: Sum | Mean | Max
    name: ClassVar[str] = "beside"
    in_log_space: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.first.in_log_space != self.second.in_log_space:
            raise ConfigError("Beside: one reducer wants the pattern's log, the other the pattern")
        if "head" in (*self.first.over, *self.second.over):
            raise ConfigError("Beside: heads stay apart; reduce over query and key only")

    def partial(self, block: Tensor) -> tuple[Any, Any]:
        """Return the chunk's two states; the chunk is used up."""
        block = block if self.first.in_log_space else block.exp_()
        return self.first.partial(block), self.second.partial(block)

    def combine(self, first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
        """Combine each with its own kind."""
        pairs = zip((self.first, self.second), first, second, strict=True)
        one, other = (reduce.combine(a, b) for reduce, a, b in pairs)
        return one, other

    def finish(self, state: tuple[Any, Any]) -> Tensor:
        """Return both results, flattened behind the head."""
        parts = (self.first.finish(state[0]), self.second.finish(state[1]))
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)


def check_axes(over: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the axes as a tuple.

    Raises:
        ConfigError: if an axis is not one of head, query, key, or none is given.
    """
    axes = tuple(over)
    if not axes or any(a not in _AXES for a in axes) or len(set(axes)) != len(axes):
        raise ConfigError(f"axes {list(over)}: give some of head, query, key, each once")
    return axes


def _dims(over: tuple[Axis, ...]) -> tuple[int, ...]:
    return tuple(_AXES[a] for a in over)


def _squeeze(state: Tensor, over: tuple[Axis, ...]) -> Tensor:
    return state.squeeze(_dims(over))
