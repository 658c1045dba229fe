"""Cutting a compiled model: does each answer flip or stay, as its truth says?

A construction can have redundancy that nobody planned. It does not show in the recipe, only in what
is written when parts are cut: every head alone, every two, and everything but the parts in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionChange, BlockAttention, ZeroHeads
from interp_lab.zoo.boards import (
    CELL_NAMES,
    COLOURS,
    LETTERS,
    N_CELLS,
    Boards,
    Questions,
    ask,
    draw,
)
from interp_lab.zoo.compiled.truth import HeadTruth, Place, Route, Truth
from interp_lab.zoo.tiny_llava.checks import inputs_for, layout_a_texts, painted
from interp_lab.zoo.tiny_llava.model import IMAGE_TOKEN, build_processor, vocabulary

N_BOARDS, SEED = 200, 1
Cut = Sequence[AttentionChange]
Words = NDArray[np.str_]


class ClaimError(RuntimeError):
    """A claim about a compiled model is not what was measured."""


@dataclass(frozen=True)
class Asked:
    """Boards with a question each, as a model reads them; all prompts have the same length.

    inputs: of the model. letters: (n,) right answers. words: (token,) of the first prompt.
    known: the model's vocabulary. image_token: what stands for a cell in a prompt.
    """

    boards: Boards
    questions: Questions
    inputs: dict[str, Tensor]
    letters: Words
    words: tuple[str, ...]
    known: tuple[str, ...]
    image_token: str

    def __len__(self) -> int:
        return len(self.letters)

    def part(self, index: Sequence[int] | NDArray[np.int64]) -> Asked:
        """Return some of them, by index."""
        rows = np.asarray(index)
        # Patches of all pictures may lie in one row, as many for each.
        whole = {k: v.unflatten(0, (len(self), -1)) for k, v in self.inputs.items()}
        inputs = {k: v[torch.from_numpy(rows)].flatten(0, 1) for k, v in whole.items()}
        questions = Questions(*(getattr(self.questions, f)[rows] for f in vars(self.questions)))
        return replace(
            self,
            boards=self.boards[rows],
            questions=questions,
            inputs=inputs,
            letters=self.letters[rows],
        )

    def roles(self) -> dict[str, tuple[int, ...]]:
        """Return the tokens of each role, as the model's TokenMap has them."""
        image = [i for i, word in enumerate(self.words) if word == self.image_token]
        listed = {*COLOURS, *(f"{letter}." for letter in LETTERS)}
        options = [i for i, word in enumerate(self.words) if word in listed]
        last = len(self.words) - 1
        user = [i for i in range(image[-1] + 1, last) if i not in options]
        found = {"image": image, "option": options, "user": user, "assistant": [last]}
        return {role: tuple(tokens) for role, tokens in found.items()}


def asked(
    n: int = N_BOARDS,
    seed: int = SEED,
    processor: Any = None,
    known: Sequence[str] = (),
    image_token: str = IMAGE_TOKEN,
) -> Asked:
    """Draw n held-out boards with a question each.

    Args:
        n, seed: of the boards.
        processor: prepares the inputs; None for that of tiny_llava.
        known: the vocabulary that goes with it.
        image_token: the token that stands for a cell.
    """
    rng = np.random.default_rng(seed)
    boards = draw(n, rng, held_out=True)
    questions = ask(boards, rng)
    handler = processor or build_processor()
    inputs = dict(inputs_for(handler, layout_a_texts(questions), painted(boards)))
    words = tuple(known or vocabulary())
    prompt = tuple(words[i] for i in inputs["input_ids"][0].tolist())
    letters = np.array(questions.letters())
    return Asked(boards, questions, inputs, letters, prompt, words, image_token)


@torch.no_grad()
def written(model: Any, to: Asked, cut: Cut = (), cuts: Sequence[Cut] = ()) -> Words:
    """Return (n,) the token that a model writes first.

    Args:
        model: a compiled one.
        to: what it is asked.
        cut: what is changed on every board.
        cuts: what is changed board by board, in place of that.
    """
    rows = list(cuts) or [list(cut)] * len(to)
    dtype = model.dtype
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in to.inputs.items()}
    with watch_attention(
        model, [{}] * len(to), rows, attention_mask=inputs["attention_mask"], lse=False
    ):
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    return np.array(to.known)[logits.argmax(-1).numpy()]


def without(places: Iterable[Place]) -> tuple[AttentionChange, ...]:
    """Return the cut that sets the output of heads to 0."""
    heads = _by_layer(places)
    return (ZeroHeads(heads),) if heads else ()


def blind(places: Iterable[Place], roles: dict[str, tuple[int, ...]]) -> tuple[BlockAttention, ...]:
    """Return the cut that hides the image from heads, from all tokens after it."""
    image = roles["image"]
    after = tuple(range(image[-1] + 1, roles["assistant"][-1] + 1))
    return tuple(
        BlockAttention(after, image, layers=(layer,), heads=tuple(heads))
        for layer, heads in _by_layer(places).items()
    )


def _by_layer(places: Iterable[Place]) -> dict[int, list[int]]:
    heads: dict[int, list[int]] = {}
    for layer, head in sorted(places):
        heads.setdefault(layer, []).append(head)
    return heads


def closed(
    route: Route, layers: Sequence[int], roles: dict[str, tuple[int, ...]]
) -> tuple[AttentionChange, ...]:
    """Return the cut that closes a route in some layers, for all heads."""
    queries, keys = roles[route.target], roles[route.source]
    if route.source == route.target:  # a token still sees itself
        return tuple(
            BlockAttention((q,), tuple(k for k in keys if k < q), layers=tuple(layers))
            for q in queries[1:]
        )
    return (BlockAttention(queries, keys, layers=tuple(layers)),)


def measured(model: Any, claims: Truth, to: Asked) -> Truth:
    """Return the truth with its counts, all claims checked.

    Raises:
        ClaimError: names the first claim that is not so.
    """
    truth = replace(claims, boards=len(to), guessed=int((to.letters == claims.guess).sum()))
    right = _judged(truth, "nothing cut", written(model, to), to, fails=False)
    seen = patterns(model, to)
    heads = tuple(measured_head(model, truth, head, to, seen) for head in truth.heads)
    routes = tuple(measured_route(model, truth, route, to) for route in truth.routes)
    for name, places in together(truth).items():
        fails = truth.fails_without(places)
        _judged(truth, name, written(model, to, without(places)), to, fails)
    check_pairs(model, truth, to)
    return replace(truth, right=right, heads=heads, routes=routes)


def measured_head(model: Any, truth: Truth, head: HeadTruth, to: Asked, seen: Tensor) -> HeadTruth:
    """Return a head's row with its counts: cut, and with the image hidden from it."""
    where = f"head {head.place} ({head.part})"
    cut = _judged(truth, where, written(model, to, without([head.place])), to, head.needed)
    hidden = written(model, to, blind([head.place], to.roles()))
    fails = head.needed and head.looks_at_image
    unseen = _judged(truth, f"{where} without the image", hidden, to, fails)
    pattern = seen[:, head.layer, head.head]
    mass, on_image = mass_on(pattern, head, to), image_mass(pattern, head, to)
    if mass < 0.9 or (on_image > 0.5) != head.looks_at_image:
        raise ClaimError(f"{where}: {mass:.3f} on {head.looks_at}, {on_image:.3f} on the image")
    return replace(head, right_without=cut, right_blind=unseen, mass=round(mass, 3))


def measured_route(model: Any, truth: Truth, route: Route, to: Asked) -> Route:
    """Return a route's row with its counts; each of its layers is also closed alone."""
    where, roles = f"route {route.source} -> {route.target}", to.roles()

    def count(layers: Sequence[int], fails: bool) -> int:
        said = written(model, to, closed(route, layers, roles))
        return _judged(truth, f"{where} closed in {list(layers)}", said, to, fails)

    for layer in route.layers:
        count([layer], layer in route.needed)
    others = [n for n in range(1 + max(h.layer for h in truth.heads)) if n not in route.layers]
    return replace(route, right_without=count(route.layers, True), right_alone=count(others, False))


def together(truth: Truth) -> dict[str, set[Place]]:
    """Return sets of heads to cut at once, by what they are."""
    used, all_ = truth.places("used"), {head.place for head in truth.heads}
    found = {"all heads not in use": all_ - used, "all heads": all_}
    for pair in truth.redundant_sets():
        found["all that are redundant"] = set(pair)
        for one in sorted(pair):
            found[f"all not in use, and {one}"] = all_ - used | {one}
    return found


def check_pairs(model: Any, truth: Truth, to: Asked, n: int = 2, most: int = 200) -> int:
    """Cut every two heads, on n boards each whose answer is not the guess; return how many pairs.

    Raises:
        ClaimError: names the pair.
    """
    telling = np.flatnonzero(to.letters != truth.guess)
    pairs = list(combinations([head.place for head in truth.heads], 2))
    tried = [pair for pair in pairs for _ in range(n)]
    for start in range(0, len(tried), most):
        some = tried[start : start + most]
        rows = to.part(telling[(start + np.arange(len(some))) % len(telling)])
        said = written(model, rows, cuts=[without(pair) for pair in some])
        fails = np.array([truth.fails_without(pair) for pair in some])
        wrong = np.flatnonzero(said != np.where(fails, truth.guess, rows.letters))
        if len(wrong):
            raise ClaimError(f"heads {some[wrong[0]]} cut: {said[wrong[0]]!r} is written")
    return len(pairs)


def _judged(truth: Truth, name: str, said: Words, to: Asked, fails: bool) -> int:
    """Return how many answers are right; all must be the guess, or all right."""
    expected = np.full(len(to), truth.guess) if fails else to.letters
    same = int((said == expected).sum())
    if same != len(to):
        which = f"the guess {truth.guess!r}" if fails else "right"
        raise ClaimError(f"{name}: {same} of {len(to)} answers are {which}, not all")
    return int((said == to.letters).sum())


@torch.no_grad()
def patterns(model: Any, to: Asked) -> Tensor:
    """Return (n, layer, head, query, key), by the model's own eager attention."""
    kernel = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation("eager")
    try:
        output = model(**to.inputs, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(kernel)
    return torch.stack(output.attentions, 1)


def mass_on(pattern: Tensor, head: HeadTruth, to: Asked) -> float:
    """Return the mean attention of a head, (n, query, key), from where it looks on what it does."""
    rows, targets = _queries(head.at, to), _keys(head.looks_at, to)
    found = [
        sum(
            pattern[i, q, keys].sum().item()
            for q, keys in zip(rows, _each(keyed, rows), strict=True)
        )
        / len(rows)
        for i, keyed in enumerate(targets)
    ]
    return float(np.mean(found))


def image_mass(pattern: Tensor, head: HeadTruth, to: Asked) -> float:
    """Return the mean attention of a head on the image, from where it looks."""
    rows = torch.tensor(_queries(head.at, to))
    image = torch.tensor(to.roles()["image"])
    return pattern[:, rows][..., image].sum(-1).mean().item()


def _each(keys: list[list[int]], rows: Sequence[int]) -> list[list[int]]:
    """Return the keys of each query: of several lists each its own, of one the same for all."""
    return keys if len(keys) == len(rows) else keys * len(rows)


def _queries(at: str, to: Asked) -> list[int]:
    last, image = len(to.words) - 1, to.roles()["image"]
    name = next(i for i, word in enumerate(to.words) if word in CELL_NAMES)
    words = [i for i, word in enumerate(to.words) if word in COLOURS]
    found = {"name": [name], "word": words, "last": [last]}
    found["after_image"] = list(range(image[-1] + 1, last + 1))
    found["all"] = list(range(last + 1))
    return found[at]


def _keys(looks_at: str, to: Asked) -> list[list[list[int]]]:
    """Return for each board the keys that count, of each query or of all."""
    start, roles = to.roles()["image"][0], to.roles()
    letters = [[i - 1] for i in _queries("word", to)]
    found = []
    for i in range(len(to)):
        asked_cell = int(to.questions.cells[i])
        colours = to.boards.colours[i]
        same = [start + c for c in range(N_CELLS) if colours[c] == colours[asked_cell]]
        right = _queries("word", to)[int(to.questions.right[i])]
        found.append(
            {
                "asked_cell": [[start + asked_cell]],
                "first_cell": [[start]],
                "image": [list(roles["image"])],
                "right_cells": [same],
                "letter": letters,
                "name": [_queries("name", to)],
                "right_word": [[right]],
                "first": [[0]],
                "all": [list(range(len(to.words)))],
            }[looks_at]
        )
    return found
