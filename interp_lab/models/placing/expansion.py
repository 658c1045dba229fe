"""Where a row's text tokens stand in its prompt, when a processor has put others between them.

A processor replaces the mark of a picture by many tokens, with marks of rows and tiles between.
What of the row the prompt's own tokens are is found by aligning the two lists of ids, so no rule of
a family is needed; text of the prompt that is not found in the row is an error.
"""

from collections.abc import Callable, Collection, Sequence
from difflib import SequenceMatcher

from interp_lab.errors import SampleError

Chars = tuple[int, int]


def aligned(
    prompt: str,
    pieces: Sequence[tuple[int, Chars]],
    row: Sequence[int],
    image_token: int,
    marks: Collection[int],
    surface: Callable[[int], str],
) -> list[Chars | None]:
    """Return for each token of a row its characters in the prompt, None for what was put in.

    Args:
        prompt: the rendered prompt.
        pieces: (id, characters) of the prompt's tokens, by the tokenizer alone.
        row: the processor's ids.
        image_token: the id of the tokens that stand for pictures; those are not text.
        marks: ids that a processor may replace: the tokenizer's special and added tokens.
        surface: id -> its text.

    Raises:
        SampleError: if text of the prompt is not found in the row.
    """
    own = [(i, chars) for i, chars in pieces if i != image_token]
    places = [at for at, i in enumerate(row) if i != image_token]
    found: list[Chars | None] = [None] * len(row)
    matcher = SequenceMatcher(None, [i for i, _ in own], [row[at] for at in places], False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            for mine, theirs in zip(own[a0:a1], places[b0:b1], strict=True):
                found[theirs] = mine[1]
            continue
        lost = [chars for i, chars in own[a0:a1] if i not in marks]
        text = prompt[lost[0][0] : lost[-1][1]] if lost else ""
        if not text.strip():
            continue
        start = lost[0][0] + len(text) - len(text.lstrip())
        again = _again(text.strip(), start, places[b0:b1], row, surface)
        if again is None:
            raise SampleError(
                f"the processor's tokens do not hold {text.strip()[:40]!r} of the prompt, so its "
                "words cannot be found; is the tokenizer the checkpoint's?"
            )
        for at, chars in again.items():
            found[at] = chars
    return found


def _again(
    text: str, start: int, places: Sequence[int], row: Sequence[int], surface: Callable[[int], str]
) -> dict[int, Chars] | None:
    """Return the characters of a text that stands beside what was put in, cut in another way.

    A tokenizer may cut a word after a mark otherwise than after a line's end.
    """
    for first in range(len(places)):
        found: dict[int, Chars] = {}
        at = 0
        for place in places[first:]:
            piece = surface(row[place])
            piece = piece if text.startswith(piece, at) else piece.strip()
            if not piece or not text.startswith(piece, at):
                break
            found[place] = (start + at, start + at + len(piece))
            at += len(piece)
            if at == len(text):
                return found
    return None
