"""One field of a result: a named, typed array with axes, unit and alignment."""

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
