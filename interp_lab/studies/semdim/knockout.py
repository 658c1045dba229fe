"""Does the word's attention matter? The word is hidden from the options by layer band.

Another way may lead from the word to the answer, so the word is hidden from everything after it as
well: that is the control which shows what the answer is when the word is not known at all.
"""

from collections.abc import Mapping, Sequence

from interp_lab.capture.plans import LONGEST_ANSWER, BlockAttention, Intervention
from interp_lab.fields import Field, Scalar
from interp_lab.statistics.bands import THIRDS, layers_of

BANDS = ("all", *THIRDS)
CONTROL = "everywhere"
CONDITIONS = (*BANDS, CONTROL)


def word_blocks(
    word: Sequence[int], options: Sequence[int], n_tokens: int, n_layers: int
) -> dict[str, tuple[Intervention, ...]]:
    """Return the interventions of each condition, by the name of the variant.

    Args:
        word: the word's token positions.
        options: the options' and the answer's.
        n_tokens: of the prompt; generated tokens follow it.
        n_layers: of the language part.
    """
    keys = tuple(word)
    found: dict[str, tuple[Intervention, ...]] = {
        f"knockout_{band}": (
            BlockAttention(tuple(sorted(options)), keys, layers=layers_of(band, n_layers)),
        )
        for band in BANDS
    }
    after = tuple(range(keys[-1] + 1, n_tokens + LONGEST_ANSWER))
    return found | {f"knockout_{CONTROL}": (BlockAttention(after, keys),)}


def knockout_fields() -> Sequence[Field]:
    """Return the fields that `knockout_values` fills."""
    fields = []
    for band in ("baseline", *CONDITIONS):
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
    for band in ("baseline", *CONDITIONS):
        said = predicted["plain" if band == "baseline" else f"knockout_{band}"]
        values[f"knockout_{band}_correct"] = float(said is not None and said == answer)
        values[f"knockout_{band}_answer_change"] = float(said != predicted["plain"])
    return values
