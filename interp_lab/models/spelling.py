"""Tokens of a word spell the word: offsets of a tokenizer are told apart and checked.

Offsets come from the tokenizer. Sentencepiece's byte fallback gives all bytes of a run of unknown
letters the whole run, a quotation mark or line break beside a word included; the bytes themselves
tell which letter each belongs to. Where a normaliser composes, decomposes or drops letters, offsets
may be off. So what the tokens of every named stretch of a prompt decode to is compared with what
the normaliser makes of that stretch.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from interp_lab.errors import SampleError

# Roles of long stretches, of which no token is counted by itself.
AROUND = ("system", "user", "assistant")
# Stands where only some bytes of a letter are there.
CUT = "\ufffd"
# What sentencepiece writes for a space.
BLANK = "\u2581"
# A letter at a stretch's edge that is cut into bytes has at most so many code points.
LETTER = 8

Chars = tuple[int, int] | None
Piece = tuple[int, tuple[int, int]]
# A token of byte fallback.
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Letters that join the one before them beside marks: vowels and ends of Hangul, kana's sound marks.
JOINING = (range(0x1160, 0x1200), range(0xFF9E, 0xFFA0))


def by_letters(tokenizer: Any, prompt: str, pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces of a prompt, bytes of byte fallback with the letter that each belongs to.

    A run that the bytes do not spell is left as it is.

    Args:
        tokenizer: a fast tokenizer.
        prompt: the text.
        pieces: id and characters of each token.
    """
    found: list[Piece] = []
    for (start, end), group in groupby(pieces, key=lambda piece: piece[1]):
        run = list(group)
        if len(run) > 1 and end - start > 1:
            names = tokenizer.convert_ids_to_tokens([token for token, _ in run])
            values = [BYTE.fullmatch(str(name)) for name in names]
            if all(values):
                own = bytes(int(value[1], 16) for value in values if value)
                places = _letters_of(own, prompt, start, end, _normaliser(tokenizer))
                run = [(token, place) for (token, _), place in zip(run, places, strict=True)]
        found += run
    return found


def _letters_of(
    own: bytes, prompt: str, start: int, end: int, normalise: Callable[[str], str]
) -> list[tuple[int, int]]:
    """Return the characters that each byte of a run belongs to; the run where they do not fit."""
    places: list[tuple[int, int]] = []
    spelled = b""
    for first, last in _clusters(prompt, start, end):
        text = prompt[first:last]
        made = normalise(text)
        made = made if text.isspace() else made.strip().strip(BLANK)
        spelled += made.encode()
        places += [(first, last)] * len(made.encode())
    # Of the run's first and last letter a part may be a token of its own (a base without its mark).
    at = spelled.find(own)
    rest = len(spelled) - at - len(own)
    if at < 0 or (at and places[at] != places[0]) or (rest and places[-rest - 1] != places[-1]):
        return [(start, end)] * len(own)
    return places[at : at + len(own)]


def _clusters(prompt: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of letters with the marks that join them."""
    first = start
    for at in range(start + 1, end + 1):
        if at == end or not _joins(prompt[at], prompt[at - 1]):
            yield first, at
            first = at


def _joins(letter: str, before: str) -> bool:
    if unicodedata.category(letter) in ("Mn", "Mc", "Me"):
        return True
    joining = any(ord(letter) in letters for letters in JOINING)
    return joining and unicodedata.category(before) in ("Lo", "Lm")


def check_spelling(
    tokenizer: Any,
    prompt: str,
    ids: Sequence[int],
    chars: Sequence[Chars],
    spans: Sequence[Any],
) -> None:
    """Refuse a prompt in which the tokens of a named stretch do not spell it.

    Args:
        tokenizer: a fast tokenizer.
        prompt: the rendered prompt.
        ids: of its tokens.
        chars: the characters that each token is said to stand for, None for no text.
        spans: stretches of the prompt with `start`, `end`, `role` and `label`.

    Raises:
        SampleError: names the stretch, and what its tokens say.
    """
    normalise = _normaliser(tokenizer)
    for span in spans:
        if span.start >= span.end or (span.role in AROUND and span.label is None):
            continue
        own = [i for i, c in enumerate(chars) if c and c[0] < span.end and span.start < c[1]]
        own_ids = [ids[i] for i in own]
        shared = _shared_beyond(span, [chars[i] or (0, 0) for i in own])
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in own_ids:
            continue  # says nothing of what it stands for
        starts, ends = zip(*(chars[i] or (0, 0) for i in own), strict=True) if own else ((), ())
        start, end = min((span.start, *starts)), max((span.end, *ends))
        said = _letters(tokenizer.decode(own_ids, clean_up_tokenization_spaces=False))
        if shared or not _spells(said, _letters(normalise(prompt[start:end]))):
            raise SampleError(
                f"the tokens of {span.role} {prompt[span.start : span.end]!r} spell {said!r}: the "
                f"offsets of {type(tokenizer).__name__} do not fit its own tokens, so the word's "
                "tokens are not known; compose the data's letters (NFC), or take another model"
            )


def _shared_beyond(span: Any, chars: Sequence[tuple[int, int]]) -> bool:
    """Return whether several tokens have one range of letters that reaches beyond a stretch."""
    beyond = [c for c in chars if c[1] - c[0] > 1 and (c[0] < span.start or c[1] > span.end)]
    return len(beyond) != len(set(beyond))


def _normaliser(tokenizer: Any) -> Callable[[str], str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = getattr(backend, "normalizer", None)
    return own.normalize_str if own is not None else str


def _letters(text: str) -> str:
    """Return the code points of a text, compatible ones as one, without blanks."""
    apart = unicodedata.normalize("NFKD", text)
    return "".join(c for c in apart if not c.isspace() and c != BLANK)


def _spells(said: str, expected: str) -> bool:
    """Return whether tokens spell a stretch, whose letters at its ends may be cut into bytes."""
    if said == expected:
        return True
    core = said.strip(CUT)
    before, after = said.startswith(CUT), said.endswith(CUT)
    if not (before or after):
        return False
    if not core:
        return len(expected) <= 2 * LETTER
    at = expected.find(core) if before else 0 if expected.startswith(core) else -1
    rest = len(expected) - at - len(core)
    return 0 <= at <= LETTER and (rest == 0 or (after and rest <= LETTER))
