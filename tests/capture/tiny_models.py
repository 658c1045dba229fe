"""Tiny random models of the real transformers classes, and an input for each."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf

Inputs = dict[str, Any]
Made = tuple[tf.PreTrainedModel, Inputs]

TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GQA = {**TEXT, "num_key_value_heads": 2}
MROPE = {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
TOKENS = {
    "image_token_id": 90,
    "video_token_id": 91,
    "vision_start_token_id": 92,
    "vision_end_token_id": 93,
}


def ids(batch: int, length: int) -> torch.Tensor:
    """Return random token ids that are no special tokens."""
    return torch.randint(3, 80, (batch, length))


def text_inputs(length: int = 24, batch: int = 1) -> Inputs:
    """Return ids and a mask without padding."""
    mask = torch.ones(batch, length, dtype=torch.long)
    return {"input_ids": ids(batch, length), "attention_mask": mask}


def llama() -> Made:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**GQA)), text_inputs()


def qwen2() -> Made:
    return tf.Qwen2ForCausalLM(tf.Qwen2Config(**GQA)), text_inputs()


def mistral() -> Made:
    config = tf.MistralConfig(**GQA, sliding_window=7)
    return tf.MistralForCausalLM(config), text_inputs()


def gpt2() -> Made:
    config = tf.GPT2Config(
        vocab_size=99,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    return tf.GPT2LMHeadModel(config), text_inputs()


def gemma2() -> Made:
    config = tf.Gemma2Config(**GQA, head_dim=8, sliding_window=7, attn_logit_softcapping=0.5)
    return tf.Gemma2ForCausalLM(config), text_inputs()


def gemma3_text() -> Made:
    config = tf.Gemma3TextConfig(
        **{**GQA, "num_hidden_layers": 4},
        head_dim=8,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    return tf.Gemma3ForCausalLM(config), text_inputs()


def gpt_oss() -> Made:
    config = tf.GptOssConfig(
        **{**GQA, "num_hidden_layers": 2},
        head_dim=8,
        sliding_window=7,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    return tf.GptOssForCausalLM(config), text_inputs()


def falcon() -> Made:
    config = tf.FalconConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    return tf.FalconForCausalLM(config), text_inputs()


def bloom() -> Made:
    config = tf.BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)
    return tf.BloomForCausalLM(config), text_inputs()


def bart() -> Made:
    config = tf.BartConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    # As many tokens on both sides, so that the key axis alone does not tell.
    inputs = {**text_inputs(12), "decoder_input_ids": ids(1, 12)}
    return tf.BartForConditionalGeneration(config), inputs


def llava() -> Made:
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.LlamaConfig(**GQA),
        image_token_index=90,
        vision_feature_layer=-1,
    )
    tokens = torch.cat((ids(1, 5), torch.full((1, 16), 90), ids(1, 9)), 1)
    mask = torch.ones_like(tokens)
    inputs = {
        "input_ids": tokens,
        "attention_mask": mask,
        "pixel_values": torch.randn(1, 3, 16, 16),
    }
    return tf.LlavaForConditionalGeneration(config), inputs


def _qwen_vl_inputs(rows: int = 4, cols: int = 6) -> Inputs:
    """One image of rows x cols merged tokens (each 2 x 2 patches of 4 pixels)."""
    vision = torch.tensor([[92]]), torch.full((1, rows * cols), 90), torch.tensor([[93]])
    tokens = torch.cat((ids(1, 5), *vision, ids(1, 9)), 1)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": torch.randn(4 * rows * cols, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 2 * rows, 2 * cols]]),
        "mm_token_type_ids": (tokens == 90).long(),
    }


def qwen2_vl() -> Made:
    vision = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "mlp_ratio": 2,
    }
    config = tf.Qwen2VLConfig(text_config={**GQA, **MROPE}, vision_config=vision, **TOKENS)
    return tf.Qwen2VLForConditionalGeneration(config), _qwen_vl_inputs()


def qwen2_5_vl() -> Made:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 32,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = tf.Qwen2_5_VLConfig(text_config={**GQA, **MROPE}, vision_config=vision, **TOKENS)
    return tf.Qwen2_5_VLForConditionalGeneration(config), _qwen_vl_inputs()


def omni() -> Made:
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 32,
    }
    audio = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 16,
        "n_window": 10,
        "output_dim": 32,
    }
    config = tf.Qwen2_5OmniThinkerConfig(
        text_config={**GQA, **MROPE},
        vision_config=vision,
        audio_config=audio,
        audio_token_index=94,
        image_token_index=90,
        video_token_index=91,
    )
    config.vision_start_token_id = 92
    frames = 80
    n_audio = ((frames - 1) // 2 + 1 - 2) // 2 + 1
    tokens = torch.cat((ids(1, 5), torch.full((1, n_audio), 94), ids(1, 9)), 1)
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "input_features": torch.randn(1, 16, frames),
        "feature_attention_mask": torch.ones(1, frames, dtype=torch.long),
    }
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config), inputs


def clip() -> Made:
    text = {**TEXT, "num_hidden_layers": 2}
    config = tf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    inputs = {**text_inputs(10), "pixel_values": torch.randn(1, 3, 16, 16)}
    return tf.CLIPModel(config), inputs


def make(build: Callable[[], Made], scale: float = 6.0) -> Made:
    """Return a model in eval mode; `scale` makes its attention lively (else it is near uniform)."""
    torch.manual_seed(0)
    model, inputs = build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return model.eval(), inputs
