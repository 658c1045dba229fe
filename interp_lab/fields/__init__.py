"""What a result is: a small closed set of field types with axes, unit and alignment.

An analysis declares its fields; the store writes them with their axes as HDF5 dimensions; figures
are chosen by the type of the fields that a result holds, never by the name of an analysis.
"""

from typing import Any

from interp_lab.fields.base import Field
from interp_lab.fields.clips import ClipCurve, GateValues, Windows, WindowScores
from interp_lab.fields.pictures import (
    CellMap,
    DownEdgeMap,
    LayerMaps,
    Picture,
    Point,
    RightEdgeMap,
    Spectrogram,
)
from interp_lab.fields.steps import StepCounts, StepCurve, StepPattern
from interp_lab.fields.values import (
    Category,
    DimensionCurve,
    Document,
    HeadClassMap,
    HeadCounts,
    HeadIndex,
    HeadPhoneMap,
    HeadScores,
    Histogram,
    LayerCurve,
    LayerIndex,
    Pattern,
    PhoneMap,
    Scalar,
    UnitScores,
)

__all__ = [
    "KINDS",
    "Category",
    "CellMap",
    "ClipCurve",
    "DimensionCurve",
    "Document",
    "DownEdgeMap",
    "Field",
    "GateValues",
    "HeadClassMap",
    "HeadCounts",
    "HeadIndex",
    "HeadPhoneMap",
    "HeadScores",
    "Histogram",
    "LayerCurve",
    "LayerIndex",
    "LayerMaps",
    "Pattern",
    "PhoneMap",
    "Picture",
    "Point",
    "RightEdgeMap",
    "Scalar",
    "Spectrogram",
    "StepCounts",
    "StepCurve",
    "StepPattern",
    "UnitScores",
    "WindowScores",
    "Windows",
    "field_from_attributes",
]

KINDS: dict[str, type[Field]] = {
    kind.__name__: kind
    for kind in (
        Scalar,
        Category,
        Document,
        HeadScores,
        HeadCounts,
        HeadIndex,
        LayerCurve,
        LayerIndex,
        Pattern,
        UnitScores,
        PhoneMap,
        HeadPhoneMap,
        HeadClassMap,
        DimensionCurve,
        Histogram,
        Picture,
        CellMap,
        LayerMaps,
        RightEdgeMap,
        DownEdgeMap,
        Point,
        Spectrogram,
        StepPattern,
        StepCurve,
        StepCounts,
        GateValues,
        ClipCurve,
        Windows,
        WindowScores,
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
