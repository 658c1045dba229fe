"""Tiny random models with several towers: encoder-decoders, tiles, Q-formers, shared layers."""

import tiny_models as tiny
import torch
import transformers as tf
from tiny_models import GQA, TEXT, VISION, Inputs, Made, ids, text_inputs


def seq2seq_inputs(read: int, written: int, batch: int = 1) -> Inputs:
    """Return ids of an encoder and of a decoder, without padding."""
    return {**text_inputs(read, batch), "decoder_input_ids": ids(batch, written)}


def t5() -> Made:
    config = tf.T5Config(
        vocab_size=99,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    return tf.T5ForConditionalGeneration(config), seq2seq_inputs(17, 5)


def whisper() -> Made:
    config = tf.WhisperConfig(
        vocab_size=99,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=20,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
    )
    inputs = {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": ids(1, 6)}
    return tf.WhisperForConditionalGeneration(config), inputs


def encoder_decoder() -> Made:
    part = {k: v for k, v in TEXT.items() if k != "max_position_embeddings"}
    config = tf.EncoderDecoderConfig.from_encoder_decoder_configs(
        tf.BertConfig(**part), tf.BertConfig(**part)
    )
    config.decoder_start_token_id = config.pad_token_id = 0
    return tf.EncoderDecoderModel(config), seq2seq_inputs(9, 7)


def siglip() -> Made:
    text = {**TEXT, "max_position_embeddings": 12, "bos_token_id": None, "eos_token_id": None}
    config = tf.SiglipConfig(text_config=text, vision_config=VISION)
    inputs = {"input_ids": ids(1, 12), "pixel_values": torch.randn(1, 3, 16, 16)}
    return tf.SiglipModel(config), inputs


def albert() -> Made:
    config = tf.AlbertConfig(**{**TEXT, "num_hidden_layers": 2}, embedding_size=16)
    return tf.AlbertForMaskedLM(config), text_inputs(12)


def diffllama() -> Made:
    return tf.DiffLlamaForCausalLM(tf.DiffLlamaConfig(**GQA)), text_inputs(12)


def llava_next() -> Made:
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.LlamaConfig(**{**GQA, "num_hidden_layers": 2}),
        image_token_index=90,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
    )
    # A picture of 32x32: one tile of the whole and four of its parts, with a line break a row.
    count = 16 + 8 * 9
    tokens = torch.cat((ids(1, 3), torch.full((1, count), 90), ids(1, 4)), 1)
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": torch.randn(1, 5, 3, 16, 16),
        "image_sizes": torch.tensor([[32, 32]]),
    }
    return tf.LlavaNextForConditionalGeneration(config), inputs


def swin() -> Made:
    config = tf.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4
    )
    return tf.SwinModel(config), {"pixel_values": torch.randn(1, 3, 32, 32)}


def internvl() -> Made:
    config = tf.InternVLConfig(
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
        text_config={**GQA, "model_type": "qwen2", "num_hidden_layers": 2},
        image_token_id=90,
    )
    return tf.InternVLForConditionalGeneration(config), text_inputs(12)


def minimax() -> Made:
    config = tf.MiniMaxConfig(
        **{**GQA, "num_hidden_layers": 4},
        layer_types=["linear_attention", "full_attention"] * 2,
        num_local_experts=2,
        block_size=8,
    )
    return tf.MiniMaxForCausalLM(config), text_inputs(12)


def qformer() -> Made:
    config = tf.Blip2QFormerConfig(
        **{k: TEXT[k] for k in ("vocab_size", "hidden_size", "intermediate_size")},
        num_hidden_layers=2,
        num_attention_heads=4,
        encoder_hidden_size=24,
        cross_attention_frequency=1,
    )
    inputs = {"query_embeds": torch.randn(1, 5, 32), "encoder_hidden_states": torch.randn(1, 9, 24)}
    return tf.Blip2QFormerModel(config), inputs


PAIRS = [tiny.bart, t5, whisper, encoder_decoder]


def blip2() -> Made:
    sizes = {k: TEXT[k] for k in ("vocab_size", "hidden_size", "intermediate_size")}
    reader = {"num_hidden_layers": 2, "num_attention_heads": 4, "cross_attention_frequency": 1}
    text = {k: TEXT[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers")}
    text |= {k: TEXT[k] for k in ("num_attention_heads", "bos_token_id", "eos_token_id")}
    config = tf.Blip2Config(
        vision_config=VISION,
        qformer_config={**sizes, **reader, "encoder_hidden_size": 32},
        text_config={**text, "model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 32},
        num_query_tokens=5,
        image_token_index=90,
    )
    tokens = torch.cat((torch.full((1, 5), 90), ids(1, 6)), 1)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return tf.Blip2ForConditionalGeneration(config), {
        **inputs,
        "pixel_values": torch.randn(1, 3, 16, 16),
    }
