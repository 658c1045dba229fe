"""Places that are written in an answer: boxes and points in thousandths of the picture.

Coordinates are 0 to 1000 whatever the picture's size, as Qwen2-VL writes them:
px = x / 1000 * width.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

SCALE = 1000
NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
BOX = re.compile(rf"\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)")
PAIR = re.compile(rf"[\[(]{NUMBER},{NUMBER}[\])]")
REASONING = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)


def parse_point(answer: Any) -> tuple[float, float] | None:
    """Return the point (x, y) of an answer as shares 0 to 1 of the picture, or None.

    Of a text, what stands in `<think>` is not the answer; of the rest the last `<answer>` part is
    read if there is one, else all of it. In it the last box
    `(x1,y1),(x2,y2)` counts, its first corner being the point; without a box the last pair `[x, y]`
    or `(x, y)`. A list of two numbers is the point itself. What lies outside 0 to 1000 is no point.
    """
    if isinstance(answer, str):
        rest = REASONING.sub("", answer)
        parts = ANSWER.findall(rest)
        text = parts[-1] if parts else rest
        found = BOX.findall(text) or PAIR.findall(text)
        return _share(found[-1][:2]) if found else None
    if isinstance(answer, Sequence) and len(answer) == 2:
        return _share(answer)
    return None


def _share(pair: Sequence[Any]) -> tuple[float, float] | None:
    try:
        x, y = (float(value) / SCALE for value in pair)
    except (TypeError, ValueError):
        return None
    return (x, y) if all(math.isfinite(v) and 0 <= v <= 1 for v in (x, y)) else None
