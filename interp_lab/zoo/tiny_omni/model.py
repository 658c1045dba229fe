"""What `tiny_omni` is made of: a real Qwen2.5-Omni thinker, tokenizer and processor, tiny.

Every part is the transformers class that Qwen2.5-Omni uses, so code written for that model runs on
this one unchanged: the chat template, the clip among the text, the number back. Its tokenizer keeps
the prompt's words whole and reads everything else sign by sign, in four scripts and in IPA.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from interp_lab.zoo.speech import LANGUAGES, N_FRAMES, RATE, SECONDS, WORDS, Clip
from interp_lab.zoo.tiny_omni.prompts import CHAT_TEMPLATE, prompt_words

MEL_BINS = 128
MEL_FRAMES = round(SECONDS * 100)
HEARING_WINDOW = 4  # half as many mel frames as are heard together
PAD, UNKNOWN, TURN, END = "<|endoftext|>", "[UNK]", "<|im_start|>", "<|im_end|>"
NAMED = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def vocabulary() -> list[str]:
    """Every token in the order of its id: special ones, whole words, single signs."""
    spellings = [word.written(language) for language in LANGUAGES for word in WORDS]
    signs = sorted(set("".join([*spellings, *(word.ipa for word in WORDS)])) - {" "})
    plain = string.digits + string.ascii_letters + string.punctuation
    special = [PAD, UNKNOWN, TURN, END, *NAMED.values()]
    return list(dict.fromkeys([*special, *prompt_words(), *plain, *signs]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words where they stand by themselves, else one token a sign; spaces vanish."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    whole = "|".join(sorted(prompt_words(), key=len, reverse=True))
    pattern = Regex(rf"(?<![A-Za-z])(?:{whole})(?![A-Za-z])|\S")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens={**NAMED, "turn_token": TURN},
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> Qwen2_5OmniProcessor:
    """The processor: mel frames of 10 ms, one audio token for four of them."""
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(feature_size=MEL_BINS),
        tokenizer=build_tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> Qwen2_5OmniThinkerConfig:
    """About half a million parameters: one layer of hearing under four of reading."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    audio = {
        "d_model": 64,
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "output_dim": 96,
        # 80 ms are heard together. With the real model's two seconds every audio token has heard
        # the whole word, and no head needs to look where a phone was.
        "n_window": HEARING_WINDOW,
        "num_mel_bins": MEL_BINS,
        "max_source_positions": 1500,
    }
    # Nothing is ever seen, but the thinker cannot be built without eyes: the smallest ones.
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 96,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [0],
    }
    text = {
        "vocab_size": len(ids),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.05,
        "tie_word_embeddings": False,
        "pad_token_id": ids[PAD],
        "bos_token_id": None,
        "eos_token_id": ids[END],
        # The three sections add up to half of a head's 24 dimensions.
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
    }
    config = Qwen2_5OmniThinkerConfig(
        audio_config=audio,
        vision_config=vision,
        text_config=text,
        audio_token_index=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
        user_token_id=ids["user"],
        tie_word_embeddings=False,
    )
    # The class knows no such argument, yet without the attribute no forward with audio works.
    config.vision_start_token_id = ids["<|vision_bos|>"]
    config.vision_end_token_id = ids["<|vision_eos|>"]
    return config


def build_model(seed: int) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The untrained model; also the control that any figure about the trained one needs."""
    torch.manual_seed(seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(build_config())
    text = model.config.get_text_config()
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    return model


def features(clips: Sequence[Clip], processor: Qwen2_5OmniProcessor) -> Tensor:
    """(n, 128, 80) mel features, as the processor makes them, without its 29 s of padding."""
    extract = processor.feature_extractor
    waves = [clip.wave for clip in clips]
    parts = [
        extract(
            waves[i : i + 256],
            sampling_rate=RATE,
            padding="max_length",
            max_length=RATE,  # some zeros follow, as they do at 30 s
            return_tensors="pt",
        )["input_features"][..., :MEL_FRAMES]
        for i in range(0, len(waves), 256)
    ]
    return torch.cat(parts)


def model_inputs(
    processor: Qwen2_5OmniProcessor, texts: Sequence[str], heard: Tensor | None
) -> dict[str, Tensor]:
    """What the model takes: texts, padded on the left, and the features of a clip for each.

    The processor itself gives the same, 40 times as long: it pads a clip to 30 s.
    """
    placeholder = processor.audio_token
    expanded = [text.replace(placeholder, placeholder * N_FRAMES) for text in texts]
    inputs = dict(processor.tokenizer(expanded, padding=True, return_tensors="pt"))
    if heard is not None:
        inputs["input_features"] = heard
        inputs["feature_attention_mask"] = torch.ones(len(heard), MEL_FRAMES, dtype=torch.long)
    return inputs
