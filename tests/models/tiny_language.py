"""Tiny untrained LLaVA parts for tests: the real classes, a processor made of parts."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

WORDS = (
    "[PAD] [UNK] [BOS] [EOS] <image> USER: ASSISTANT: A. B. C. A B C red green blue What is it ? "
    "Answer with the option's letter from given choices directly."
).split()


def save_processor(folder: Path, image_size: int = 32, patch_size: int = 8) -> str:
    """Save a LLaVA processor with a word tokenizer; return its folder."""
    words = {word: i for i, word in enumerate(dict.fromkeys(WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        additional_special_tokens=["<image>"],
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
        ),
        tokenizer=fast,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}USER: {% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}"
            "{% endfor %} ASSISTANT:{% endfor %}"
        ),
    ).save_pretrained(folder)
    return str(folder)


def architecture(**changes: Any) -> dict[str, Any]:
    """LlavaConfig's values for a tiny model that fits `save_processor`."""
    text = {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 16,
    }
    return {
        "text_config": text | changes.pop("text", {}),
        "vision_config": vision | changes.pop("vision", {}),
        "image_token_index": 4,
        "image_seq_length": 16,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        **changes,
    }
