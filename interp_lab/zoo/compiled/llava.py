"""compiled_llava: the mechanism in a LlavaForConditionalGeneration that sees the zoo's boards.

The tower compares the middle of each cell with every two colours; the colour that is nearer than
all others wins. Where a cell is comes from the tower's position table.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from interp_lab.zoo.boards import (
    BOARD_PIXELS,
    CELL_PIXELS,
    COLOURS,
    N_CELLS,
    PALETTE,
    SIDE,
)
from interp_lab.zoo.compiled.heads import Step, clear, write_gelu_steps
from interp_lab.zoo.compiled.language import write_language
from interp_lab.zoo.compiled.mechanism import HEAD_DIM, N_HEADS, N_LAYERS, THETA, WIDTH, at
from interp_lab.zoo.compiled.stream import CONSTANT
from interp_lab.zoo.tiny_llava.model import IMAGE_TOKEN, build_processor, vocabulary

PIXELS = slice(7, 9)  # of a cell, both ways: its middle, which every shape covers
RIVALS = list(combinations(range(len(COLOURS)), 2))
# The tower's own stream. LayerNorm takes the mean away: each number stands there twice, x and -x.
RGB, ROWS, COLUMNS, WINS, LARGE, TOWER_WIDTH = 0, 6, 14, 22, 34, 48
UNITS = 2 * len(RIVALS)


def build_config() -> LlavaConfig:
    """Return the configuration: 0.5 million parameters, nearly all of them 0."""
    words = vocabulary()
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": UNITS,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": BOARD_PIXELS,
        "patch_size": CELL_PIXELS,
        "projection_dim": TOWER_WIDTH,
        "hidden_act": "gelu",
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * len(COLOURS),
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
        "tie_word_embeddings": False,
        **{f"{name}_token_id": words.index(f"[{name.upper()}]") for name in ("pad", "bos", "eos")},
    }
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.index(IMAGE_TOKEN),
        image_seq_length=N_CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


@torch.no_grad()
def build_model(layout: str = "home") -> LlavaForConditionalGeneration:
    """Return the model in float32.

    Args:
        layout: where its parts stand, a name of `mechanism.LAYOUTS`.
    """
    model = LlavaForConditionalGeneration(build_config()).eval()
    clear(model)
    _write_tower(model.model.vision_tower)
    _write_projector(model.model.multi_modal_projector)
    write_language(model.model.language_model, model.lm_head.weight, vocabulary(), layout)
    return model


def build_untrained(seed: int) -> LlavaForConditionalGeneration:
    """Return the same network with random weights, as transformers draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(build_config()).eval()


def _both(table: Any, first: int, value: Any) -> None:
    """Write a number and its negative in the first two dimensions from `first` on."""
    table[..., first] = value
    table[..., first + 1] = -value


def _write_tower(tower: Any) -> None:
    """Let the tower put out, by cell: colour (how many rivals it beats), row and column."""
    seen = tower.embeddings
    places, kernel = seen.position_embedding.weight, seen.patch_embedding.weight
    processor: Any = build_processor().image_processor
    means, deviations = processor.image_mean, processor.image_std
    for c in range(3):  # undoes the processor's normalisation: shares of 255 again
        kernel[RGB + 2 * c, c, PIXELS, PIXELS] = deviations[c] / 4
        kernel[RGB + 2 * c + 1, c, PIXELS, PIXELS] = -deviations[c] / 4
        _both(places, RGB + 2 * c, means[c])
    for cell in range(N_CELLS):
        row, column = divmod(cell, SIDE)
        _both(places[1 + cell], ROWS + 2 * row, 1.0)
        _both(places[1 + cell], COLUMNS + 2 * column, 1.0)
    _both(places, LARGE, CONSTANT)
    layer = tower.encoder.layers[0]
    for norm in (tower.pre_layrnorm, layer.layer_norm1, layer.layer_norm2, tower.post_layernorm):
        norm.weight.fill_(CONSTANT * (2 / TOWER_WIDTH) ** 0.5)
    steps = [_duel(a, b) for a, b in RIVALS]
    write_gelu_steps(layer.mlp.fc1, layer.mlp.fc2, steps)
    for _, b in RIVALS:  # b wins where a does not: 1 less the step
        layer.mlp.fc2.bias[WINS + 2 * b] += 1
        layer.mlp.fc2.bias[WINS + 2 * b + 1] -= 1


def nearer(a: int, b: int) -> tuple[list[float], float]:
    """Return weights of red, green, blue and a threshold above which a is nearer than b.

    Along the line between two colours, four times enlarged, they lie 1.2 to 4.6 units apart.
    """
    centres = torch.tensor(list(PALETTE.values()), dtype=torch.float64) / 255
    apart = centres[a] - centres[b]
    along = 4 * apart / apart.norm()
    return along.tolist(), float((centres[a] + centres[b]) / 2 @ along)


def _duel(a: int, b: int) -> Step:
    """Return the step that is taken where a cell's middle is nearer to colour a than to b."""
    along, threshold = nearer(a, b)
    reads = {RGB + 2 * c: along[c] for c in range(3)}
    writes = {WINS + 2 * a: 1.0, WINS + 2 * a + 1: -1.0, WINS + 2 * b: -1.0, WINS + 2 * b + 1: 1.0}
    return Step(reads, threshold, writes)


def _write_projector(projector: Any) -> None:
    """Let the projector write the colour that beats all others, the place and the constant."""
    most = len(COLOURS) - 1.5
    steps = [Step({WINS + 2 * c: 1.0}, most, {at("shown", c): 1.0}) for c in range(len(COLOURS))]
    for space, first in (("row", ROWS), ("column", COLUMNS)):
        steps += [Step({first + 2 * i: 1.0}, 0.5, {at(space, i): 1.0}) for i in range(SIDE)]
    write_gelu_steps(projector.linear_1, projector.linear_2, steps)
    projector.linear_2.bias[at("image")] = 1.0
    projector.linear_2.bias[at("constant")] = CONSTANT
