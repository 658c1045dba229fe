"""What belongs to the clips of a video, and to stretches of it."""

from dataclasses import dataclass
from typing import ClassVar

from interp_lab.fields.base import Field


@dataclass(frozen=True)
class GateValues(Field):
    """What the gates of one kind let through, after their nonlinearity.

    A gate that is one number for all clips has one clip, one that is shared by all channels one
    channel.
    """

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "clip", "channel")


@dataclass(frozen=True)
class ClipCurve(Field):
    """One number a clip of a video, clips of equal length from its start to its end."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("clip",)


@dataclass(frozen=True)
class Windows(Field):
    """Stretches of time, each from its start to its end; found ones from the surest down."""

    unit: str = "s"
    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("window", "bound")


@dataclass(frozen=True)
class WindowScores(Field):
    """One number a window, in the order of the `Windows` field that it belongs to."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("window",)
