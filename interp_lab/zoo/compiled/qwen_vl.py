"""compiled_qwen_vl: the same mechanism in a Qwen2_5_VLForConditionalGeneration.

Its tower has no table of positions, so where a cell is comes from the picture: a light wash of
colour grows from row to row and from column to column, and one layer of even attention takes away
what the whole board is tinted by.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from interp_lab.zoo.boards import BOARD_PIXELS, CELL_PIXELS, COLOURS, SIDE
from interp_lab.zoo.compiled.heads import Step, clear, write_gelu_steps, write_steps
from interp_lab.zoo.compiled.language import write_language
from interp_lab.zoo.compiled.llava import PIXELS, RIVALS, nearer
from interp_lab.zoo.compiled.mechanism import HEAD_DIM, N_HEADS, N_LAYERS, THETA, WIDTH, at
from interp_lab.zoo.compiled.stream import CONSTANT, set_norm_gain
from interp_lab.zoo.tiny_llava.model import CHAT_TEMPLATE, IMAGE_TOKEN, SPECIAL, TOKEN
from interp_lab.zoo.tiny_llava.model import vocabulary as llava_vocabulary

NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
# The tower's stream: colour of a cell's middle, wash of its edge in red and blue, the board's mean
# of that, rivals that its colour beats, row, column, constant.
RGB, WASH, MEAN, WINS, ROWS, COLUMNS, LARGE = 0, 3, 5, 7, 13, 17, 21
TOWER_WIDTH = 48
WASH_STEP = 28 / 255  # from one row to the next, as zoo.boards paints it
# Pixels of a cell that no shape reaches and no grid line crosses.
EDGE = [(1, c) for c in range(1, 5)] + [(r, 1) for r in range(2, 5)]


def vocabulary() -> list[str]:
    """Every token in the order of its id: the words of tiny_llava, then the marks of pictures."""
    return [*llava_vocabulary(), *NAMED.values()]


def build_processor() -> Qwen2_5_VLProcessor:
    """Return the processor: a board becomes 16 image tokens, one for each cell, row by row."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", ids["[BOS]"])]
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL,
        extra_special_tokens=NAMED,
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    images = Qwen2VLImageProcessor(
        patch_size=CELL_PIXELS,
        merge_size=1,
        min_pixels=(BOARD_PIXELS - 1) ** 2,
        max_pixels=(BOARD_PIXELS + 1) ** 2,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )
    placed = "".join(NAMED[f"{n}_token"] for n in ("vision_bos", "image", "vision_eos"))
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(patch_size=CELL_PIXELS, merge_size=1),
        chat_template=CHAT_TEMPLATE.replace(IMAGE_TOKEN, placed),
    )


def build_config() -> Qwen2_5_VLConfig:
    """Return the configuration: half a million parameters, nearly all of them 0."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    vision = {
        "depth": 2,
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 2 * (len(RIVALS) + 2 * (SIDE - 1)),
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": CELL_PIXELS,
        "spatial_merge_size": 1,
        "temporal_patch_size": 2,
        "window_size": BOARD_PIXELS,
        "fullatt_block_indexes": [0, 1],
    }
    half = HEAD_DIM // 2
    text = {
        "vocab_size": len(ids),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * len(COLOURS),
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_HEADS,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": THETA,
            "mrope_section": [half - 6, 3, 3],
        },
        **{f"{name}_token_id": ids[f"[{name.upper()}]"] for name in ("pad", "bos", "eos")},
    }
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=ids[NAMED["image_token"]],
        video_token_id=ids[NAMED["video_token"]],
        vision_start_token_id=ids[NAMED["vision_bos_token"]],
        vision_end_token_id=ids[NAMED["vision_eos_token"]],
        tie_word_embeddings=False,
    )


@torch.no_grad()
def build_model(layout: str = "home") -> Qwen2_5_VLForConditionalGeneration:
    """Return the model in float32.

    Args:
        layout: where its parts stand, a name of `mechanism.LAYOUTS`.
    """
    model = Qwen2_5_VLForConditionalGeneration(build_config()).eval()
    clear(model)
    _write_tower(model.model.visual)
    _write_merger(model.model.visual.merger)
    write_language(model.model.language_model, model.lm_head.weight, vocabulary(), layout)
    text = model.config.get_text_config()
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    return model


def _write_tower(tower: Any) -> None:
    """Let the tower put out, by cell: colour (how many rivals it beats), row and column."""
    kernel = tower.patch_embed.proj.weight  # (width, colour, frame, y, x)
    for c in range(3):
        kernel[RGB + c, c, 0, PIXELS, PIXELS] = 1 / 4
    for i, c in enumerate((0, 2)):
        for y, x in EDGE:
            kernel[WASH + i, c, 0, y, x] = 1 / len(EDGE)
    first, second = tower.blocks
    first.attn.proj.bias[LARGE] = CONSTANT  # what the norms from here on are made linear by
    for norm in (second.norm1, second.norm2):
        set_norm_gain(norm.weight, LARGE)
    values = 2 * TOWER_WIDTH  # after queries and keys, which are 0: attention is even
    for i in range(2):
        second.attn.qkv.weight[values + i, WASH + i] = 1.0
        second.attn.proj.weight[MEAN + i, i] = 1.0
    steps = []
    for a, b in RIVALS:
        along, threshold = nearer(a, b)
        reads = {RGB + c: along[c] for c in range(3)}
        steps.append(Step(reads, threshold, {WINS + a: 1.0, WINS + b: -1.0}))
        second.mlp.down_proj.bias[WINS + b] += 1
    for i, place in enumerate((ROWS, COLUMNS)):
        second.mlp.down_proj.bias[place] = 1.0  # the first, unless a step is taken
        reads = {WASH + i: 1 / WASH_STEP, MEAN + i: -1 / WASH_STEP}
        for n in range(1, SIDE):
            writes = {place + n - 1: -1.0, place + n: 1.0}
            steps.append(Step(reads, n - SIDE / 2, writes))
    mlp = tuple(getattr(second.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    write_steps(mlp, steps, LARGE)


def _write_merger(merger: Any) -> None:
    """Let the merger write the colour that beats all others, the place and the constant."""
    set_norm_gain(merger.ln_q.weight, LARGE)
    most = len(COLOURS) - 1.5
    steps = [Step({WINS + c: 1.0}, most, {at("shown", c): 1.0}) for c in range(len(COLOURS))]
    for space, first in (("row", ROWS), ("column", COLUMNS)):
        steps += [Step({first + i: 1.0}, 0.5, {at(space, i): 1.0}) for i in range(SIDE)]
    write_gelu_steps(merger.mlp[0], merger.mlp[2], steps)
    merger.mlp[2].bias[at("image")] = 1.0
    merger.mlp[2].bias[at("constant")] = CONSTANT
