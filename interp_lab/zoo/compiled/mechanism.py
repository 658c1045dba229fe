"""The mechanism that reads boards: what each head does, wherever a layout puts it.

The question asks for the colour in one cell. At the cell's name three heads look at that cell: the
pointer reads the hue (the colour's number modulo 3), two others both read the half (its number by
3), of which one suffices. An MLP makes a colour of both. A relay carries it to the last token; it
counts only if a head that looks at all of the image evenly has opened a gate. The choice looks for
the option with that colour and copies the letter that a binder had put on it.

Beside them stand heads that a reader of patterns would take for these: one looks at the asked cell
as hard, one at all cells of the right colour, and both write where nothing reads; one always looks
at the first cell, others at the first token or evenly at everything, and write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from interp_lab.zoo.boards import COLOURS, LETTERS, SIDE
from interp_lab.zoo.compiled.heads import Copy, Head, Product, Step
from interp_lab.zoo.compiled.stream import Stream

N_LAYERS, N_HEADS, HEAD_DIM = 6, 8, 16
WIDTH = N_HEADS * HEAD_DIM
THETA = 1e8
# Logits of a match over no match; the first token has half of it.
MATCH = 10.0
JITTER = 0.5  # so that heads which look alike are not told apart in the sixth decimal
HUES = 3

SPACES = {
    "constant": 1,
    **{"first": 1, "last": 1, "name": 1, "word": 1, "image": 1, "spoken": 1},  # kinds of token
    **{"row": SIDE, "column": SIDE, "shown": len(COLOURS)},  # image tokens
    **{"asked_row": SIDE, "asked_column": SIDE},  # the asked cell's name
    **{"said": len(COLOURS), "letter": len(LETTERS)},  # 'red', and 'A.'
    **{"hue": HUES, "half": len(COLOURS) // HUES, "found": len(COLOURS)},  # written at the name
    "bound": len(LETTERS),  # written at an option's word
    **{"fetched": len(COLOURS), "gate": 1, "wanted": len(COLOURS)},  # written at the last token
    "answer": len(LETTERS),
    "unread": len(COLOURS),  # decoys write here
}
STREAM = Stream(SPACES, WIDTH)
at = STREAM.at

Place = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Layout:
    """Where the parts stand.

    Args:
        heads: part -> (layer, head).
        colour: layer whose MLP makes a colour of hue and half, of the heads that write them or
            later.
        gated: layer whose MLP lets a fetched colour through if the gate is open.
    """

    heads: Mapping[str, Place]
    colour: int
    gated: int


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "home": Layout(
            {
                "decoy": (0, 1),
                "pointer": (0, 3),
                "twin_a": (0, 6),
                "image_sink": (1, 0),
                "binder": (1, 2),
                "twin_b": (1, 5),
                "diffuse": (2, 4),
                "relay": (3, 2),
                "late_decoy": (4, 1),
                "choice": (4, 7),
            },
            colour=1,
            gated=3,
        ),
        "moved": Layout(
            {
                "twin_b": (0, 0),
                "diffuse": (0, 5),
                "twin_a": (1, 1),
                "image_sink": (1, 4),
                "pointer": (2, 2),
                "decoy": (2, 7),
                "binder": (3, 3),
                "relay": (4, 6),
                "choice": (5, 0),
                "late_decoy": (5, 3),
            },
            colour=2,
            gated=4,
        ),
    }
)


def parts() -> dict[str, Head]:
    """Return the planted heads by name; how hard each looks at a place is drawn once, by name."""
    shown = [{at("shown", c): 1.0} for c in range(len(COLOURS))]
    to_unread = [Copy(s, {at("unread", c): 1.0}) for c, s in enumerate(shown)]
    to_half = _sums("shown", "half", lambda c: c // HUES)
    return {
        "pointer": Head(_asked_cell(1), _sums("shown", "hue", lambda c: c % HUES)),
        "twin_a": Head(_asked_cell(2), to_half),
        "twin_b": Head(_asked_cell(3), to_half),
        "decoy": Head(_asked_cell(4), to_unread),
        "image_sink": Head(
            (
                _flag("constant", "row", MATCH),
                _flag("constant", "column", MATCH),
            )
        ),
        "diffuse": Head(
            (_flag("last", "image", MATCH), _otherwise(MATCH / 2)), _same("image", "gate")
        ),
        "binder": Head((_latest_letter(), _otherwise(MATCH / 2)), _same("letter", "bound")),
        "relay": Head(
            (_flag("last", "name", MATCH), _otherwise(MATCH / 2)), _same("found", "fetched")
        ),
        "late_decoy": Head((*_equal("wanted", "shown"), _otherwise(MATCH / 2)), to_unread),
        "choice": Head(
            (*_equal("wanted", "said"), _otherwise(MATCH / 2)), _same("bound", "answer")
        ),
    }


def sink() -> Head:
    """Return a head that always looks at the first token and writes nothing."""
    return Head((_otherwise(MATCH),))


def layers(layout: Layout) -> list[list[Head]]:
    """Return the heads of each layer; in free places stand sinks and even heads in turn."""
    planted = parts()
    planted |= {"sink": sink(), "even": Head()}
    names = part_names(layout)
    return [[planted[names[i, h]] for h in range(N_HEADS)] for i in range(N_LAYERS)]


def part_names(layout: Layout) -> dict[Place, str]:
    """Return what stands in each place; in free ones `sink` and `even` in turn."""
    named = {place: name for name, place in layout.heads.items()}
    free = ("sink", "even")
    places = [(i, h) for i in range(N_LAYERS) for h in range(N_HEADS)]
    return {place: named.get(place, free[sum(place) % 2]) for place in places}


def steps(layout: Layout) -> dict[int, list[Step]]:
    """Return what the MLPs do, by layer."""
    made: dict[int, list[Step]] = {}
    for c in range(len(COLOURS)):
        # The hue alone is 3, the half 1, or 2 if both twins wrote it: above 3.5 both are there.
        both = {at("hue", c % HUES): 3.0, at("half", c // HUES): 1.0}
        made.setdefault(layout.colour, []).append(Step(both, 3.5, {at("found", c): 1.0}))
        open_ = {at("fetched", c): 1.0, at("gate"): 1.0}
        made.setdefault(layout.gated, []).append(Step(open_, 1.5, {at("wanted", c): 1.0}))
    return made


def _asked_cell(number: int) -> tuple[Product, ...]:
    """Return scores of the asked cell: MATCH each for its row and its column."""
    rng = np.random.default_rng([7, number])
    found = []
    for axis in ("row", "column"):
        for i, off in enumerate(rng.uniform(-JITTER, JITTER, SIDE)):
            asked, there = {at(f"asked_{axis}", i): 1.0}, {at(axis, i): 1.0}
            found.append(Product(asked, there, MATCH + float(off)))
    return (*found, _otherwise(1.5 * MATCH))


def _equal(query: str, key: str) -> tuple[Product, ...]:
    """Return scores of MATCH for tokens that hold the same item."""
    pairs = zip(STREAM.all(query), STREAM.all(key), strict=True)
    return tuple(Product({q: 1.0}, {k: 1.0}, MATCH) for q, k in pairs)


def _flag(query: str, key: str, logits: float) -> Product:
    """Return a score between two kinds of token, by the first dimension of each space."""
    return Product({at(query): 1.0}, {at(key): 1.0}, logits)


def _otherwise(logits: float) -> Product:
    """Return the score of the first token, from everywhere."""
    return _flag("constant", "first", logits)


def _latest_letter() -> Product:
    """Return rising scores of A, B, C: with the causal mask a word sees its own letter last."""
    rising = {at("letter", i): 1.0 + i for i in range(len(LETTERS))}
    return Product({at("word"): 1.0}, rising, MATCH)


def _same(source: str, target: str) -> list[Copy]:
    """Return the copies of a space to another of its size."""
    pairs = zip(STREAM.all(source), STREAM.all(target), strict=True)
    return [Copy({s: 1.0}, {t: 1.0}) for s, t in pairs]


def _sums(source: str, target: str, item: Callable[[int], int]) -> list[Copy]:
    """Return copies that add items of a space: each item of the target gets its group's sum."""
    found = []
    for t in range(STREAM.size(target)):
        group = [s for s in range(STREAM.size(source)) if item(s) == t]
        found.append(Copy({at(source, s): 1.0 for s in group}, {at(target, t): 1.0}))
    return found
