"""What a result holds of single heads: maps by phone and class, moves, and what they say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_lab.fields import Document, Field, HeadClassMap, HeadPhoneMap, HeadScores, Scalar
from interp_lab.store.results import Results
from interp_lab.studies.semdim import heads
from interp_lab.studies.semdim.heads import HeadTotals, Maps, Moves, standing_out
from interp_lab.studies.semdim.phone_classes import CLASSES, phone_class

Named = tuple[Field, Any]
# Heads that a report and a figure tell of.
MOST_HEADS = 3
# Dimensions that a report lists for one head, and phones for one of them.
MOST_DIMENSIONS, MOST_PHONES = 4, 4
TITLE = "Single heads: attention of a dimension word's token on vowels and consonants, 0 to 1"
ATTENTION = "attention of a dimension word's token"
TOWARD = "share of the first feature, weighted by attention"


def head_fields(
    totals: HeadTotals,
    dimensions: Sequence[str],
    numbers: "Numbers",
    *,
    seed: int,
    n_permutations: int,
) -> list[Named]:
    """Return the fields over the run of single heads; none where no word has phones."""
    if not totals:
        return []
    phones, classes = totals.phones(dimensions), totals.classes(dimensions)
    found: list[Named] = [
        (Document("head_phones", "phones of single heads, vowels first"), _list(phones.labels)),
        (Document("phone_classes", "classes of phones"), _list(CLASSES)),
        *_maps(HeadPhoneMap, "head_phone", "one phone", (heads.MASS, heads.SHARE), phones),
        *_maps(
            HeadClassMap,
            "head_class",
            "a word's phones of a class",
            (heads.CLASS_MASS, heads.CLASS_SHARE),
            classes,
        ),
    ]
    moves = totals.moves(dimensions, seed=seed, n_permutations=n_permutations)
    lines = findings(phones, classes, moves, dimensions, numbers)
    found.append((Document("findings", "what single heads do"), "\n".join(lines)))
    return found if moves is None else found + _moves(moves)


def _maps(kind: Any, name: str, on: str, definitions: Sequence[str], maps: Maps) -> list[Named]:
    count = np.broadcast_to(maps.n_words, maps.mass.shape)
    return [
        (kind(f"{name}_mass", f"{ATTENTION} on {on}", definition=definitions[0]), maps.mass),
        (kind(f"{name}_share", f"{TOWARD}, on {on}", definition=definitions[1]), maps.share),
        (kind(f"{name}_count", "words", dtype="int64"), count),
    ]


def _moves(moves: Moves) -> list[Named]:
    about = "attention on vowels less on consonants: how far it moves between dimensions"
    bound = "largest move of any head in 95 % of shuffles of the dimensions within words"
    return [
        (HeadScores("class_move", about, definition=heads.MOVE), moves.score),
        (Scalar("class_move_threshold", bound, definition=heads.MOVE), moves.threshold),
        (Scalar("class_move_words", "words asked for two dimensions or more"), moves.n_words),
    ]


def _list(labels: Sequence[str]) -> str:
    return json.dumps(list(labels), ensure_ascii=False)


def heads_that_move(results: Results, most: int = MOST_HEADS) -> list[tuple[int, int]]:
    """Return rows (layer, head) of the heads that move most, those beyond the shuffles alone."""
    if "class_move" not in results.aggregates:
        return []
    score, threshold = (results.aggregate(f"class_move{e}") for e in ("", "_threshold"))
    return standing_out(np.asarray(score, dtype=np.float64), float(threshold), most)


@dataclass(frozen=True)
class Numbers:
    """The model's numbers of the stored layers and heads; None = all, from 0 on."""

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    def name(self, layer: int, head: int) -> str:
        """Return what the head of a row is called."""
        return (
            f"layer {layer if self.layers is None else self.layers[layer]} "
            f"head {head if self.heads is None else self.heads[head]}"
        )


def findings(
    phones: Maps, classes: Maps, moves: Moves | None, dimensions: Sequence[str], numbers: Numbers
) -> list[str]:
    """Return in words which heads move between classes of phones, and where each looks."""
    lines = [TITLE]
    unknown = [phone for phone in phones.labels if phone_class(phone) == "unknown"]
    if unknown:
        lines.append(f"  neither IPA nor ARPABET, so of no class: {', '.join(unknown)}")
    if moves is None:
        return [*lines, "  no word was asked for two dimensions: no move between them"]
    lines.append(
        f"  move ({heads.MOVE}): vowels less consonants, its largest less its smallest over "
        f"dimensions, {moves.n_words} words; the largest of all heads is "
        f"{moves.threshold:.3f} or less in 95 % of shuffles"
    )
    places = standing_out(moves.score, moves.threshold, moves.score.size)
    if not places:
        return [*lines, f"  no head moves further than that; the most is {moves.score.max():.3f}"]
    for layer, head in places[:MOST_HEADS]:
        lines.append(f"  {numbers.name(layer, head)}: move {moves.score[layer, head]:.3f}")
        lines += [f"    {x}" for x in _looks(layer, head, moves, phones, classes, dimensions)]
    further = len(places) - MOST_HEADS
    return lines + [f"  and {further} further heads beyond the shuffles"] * (further > 0)


def _looks(
    layer: int, head: int, moves: Moves, phones: Maps, classes: Maps, dimensions: Sequence[str]
) -> list[str]:
    """Return a line a dimension; of many the one most on vowels and the one least."""
    order = np.argsort(-moves.toward[layer, head], kind="stable")
    lines = []
    for column in order if len(order) <= MOST_DIMENSIONS else (order[0], order[-1]):
        single = phones.mass[layer, head, :, column]
        ranked = np.argsort(-single, kind="stable")[:MOST_PHONES]
        most = ", ".join(f"{phones.labels[i]} {single[i]:.2f}" for i in ranked)
        parts = [
            f"{kind} {classes.mass[layer, head, row, column]:.3f} "
            f"(share of the first {classes.share[layer, head, row, column]:.3f})"
            for row, kind in enumerate(CLASSES[:2])
        ]
        lines.append(f"{dimensions[column]:<20} {', '.join(parts)}; most on {most}")
    return lines
