"""What a processor puts into a prompt is told from the prompt's own tokens, by ids alone."""

import pytest

from interp_lab.errors import SampleError
from interp_lab.models.placing.expansion import aligned

IMAGE, OPEN, CLOSE, BREAK, BOS = 1, 2, 3, 4, 5
MARKS = {IMAGE, OPEN, CLOSE, BREAK, BOS}
WORDS = {10: "What", 11: " is", 12: "\n", 13: "\n\n", 14: "Wh", 15: "at"}
PROMPT = "<o>What is"
PIECES = [(OPEN, (0, 3)), (10, (3, 7)), (11, (7, 10))]


def placed(row: list[int]) -> list[str | None]:
    found = aligned(PROMPT, PIECES, row, IMAGE, MARKS, lambda i: WORDS.get(i, ""))
    return [None if chars is None else PROMPT[slice(*chars)] for chars in found]


def test_marks_of_rows_and_tiles_are_not_the_prompts() -> None:
    row = [BOS, OPEN, IMAGE, IMAGE, BREAK, IMAGE, IMAGE, CLOSE, 13, 10, 11]
    assert placed(row) == [None, "<o>", *[None] * 7, "What", " is"]


def test_a_word_that_is_cut_in_another_way_is_found_by_its_letters() -> None:
    assert placed([OPEN, IMAGE, CLOSE, 12, 14, 15, 11]) == [
        *("<o>", None, None, None, "Wh", "at", " is")
    ]


def test_a_placeholder_that_is_replaced_altogether_is_no_loss() -> None:
    assert placed([IMAGE, IMAGE, 10, 11]) == [None, None, "What", " is"]


def test_text_that_the_row_does_not_hold_is_an_error() -> None:
    with pytest.raises(SampleError, match=r"do not hold 'What' of the prompt"):
        placed([OPEN, IMAGE, 12, 11])
