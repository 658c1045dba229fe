"""LLaVA: prompts, spans and batches of the real class; the original release's layout; full size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import save_file
from tiny_language import architecture, save_processor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from interp_lab.capture.session import watch
from interp_lab.capture.towers import find_sites
from interp_lab.config.nodes import conf_dir, plain
from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.llava import Llava
from interp_lab.models.llava_original import image_processor, mapped_name, mapped_weights
from interp_lab.models.tokenmaps import llava_map
from interp_lab.models.weights import Weights
from interp_lab.studies.scienceqa.analysis import ScienceQAHeads

CPU = torch.device("cpu")
CAT = Image.open(Path(__file__).parents[2] / "interp_lab" / "zoo" / "photos" / "cat.jpg")
QUESTION = "What is it ?\nA. red\nB. blue\nAnswer with the option's letter"


def sample(name: str = "a", image: bool = True, **facts: Any) -> Sample:
    parts = ((("image", 0),) if image else ()) + (("text", QUESTION),)
    return Sample(name, parts, (CAT,) if image else (), facts=facts)


@pytest.fixture
def tiny(tmp_path: Path) -> Llava:
    return Llava(
        checkpoint="tiny",
        device=CPU,
        dtype="float32",
        init="random",
        max_new_tokens=3,
        architecture=architecture(),
        processor=save_processor(tmp_path / "processor"),
    )


def test_prompts_of_both_formats(tiny: Llava) -> None:
    template, _ = tiny.render(sample())
    vicuna, _ = tiny.render(sample(conv_mode="vicuna_v1"))
    assert template == f"USER: <image>\n{QUESTION} ASSISTANT:"
    assert vicuna == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
        f"USER: <image>\n{QUESTION} ASSISTANT:"
    )


def test_roles_options_and_the_image_span(tiny: Llava) -> None:
    tokens = tiny.prepare([sample(options={"A": "red", "B": "blue"})]).seen[0].tokens
    image = tokens.where(modality="image")
    assert len(image) == 16 and image == tuple(range(image[0], image[0] + 16))
    assert [tokens.tokens[i].text for i in tokens.where(role="option", label="B")] == ["B.", "blue"]
    assert [tokens.tokens[i].text for i in tokens.where(role="assistant")] == ["ASSISTANT:"]


def test_a_padded_batch_answers_and_scores_like_one_by_one(tiny: Llava) -> None:
    samples = [sample("a"), sample("b", image=False), sample("c", conv_mode="vicuna_v1")]
    study = ScienceQAHeads().for_model(tiny)

    def measured(batch: list[Sample]) -> list[tuple[Any, Any]]:
        with torch.inference_mode():
            prepared = tiny.prepare(batch)
            plans = [study.plans(s.tokens) for s in prepared.seen]
            with watch(tiny, prepared, plans) as capture:
                answers = tiny.run(prepared)
        return list(zip(answers, capture.rows, strict=True))

    alone = [measured([s])[0] for s in samples]
    for (a, rows_a), (b, rows_b) in zip(measured(samples), alone, strict=True):
        torch.testing.assert_close(a.first_logits, b.first_logits, atol=1e-5, rtol=0)
        assert rows_a.keys() == rows_b.keys()
        for name in rows_a:
            torch.testing.assert_close(rows_a[name].values, rows_b[name].values, atol=1e-5, rtol=0)


def test_a_question_that_is_too_long_is_its_own_failure(tiny: Llava) -> None:
    long = Sample("long", (("text", "What " * 200),))
    with pytest.raises(SampleError, match="more than the model's 128"):
        tiny.prepare([long])


def original_release(folder: Path, model: LlavaForConditionalGeneration, **config: Any) -> Path:
    """Write a model in the original layout: other names, vision tower in a folder of its own."""
    tower = folder / "tower"
    model.model.vision_tower.save_pretrained(tower)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tower)
    release = folder / "release"
    names = {
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "model.language_model.": "model.",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = tensor.clone()
    release.mkdir()
    save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
    text = model.config.text_config
    values = {
        "model_type": "llava",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": str(tower),
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        **{
            k: getattr(text, k)
            for k in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
                "rms_norm_eps",
                "bos_token_id",
                "eos_token_id",
            )
        },
        **config,
    }
    (release / "config.json").write_text(json.dumps(values))
    return release


def test_the_original_names_map_one_to_one() -> None:
    assert mapped_name("model.mm_projector.2.bias") == "model.multi_modal_projector.linear_2.bias"
    assert mapped_name("model.layers.3.mlp.up_proj.weight") == (
        "model.language_model.layers.3.mlp.up_proj.weight"
    )
    assert mapped_name("model.vision_tower.vision_tower.vision_model.encoder.layers.0.x") == (
        "model.vision_tower.encoder.layers.0.x"
    )
    with pytest.raises(UnsupportedModelError, match="unknown tensor 'optimizer"):
        mapped_name("optimizer.state")


SPREAD = {"model.vision_tower": "disk", "model.multi_modal_projector": "cpu", "lm_head": "cpu"}


@pytest.mark.parametrize(
    "device_map", [None, {"": "cpu"}, SPREAD | {"model.language_model": "disk"}]
)
def test_the_original_layout_gives_the_same_logits(
    tmp_path: Path, device_map: dict[str, str] | None
) -> None:
    from interp_lab.models.llava_original import (
        load_original,
        original_configuration,
        original_processor,
    )

    torch.manual_seed(0)
    values = architecture(text={"vocab_size": 63}) | {"image_token_index": 63}
    values["text_config"]["vocab_size"] = 64
    model = LlavaForConditionalGeneration(LlavaConfig(**values)).eval()
    release = original_release(tmp_path, model, vocab_size=63)
    # The original's vocabulary lacks the row of <image>.
    from safetensors.torch import load_file

    weights = load_file(release / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:63].clone()
    save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(62)} | {"[UNK]": 62}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(release)
    place = {"device_map": device_map, "offload_folder": str(tmp_path / "wait")}
    weights_of = Weights(str(release), dtype="float32", **(place if device_map else {}))
    config = original_configuration(weights_of)
    assert config is not None
    loaded = load_original(weights_of, config, torch.device("cpu"), "sdpa")
    waiting = {name for name, p in loaded.named_parameters() if p.is_meta}
    assert len(waiting) > 20 if device_map and len(device_map) > 1 else not waiting
    processor = original_processor(release, loaded.config)
    assert processor.image_token_id == 63
    ids = torch.tensor([[1] + [63] * 16 + [5, 6]])
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=pixels).logits[..., :63]
        got = loaded.eval()(input_ids=ids, pixel_values=pixels).logits[..., :63]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_the_original_layout_is_loaded_strictly(fault: str) -> None:
    expected = {
        "lm_head.weight": torch.zeros(64, 4),
        "model.language_model.norm.weight": torch.zeros(4),
    }
    tensors = {"lm_head.weight": torch.zeros(63, 4), "model.norm.weight": torch.zeros(4)}
    assert mapped_weights(tensors, expected)["lm_head.weight"].shape == (64, 4)
    if fault == "missing":
        del tensors["model.norm.weight"]
    elif fault == "extra":
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(1)
    else:
        tensors["model.norm.weight"] = torch.zeros(5)
    with pytest.raises(UnsupportedModelError, match="lacks|left over|shape"):
        mapped_weights(tensors, expected)


def full_size(model: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return plain(compose("config", overrides=["task=scienceqa", f"model={model}"]).model)


def test_the_plan_of_the_7b_resolves_on_meta_weights(tmp_path: Path) -> None:
    config = LlavaConfig(**full_size("llava_1_5_7b")["architecture"])
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    sites = find_sites(model, "language")
    assert len(sites) == 32
    assert {site.module.config.num_attention_heads for site in sites} == {32}
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(7.06e9, rel=0.01)
    # The checkpoint's tokenizer cannot be had here; any will do for the span.
    tokenizer = AutoTokenizer.from_pretrained(save_processor(tmp_path))
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    prompt = "USER: <image>\nWhat is it ? ASSISTANT:"
    ids = [5, *[config.image_token_id] * 576, *tokenizer("What is it ? ASSISTANT:")["input_ids"]]
    tokens = llava_map(tokenizer, prompt, ids, [], config)
    assert tokens.where(modality="image") == tuple(range(1, 577))
    assert tokens.grids == ((24, 24),)


@pytest.mark.slow
def test_a_layer_of_the_7b_runs_in_memory_that_does_not_grow(tmp_path: Path) -> None:
    values = full_size("llava_1_5_7b")["architecture"]
    # One layer and few words: what could grow is the same for each layer.
    values["text_config"] |= {"num_hidden_layers": 1, "vocab_size": 512}
    values["vision_config"]["num_hidden_layers"] = 3
    values["image_token_index"] = 4
    model = Llava(
        checkpoint="1 layer",
        device=CPU,
        dtype="float32",
        init="random",
        architecture=values,
        processor=save_processor(tmp_path, image_size=336, patch_size=14),
        max_new_tokens=1,
    )
    study = ScienceQAHeads().for_model(model)
    memory = []
    for _ in range(4):
        with torch.inference_mode():
            prepared = model.prepare([sample()])
            plans = [study.plans(prepared.seen[0].tokens)]
            with watch(model, prepared, plans) as capture:
                model.run(prepared)
        assert capture.rows[0]["heads"].values.shape == (1, 32)
        # What it has asked for: how much of that lies in memory depends on what else runs.
        memory.append(psutil.Process().memory_info().data)
    assert len(prepared.seen[0].tokens.where(modality="image")) == 576
    # The first pass also makes the buffers that stay.
    assert memory[-1] < memory[1] + 100 * 2**20


def test_vision_config_of_the_yaml_is_the_real_tower() -> None:
    vision = full_size("llava_1_5_7b")["architecture"]["vision_config"]
    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(**vision))
    assert sum(p.numel() for p in tower.parameters()) == pytest.approx(303.5e6, rel=0.01)


def test_a_picture_is_padded_where_the_original_release_says_so(tmp_path: Path) -> None:
    made = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    made.save_pretrained(tmp_path)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 192, 3), dtype=np.uint8))
    edge = wide.copy()
    edge.paste((255, 0, 0), (0, 0, 24, 64))
    # What the release does: the mean colour above and below, then the whole square.
    square = Image.new("RGB", (192, 192), tuple(int(x * 255) for x in made.image_mean))
    square.paste(wide, (0, 64))
    tower = Weights(str(tmp_path))

    def pixels(picture: Image.Image, **values: str) -> torch.Tensor:
        return image_processor(tower, values)(picture, return_tensors="pt")["pixel_values"]

    assert torch.equal(pixels(wide, image_aspect_ratio="pad"), pixels(square))
    assert (pixels(wide, image_aspect_ratio="pad") != pixels(edge, image_aspect_ratio="pad")).any()
    # Without it the middle is taken, and what stands at the edge is not seen.
    assert torch.equal(pixels(wide), pixels(edge))
