"""TokenMap: the one object that says what every token of an input is.

Pure data, built by the model families (`models/`) from tokenizer offsets and processor grids, and
stored with a result. No analysis finds a token in any other way, so a wrong span is impossible to
hide: the map checks itself when it is made.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

ROLES = (
    "special", "system", "user", "assistant", "word", "dimension", "option", "image", "audio",
    "generated", "cls", "pad",
)  # fmt: skip
MODALITIES = ("text", "image", "audio", "video", "none")


@dataclass(frozen=True)
class Token:
    """One token.

    Args:
        text: the token as a person reads it.
        role: one of `ROLES`; what the token is for.
        modality: one of `MODALITIES`; `none` for tokens that carry no content (CLS).
        chars: half-open range in the rendered prompt, or None if the token is not from text.
        image: index of the image that the token is a cell of, or None.
        cell: (row, col) in that image's token grid, or None.
        seconds: (start, end) in the audio clip, or None.
        label: a name within a role, such as which dimension word or which option.
    """

    text: str
    role: str
    modality: str = "text"
    chars: tuple[int, int] | None = None
    image: int | None = None
    cell: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"token role {self.role!r} is not one of {', '.join(ROLES)}")
        if self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r} is not one of {', '.join(MODALITIES)}")
        if (self.image is None) != (self.cell is None):
            raise ValueError(f"token {self.text!r}: image and cell go together")


@dataclass(frozen=True)
class TokenMap:
    """What every token of one sample is, in the model's order, without padding.

    Args:
        tokens: one `Token` a position.
        grids: (rows, cols) of each image's token grid.
        prompt: the rendered text that `Token.chars` counts in.

    Raises:
        ValueError: if an image's cells are not exactly its grid, row-major and in order, if
            characters or seconds run backwards, or if a character range leaves the prompt.
    """

    tokens: tuple[Token, ...]
    grids: tuple[tuple[int, int], ...] = ()
    prompt: str = ""

    def __post_init__(self) -> None:
        for index, (rows, cols) in enumerate(self.grids):
            cells = [t.cell for t in self.tokens if t.image == index]
            if cells != [(r, c) for r in range(rows) for c in range(cols)]:
                raise ValueError(
                    f"image {index}: {len(cells)} image tokens do not form the grid "
                    f"{rows} x {cols} row by row"
                )
        if any(t.image is not None and t.image >= len(self.grids) for t in self.tokens):
            raise ValueError("a token belongs to an image without a grid")
        self._check_ranges()

    def _check_ranges(self) -> None:
        start = 0
        for position, token in enumerate(self.tokens):
            for name, span in (("characters", token.chars), ("seconds", token.seconds)):
                if span is not None and span[1] < span[0]:
                    raise ValueError(f"token {position} {token.text!r}: {name} {span} backwards")
            if token.chars is None:
                continue
            # Byte-level pieces of one character share its range: equal starts are allowed.
            if token.chars[0] < start or token.chars[1] > len(self.prompt):
                raise ValueError(
                    f"token {position} {token.text!r}: characters {token.chars} overlap the token "
                    f"before it or leave the prompt of {len(self.prompt)}"
                )
            start = token.chars[0]

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self.tokens)

    def where(
        self,
        role: str | Iterable[str] | None = None,
        modality: str | Iterable[str] | None = None,
        image: int | None = None,
        label: str | None = None,
    ) -> tuple[int, ...]:
        """Return the positions of the tokens that meet every condition given, in order."""
        roles = _names(role)
        modalities = _names(modality)
        return tuple(
            i
            for i, t in enumerate(self.tokens)
            if (roles is None or t.role in roles)
            and (modalities is None or t.modality in modalities)
            and (image is None or t.image == image)
            and (label is None or t.label == label)
        )

    def at_chars(self, start: int, end: int) -> tuple[int, ...]:
        """Return the positions of the tokens that overlap the characters [start, end)."""
        return tuple(
            i
            for i, t in enumerate(self.tokens)
            if t.chars is not None and t.chars[0] < end and start < t.chars[1]
        )

    def at_seconds(self, start: float, end: float) -> tuple[int, ...]:
        """Return the positions of the tokens whose centre lies in the seconds [start, end)."""
        return tuple(
            i
            for i, t in enumerate(self.tokens)
            if t.seconds is not None and start <= sum(t.seconds) / 2 < end
        )

    def to_json(self) -> str:
        """Return the map as JSON; `from_json` gives an equal map back."""
        names = [f.name for f in fields(Token)]
        rows = [[asdict(t)[n] for n in names] for t in self.tokens]
        return json.dumps(
            {"columns": names, "tokens": rows, "grids": self.grids, "prompt": self.prompt},
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "TokenMap":
        """Return the map that `to_json` wrote."""
        data = json.loads(text)
        tokens: list[Token] = []
        for row in data["tokens"]:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in zip(data["columns"], row, strict=True)
            }
            tokens.append(Token(**values))
        return cls(tuple(tokens), tuple(tuple(g) for g in data["grids"]), data["prompt"])

    def table(self) -> str:
        """Return the map as a table for a person: one line a token."""
        lines = [f"{'#':>5}  {'token':<16} {'role':<10} {'modality':<8} where"]
        for i, t in enumerate(self.tokens):
            place = [f"chars {t.chars[0]}-{t.chars[1]}"] if t.chars else []
            if t.cell is not None:
                place.append(f"image {t.image} row {t.cell[0]} col {t.cell[1]}")
            if t.seconds is not None:
                place.append(f"{t.seconds[0]:.2f}-{t.seconds[1]:.2f} s")
            place += [t.label] if t.label else []
            lines.append(f"{i:>5}  {t.text!r:<16} {t.role:<10} {t.modality:<8} {', '.join(place)}")
        return "\n".join(lines)


def _names(value: str | Iterable[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset([value]) if isinstance(value, str) else frozenset(value)
