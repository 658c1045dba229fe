"""The mechanism in a decoder of transformers' Llama shape, with words in and letters out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp_lab.zoo.boards import CELL_NAMES, COLOURS, LETTERS, SIDE
from interp_lab.zoo.compiled import mechanism
from interp_lab.zoo.compiled.heads import write_head, write_steps
from interp_lab.zoo.compiled.mechanism import N_HEADS, STREAM, THETA, at
from interp_lab.zoo.compiled.stream import CONSTANT, Vector, set_norm_gain, write

FIRST, LAST = "[BOS]", "ASSISTANT:"
SAYS = 10.0  # logit of the letter that the choice copied
# What is written where the mechanism fails: A, by a clear lead that rounding cannot take.
GUESS = (5.0, 4.0, 3.0)


def held_by(word: str) -> Vector:
    """Return what the embedding of a word holds beside the constant."""
    if word in CELL_NAMES:
        row, column = divmod(CELL_NAMES.index(word), SIDE)
        return {at("name"): 1.0, at("asked_row", row): 1.0, at("asked_column", column): 1.0}
    if word in COLOURS:
        return {at("word"): 1.0, at("said", COLOURS.index(word)): 1.0}
    if word in LETTERS:
        return {at("spoken"): 1.0}
    bare = word.strip("().")
    if len(bare) == 1 and bare in LETTERS:
        return {at("letter", LETTERS.index(bare)): 1.0}
    return {at({FIRST: "first", LAST: "last"}[word]): 1.0} if word in (FIRST, LAST) else {}


@torch.no_grad()
def write_language(decoder: Any, head: Tensor, words: Sequence[str], layout: str) -> None:
    """Write the mechanism into a decoder whose weights are 0, in place.

    Args:
        decoder: the language model: `embed_tokens`, `layers`, `norm`.
        head: weights of the output layer, (token, width).
        words: of the vocabulary, by id; ids beyond them hold the constant alone.
        layout: name of the `mechanism.LAYOUTS`.
    """
    where = mechanism.LAYOUTS[layout]
    decoder.embed_tokens.weight[:, at("constant")] = CONSTANT
    for token, word in enumerate(words):
        write(decoder.embed_tokens.weight[token], held_by(word))
    steps = mechanism.steps(where)
    for number, (block, heads) in enumerate(
        zip(decoder.layers, mechanism.layers(where), strict=True)
    ):
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            set_norm_gain(norm.weight, at("constant"))
        own = block.self_attn
        weights = tuple(getattr(own, f"{name}_proj").weight for name in "qkvo")
        for place, spec in enumerate(heads):
            write_head(weights, place, spec, THETA, N_HEADS)
        mlp = tuple(getattr(block.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
        write_steps(mlp, steps.get(number, ()), at("constant"))
    set_norm_gain(decoder.norm.weight, at("constant"))
    for i, letter in enumerate(LETTERS):
        said = {STREAM.at("answer", i): SAYS, at("last"): GUESS[i]}
        write(head[words.index(letter)], said)
    write(head[words.index("[EOS]")], {at("spoken"): SAYS})
