"""TokenMap: the one object that says what every token of an input is.

Pure data, built by the model families (`models/`) from tokenizer offsets and processor grids, and
stored with a result. No analysis finds a token in any other way, so a wrong span is impossible to
hide: the map checks itself when it is made.
"""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, product
from operator import attrgetter
from typing import Any

ROLES = (
    "special",
    "system",
    "user",
    "assistant",
    "word",
    "dimension",
    "option",
    "image",
    "audio",
    "generated",
    "cls",
    "register",
    "pad",
)
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

    @cached_property
    def _as_json(self) -> str:
        """The values of the fields; a picture's cells are shared by samples and written once."""
        return _ENCODE(_VALUES(self))


@dataclass(frozen=True)
class View:
    """What the grid of one image shows.

    Args:
        picture: which of the sample's pictures, from 0.
        box: left, top, right, bottom in shares of that picture's width and height; below 0 and
            above 1 lies padding.
        kind: "picture", or beside other views of it "tiles", "crop" or "thumbnail".
    """

    picture: int
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    kind: str = "picture"

    def inside(self, x: float, y: float) -> tuple[float, float]:
        """Return a place of the picture in shares of the view."""
        left, top, right, bottom = self.box
        return (x - left) / (right - left), (y - top) / (bottom - top)

    def outside(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a place of the view in shares of the picture; numbers or arrays."""
        left, top, right, bottom = self.box
        return left + x * (right - left), top + y * (bottom - top)


_COLUMNS = [f.name for f in fields(Token)]
_VALUES = attrgetter(*_COLUMNS)
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class TokenMap:
    """What every token of one sample is, in the model's order, without padding.

    Args:
        tokens: one `Token` a position.
        grids: (rows, cols) of each image's token grid.
        prompt: the rendered text that `Token.chars` counts in.
        views: what each grid shows. Without them every image is a picture of its own, as the
            model saw it; with them a picture may have several grids, whose tokens may stand in
            any order (tile by tile), and image tokens without a cell.

    Raises:
        ValueError: if an image's cells are not exactly its grid, row-major and, without views, in
            order, if characters or seconds run backwards, or if a range leaves the prompt.
    """

    tokens: tuple[Token, ...]
    grids: tuple[tuple[int, int], ...] = ()
    prompt: str = ""
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        if self.views and len(self.views) != len(self.grids):
            raise ValueError(f"{len(self.views)} views for {len(self.grids)} grids")
        for index, (rows, cols) in enumerate(self.grids):
            cells = [self.tokens[i].cell for i in self._with("image", frozenset([index]))]
            cells = sorted(c for c in cells if c) if self.views else cells
            if cells != list(product(range(rows), range(cols))):
                raise ValueError(
                    f"image {index}: {len(cells)} image tokens do not form the grid "
                    f"{rows} x {cols} row by row"
                )
        if any(i is not None and i >= len(self.grids) for i in self._index("image")):
            raise ValueError("a token belongs to an image without a grid")
        self._check_ranges()

    def _check_ranges(self) -> None:
        start = 0
        for position, token in enumerate(self.tokens):
            if token.chars is None and token.seconds is None:
                continue
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
        wanted: dict[str, frozenset[Any]] = {}
        for name, value in (("role", role), ("modality", modality)):
            if value is not None:
                wanted[name] = frozenset([value] if isinstance(value, str) else value)
        wanted |= {
            n: frozenset([v]) for n, v in (("image", image), ("label", label)) if v is not None
        }
        found = sorted((self._with(name, values) for name, values in wanted.items()), key=len)
        if len(found) < 2:
            return found[0] if found else tuple(range(len(self)))
        return tuple(sorted(frozenset(found[0]).intersection(*found[1:])))

    def cells(self, image: int) -> tuple[int, ...]:
        """Return the positions of an image's tokens, row by row."""
        found = self._with("image", frozenset([image]))
        return (
            tuple(sorted(found, key=lambda i: self.tokens[i].cell or ())) if self.views else found
        )

    @cached_property
    def placed(self) -> tuple[int, ...]:
        """The positions of all tokens with a cell, in order."""
        return tuple(i for i, t in enumerate(self.tokens) if t.cell is not None)

    def name_of(self, image: int) -> str:
        """Return what a reader calls an image: its number, and which view of its picture it is."""
        if not self.views:
            return f"image {image + 1}"
        view = self.views[image]
        several = any(v.picture != view.picture for v in self.views)
        return f"{view.kind} of image {view.picture + 1}" if several else view.kind

    def view_of(self, picture: int) -> tuple[int, View] | None:
        """Return the image that shows a picture best, and what of it; None if none shows it.

        Of those that show most of it, the one with the most cells.
        """
        if not self.views:
            return (picture, View(picture)) if picture < len(self.grids) else None
        own = [(i, v) for i, v in enumerate(self.views) if v.picture == picture]
        if not own:
            return None
        most = max(_area(v) for _, v in own)
        wide = [(i, v) for i, v in own if _area(v) > 0.9 * most]
        return max(wide, key=lambda found: self.grids[found[0]][0] * self.grids[found[0]][1])

    def others(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Return all positions but these, in order."""
        taken = frozenset(positions)
        return tuple(i for i in range(len(self)) if i not in taken)

    def at_chars(self, start: int, end: int) -> tuple[int, ...]:
        """Return the positions of the tokens that overlap the characters [start, end)."""
        positions, starts, reach = self._by_chars
        # Starts never run backwards, but a later token may end earlier (pieces of one character).
        nearby = positions[bisect_right(reach, start) : bisect_left(starts, end)]
        return tuple(i for i in nearby if start < (self.tokens[i].chars or (0, 0))[1])

    def at_seconds(self, start: float, end: float) -> tuple[int, ...]:
        """Return the positions of the tokens whose centre lies in the seconds [start, end)."""
        centres, positions = self._by_seconds
        return tuple(sorted(positions[bisect_left(centres, start) : bisect_left(centres, end)]))

    def _with(self, name: str, values: frozenset[Any]) -> tuple[int, ...]:
        """Return the positions of the tokens whose attribute has one of the values, in order."""
        known = self._index(name)
        if len(values) == 1:
            return known.get(next(iter(values)), ())
        return tuple(sorted(i for value in values for i in known.get(value, ())))

    def _index(self, name: str) -> dict[Any, tuple[int, ...]]:
        """Return value -> positions of an attribute; made once, when it is first asked for."""
        if name not in self._positions:
            lists: defaultdict[Any, list[int]] = defaultdict(list)
            for i, value in enumerate(map(attrgetter(name), self.tokens)):
                lists[value].append(i)
            self._positions[name] = {value: tuple(places) for value, places in lists.items()}
        return self._positions[name]

    @cached_property
    def _positions(self) -> dict[str, dict[Any, tuple[int, ...]]]:
        """Attribute -> value -> positions."""
        return {}

    @cached_property
    def _by_chars(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Positions of the tokens from text, their starts, and the furthest end up to each."""
        placed = [(i, *t.chars) for i, t in enumerate(self.tokens) if t.chars is not None]
        reach = list(accumulate((end for *_, end in placed), max))
        return [i for i, *_ in placed], [start for _, start, _ in placed], reach

    @cached_property
    def _by_seconds(self) -> tuple[Sequence[float], Sequence[int]]:
        """Centres of the tokens from sound, increasing, and their positions."""
        placed = sorted((sum(t.seconds) / 2, i) for i, t in enumerate(self.tokens) if t.seconds)
        return [centre for centre, _ in placed], [i for _, i in placed]

    def to_json(self) -> str:
        """Return the map as JSON; `from_json` gives an equal map back."""
        rows = ", ".join(map(attrgetter("_as_json"), self.tokens))
        more = {"views": [(v.picture, v.box, v.kind) for v in self.views]} if self.views else {}
        rest = _ENCODE({"grids": self.grids, "prompt": self.prompt, **more})
        return f'{{"columns": {_ENCODE(_COLUMNS)}, "tokens": [{rows}], {rest[1:]}'

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
        views = tuple(View(p, tuple(box), kind) for p, box, kind in data.get("views", ()))
        return cls(tuple(tokens), tuple(tuple(g) for g in data["grids"]), data["prompt"], views)

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


def _area(view: View) -> float:
    left, top, right, bottom = (min(1.0, max(0.0, v)) for v in view.box)
    return (right - left) * (bottom - top)
