"""Values and texts of a sample, and layers, heads and patterns of its attention."""

from dataclasses import dataclass
from typing import ClassVar

from interp_lab.fields.base import Field


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
class LayerIndex(Field):
    """Which layers of the model the entries of a chosen layer axis are."""

    dtype: str = "int64"
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
class PhoneMap(Field):
    """One number a layer, phone and dimension; two documents name phones and dimensions."""

    axes: ClassVar[tuple[str, ...]] = ("layer", "phone", "dimension")


@dataclass(frozen=True)
class HeadPhoneMap(Field):
    """One number a layer, head, phone and dimension; two documents name phones and dimensions."""

    axes: ClassVar[tuple[str, ...]] = ("layer", "head", "head_phone", "dimension")


@dataclass(frozen=True)
class HeadClassMap(Field):
    """One number a layer, head, class of phones and dimension; documents name the last two."""

    axes: ClassVar[tuple[str, ...]] = ("layer", "head", "phone_class", "dimension")


@dataclass(frozen=True)
class DimensionCurve(Field):
    """One number a dimension and layer; a document names the dimensions."""

    axes: ClassVar[tuple[str, ...]] = ("dimension", "layer")


@dataclass(frozen=True)
class Histogram(Field):
    """Counts over the whole run in equal bins; `lowest` and `highest` bound them."""

    dtype: str = "int64"
    lowest: float = 0.0
    highest: float = 1.0
    axes: ClassVar[tuple[str, ...]] = ("bin",)
