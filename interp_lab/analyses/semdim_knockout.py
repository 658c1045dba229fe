"""Does the word's attention matter? The word is hidden from the options by layer band."""

from collections.abc import Mapping, Sequence

from interp_lab.fields import Field, Scalar

BANDS = ("all", "early", "middle", "late")


def band_layers(band: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers of a band: all, or the first, second or third third."""
    if band == "all":
        return tuple(range(n_layers))
    third = ("early", "middle", "late").index(band)
    edges = [round(n_layers * i / 3) for i in range(4)]
    return tuple(range(edges[third], edges[third + 1]))


def knockout_fields() -> Sequence[Field]:
    """Return the fields that `knockout_values` fills."""
    fields = []
    for band in ("baseline", *BANDS):
        fields.append(Scalar(f"knockout_{band}_correct", f"answered correctly, {band} blocked"))
        fields.append(Scalar(f"knockout_{band}_answer_change", f"answer changed, {band} blocked"))
    return fields


def knockout_values(answer: str | None, predicted: Mapping[str, str | None]) -> dict[str, float]:
    """Return correctness and change of the answer with the word hidden in each band.

    Args:
        answer: the right number.
        predicted: `plain` and `knockout_<band>` -> the number that was answered, or None.
    """
    values = {}
    for band in ("baseline", *BANDS):
        said = predicted["plain" if band == "baseline" else f"knockout_{band}"]
        values[f"knockout_{band}_correct"] = float(said is not None and said == answer)
        values[f"knockout_{band}_answer_change"] = float(said != predicted["plain"])
    return values
