"""What `tiny_llava` is made of: a real LLaVA, tokenizer and processor, small enough to ship.

Every part is the transformers class that `llava-hf/llava-1.5-7b-hf` uses, so code written for that
model runs on this one unchanged: image first, question, options, instruction, one letter back.
A full vocabulary would cost more than the whole model, hence a tokenizer of the board's few words.
"""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from interp_lab.zoo.boards import BOARD_PIXELS, CELL_NAMES, CELL_PIXELS, COLOURS, LETTERS

INSTRUCTION = "Answer with the option's letter from the given choices directly."

# LLaVA v1.5's published roles: 'USER: <image>\n' + text + ' ASSISTANT:', images before all text,
# and a system sentence, where one is given, in front without a role name.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] != 'system' -%}{{ message['role'] | upper + ': ' }}{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] + ' ' }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}"
    "{{ '<image>\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{ part['text'] + ' ' }}{%- endfor -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
IMAGE_TOKEN = "<image>"

_SENTENCES = (
    "USER: ASSISTANT: What color is the shape in cell ? Context: N/A The . Options:",
    INSTRUCTION,
)
# A cell's name is one token: its one place to look is then one cell (row and column as two tokens
# gave heads that see a row and a column). Role names, '(A)' and 'A.' stay whole; space vanishes.
TOKEN = r"[a-d][1-4]\b|[A-Za-z]+:|\([A-Z]\)|[A-Z]\.|N/A|[A-Za-z']+|[0-9]|[^\sA-Za-z0-9]"

_MEAN = (0.48, 0.46, 0.41)
_STD = (0.27, 0.26, 0.28)


def vocabulary() -> list[str]:
    """Every token in the order of its id: special ones, words, options, colours, cells."""
    splitter = pre_tokenizers.Split(Regex(TOKEN), behavior="removed", invert=True)
    spoken = [word for text in _SENTENCES for word, _ in splitter.pre_tokenize_str(text)]
    options = [form.format(a) for form in ("{}.", "({})", "{}") for a in LETTERS]
    words = [*SPECIAL.values(), IMAGE_TOKEN, *spoken, *options, *COLOURS, *CELL_NAMES]
    return list(dict.fromkeys(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that starts every prompt with [BOS]; an unknown word becomes [UNK]."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", ids["[BOS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """The processor: a 64 x 64 board becomes 16 image tokens, one for each cell, row by row."""
    side = {"height": BOARD_PIXELS, "width": BOARD_PIXELS}
    image_processor = CLIPImageProcessor(
        size=side,
        do_resize=True,
        do_center_crop=False,
        image_mean=list(_MEAN),
        image_std=list(_STD),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=CELL_PIXELS,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the tower's CLS, which "default" drops again
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )


def build_config() -> LlavaConfig:
    """About half a million parameters: a two-layer CLIP tower under a four-layer Llama."""
    words = vocabulary()
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": BOARD_PIXELS,
        "patch_size": CELL_PIXELS,
        "projection_dim": 64,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(words),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.05,
        "tie_word_embeddings": False,
        **{f"{name}_token_id": words.index(f"[{name.upper()}]") for name in ("pad", "bos", "eos")},
    }
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.index(IMAGE_TOKEN),
        image_seq_length=(BOARD_PIXELS // CELL_PIXELS) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def build_model(seed: int) -> LlavaForConditionalGeneration:
    """The untrained model; also the control that any figure about the trained one needs."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(build_config())
    for name, weight in model.named_parameters():
        if "position_embedding" in name:
            # At CLIP's own scale the tower cannot tell the cells apart for hundreds of steps.
            torch.nn.init.normal_(weight, std=0.3)
    projector = model.model.multi_modal_projector
    for layer in (projector.linear_1, projector.linear_2):
        torch.nn.init.xavier_normal_(layer.weight)
    return model


def chat_prompt(processor: LlavaProcessor, text: str, *, with_image: bool = True) -> str:
    """The prompt as the general LLaVA code renders it: image, `text`, the assistant's turn."""
    content = [{"type": "image"}] * with_image + [{"type": "text", "text": text}]
    turn = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turn, add_generation_prompt=True)


def instructed(text: str) -> str:
    """A record's question followed by the instruction, as the data set code joins them."""
    return f"{text}\n{INSTRUCTION}"
