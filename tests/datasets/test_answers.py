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
        ("the answer is b.", "B"),
        ("the answer is a.", "A"),
        ("the answer is a cat", None),
        ("the answer is b because it is green", "B"),
        ("The correct option is c", "C"),
        ("A and B are wrong, so C.", "C"),
        ("A, B and C are all possible", None),
        ("A or B", None),
        ("The answer is A or B", None),
        ("Vitamin C is an acid. So B.", "B"),
        ("Vitamin C is an acid.", None),
        ("A is wrong. Therefore it must be B.", "B"),
        ("The answer is not A but B", "B"),
        ("It is not A.", None),
        ("I think (B)", "B"),
        ("B is correct, not A", "B"),
        ("B입니다", "B"),
        ("정답은 B입니다.", "B"),
        ("비타민 C는 산이다. 답은 B.", "B"),
        ("비타민 C는 산이다.", None),
        ("따라서 B이다", "B"),
        ("答案是B。", "B"),
        ("维生素C是酸，所以B", "B"),
        ("答えはＣです", "C"),
        (r"Final answer: $\boxed{B}$", "B"),
        ("The answer is A because B is wrong.", "A"),
        ("The answer is A since it is red", "A"),
        ("The answer is A cat.", None),
        ("A is incorrect. B is correct.", "B"),
        ("C is the right answer.", "C"),
        ("A is a dog and B is a cat.", None),
        ("I choose c", "C"),
        ("<answer>C</answer>", "C"),
        ("선택지 A와 B는 틀렸으므로 C", "C"),
        ("所以选择B", "B"),
        ("选项A是错的", None),
    ],
)
def test_free_text_gives_the_letter_it_chooses(text: str, letter: str | None) -> None:
    assert parse_letter(text, ["A", "B", "C"]) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("2: small", "2"),
        ("1번", "1"),
        ("The word sounds like 2", "2"),
        ("Between 1 and 2, I choose 2", "2"),
        ("1 or 2", None),
        ("12", None),
        ("1.5", None),
    ],
)
def test_numbers_are_options_too(text: str, number: str | None) -> None:
    assert parse_letter(text, ["1", "2"]) == number


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
        ("LECTURE: x\nSOLUTION: y\n###\nANSWER: B.", "B"),
        ("ANSWER: B.", "B"),
        ("The answer is B. BECAUSE: Vitamin C is an acid. The answer is C.", "B"),
        ("Answer: The answer is B. BECAUSE: it is.", "B"),
        ("The answer is B.\nANSWER: C.", "C"),
        ("LECTURE: x. ANSWER: B.", "B"),
        ("ANSWER: B. BECAUSE: Vitamin C is an acid. The answer is C.", "B"),
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
