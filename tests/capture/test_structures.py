"""Towers of every make: found by what a model says of itself, captured right or refused."""

import sys

import pytest
import tiny_models as tiny
import tiny_pairs as pairs
import torch
from pattern_helpers import gap, keep_all
from torch import nn

from interp_lab.capture import observer
from interp_lab.capture.attention import watch_attention
from interp_lab.capture.blocks import KeyPick
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Sum
from interp_lab.capture.reference import Reference
from interp_lab.capture.sites import Site
from interp_lab.capture.towers import find_sites, tower_path, towers_of
from interp_lab.errors import ConfigError, UnsupportedModelError

LAST = [{"row": AttentionPlan("last", None, Keep())}]


def vision_patterns(model, inputs, tower):
    """Patterns of a vision tower by its own eager function, (layer, batch, head, query, key)."""
    seen: list[torch.Tensor] = []
    sites: tuple[Site, ...] = find_sites(model, tower)
    file = sys.modules[type(sites[0].module).__module__]
    true = file.eager_attention_forward
    wanted = {id(s.module) for s in sites}

    def eager(module, *args, **kwargs):
        result = true(module, *args, **kwargs)
        if id(module) in wanted:
            seen.append(result[1])
        return result

    model.set_attn_implementation("eager")
    file.eager_attention_forward = eager
    try:
        model(**inputs)
    finally:
        file.eager_attention_forward = true
        model.set_attn_implementation("sdpa")
    return seen


def blocks_of(tiles):
    """Tiles (tile, head, query, key) as one pattern (head, query, key): 0 between tiles."""
    return torch.stack([torch.block_diag(*head) for head in tiles.transpose(0, 1)])


def test_a_pooling_head_is_no_layer():
    model, inputs = tiny.make(pairs.siglip)
    with watch_attention(model, [{"a": keep_all("vision")}]) as watched:
        model(**inputs)
    want = torch.stack(vision_patterns(model, inputs, "vision"))[:, 0]
    assert gap(watched.results[0]["a"].values, want) <= 2e-5
    assert [s.layer for s in find_sites(model, "vision")] == [0, 1]


@pytest.mark.parametrize("method", ["fused", "eager"])
def test_the_tiles_of_a_row_belong_to_the_row(method):
    """The vision tower is called with 5 tiles; token t * 17 + i is place i of tile t."""
    model, inputs = tiny.make(pairs.llava_next)
    plans = [{"a": keep_all("vision"), "b": AttentionPlan((20,), (17, 18), Sum(), tower="vision")}]
    reference = Reference(plans, inputs["attention_mask"]) if method == "fused" else None
    with watch_attention(
        model, plans, method=method, attention_mask=inputs["attention_mask"], reference=reference
    ) as watched:
        model(**inputs)
    want = torch.stack(vision_patterns(model, inputs, "vision"))
    assert want.shape[1:] == (5, 4, 17, 17)
    whole = torch.stack([blocks_of(layer) for layer in want])
    assert gap(watched.results[0]["a"].values, whole) <= 2e-5
    mass = want[:, 1, :, 3, :2].sum(-1)
    assert gap(watched.results[0]["b"].values.squeeze(), mass) <= 2e-5
    if reference is not None:
        assert all(f.holds for f in reference.findings(watched.results).values())


def test_tiles_of_several_rows_are_refused_with_a_remedy():
    model, inputs = tiny.make(pairs.llava_next)
    both = {k: torch.cat((v, v)) for k, v in inputs.items()}
    with (
        pytest.raises(ConfigError, match="tiles or windows.*batch_size=1"),
        watch_attention(model, [{"a": keep_all("vision")}] * 2),
    ):
        model(**both)


def test_windows_and_stages_of_different_heads():
    model, inputs = tiny.make(pairs.swin)
    plans = [{"first": keep_all("vision", layers=(0, 1)), "last": keep_all("vision", layers=(2,))}]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    want = vision_patterns(model, inputs, "vision")
    for name, layers in (("first", want[:2]), ("last", want[2:])):
        whole = [blocks_of(layer) for layer in layers]
        assert gap(watched.results[0][name].values, torch.stack(whole)) <= 2e-5
    with (
        pytest.raises(ConfigError, match="layers differ in heads, queries or keys"),
        watch_attention(model, [{"a": keep_all("vision")}]),
    ):
        model(**inputs)


def test_shared_layers_and_two_calls_a_layer_are_refused():
    for build, says in (
        (pairs.albert, "more than once in one forward"),
        (pairs.diffllama, "calls its attention function 2 times"),
    ):
        model, inputs = tiny.make(build)
        with (
            pytest.raises(UnsupportedModelError, match=says),
            watch_attention(model, [{"a": keep_all()}]),
        ):
            model(**inputs)


def test_linear_attention_beside_softmax():
    model, inputs = tiny.make(pairs.minimax)
    with (
        pytest.raises(UnsupportedModelError, match=r"Lightning.*name layers \[1, 3\] alone"),
        watch_attention(model, [{"a": keep_all()}]),
    ):
        pass
    with watch_attention(model, [{"a": keep_all(layers=(1, 3))}]) as watched:
        model(**inputs)
    model.set_attn_implementation("eager")
    patterns = model(**inputs, output_attentions=True).attentions
    want = torch.stack([p[0] for p in patterns if p.shape[-2:] == (12, 12)])
    assert gap(watched.results[0]["a"].values, want) <= 2e-5


@pytest.mark.parametrize(
    "options", [{"prompt_lookup_num_tokens": 3}, {"num_beams": 2}], ids=lambda o: next(iter(o))
)
def test_generation_that_takes_tokens_back_is_refused(options):
    model, inputs = tiny.make(tiny.llama)
    with pytest.raises(ConfigError, match=f"{next(iter(options))}=.* cannot be captured"):
        generate_watched(model, inputs, [{}], LAST, max_new_tokens=4, **options)


def test_a_cache_that_was_shortened_is_refused():
    from transformers import DynamicCache

    model, inputs = tiny.make(tiny.llama)
    cache, tokens = DynamicCache(config=model.config), inputs["input_ids"]
    plan = {"row": AttentionPlan("last", None, Keep(), when="all")}
    with (
        pytest.raises(UnsupportedModelError, match="held 20 columns and now holds 15"),
        watch_attention(model, [plan]),
    ):
        model(tokens[:, :20], past_key_values=cache)
        cache.crop(-5)
        model(tokens[:, 15:16], past_key_values=cache)


VLM = {"language": "model.language_model", "vision": "model.vision_tower"}
PAIR = {"encoder": "model.encoder", "decoder": "model.decoder", "cross": "model.decoder"}
TOWERS_OF = {
    "internvl": (pairs.internvl, VLM),
    "llava_next": (pairs.llava_next, VLM),
    "llava": (tiny.llava, VLM),
    "qwen2_vl": (tiny.qwen2_vl, {**VLM, "vision": "model.visual"}),
    "clip": (tiny.clip, {"language": "text_model", "vision": "vision_model"}),
    "swin": (pairs.swin, {"vision": ""}),
    "llama": (tiny.llama, {"language": ""}),
    "whisper": (pairs.whisper, PAIR),
}


@pytest.mark.parametrize("name", TOWERS_OF)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_towers_are_found_by_the_configuration(name, wrapped):
    build, towers = TOWERS_OF[name]
    model, _ = tiny.make(build)
    holder = nn.ModuleDict({"inner": model}) if wrapped else model
    for tower, path in towers.items():
        want = ".".join(p for p in (("inner", path) if wrapped else (path,)) if p)
        assert tower_path(holder, tower) == want
        assert find_sites(holder, tower)
    if not wrapped:
        assert set(towers_of(model)) == set(towers)


def test_a_vision_model_has_no_language():
    model, _ = tiny.make(pairs.swin)
    with pytest.raises(ConfigError, match="has no language tower; it has vision"):
        tower_path(model, "language")


def test_rows_that_do_not_sum_to_one_are_refused(monkeypatch):
    """Keys that a plan means but a fault leaves out: no number comes out."""
    true = observer.key_places

    def cut(*args):
        found = true(*args)
        index = (
            slice(found.index.start, found.index.stop - 1)
            if isinstance(found.index, slice)
            else found.index
        )
        return KeyPick(index, found.count - 1, found.slots)

    model, inputs = tiny.make(tiny.llama)
    monkeypatch.setattr(observer, "key_places", cut)
    for plan in (keep_all(), AttentionPlan(None, None, Sum())):
        with (
            pytest.raises(UnsupportedModelError, match=r"plan 'a', row 0, layer 0: .*sums"),
            watch_attention(model, [{"a": plan}]),
        ):
            model(**inputs)


def test_padding_is_left_out_below_a_language_tower():
    """CLIP's text layers take no cache; that they are text the model's configuration says."""
    model, inputs = tiny.make(tiny.clip)
    inputs = {**inputs, "input_ids": torch.randint(3, 80, (1, 9))}
    inputs["attention_mask"] = torch.ones(1, 9, dtype=torch.long)
    padded = {**inputs, "input_ids": torch.nn.functional.pad(inputs["input_ids"], (0, 4))}
    padded["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 4))
    found = []
    for these in (inputs, padded):
        with watch_attention(model, [{"a": keep_all("text_model.encoder")}]) as watched:
            model(**these)
        found.append(watched.results[0]["a"].values)
    assert gap(*found) <= 2e-5
