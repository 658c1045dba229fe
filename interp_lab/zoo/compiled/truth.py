"""What is true of a compiled model, head by head and route by route: a file beside its weights.

Three things are kept apart that are often taken for one: whether a head looks at the image, whether
the answer is made with it (`used`), and whether the answer fails without it alone (`needed`). A
head that is used and not needed has `redundant_with`: the answer fails without all of them.

`truth.json` holds one object:

    schema    "compiled_truth/1"
    model     name of the model
    layout    where the parts stand
    boards    how many were asked about; the counts below are out of them
    right     answers that are right, nothing cut
    guess     what it writes where the mechanism fails
    guessed   answers that a constant guess has right
    heads     one object for each head, `HeadTruth`
    routes    one object for each way that the answer takes, `Route`

Every number in it was measured, and every word in it checked by cutting, before it was written
(`make`). The module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp_lab.zoo import weights_path

SCHEMA = "compiled_truth/1"
FILE = "truth.json"
Place = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class HeadTruth:
    """One head.

    Args:
        layer, head: where it stands.
        part: what it is called in the mechanism; `sink` and `even` stand in free places.
        at: from where it looks: `name` (the asked cell's), `word` (an option's), `last` (token),
            `after_image` or `all`.
        looks_at: `asked_cell`, `first_cell`, `image`, `right_cells` (of the right colour),
            `letter` (the word's own), `name`, `right_word`, `first` (token) or `all`.
        looks_at_image: most of its attention, from there, is on the image.
        used: the answer is made with what it writes.
        needed: without it alone every answer is the guess.
        redundant_with: the other heads of which one suffices.
        decoy: looks at what decides the answer, and writes where nothing reads.
        sink: always looks at one place, which says nothing.
        right_without: right answers with its output set to 0.
        right_blind: right answers with the image hidden from it.
        mass: mean attention from `at` on `looks_at`, 0 to 1.
    """

    layer: int
    head: int
    part: str
    at: str
    looks_at: str
    looks_at_image: bool
    used: bool
    needed: bool
    redundant_with: tuple[Place, ...] = ()
    decoy: bool = False
    sink: bool = False
    right_without: int = -1
    right_blind: int = -1
    mass: float = -1.0

    @property
    def place(self) -> Place:
        """Its layer and head."""
        return self.layer, self.head


@dataclass(frozen=True)
class Route:
    """A way that the answer takes, from tokens of one role to tokens of another.

    Args:
        source, target: roles of a TokenMap; the target's tokens look at the source's.
        layers: in which it is taken. Closed in all of them, every answer is the guess; closed in
            all others, every answer is right.
        needed: of these, in which it cannot be closed alone.
        heads: that take it.
        right_without: right answers with it closed in its layers.
        right_alone: right answers with it closed in all other layers.
    """

    source: str
    target: str
    layers: tuple[int, ...]
    needed: tuple[int, ...]
    heads: tuple[Place, ...]
    right_without: int = -1
    right_alone: int = -1


@dataclass(frozen=True)
class Truth:
    """What is true of one model; see the module."""

    model: str
    layout: str
    boards: int
    right: int
    guess: str
    guessed: int
    heads: tuple[HeadTruth, ...]
    routes: tuple[Route, ...]

    def named(self, part: str) -> HeadTruth:
        """Return the head of a planted part.

        Raises:
            KeyError: if no head, or more than one, has this name.
        """
        found = [head for head in self.heads if head.part == part]
        if len(found) != 1:
            raise KeyError(f"{self.model}: {len(found)} heads are called {part!r}")
        return found[0]

    def places(self, fact: str) -> set[Place]:
        """Return the heads of which a fact is true, such as `used`, `needed` or `decoy`."""
        return {head.place for head in self.heads if getattr(head, fact)}

    def redundant_sets(self) -> set[frozenset[Place]]:
        """Return the smallest sets of heads that are not needed, and are needed together."""
        return {
            frozenset((head.place, *head.redundant_with))
            for head in self.heads
            if head.redundant_with
        }

    def fails_without(self, cut: Iterable[Place]) -> bool:
        """Return whether every answer is the guess if the output of these heads is 0."""
        gone = set(cut)
        return bool(gone & self.places("needed")) or any(s <= gone for s in self.redundant_sets())


def write_truth(truth: Truth, folder: Path) -> Path:
    """Write the truth beside a model's weights; return the file."""
    path = folder / FILE
    rows = {"schema": SCHEMA, **asdict(truth)}
    lists = {key: rows.pop(key) for key in ("heads", "routes")}
    head = json.dumps(rows, indent=1)[:-2]
    # A row a line: a change of one head is a change of one line.
    tables = [
        f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in found) + "\n ]"
        for key, found in lists.items()
    ]
    path.write_text(",\n".join([head, *tables]) + "\n}\n", encoding="utf-8")
    return path


def read_truth(model: str | Path) -> Truth:
    """Read the truth of a shipped model by name, or of a folder.

    Raises:
        ValueError: if there is no such model, or the file is of another schema.
    """
    folder = model if isinstance(model, Path) else weights_path(model)
    rows: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    schema = rows.pop("schema", None)
    if schema != SCHEMA:
        raise ValueError(f"{folder / FILE}: its schema is {schema!r}; this reader is for {SCHEMA}")
    heads = tuple(HeadTruth(**_tuples(row)) for row in rows.pop("heads"))
    routes = tuple(Route(**_tuples(row)) for row in rows.pop("routes"))
    return Truth(**rows, heads=heads, routes=routes)


def _tuples(value: Any) -> Any:
    """Return JSON's lists as tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
