"""Tiny image-text-to-text models of real classes, with their real processors, without a download.

Each family is a row: what its configuration and its processor need beyond what all have. The
tokenizer has one token a byte and the family's special tokens.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from interp_lab.models.vlm import VisionLanguageModel

CPU = torch.device("cpu")
SIDE = 56
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CLIP = {**TOWER, "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 14}
SIGLIP = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

Parts = tuple[Any, Any, str]


def tokenizer(*special: str, **named: str) -> Any:
    """A byte tokenizer with these special tokens; named ones become its attributes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = ["<pad>", "<s>", "</s>", *dict.fromkeys((*special, *named.values()))]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate([*every, *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=named or None,
    )
    marks = [tf.AddedToken(word, special=True, normalized=False) for word in every[3:]]
    made.add_tokens(marks, special_tokens=True)
    return made


def text(tok: Any, kind: str, **more: Any) -> dict[str, Any]:
    return {**TEXT, "model_type": kind, "vocab_size": len(tok) + 8, "pad_token_id": 0, **more}


def square(side: int = SIDE) -> dict[str, int]:
    return {"height": side, "width": side}


def llava() -> Parts:
    tok = tokenizer("<image>")
    config = tf.LlavaConfig(
        vision_config=CLIP, text_config=text(tok, "llama"), image_token_id=_id(tok, "<image>")
    )
    image = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square())
    return config, _llava(tf.LlavaProcessor, image, tok), "<image>"


def _llava(cls: Any, image: Any, tok: Any) -> Any:
    return cls(
        image,
        tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def llava_next() -> Parts:
    tok = tokenizer("<image>")
    config = tf.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text(tok, "llama"),
        image_token_id=_id(tok, "<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    image = tf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=square(), image_grid_pinpoints=PINPOINTS
    )
    return config, _llava(tf.LlavaNextProcessor, image, tok), "<image>"


def llava_onevision() -> Parts:
    tok = tokenizer("<image>", "<video>")
    config = tf.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=text(tok, "qwen2"),
        image_token_id=_id(tok, "<image>"),
        video_token_id=_id(tok, "<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    image = tf.LlavaOnevisionImageProcessor(size=square(), image_grid_pinpoints=PINPOINTS)
    video = tf.LlavaOnevisionVideoProcessor(size=square())
    return (
        config,
        tf.LlavaOnevisionProcessor(
            image, tok, video, num_image_tokens=16, vision_feature_select_strategy="full"
        ),
        "<image>",
    )


def _qwen(kind: str, cls: Any, patch: int, vision: dict[str, Any], **more: Any) -> Parts:
    tok = tokenizer(*VISION)
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    config = cls(
        vision_config={"depth": 2, "num_heads": 2, **vision},
        text_config=text(tok, kind, **{"rope_parameters": MROPE, **more}),
        **{name: _id(tok, word) for name, word in zip(names, VISION, strict=True)},
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 120 * 120}
    image = tf.Qwen2VLImageProcessor(size=size, patch_size=patch)
    video = tf.Qwen2VLVideoProcessor(size=size, patch_size=patch)
    made = tf.Qwen3VLProcessor if patch == 16 else tf.Qwen2_5_VLProcessor
    return config, made(image, tok, video), f"{VISION[0]}{VISION[2]}{VISION[1]}"


def qwen2_5_vl() -> Parts:
    vision = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen("qwen2_5_vl_text", tf.Qwen2_5_VLConfig, 14, vision)


def qwen3_vl() -> Parts:
    vision = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return _qwen("qwen3_vl_text", tf.Qwen3VLConfig, 16, vision)


def glm4v() -> Parts:
    words = ("image", "video", "begin_of_image", "end_of_image", "begin_of_video", "end_of_video")
    tok = tokenizer(*(f"<|{word}|>" for word in words))
    keys = ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id")
    ids = {k: _id(tok, f"<|{w}|>") for k, w in zip(keys, words, strict=False)}
    vision = {**TOWER, "depth": 2, "num_heads": 2, "out_hidden_size": 16, "image_size": 112}
    config = tf.Glm4vConfig(
        vision_config=vision, text_config=text(tok, "glm4v_text", rope_parameters=MROPE), **ids
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    image, video = tf.Glm4vImageProcessor(size=size), tf.Glm4vVideoProcessor(size=size)
    mark = "<|begin_of_image|><|image|><|end_of_image|>"
    return config, tf.Glm4vProcessor(image, tok, video), mark


def internvl() -> Parts:
    tok = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = tf.InternVLConfig(
        vision_config={**TOWER, "image_size": [56, 56], "patch_size": [14, 14]},
        text_config=text(tok, "qwen2"),
        image_token_id=_id(tok, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    image = tf.GotOcr2ImageProcessor(
        size=square(), crop_to_patches=True, min_patches=1, max_patches=6
    )
    video = tf.InternVLVideoProcessor(size=square())
    return config, tf.InternVLProcessor(image, tok, video, image_seq_length=4), "<IMG_CONTEXT>"


def idefics3() -> Parts:
    tags = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    tags += [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)]
    tok = tokenizer(*tags)
    config = tf.Idefics3Config(
        vision_config={**TOWER, "image_size": 64, "patch_size": 16},
        text_config=text(tok, "llama"),
        scale_factor=2,
        image_token_id=_id(tok, "<image>"),
    )
    image = tf.Idefics3ImageProcessor(
        size={"longest_edge": 192}, max_image_size={"longest_edge": 64}
    )
    return config, tf.Idefics3Processor(image, tok, image_seq_len=4), "<image>"


def gemma3() -> Parts:
    tok = tokenizer(
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    config = tf.Gemma3Config(
        vision_config={**SIGLIP, "image_size": 112},
        text_config=text(tok, "gemma3_text", layer_types=["full_attention"] * 2),
        mm_tokens_per_image=16,
        boi_token_id=tok.boi_token_id,
        eoi_token_id=tok.eoi_token_id,
        image_token_id=tok.image_token_id,
    )
    image = tf.Gemma3ImageProcessor(size=square(112), image_seq_length=16)
    return config, tf.Gemma3Processor(image, tok, image_seq_length=16), "<start_of_image>"


def paligemma() -> Parts:
    tok = tokenizer("<image>")
    image = tf.SiglipImageProcessor(size=square())
    image.image_seq_length = 16
    processor = tf.PaliGemmaProcessor(image, tok)
    config = tf.PaliGemmaConfig(
        vision_config={**SIGLIP, "projection_dim": 16},
        text_config=text(processor.tokenizer, "gemma", vocab_size=len(processor.tokenizer) + 8),
        projection_dim=16,
        hidden_size=16,
        image_token_id=processor.image_token_id,
    )
    return config, processor, ""


def _pixtral() -> tuple[Any, Any, dict[str, Any]]:
    tok = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    vision = {**TOWER, "model_type": "pixtral", "head_dim": 8, "image_size": 112, "patch_size": 14}
    image = tf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size=square(14))
    return tok, image, vision


def mistral3() -> Parts:
    tok, image, vision = _pixtral()
    config = tf.Mistral3Config(
        vision_config=vision,
        text_config=text(tok, "mistral"),
        spatial_merge_size=2,
        image_token_id=_id(tok, "[IMG]"),
    )
    processor = tf.PixtralProcessor(image, tok, patch_size=14, spatial_merge_size=2)
    return config, processor, "[IMG]"


def pixtral() -> Parts:
    tok, image, vision = _pixtral()
    config = tf.LlavaConfig(
        vision_config=vision,
        text_config=text(tok, "mistral"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_id=_id(tok, "[IMG]"),
    )
    return config, tf.PixtralProcessor(image, tok, patch_size=14), "[IMG]"


def aya_vision() -> Parts:
    words = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    tok = tokenizer(*words)
    config = tf.AyaVisionConfig(
        vision_config=SIGLIP,
        text_config=text(tok, "cohere2", layer_types=["full_attention"] * 2),
        downsample_factor=2,
        image_token_id=_id(tok, "<|IMG_PATCH|>"),
    )
    image = tf.GotOcr2ImageProcessor(
        size=square(), crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = tf.AyaVisionProcessor(image, tok, patch_size=14, img_size=SIDE, downsample_factor=2)
    return config, processor, "<image>"


def lfm2_vl() -> Parts:
    rows = [f"<|img_row_{r}_col_{c}|>" for r in range(1, 4) for c in range(1, 4)]
    tok = tokenizer(
        *rows,
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
    )
    vision = {**TOWER, "model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 16}
    config = tf.Lfm2VlConfig(
        vision_config={**vision, "vision_use_head": False},
        projector_hidden_size=24,
        image_token_id=_id(tok, "<image>"),
        text_config=text(tok, "lfm2", layer_types=["full_attention"] * 2),
    )
    image = tf.Lfm2VlImageProcessor(
        tile_size=64,
        min_tiles=2,
        max_tiles=4,
        encoder_patch_size=16,
        min_image_tokens=4,
        max_image_tokens=8,
        max_num_patches=32,
        use_thumbnail=True,
    )
    return config, tf.Lfm2VlProcessor(image, tok), "<image>"


def ovis2() -> Parts:
    marks = ["<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tok = tokenizer("<image>", *marks, image_token="<IMG_ATOM>")
    ids = [_id(tok, mark) for mark in marks]
    vision = {**TOWER, "image_size": SIDE, "patch_size": 14, "vocab_size": 20, "hidden_stride": 2}
    config = tf.Ovis2Config(
        vision_config=vision,
        text_config=text(tok, "qwen2"),
        image_token_id=ids[0],
        hidden_size=16,
        visual_indicator_token_ids=ids[1:],
        vocab_size=len(tok) + 8,
    )
    image = tf.Ovis2ImageProcessor(size=square(), crop_to_patches=True, max_patches=4)
    processor = tf.Ovis2Processor(image, tok, image_token="<image>", image_seq_length=4)
    return config, processor, "<image>"


def llama4() -> Parts:
    words = ["image", "image_start", "image_end", "patch", "tile_x_separator", "tile_y_separator"]
    tok = tokenizer(*(f"<|{word}|>" for word in words))
    vision = {**TOWER, "intermediate_size": 64, "image_size": SIDE, "patch_size": 14}
    vision |= dict.fromkeys(("vision_output_dim", "projector_input_dim"), 16)
    config = tf.Llama4Config(
        vision_config={**vision, "projector_output_dim": 16},
        image_token_id=_id(tok, "<|patch|>"),
        text_config=text(tok, "llama4_text", num_local_experts=2, intermediate_size_mlp=24),
    )
    image = tf.Llama4ImageProcessor(size=square(), max_patches=4)
    processor = tf.Llama4Processor(image, tok, patch_size=14, pixel_shuffle_ratio=0.5)
    return config, processor, "<|image|>"


def janus() -> Parts:
    tok = tokenizer(
        image_token="<image_placeholder>",
        boi_token="<begin_of_image>",
        eoi_token="<end_of_image>",
    )
    vision = {**TOWER, "image_size": SIDE, "patch_size": 14, "projection_dim": 16, "depth": 2}
    drawing = {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "projection_dim": 16}
    drawing |= {"base_channels": 32, "channel_multiplier": [1, 1], "num_patches": 4}
    config = tf.JanusConfig(
        vision_config={**vision, "num_image_tokens": 16, "mlp_ratio": 2},
        text_config=text(tok, "llama"),
        vq_config={**drawing, "image_token_embed_dim": 16},
        image_token_id=_id(tok, "<image_placeholder>"),
    )
    processor = tf.JanusProcessor(tf.JanusImageProcessor(size=square()), tok)
    processor.num_image_tokens = 16
    return config, processor, "<image_placeholder>"


def idefics2() -> Parts:
    tok = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    config = tf.Idefics2Config(
        vision_config={**TOWER, "image_size": SIDE, "patch_size": 14},
        perceiver_config={
            "hidden_size": 16,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "num_key_value_heads": 1,
        },
        text_config=text(tok, "mistral"),
        image_token_id=_id(tok, "<image>"),
    )
    size = {"longest_edge": SIDE, "shortest_edge": 28}
    image = tf.Idefics2ImageProcessor(size=size, do_image_splitting=False)
    return config, tf.Idefics2Processor(image, tok, image_seq_len=4), "<image>"


def chameleon() -> Parts:
    tok = tokenizer("<image>", "<racm3:break>", "<eoss>")
    vq = {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "resolution": 32}
    vq |= {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    names = {f"IMGIMG{'ABCDEFGHIJKLMNOP'[i]}Z": len(tok) + i for i in range(16)}
    vocabulary = {**tok.get_vocab(), **names}
    config = tf.ChameleonConfig(
        **{**text(tok, "chameleon"), "vocab_size": len(vocabulary) + 8},
        vq_config=vq,
        vocabulary_map=vocabulary | {"<image>": _id(tok, "<image>")},
    )
    image = tf.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=square(32))
    return config, tf.ChameleonProcessor(image, tok, image_seq_length=256), "<image>"


def mllama() -> Parts:
    tok = tokenizer("<|image|>")
    vision = {**TOWER, "image_size": SIDE, "patch_size": 14, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "intermediate_layers_indices": [0], "max_num_tiles": 4}
    vision |= {"vision_output_dim": 32}
    config = tf.MllamaConfig(
        vision_config=vision,
        text_config=text(tok, "mllama_text_model", cross_attention_layers=[1]),
        image_token_index=_id(tok, "<|image|>"),
    )
    image = tf.MllamaImageProcessor(size=square(), max_image_tiles=4)
    return config, tf.MllamaProcessor(image, tok), "<|image|>"


def _id(tok: Any, word: str) -> int:
    return int(tok.convert_tokens_to_ids(word))


# What has places: its own grids and views follow from its processor.
PLACED: tuple[Callable[[], Parts], ...] = (
    *(llava_next, llava_onevision, qwen3_vl, glm4v, internvl, idefics3, gemma3, paligemma),
    *(mistral3, pixtral, aya_vision, lfm2_vl, ovis2, llama4, janus),
)
REFUSED: tuple[Callable[[], Parts], ...] = (chameleon, mllama)


class Made(VisionLanguageModel):
    """A model of parts that are there already."""

    parts: Any = None
    dtype = "float32"
    device: torch.device = CPU

    def __post_init__(self) -> None:
        _, processor, mark = self.parts
        if mark:
            processor.chat_template = (
                "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
                "{% if c['type'] == 'image' %}" + mark + "{% else %}{{ c['text'] }}{% endif %}"
                "{% endfor %}\n{% endfor %}answer:"
            )
        super().__post_init__()

    def configuration(self, weights: Any) -> Any:
        return self.parts[0]

    def random(self, weights: Any, config: Any) -> Any:
        """Random weights; the towers' attention adds little, as untrained attention only blurs."""
        module = super().random(weights, config)
        decoder = {id(p) for p in module.get_decoder().parameters()}
        with torch.no_grad():
            for name, weight in module.named_parameters():
                last = name.split(".")[-2]
                if id(weight) not in decoder and last in ("out_proj", "o_proj", "projection_layer"):
                    weight.mul_(0.05)
        return module

    def handler(self, source: Any, config: Any) -> Any:
        return self.parts[1]


def make(family: Callable[[], Parts], **options: Any) -> Made:
    """The family's model, random weights of a seed."""
    given = {"checkpoint": "none", "init": "random", "max_new_tokens": 3, **options}
    return Made(parts=family(), device=CPU, **given)


def colours(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture without a flat place."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
