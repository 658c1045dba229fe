"""Plans: what to watch and what to change, as plain data.

An analysis states its plans from a TokenMap alone; the capture code carries them out. The module
imports no torch, so that a plan can be made, compared and stored anywhere.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from interp_lab.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

When = Literal["prefill", "decode", "all"]
# Generated tokens follow the prompt's; an intervention that is to hold while an answer is written
# names so many of them too.
LONGEST_ANSWER = 512


class Reducer(Protocol):
    """Makes a block of the pattern small, over query chunks; `analyses.reduce` has the functions.

    A block is (heads, queries, keys) in fp32 and its memory is reused after `partial` returns, so
    a partial result must own its memory. Chunks arrive in the order of the plan's queries.

    Attributes:
        name: how the reduction is called in a result.
        in_log_space: if True, `partial` gets the log of the pattern (masked places are -inf), which
            saves the exponential of the whole block; if False, it gets the pattern itself.
    """

    name: ClassVar[str]
    in_log_space: ClassVar[bool]

    def partial(self, block: Tensor) -> Any:
        """Return the state after one chunk of queries."""

    def combine(self, first: Any, second: Any) -> Any:
        """Return the state after two neighbouring stretches of queries."""

    def finish(self, state: Any) -> Tensor:
        """Return the reduced tensor, as pattern values (not logs) where it holds values."""
        ...


@dataclass(frozen=True)
class AttentionPlan:
    """Which block of which attention to watch, and how to reduce it.

    Token indices count the row's own tokens (padding left out), strictly increasing. In a tower
    other than the language model they count the rows of that tower's own sequence.

    Args:
        queries: token indices, None for all, or "last" for the newest query row of each forward.
        keys: token indices, or None for all tokens seen so far.
        reduce: the reducer that each layer's block goes through at once.
        layers: layer indices; None for all.
        heads: head indices; None for all.
        tower: "language", "vision", "audio"; of an encoder-decoder "encoder", "decoder", "cross"; or
            the dotted path of a sub-module, with `:` and the attention's name where one layer has
            several. The keys of cross attention are tokens of the sequence that it looks at. The
            tiles or windows of one row's picture count one after the other.
        when: which forwards count: the prompt's, the decode steps (one query token after others),
            or both; each decode step is a result of its own.

    Raises:
        ConfigError: if indices are empty, negative or not strictly increasing.
    """

    queries: tuple[int, ...] | Literal["last"] | None
    keys: tuple[int, ...] | None
    reduce: Reducer
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    tower: str = "language"
    when: When = "prefill"

    def __post_init__(self) -> None:
        for name in ("queries", "keys", "layers", "heads"):
            value = getattr(self, name)
            if value is not None and value != "last":
                object.__setattr__(self, name, increasing(value, f"AttentionPlan.{name}"))
                if not getattr(self, name):
                    raise ConfigError(f"AttentionPlan.{name} is empty; there is nothing to watch")
        if self.when not in ("prefill", "decode", "all"):
            raise ConfigError(f"AttentionPlan.when is {self.when!r}; use prefill, decode or all")


@dataclass(frozen=True)
class HiddenPlan:
    """Watch what a module puts out.

    Args:
        hookpoint: name of what is watched, as the model's table of hookpoints has it.
        reduce: function of the hidden states (token, d_model) to what is kept of them, a small
            tensor or several by name; None keeps them all.
    """

    hookpoint: str
    reduce: Callable[[Tensor], Tensor | Mapping[str, Tensor]] | None = None


@dataclass(frozen=True)
class GatePlan:
    """Watch gate values.

    Args:
        hookpoints: paths or patterns (`fusion.layers.*.gate`) of modules that put out gates or
            gate logits, batch first.
        nonlinearity: from gate_logit to gate: "tanh", "sigmoid", or None if the output is the gate.
    """

    hookpoints: tuple[str, ...]
    nonlinearity: str | None = None


@dataclass(frozen=True)
class BlockAttention:
    """Knock out: the queries cannot attend to the keys (scores -inf before the softmax).

    Args:
        queries: token indices of the row, padding left out; None for all, also generated ones.
        keys: token indices of the row; None for all.
        layers: layer indices; None for all.
        heads: head indices; None for all.
        tower: which attention, as in `AttentionPlan`.
    """

    queries: tuple[int, ...] | None
    keys: tuple[int, ...] | None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    tower: str = "language"

    def __post_init__(self) -> None:
        _normalise(self, "queries", "keys", "layers", "heads")

    @property
    def log_factor(self) -> float:
        """What is added to the scores of the block."""
        return -math.inf


@dataclass(frozen=True)
class ScaleAttention(BlockAttention):
    """Weigh the block: exp(score) times `factor` before the rows are normalised to 1 again.

    Args:
        factor: above 0; 1 changes nothing, 0 is `BlockAttention`.

    Raises:
        ConfigError: if the factor is not above 0.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factor > 0 or math.isinf(self.factor):
            raise ConfigError(
                f"ScaleAttention.factor is {self.factor}; use a number above 0, or BlockAttention"
            )

    @property
    def log_factor(self) -> float:
        """What is added to the scores of the block."""
        return math.log(self.factor)


@dataclass(frozen=True)
class ZeroHeads:
    """Set the output of heads to zero, before the output projection; the pattern stays.

    Args:
        heads: layer index -> head indices.
        tower: which attention, as in `AttentionPlan`.
    """

    heads: Mapping[int, Sequence[int]]
    tower: str = "language"

    def __post_init__(self) -> None:
        heads = {int(k): increasing(v, "ZeroHeads.heads") for k, v in self.heads.items()}
        object.__setattr__(self, "heads", heads)


@dataclass(frozen=True)
class SetGate:
    """Give gates a value, after their nonlinearity.

    Args:
        hookpoints: patterns of the modules that put out gates or gate logits.
        value: the gate; with a nonlinearity it must lie strictly within its range.
        nonlinearity: of the modules' output: "tanh", "sigmoid", or None if it is the gate.
    """

    hookpoints: tuple[str, ...]
    value: float
    nonlinearity: str | None = None


@dataclass(frozen=True)
class ClampGate:
    """Keep gates between two values, after their nonlinearity; arguments as in `SetGate`."""

    hookpoints: tuple[str, ...]
    low: float
    high: float
    nonlinearity: str | None = None


GateChange = SetGate | ClampGate
Plan = AttentionPlan | HiddenPlan | GatePlan
AttentionChange = BlockAttention | ScaleAttention | ZeroHeads
Intervention = AttentionChange | GateChange


def describe(intervention: Intervention) -> dict[str, Any]:
    """Return the intervention as plain values, to be stored with the result."""
    values = {name: getattr(intervention, name) for name in intervention.__dataclass_fields__}
    return {"kind": type(intervention).__name__, **values}


def increasing(values: Iterable[int], where: str) -> tuple[int, ...]:
    """Return the indices as a tuple.

    Raises:
        ConfigError: if they are not strictly increasing from 0 on.
    """
    # Thousands of tokens are usual: both passes are loops inside the interpreter.
    indices = tuple(map(int, values))
    ordered = all(map(operator.lt, indices, itertools.islice(indices, 1, None)))
    if not ordered or (indices and indices[0] < 0):
        raise ConfigError(f"{where}: indices must be 0 or more and strictly increasing")
    return indices


def _normalise(target: object, *names: str) -> None:
    for name in names:
        value = getattr(target, name)
        if value is not None:
            where = f"{type(target).__name__}.{name}"
            object.__setattr__(target, name, increasing(value, where))
