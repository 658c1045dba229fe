"""What `tiny_qwen_vl` is made of: a real Qwen2.5-VL, tokenizer and processor, tiny.

Every part is the transformers class that Qwen2.5-VL uses, so code written for that model runs on
this one unchanged: the chat template, the image among the text, the three-part positions, the boxes
in the answer. One image token is one cell of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BatchFeature,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from interp_lab.zoo.paths import (
    CELL_NAMES,
    CELL_PIXELS,
    LAST,
    MAP_PIXELS,
    MOVES,
    N_CELLS,
    ORDINALS,
    SIDE,
    Question,
    box,
    map_of,
)

MERGE_SIZE = 2
PATCH_SIZE = CELL_PIXELS // MERGE_SIZE
PAD, UNKNOWN, TURN, END = "<|endoftext|>", "[UNK]", "<|im_start|>", "<|im_end|>"
IMAGE_TOKEN = "<|image_pad|>"
NAMED = {
    "turn_token": TURN,
    "image_token": IMAGE_TOKEN,
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "box_bos_token": "<|box_start|>",
    "box_eos_token": "<|box_end|>",
    "object_ref_bos_token": "<|object_ref_start|>",
    "object_ref_eos_token": "<|object_ref_end|>",
}

# Turns as in Qwen2.5-VL's published format: a default system sentence, and one placeholder between
# two marks for a picture.
SYSTEM = "You are a helpful assistant."
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

# A word keeps the space before it, so that what is decoded reads as it was written. Names of cells,
# moves and coordinates are one token each.
_TOKEN = Regex(r"</?(?:think|answer)>| ?[A-Za-z0-9]+|\n|[^A-Za-z0-9\n]")


def vocabulary() -> list[str]:
    """Every token in the order of its id: special ones, then pieces of all that is said."""
    splitter = pre_tokenizers.Split(_TOKEN, behavior="isolated")
    numbers = "".join(f" {number}" for number in range(1, len(ORDINALS) + 1))
    asked = "".join(f" {point}" for point in (*ORDINALS, LAST))
    walked = "".join(f" {word}" for word in (*CELL_NAMES, *MOVES))
    question = Question(map_of((0, 1, 2)))
    coordinates = "".join(box(cell) for cell in range(0, N_CELLS, SIDE + 1))
    # The start's name is one of the cells' names, which come with the walks.
    problem = question.problem.replace(f" {CELL_NAMES[0]}", "")
    texts = [SYSTEM, problem, question.reply, numbers, asked, walked, coordinates]
    texts += ["system", "\n", "user", "assistant"]
    for special in NAMED.values():
        texts = [text.replace(special, "") for text in texts]
    pieces = [piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)]
    return list(dict.fromkeys([PAD, UNKNOWN, END, *NAMED.values(), *pieces]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; decoding gives back the text sign by sign. Other words become [UNK]."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_TOKEN, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens=NAMED,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """The processor: a square picture of any size becomes 6 x 6 image tokens, row by row."""
    # Limits equal to the map's own size would let rounding make 5 x 5 or 7 x 7 of some sizes.
    images = Qwen2VLImageProcessor(
        patch_size=PATCH_SIZE,
        merge_size=MERGE_SIZE,
        min_pixels=(MAP_PIXELS - 1) ** 2,
        max_pixels=(MAP_PIXELS + 1) ** 2,
    )
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(patch_size=PATCH_SIZE, merge_size=MERGE_SIZE),
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> Qwen2_5_VLConfig:
    """About half a million parameters: two layers of seeing under four of reading and writing."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 96,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE_SIZE,
        "tokens_per_second": 2,
        # Every layer sees one cell at a time. With attention over the whole map a cell's token
        # tells of its neighbours too, and no head needs to look at the cell itself.
        "window_size": CELL_PIXELS,
        "fullatt_block_indexes": [],
    }
    text = {
        "vocab_size": len(ids),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.05,
        "tie_word_embeddings": False,
        "pad_token_id": ids[PAD],
        "bos_token_id": None,
        "eos_token_id": ids[END],
        # The three sections add up to half of a head's 24 dimensions.
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
    }
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=ids[IMAGE_TOKEN],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def build_model(seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model; also the control that any figure about the trained one needs."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config())
    text = model.config.get_text_config()
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    return model


def chat_prompt(processor: Qwen2_5_VLProcessor, problem: str, n_images: int = 1) -> str:
    """The prompt as the general code renders it: the images, the problem, the assistant's turn."""
    content = [{"type": "image"}] * n_images + [{"type": "text", "text": problem}]
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def model_inputs(
    processor: Qwen2_5_VLProcessor,
    problems: Sequence[str],
    images: np.ndarray,
    replies: Sequence[str] | None = None,
) -> BatchFeature:
    """Inputs for problems with one (side, side, 3) image each, and, if given, what is replied.

    Padded on the left.
    """
    prompts = [chat_prompt(processor, problem) for problem in problems]
    if replies is not None:
        prompts = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
    pictures = [Image.fromarray(image) for image in images]
    return processor(text=prompts, images=pictures, return_tensors="pt", padding=True)
