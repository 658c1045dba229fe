"""Letters of multiple-choice answers: what a data set declares, what a model wrote, the options.

A model that may write freely seldom writes one letter and nothing else, and `A` is also an English
word. What counts as an answer decides the accuracy, so it is decided here, once.
"""

import re
from collections.abc import Sequence

# Not part of a word, a contraction or a compound: `I'm`, `B12` and `A-frame` are no answers.
ALONE_BEFORE = r"(?<![\w'’\-])"
ALONE_AFTER = r"(?![\w'’]|-\w)"
# `A` and `I` before a word in small letters are English: `A cat`, `I see`.
WORDS = r"(?![AI][^\S\n]+[a-z])"
STATED = r"(?i:\banswer\b(?:\s+(?:is|would\s+be|should\s+be))?:?(?:\s+option)?)[\s:\"'*(\[]+"
CLOSING = re.compile(r"(?:^|\s)The answer is\s+\(?([A-Z])\)?\.?\s*$")
LINE_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.)][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
INLINE_OPTIONS = re.compile(r"^[ \t]*Options:[ \t]*(?=\(A\))(.*)", re.MULTILINE | re.DOTALL)


def parse_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the option that a model's free text chooses.

    The first of these that there is: the whole text is one letter (`B`, `(b).`); the letter that
    is stated (`The answer is B.`, `Answer: (B)`); the first letter that stands alone
    (`B. green`). Letters are capitals, except where one is the whole text. `A` or `I` before a
    word in small letters is that English word and not an option.

    Args:
        text: what the model wrote, without the prompt.
        letters: the options' letters, in capitals.

    Returns:
        One of `letters`, or None.
    """
    if not letters:
        return None
    bare = text.strip().strip("().:[]*\"'").upper()
    if bare in letters:
        return bare
    letter = WORDS + f"({'|'.join(map(re.escape, letters))})"
    for pattern in (STATED + letter + ALONE_AFTER, ALONE_BEFORE + letter + ALONE_AFTER):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def declared_letter(text: str) -> str | None:
    """Return the letter that a data set gives as right: alone, or in its last sentence.

    Args:
        text: `B`, `B.`, or an explanation that ends in `The answer is B.`
    """
    bare = text.strip().rstrip(".")
    if re.fullmatch(r"\(?[A-Z]\)?", bare):
        return bare.strip("()")
    closing = CLOSING.search(text)
    return closing.group(1) if closing else None


def inline_options(question: str) -> dict[str, str]:
    """Return letter -> text of a line `Options: (A) x (B) y`; empty if there is none.

    Letters must follow the alphabet, so that a `(C)` within an option's text is no option.
    """
    line = INLINE_OPTIONS.search(question)
    rest = line.group(1) if line else ""
    options: dict[str, str] = {}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        if not rest.startswith(f"({letter})"):
            break
        body = rest[3:]
        following = re.search(rf"\s\({chr(ord(letter) + 1)}\)", body)
        line_end = body.find("\n") if "\n" in body else len(body)
        end = following.start() if following and following.start() < line_end else line_end
        options[letter] = body[:end].strip()
        rest = body[end:].lstrip()
    return options


def line_options(question: str) -> dict[str, str]:
    """Return letter -> text of the last lines `A. x`, `B. y`; empty if there are none.

    The last run of lines in the order of the alphabet counts: a question may hold a list too.
    """
    options: dict[str, str] = {}
    for letter, text in LINE_OPTION.findall(question):
        if letter == "A":
            options = {}
        if letter == chr(ord("A") + len(options)):
            options[letter] = text
    return options
