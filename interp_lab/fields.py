"""What a result is: a small closed set of field types with axes, unit and alignment.

An analysis declares its fields; the store writes them with their axes as HDF5 dimensions; figures
are chosen by the type of the fields that a result holds, never by the name of an analysis.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Field:
    """One named, typed array of a result. Use one of the subclasses: their name is the kind.

    Args:
        name: dataset name in the file.
        about: what a person reads on a figure, without the unit.
        unit: SI or UCUM symbol; "1" for a pure number.
        definition: name and version of the definition that the numbers follow.
        dtype: NumPy type name, or "str".
        ragged: True if the shape differs from sample to sample.

    Attributes:
        axes: names of the array's axes for one sample, outermost first.
        compressed: whether the store compresses it (pictures yes, floats do not shrink).
    """

    name: str
    about: str
    unit: str = "1"
    definition: str = ""
    dtype: str = "float32"
    ragged: bool = False

    axes: ClassVar[tuple[str, ...]] = ()
    compressed: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """The name of the field's type."""
        return type(self).__name__

    def attributes(self) -> dict[str, Any]:
        """Return what the file says of the field, beside its numbers."""
        values = {k: v for k, v in asdict(self).items() if k not in ("name", "unit", "about")}
        return {"kind": self.kind, "long_name": self.about, "units": self.unit, **values}


@dataclass(frozen=True)
class Scalar(Field):
    """One number."""


@dataclass(frozen=True)
class Category(Field):
    """One word out of few: an answer, a language, a split."""

    dtype: str = "str"


@dataclass(frozen=True)
class Document(Field):
    """A text: a prompt, an output, a TokenMap as JSON."""

    dtype: str = "str"


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
class RightEdgeMap(Field):
    """One number for each cell and its right neighbour."""

    axes: ClassVar[tuple[str, ...]] = ("row", "col_edge")


@dataclass(frozen=True)
class DownEdgeMap(Field):
    """One number for each cell and the one below."""

    axes: ClassVar[tuple[str, ...]] = ("row_edge", "col")


@dataclass(frozen=True)
class HeadScores(Field):
    """One number a layer and head."""

    axes: ClassVar[tuple[str, ...]] = ("layer", "head")


@dataclass(frozen=True)
class HeadCounts(Field):
    """How many samples, for a layer and head."""

    dtype: str = "int64"
    axes: ClassVar[tuple[str, ...]] = ("layer", "head")


@dataclass(frozen=True)
class HeadIndex(Field):
    """The index of one head a layer."""

    dtype: str = "int64"
    axes: ClassVar[tuple[str, ...]] = ("layer",)


@dataclass(frozen=True)
class LayerCurve(Field):
    """One number a layer."""

    axes: ClassVar[tuple[str, ...]] = ("layer",)


@dataclass(frozen=True)
class Pattern(Field):
    """A block of attention after the softmax."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "head", "query", "key")


@dataclass(frozen=True)
class UnitScores(Field):
    """One number a layer, head and unit of a word: a phone or a token."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("layer", "head", "unit")


@dataclass(frozen=True)
class Spectrogram(Field):
    """A sound as the model hears it: mel bands over frames."""

    dtype: str = "float16"
    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("mel", "frame")
    compressed: ClassVar[bool] = True


@dataclass(frozen=True)
class PhoneMap(Field):
    """One number a layer, phone and dimension; two documents name phones and dimensions."""

    axes: ClassVar[tuple[str, ...]] = ("layer", "phone", "dimension")


@dataclass(frozen=True)
class DimensionCurve(Field):
    """One number a dimension and layer; a document names the dimensions."""

    axes: ClassVar[tuple[str, ...]] = ("dimension", "layer")


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


@dataclass(frozen=True)
class Histogram(Field):
    """Counts over the whole run in equal bins; `lowest` and `highest` bound them."""

    dtype: str = "int64"
    lowest: float = 0.0
    highest: float = 1.0
    axes: ClassVar[tuple[str, ...]] = ("bin",)


@dataclass(frozen=True)
class LayerIndex(Field):
    """Which layers of the model the entries of a chosen layer axis are."""

    dtype: str = "int64"
    axes: ClassVar[tuple[str, ...]] = ("layer",)


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


@dataclass(frozen=True)
class Point(Field):
    """A place in a picture: the picture's index, x and y as shares of its width and height."""

    ragged: bool = True
    axes: ClassVar[tuple[str, ...]] = ("coordinate",)


KINDS: dict[str, type[Field]] = {
    kind.__name__: kind
    for kind in (
        Scalar,
        Category,
        Document,
        Picture,
        CellMap,
        RightEdgeMap,
        DownEdgeMap,
        HeadScores,
        HeadCounts,
        HeadIndex,
        LayerCurve,
        Pattern,
        UnitScores,
        Spectrogram,
        PhoneMap,
        DimensionCurve,
        GateValues,
        ClipCurve,
        Windows,
        WindowScores,
        Histogram,
        LayerIndex,
        StepPattern,
        StepCurve,
        StepCounts,
        Point,
    )
}


def field_from_attributes(name: str, attributes: dict[str, Any]) -> Field:
    """Return the field that wrote these attributes (see `Field.attributes`).

    Raises:
        ValueError: if the kind is unknown to this version.
    """
    kind = str(attributes["kind"])
    if kind not in KINDS:
        raise ValueError(f"field {name!r} is of kind {kind!r}, which this version does not know")
    own = KINDS[kind].__dataclass_fields__
    values = {k: v for k, v in attributes.items() if k in own}
    values = {k: v.item() if hasattr(v, "item") else v for k, v in values.items()}
    return KINDS[kind](
        name=name, about=str(attributes["long_name"]), unit=str(attributes["units"]), **values
    )
