"""What the mechanism says of itself, before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass

from interp_lab.zoo.compiled.mechanism import LAYOUTS, Layout, part_names
from interp_lab.zoo.compiled.truth import HeadTruth, Route, Truth

GUESS = "A"
TWINS = ("twin_a", "twin_b")


@dataclass(frozen=True)
class Part:
    """What is claimed of a part; the words are those of `truth.HeadTruth`."""

    at: str
    looks_at: str
    looks_at_image: bool = False
    used: bool = False
    needed: bool = False
    decoy: bool = False
    sink: bool = False


PARTS = {
    "pointer": Part("name", "asked_cell", True, used=True, needed=True),
    **{twin: Part("name", "asked_cell", True, used=True) for twin in TWINS},
    "decoy": Part("name", "asked_cell", True, decoy=True),
    "image_sink": Part("after_image", "first_cell", True, sink=True),
    "binder": Part("word", "letter", used=True, needed=True),
    "diffuse": Part("last", "image", True, used=True, needed=True),
    "relay": Part("last", "name", used=True, needed=True),
    "late_decoy": Part("last", "right_cells", True, decoy=True),
    "choice": Part("last", "right_word", used=True, needed=True),
    "sink": Part("all", "first", sink=True),
    "even": Part("last", "all"),
}
# source, target -> the parts that take this way
WAYS = {
    ("image", "user"): ("pointer", *TWINS),
    ("option", "option"): ("binder",),
    ("image", "assistant"): ("diffuse",),
    ("user", "assistant"): ("relay",),
    ("option", "assistant"): ("choice",),
}


def claimed(model: str, layout: str) -> Truth:
    """Return the truth of a layout with nothing measured: its counts are -1."""
    where = LAYOUTS[layout]
    heads = [_head(where, name, *place) for place, name in part_names(where).items()]
    routes = [_route(where, *ends, parts) for ends, parts in WAYS.items()]
    return Truth(model, layout, -1, -1, GUESS, -1, tuple(heads), tuple(routes))


def _head(where: Layout, name: str, layer: int, head: int) -> HeadTruth:
    others = tuple(where.heads[twin] for twin in TWINS if name in TWINS and twin != name)
    return HeadTruth(layer, head, name, **vars(PARTS[name]), redundant_with=others)


def _route(where: Layout, source: str, target: str, parts: tuple[str, ...]) -> Route:
    """Return a route; a layer cannot be closed alone if what then goes leaves no answer."""
    heads = tuple(sorted(where.heads[part] for part in parts))
    layers = tuple(sorted({layer for layer, _ in heads}))
    twins = {where.heads[twin] for twin in TWINS}
    alone = {where.heads[part] for part in parts if PARTS[part].needed}

    def fails(layer: int) -> bool:
        gone = {place for place in heads if place[0] == layer}
        return bool(gone & alone) or twins <= gone

    return Route(source, target, layers, tuple(n for n in layers if fails(n)), heads)
