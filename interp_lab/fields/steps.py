"""What belongs to the tokens of an answer, one after the other."""

from dataclasses import dataclass
from typing import ClassVar

from interp_lab.fields.base import Field


@dataclass(frozen=True)
class StepPattern(Field):
    """Rows of attention, one a generated token; keys that a step does not have yet hold 0."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "head", "step", "key")
    compressed: ClassVar[bool] = True


@dataclass(frozen=True)
class StepCurve(Field):
    """One number a layer and generated token."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "step")


@dataclass(frozen=True)
class StepCounts(Field):
    """How many samples, for a generated token's place in its answer."""

    dtype: str = "int64"
    axes: ClassVar[tuple[str, ...]] = ("step",)
