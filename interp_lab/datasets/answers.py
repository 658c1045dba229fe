"""Letters of multiple-choice answers: what a data set declares, what a model wrote, the options.

A model that may write freely seldom writes one letter and nothing else, and `A` is also an English
word. What counts as an answer decides the accuracy, so it is decided here, once.
"""

import re
import unicodedata
from collections.abc import Sequence

# Scripts that stand beside a Latin letter without a space: `B입니다`, `答案是B`.
UNSPACED = "\u0e00-\u0e7f\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff"
WORD = rf"[^\W{UNSPACED}]"
# Not part of a word, a contraction or a compound: `I'm`, `B12` and `A-frame` are no answers.
ALONE_BEFORE = rf"(?<!{WORD})(?<!['’\-])"
ALONE_AFTER = rf"(?!{WORD}|['’]|-{WORD}|\.\d)"
# `A` and `I` before a word in small letters are English: `A cat`, `I see`.
WORDS = r"(?![AI][^\S\n]+[a-z])"
# After a letter that is stated, a word that no article and no pronoun stands before.
NO_ARTICLE = (
    r"(?!A[^\S\n]+(?!(?:because|since|as|and|but|or|which|is|are|was|due|would|not)\b)[a-z])"
    r"(?!I[^\S\n]+(?!(?:because|since|is)\b)[a-z])"
)
OPENING = r"(?:[\s:=\"'“‘*(\[{$-]|\\boxed|\\text)"
STATED = (
    r"(?:(?i:\banswer\b(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?:?(?:\s+option)?"
    r"|\b(?:choice|option|letter)\s+(?:is|would\s+be|should\s+be|must\s+be):?)"
    rf"{OPENING}+|<answer>\s*|"
    rf"(?:정답|답|答案|答え|正解|(?<!不)(?:选择|選擇|选|選))(?:[은는이가]|是|为|為|は)?{OPENING}*)"
)
CONCLUDED = (
    r"(?:\b(?i:so|thus|therefore|hence|consequently)\b,?|\w+므로|따라서|그러므로|그래서|所以|因此|よって),?"
    r"(?i:\s+(?:it\s+(?:is|must\s+be)|it['’]s|(?:i|we)\s+(?:choose|pick|say)|choose|pick|option|"
    r"choice))*"
    rf"{OPENING}*"
)
# What a letter follows when it is a choice and not a name: `I think B`, but not `vitamin C`.
CHOOSING = (
    r"(?i:\b(?:choose|pick|select|option|choice|letter|is|be|say|think|guess|likely|probably|"
    r"definitely|but|with|go\s+for)\s|\bit['’]s\s)"
)
CLOSED = r"(?=[\s.)\]}\"'”’*,:;!]*(?:$|[.)\]}\n\"'”’*,:;!]))"
AFFIRMED = r"\s+(?:is|must\s+be|would\s+be)\s+(?:the\s+)?(?:correct|right|best|true)\b"
CHOSEN_SMALL = r"\b(?i:(?:i|we)\s+(?:choose|pick|select))\s+(?:(?i:option)\s+)?[(\"']?"
REJECTED = (
    r"(?:\s+(?i:is|are|was|were|looks|seems))?(?i:\s+(?:clearly|obviously|also|both|all))*"
    r"(?i:\s+(?:not|wrong|incorrect|false|impossible|ruled\s+out)\b|\s+(?:isn|aren|can|cannot|won)"
    r"['’]?t?\b)"
)
NOT = r"(?i:\b(?:not|neither|nor|except|than|instead\s+of)\s+(?:option\s+)?)"
ANSWER_LINE = re.compile(r"(?:^|\s)ANSWER:\s*\(?([A-Z])\)?\.?\s*$")
CLOSING = re.compile(r"(?:^|\s)The answer is\s+\(?([A-Z])\)?\.?\s*$")
LEADING = re.compile(
    r"^\s*(?=(?i:answer|the answer))(?:(?i:answer):\s*)?(?:The answer is\s+)?"
    r"\(?([A-Z])\)?\.?\s+BECAUSE:"
)
LINE_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.)][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
INLINE_OPTIONS = re.compile(r"^[ \t]*Options:[ \t]*(?=\(A\))(.*)", re.MULTILINE | re.DOTALL)
# What parse_letter computes; another rule is another version.
CHOICE = "answers.choice/2"


def parse_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the option that a model's free text chooses (definition `answers.choice/2`).

    The first of these that there is: the whole text is one letter (`B`, `(b).`); the letter that
    is stated (`The answer is b.`, `Answer: (B)`); the one of the last conclusion (`So B.`); the
    letter that the text begins with (`B. green`); the only letter that is marked as a choice
    (`I think (B)`). Letters of an enumeration (`A and B`) and ones that are turned down (`A is
    wrong`, `not A`) are no choices, and a letter after a name (`vitamin C`) is part of the name.
    Letters are capitals, except where one is the whole text or stated. `A` or `I` before a word in
    small letters is that English word. Full-width letters count, and so do letters that touch a
    script without spaces. Options that are numbers: the first that stands alone, of what is left.

    Args:
        text: what the model wrote, without the prompt.
        letters: the options' letters, in capitals.

    Returns:
        One of `letters`, or None.
    """
    if not letters:
        return None
    text = unicodedata.normalize("NFKC", text)
    bare = text.strip().strip("().:[]*\"'").upper()
    if bare in letters:
        return bare
    one = f"(?:{'|'.join(map(re.escape, letters))})"
    return _chosen(_without_others(text, one), one, numbers="".join(letters).isdigit())


def _without_others(text: str, one: str) -> str:
    """Return the text without letters that are enumerated or turned down."""
    bracketed = rf"[(*\"']*{ALONE_BEFORE}{one}{ALONE_AFTER}[.)*\"']*"
    joined = r"(?:\s*,\s*(?:and|or)\b|\s+(?:and|or)\b|\s*[/&]|\s*[와과])"
    several = rf"(?:{bracketed}\s*,\s*)*{bracketed}{joined}\s*(?:option\s+)?{bracketed}"
    rest = re.sub(several, "·", text)
    rest = re.sub(rf"{WORDS}{bracketed}{REJECTED}", "·", rest)
    return re.sub(rf"{NOT}{WORDS}{bracketed}", "·", rest)


def _chosen(text: str, one: str, numbers: bool) -> str | None:
    letter = rf"{WORDS}({one}){ALONE_AFTER}"
    meant = rf"{NO_ARTICLE}({one}){ALONE_AFTER}"
    stated = re.search(STATED + meant, text) or _stated_small(text, one)
    if stated:
        return stated.group(1).upper()
    concluded = re.findall(CONCLUDED + meant, text)
    if concluded:
        return concluded[-1]
    affirmed = set(re.findall(rf"{ALONE_BEFORE}({one}){ALONE_AFTER}{AFFIRMED}", text))
    if len(affirmed) == 1:
        return affirmed.pop()
    begun = re.match(rf"[\s(*\"'\[{{]*{letter}", text)
    if begun:
        return begun.group(1)
    if numbers:
        found = re.search(ALONE_BEFORE + letter, text)
        return found.group(1) if found else None
    places = rf"(?:[(\[{{*\"'“‘]|\n\s*|{CHOOSING})"
    marked = set(re.findall(places + letter, text))
    marked |= set(re.findall(rf"[.:;,!?]\s+{letter}{CLOSED}", text))
    return marked.pop() if len(marked) == 1 else None


def _stated_small(text: str, one: str) -> re.Match[str] | None:
    """Find a small letter that is stated; one that is also a word must end its clause."""
    found = re.search(rf"(?:{STATED}|{CHOSEN_SMALL})((?i:{one})){ALONE_AFTER}{CLOSED}", text)
    return found or re.search(rf"{STATED}((?![aiAI])(?i:{one})){ALONE_AFTER}", text)


def declared_letter(text: str) -> str | None:
    """Return the letter that a data set gives as right, or None.

    Args:
        text: `B`, `B.`; an explanation that ends in `The answer is B.` or `ANSWER: B.`; or
            `The answer is B. BECAUSE: ...`, as in ScienceQA's files of LEA, LEPA and ALE.
    """
    bare = text.strip().rstrip(".")
    if re.fullmatch(r"\(?[A-Z]\)?", bare):
        return bare.strip("()")
    leading = LEADING.search(text)
    if leading:  # what follows is a lecture, which may state something of its own
        return leading.group(1)
    closing = ANSWER_LINE.search(text) or CLOSING.search(text)
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
