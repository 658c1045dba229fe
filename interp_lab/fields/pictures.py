"""What a model saw or heard, and what lies on it."""

from dataclasses import dataclass
from typing import ClassVar

from interp_lab.fields.base import Field


@dataclass(frozen=True)
class Picture(Field):
    """The image as the model saw it: RGB, 0 to 255, after resizing and cropping."""

    dtype: str = "uint8"
    axes: ClassVar[tuple[str, ...]] = ("y", "x", "channel")
    compressed: ClassVar[bool] = True


@dataclass(frozen=True)
class CellMap(Field):
    """One number a cell of the image's token grid; covers the picture exactly."""

    axes: ClassVar[tuple[str, ...]] = ("row", "col")


@dataclass(frozen=True)
class LayerMaps(Field):
    """One number a layer and cell of the image's token grid; covers the picture exactly."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "row", "col")


@dataclass(frozen=True)
class RightEdgeMap(Field):
    """One number for each cell and its right neighbour."""

    axes: ClassVar[tuple[str, ...]] = ("row", "col_edge")


@dataclass(frozen=True)
class DownEdgeMap(Field):
    """One number for each cell and the one below."""

    axes: ClassVar[tuple[str, ...]] = ("row_edge", "col")


@dataclass(frozen=True)
class Point(Field):
    """A place in a picture: the picture's index, x and y as shares of its width and height."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("coordinate",)


@dataclass(frozen=True)
class Spectrogram(Field):
    """A sound as the model hears it: mel bands over frames."""

    dtype: str = "float16"
    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("mel", "frame")
    compressed: ClassVar[bool] = True
