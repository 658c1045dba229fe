"""Where a row's text tokens stand in its prompt, when a processor has put others between them.

A processor replaces the mark of a picture by many tokens, with marks of rows and tiles between.
What of the row the prompt's own tokens are is found by aligning the two lists of ids, so no rule of
a family is needed; text of the prompt that is not found in the row is an error.
"""

from collections.abc import Collection, Sequence
from difflib import SequenceMatcher

from interp_lab.errors import SampleError

Chars = tuple[int, int]


def aligned(
    prompt: str,
    pieces: Sequence[tuple[int, Chars]],
    row: Sequence[int],
    image_token: int,
    marks: Collection[int],
) -> list[Chars | None]:
    """Return for each token of a row its characters in the prompt, None for what was put in.

    Args:
        prompt: the rendered prompt.
        pieces: (id, characters) of the prompt's tokens, by the tokenizer alone.
        row: the processor's ids.
        image_token: the id of the tokens that stand for pictures; those are not text.
        marks: ids that a processor may replace: the tokenizer's special and added tokens.

    Raises:
        SampleError: if text of the prompt is not found in the row.
    """
    own = [(i, chars) for i, chars in pieces if i != image_token]
    places = [at for at, i in enumerate(row) if i != image_token]
    found: list[Chars | None] = [None] * len(row)
    matcher = SequenceMatcher(None, [i for i, _ in own], [row[at] for at in places], False)
    lost = set(range(len(own)))
    for first, second, n in matcher.get_matching_blocks():
        for step in range(n):
            found[places[second + step]] = own[first + step][1]
            lost.discard(first + step)
    gone = [own[k] for k in sorted(lost) if own[k][0] not in marks]
    words = [prompt[slice(*chars)] for _, chars in gone]
    if any(word.strip() for word in words):
        raise SampleError(
            f"the processor's tokens do not hold {next(w for w in words if w.strip())!r} of the "
            "prompt, so its words cannot be found; is the tokenizer the checkpoint's?"
        )
    return found
