"""Which tokens of a semdim prompt are the word, the two dimensions, the options and the answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp_lab.errors import SampleError
from interp_lab.tokens import TokenMap


@dataclass(frozen=True)
class WordSpans:
    """Token positions of one prompt.

    Args:
        word: the word, written or heard.
        dim1, dim2: the dimension words in the chosen scope, in the order shown.
        option1, option2: the dimension words of the options and their numbers.
        answer: the position that the answer is written at, the last one.
        option3: a third option and its number; empty without one.
    """

    word: tuple[int, ...]
    dim1: tuple[int, ...]
    dim2: tuple[int, ...]
    option1: tuple[int, ...]
    option2: tuple[int, ...]
    answer: int
    option3: tuple[int, ...] = ()

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Both dimensions' tokens, in the prompt's order."""
        return tuple(sorted({*self.dim1, *self.dim2}))

    @property
    def options(self) -> tuple[int, ...]:
        """All options' tokens, in the prompt's order."""
        return tuple(sorted({*self.option1, *self.option2, *self.option3}))

    @property
    def matrix(self) -> tuple[int, ...]:
        """[word | dim1 | dim2], the order of attention_matrix."""
        return self.word + self.dim1 + self.dim2

    @property
    def flow(self) -> tuple[int, ...]:
        """[word | option 1 | option 2 | option 3 | answer], the order of flow_matrix."""
        return self.word + self.option1 + self.option2 + self.option3 + (self.answer,)

    def described(self, tokens: TokenMap, block: str) -> str:
        """Return JSON: text, group and seconds of each token of a block (`matrix` or `flow`)."""
        groups = {"word": self.word}
        if block == "matrix":
            groups |= {"dim1": self.dim1, "dim2": self.dim2}
        else:
            groups |= {"option1": self.option1, "option2": self.option2, "option3": self.option3}
            groups |= {"answer": (self.answer,)}
        listed = [
            {
                "text": tokens.tokens[i].text,
                "group": group,
                "seconds": tokens.tokens[i].seconds,
            }
            for group, members in groups.items()
            for i in members
        ]
        return json.dumps(listed, ensure_ascii=False)

    def units(
        self, tokens: TokenMap, phones: Sequence[tuple[str, float, float]], unit: str | None
    ) -> list[dict[str, Any]]:
        """Return the word's phones, or its tokens if phones are not known.

        Args:
            tokens: the map.
            phones: (label, start, end), in characters of the written word or in seconds.
            unit: `char` or `second`.

        Returns:
            label, keys (indices into `word`), start, end, unit; phones that no token covers are
            left out.
        """
        place = {token: i for i, token in enumerate(self.word)}
        if not phones:
            return [
                {
                    "label": tokens.tokens[t].text,
                    "keys": [i],
                    "start": i,
                    "end": i + 1,
                    "unit": "token",
                }
                for t, i in place.items()
            ]
        base = _word_start(tokens, self.word) if unit == "char" else 0
        found = []
        for label, start, end in phones:
            if unit == "char":
                covering = tokens.at_chars(base + int(start), base + int(end))
            else:
                covering = tokens.at_seconds(start, end)
            keys = [place[t] for t in covering if t in place]
            if keys:
                found.append(
                    {"label": label, "keys": keys, "start": start, "end": end, "unit": unit}
                )
        return found


def word_spans(tokens: TokenMap, dimension_roles: Sequence[str]) -> WordSpans:
    """Return the spans of a prompt.

    Args:
        tokens: the map.
        dimension_roles: `option`, `dimension` or both: which occurrences of the dimension words
            count.

    Raises:
        SampleError: if the prompt lacks one of them.
    """
    word = tokens.where(role="word") or tokens.where(modality="audio")
    dims = [tokens.where(role=dimension_roles, label=label) for label in ("dim1", "dim2")]
    options = [_option(tokens, n, text) for n, text in ((1, "dim1"), (2, "dim2"), (3, "neither"))]
    for name, found in (
        ("the word", word),
        ("the first dimension", dims[0]),
        ("the second dimension", dims[1]),
        ("the options", options[0] and options[1]),
    ):
        if not found:
            raise SampleError(f"no token of the prompt is {name}; check the prompt template")
    return WordSpans(word, dims[0], dims[1], options[0], options[1], len(tokens) - 1, options[2])


def _option(tokens: TokenMap, number: int, text: str) -> tuple[int, ...]:
    """Return the tokens of an option's number and text."""
    labels = (f"number{number}", text)
    return tuple(sorted(t for label in labels for t in tokens.where(role="option", label=label)))


def _word_start(tokens: TokenMap, word: Sequence[int]) -> int:
    """Return the character that the written word begins at; its first token may hold a space."""
    chars = tokens.tokens[word[0]].chars
    assert chars is not None
    start = chars[0]
    while start < chars[1] - 1 and tokens.prompt[start].isspace():
        start += 1
    return start
