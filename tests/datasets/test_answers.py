"""What counts as an answer decides the accuracy: each way of writing a letter has its line here."""

import pytest

from interp_lab.datasets.answers import (
    declared_letter,
    inline_options,
    line_options,
    parse_letter,
)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B.\n", "B"),
        ("(B)", "B"),
        ("b", "B"),
        ("(c).", "C"),
        ("B. green", "B"),
        ("B) green", "B"),
        ("B: green, not A", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B)", "B"),
        ("Answer: B", "B"),
        ("The correct answer is option C.", "C"),
        ("the answer is: **C**", "C"),
        ("A cat is shown. The answer is B.", "B"),
        ("A. is wrong, so the answer is C", "C"),
        ("I see a cat, therefore C", "C"),
        ("A", "A"),
        ("A\nbecause it is green", "A"),
        ("A, because it is green", "A"),
        ("A cat is shown", None),
        ("green", None),
        ("Blue", None),
        ("B12", None),
        ("I'm sure", None),
        ("A-frame", None),
        ("D", None),
        ("The answer is D", None),
        ("", None),
    ],
)
def test_free_text_gives_the_letter_it_chooses(text: str, letter: str | None) -> None:
    assert parse_letter(text, ["A", "B", "C"]) == letter


def test_without_options_nothing_is_chosen() -> None:
    assert parse_letter("A", []) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" C. ", "C"),
        ("(D)", "D"),
        ("LECTURE: Vitamin C is one.\nThe answer is A.", "A"),
        ("The answer is A", "A"),
        ("The answer is A. It is a cat.", None),
        ("It is A or B", None),
        ("", None),
    ],
)
def test_a_data_set_declares_its_letter_alone_or_at_the_end(text: str, letter: str | None) -> None:
    assert declared_letter(text) == letter


def test_options_on_one_line() -> None:
    question = "Which?\nContext: N/A\nOptions: (A) a cat (B) vitamin (D) (C) none\nMore: (D) no"
    assert inline_options(question) == {"A": "a cat", "B": "vitamin (D)", "C": "none"}
    assert inline_options("Which?\nA. x\nB. y") == {}


def test_options_as_lines_are_the_last_list() -> None:
    question = (
        "A. is first.\nB. is next.\nWhich is wrong?\nA. the first\n(B) the next \nD. no option"
    )
    assert line_options(question) == {"A": "the first", "B": "the next"}
    assert line_options("Which one?") == {}
