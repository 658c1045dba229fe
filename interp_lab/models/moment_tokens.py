"""The token map of a query and a video that are given as feature rows: one token a row."""

from interp_lab.datasets.base import Sample
from interp_lab.tokens import Token, TokenMap


def moment_tokens(sample: Sample) -> TokenMap:
    """Return one token a word row, then one a clip with its seconds.

    Word rows are named by the query's words where the numbers agree, with or without a row before
    and after (CLIP's start and end); a text tower that splits words leaves them numbered.

    Args:
        sample: with the facts `query`, `text`, `video` and `clip_seconds`.
    """
    query = sample.facts["query"]
    seconds = sample.facts["clip_seconds"]
    words = _words(query, len(sample.facts["text"]))
    clips = [
        Token(f"clip {i}", "image", "video", seconds=(i * seconds, (i + 1) * seconds))
        for i in range(len(sample.facts["video"]))
    ]
    return TokenMap((*words, *clips), prompt=query)


def _words(query: str, n_rows: int) -> list[Token]:
    ranges, at = [], 0
    for word in query.split():
        start = query.index(word, at)
        at = start + len(word)
        ranges.append((start, at))
    named = [Token(query[a:b], "user", chars=(a, b)) for a, b in ranges]
    if n_rows == len(named):
        return named
    if n_rows == len(named) + 2:
        return [Token("<start>", "special"), *named, Token("<end>", "special")]
    return [Token(f"text {i}", "user") for i in range(n_rows)]
