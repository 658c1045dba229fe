"""Tiny models that hear, of real classes with random weights, and processors made of parts."""

from pathlib import Path
from typing import Any

import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MARKS = ["<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
OTHERS = ["<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'audio' %}"
    "<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)
BINS = 16
TEXT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.05,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
WHISPER = {
    "num_mel_bins": BINS,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "d_model": 32,
}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}


def tokenizer(audio: str = "<|AUDIO|>") -> Any:
    """Bytes as tokens; the audio token has id 24, as Voxtral's processor has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet[:24], audio, *alphabet[24:]]
    core = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=[audio, *(m for m in (*MARKS, *OTHERS) if m != audio)],
        extra_special_tokens={
            "audio_token": audio,
            "image_token": "<|IMAGE|>",
            "video_token": "<|VIDEO|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
            "vision_bos_token": "<|vision_bos|>",
            "vision_eos_token": "<|vision_eos|>",
        },
    )
    fast.chat_template = TEMPLATE
    return fast


def whisper(**changes: Any) -> Any:
    return tf.WhisperFeatureExtractor(feature_size=BINS, **changes)


def qwen2_audio(folder: Path, seconds: int = 3) -> dict[str, Any]:
    """Windows of a few seconds, and not of 30, so that tests are fast."""
    tok = tokenizer()
    extractor = whisper(chunk_length=seconds)
    tf.Qwen2AudioProcessor(extractor, tok, chat_template=TEMPLATE).save_pretrained(folder)
    return {
        "model_type": "qwen2_audio",
        "audio_config": WHISPER | {"max_source_positions": 50 * seconds},
        "text_config": TEXT | {"model_type": "qwen2"},
        "audio_token_index": 24,
    }


def voxtral(folder: Path) -> dict[str, Any]:
    tok = tokenizer()
    tf.VoxtralProcessor(whisper(), tok).save_pretrained(folder)
    tower = {
        "num_mel_bins": BINS,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "hidden_size": 32,
        "head_dim": 16,
    }
    return {
        "model_type": "voxtral",
        "audio_config": tower,
        "text_config": TEXT | {"model_type": "llama"},
        "audio_token_id": 24,
    }


def _omni_ids(tok: Any) -> dict[str, int]:
    named = {
        "image_token_id": "<|IMAGE|>",
        "video_token_id": "<|VIDEO|>",
        "vision_start_token_id": "<|vision_bos|>",
        "audio_start_token_id": "<|audio_bos|>",
    }
    return {k: tok.convert_tokens_to_ids(v) for k, v in named.items()} | {"audio_token_id": 24}


def qwen2_5_omni(folder: Path) -> dict[str, Any]:
    tok = tokenizer()
    tf.Qwen2_5OmniProcessor(
        tf.Qwen2VLImageProcessor(),
        tf.Qwen2VLVideoProcessor(),
        whisper(chunk_length=3),
        tok,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return {
        "model_type": "qwen2_5_omni_thinker",
        "audio_config": WHISPER | {"n_window": 50, "output_dim": 32},
        "vision_config": VISION | {"out_hidden_size": 32},
        "text_config": TEXT | {"rope_parameters": MROPE},
        **_omni_ids(tok),
    }


def qwen3_omni(folder: Path) -> dict[str, Any]:
    tok = tokenizer()
    tf.Qwen3OmniMoeProcessor(
        tf.Qwen2VLImageProcessor(),
        tf.Qwen2VLVideoProcessor(),
        whisper(),
        tok,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return {
        "model_type": "qwen3_omni_moe_thinker",
        "audio_config": WHISPER
        | {"n_window": 50, "output_dim": 32, "downsample_hidden_size": 16, "n_window_infer": 800},
        "vision_config": VISION
        | {"out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": []},
        "text_config": TEXT | experts | {"rope_parameters": MROPE, "head_dim": 16},
        **_omni_ids(tok),
    }


def audio_flamingo(folder: Path) -> dict[str, Any]:
    tok = tokenizer()
    tf.AudioFlamingo3Processor(
        whisper(), tok, chat_template=TEMPLATE, audio_token="<|AUDIO|>"
    ).save_pretrained(folder)
    tower = {
        "num_mel_bins": BINS,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "hidden_size": 32,
    }
    return {
        "model_type": "audioflamingo3",
        "audio_config": tower,
        "text_config": TEXT | {"model_type": "qwen2"},
        "audio_token_id": 24,
    }
