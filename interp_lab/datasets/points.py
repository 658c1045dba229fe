"""Places that are written in an answer, as shares of the picture they lie in.

Models and data sets write coordinates in different units, and a number does not tell its unit: 320
is a third of the way in thousandths and half of a picture 640 pixels wide. So the unit is a key of
the model and of the data set (`coordinates`), never guessed.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

Coordinates = Literal["thousandths", "pixels", "shares"]
NUMBER = r"\s*(-?\d+(?:\.\d*)?|-?\.\d+)\s*"
BOX = rf"\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)"
FOUR = rf"[\[(]{NUMBER},{NUMBER},{NUMBER},{NUMBER}[\])]"
PAIR = rf"[\[(]{NUMBER},{NUMBER}[\])]"
# Pairs of round brackets with only commas between them: two are a box, more are a list of points.
ROW = re.compile(rf"(?:{PAIR}\s*,\s*)*{PAIR}|{FOUR}")
REASONING = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
# What parse_point computes; another rule is another version.
POINT = "trajectory.point/2"


def parse_point(
    answer: Any, coordinates: Coordinates = "thousandths", size: tuple[int, int] = (0, 0)
) -> tuple[float, float] | None:
    """Return the point (x, y) of an answer as shares 0 to 1 of the picture, or None.

    Of a text, what stands in `<think>` is not the answer; of the rest the last `<answer>` part is
    read if there is one, else all of it. In it the last box counts, its first corner being the
    point: `(x1,y1),(x2,y2)` or four numbers in one bracket. Without a box the last pair `[x, y]`
    or `(x, y)` counts. Of a list of points the last is the answer, in every notation: pairs after
    each other, pairs within a bracket, or lists of numbers. What lies outside the picture is no
    point.

    Args:
        answer: a text, two or four numbers, or a list of points.
        coordinates: the unit: thousandths of the picture, pixels of a picture of `size`, or shares.
        size: (width, height), for pixels.
    """
    scale = {"thousandths": (1000, 1000), "pixels": size, "shares": (1, 1)}[coordinates]
    if isinstance(answer, str):
        pair = _in_text(answer)
        return _share(pair, scale) if pair else None
    if isinstance(answer, Sequence) and answer:
        if isinstance(answer[-1], Sequence):
            return parse_point(answer[-1], coordinates, size)
        return _share(answer[:2], scale) if len(answer) in (2, 4) else None
    return None


def _in_text(answer: str) -> Sequence[str] | None:
    """Return the two numbers, as texts, of the point that a text gives."""
    rest = REASONING.sub("", answer)
    parts = ANSWER.findall(rest)
    text = parts[-1] if parts else rest
    box, point = None, None
    for row in ROW.finditer(text):
        listed = (
            text[: row.start()].rstrip().endswith("[") and text[row.end() :].lstrip()[:1] == "]"
        )
        four = re.fullmatch(FOUR, row[0]) or (None if listed else re.fullmatch(BOX, row[0]))
        if four:
            box = four.groups()[:2]
        else:
            point = re.findall(PAIR, row[0])[-1]
    return box or point


def _share(pair: Sequence[Any], scale: tuple[int, int]) -> tuple[float, float] | None:
    if any(isinstance(value, bool) for value in pair) or min(scale) < 1:
        return None
    try:
        x, y = (float(value) / whole for value, whole in zip(pair, scale, strict=True))
    except (TypeError, ValueError, OverflowError):
        return None
    return (x, y) if all(math.isfinite(v) and 0 <= v <= 1 for v in (x, y)) else None
