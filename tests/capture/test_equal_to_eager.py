"""The captured pattern equals the model's own eager attention, and the logits do not move."""

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import eager_patterns, gap, keep_all, logits

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep

LANGUAGE = [
    tiny.llama,
    tiny.qwen2,
    tiny.mistral,
    tiny.gpt2,
    tiny.gemma2,
    tiny.gemma3_text,
    tiny.gpt_oss,
    tiny.llava,
    tiny.qwen2_vl,
    tiny.qwen2_5_vl,
    tiny.omni,
]
TOWERS = [
    (tiny.llava, "vision"),
    (tiny.clip, "language"),
    (tiny.clip, "vision"),
    (tiny.qwen2_vl, "vision"),
    (tiny.qwen2_5_vl, "vision"),
    (tiny.omni, "audio"),
]


@pytest.mark.parametrize("build", LANGUAGE, ids=lambda b: b.__name__)
def test_language_tower_equals_output_attentions(build):
    model, inputs = tiny.make(build)
    with watch_attention(model, [{"all": keep_all()}]) as watched:
        model(**inputs)
    want = eager_patterns(model, inputs)[:, 0]
    assert gap(watched.results[0]["all"].values, want) <= 2e-6
    assert want.max() > 0.2, "a nearly uniform pattern would prove little"


@pytest.mark.parametrize(("build", "tower"), TOWERS, ids=lambda v: getattr(v, "__name__", v))
def test_other_towers_equal_their_eager_function(build, tower):
    model, inputs = tiny.make(build, scale=2.0)
    plans = [{"all": keep_all(tower)}]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    with watch_attention(model, plans, method="eager") as eager:
        model(**inputs)
    ours, theirs = watched.results[0]["all"].values, eager.results[0]["all"].values
    assert gap(ours, theirs) <= 2e-6
    assert set(watched.results[0]["all"].paths) == {"lse"}


def test_several_segments_in_one_packed_tower():
    """Two images: the tower is called once per image and layer; nothing crosses between them."""
    model, one = tiny.make(tiny.qwen2_vl)
    inputs = {
        k: torch.cat((v, v), 1 if v.dim() == 2 and k.endswith(("ids", "mask")) else 0)
        for k, v in one.items()
    }
    with watch_attention(model, [{"all": keep_all("vision")}]) as watched:
        model(**inputs)
    pattern = watched.results[0]["all"].values
    half = pattern.shape[-1] // 2
    assert pattern.shape[-2:] == (192, 192)
    assert pattern[..., :half, half:].abs().max() == 0
    assert gap(pattern[..., :half, :half], pattern[..., half:, half:]) <= 1e-6


@pytest.mark.parametrize("build", [*LANGUAGE, tiny.clip], ids=lambda b: b.__name__)
def test_logits_are_bit_identical(build):
    model, inputs = tiny.make(build)
    towers = ["language", *(["vision"] if "pixel_values" in inputs else [])]
    before = logits(model(**inputs))
    with watch_attention(model, [{t: keep_all(t) for t in towers}]):
        watched = logits(model(**inputs))
    assert torch.equal(before, watched)


def test_logits_are_bit_identical_under_inference_mode():
    model, inputs = tiny.make(tiny.llama)
    with torch.inference_mode():
        before = model(**inputs).logits
        with watch_attention(model, [{"all": keep_all()}]) as watched:
            assert torch.equal(before, model(**inputs).logits)
    assert watched.results[0]["all"].paths == ("lse",) * 3


def test_gradients_pass_through_a_watched_model():
    model, inputs = tiny.make(tiny.llama)
    weight = model.model.layers[0].self_attn.q_proj.weight
    gradients = []
    with torch.enable_grad():
        for plans in ([], [{"all": keep_all()}]):
            with watch_attention(model, plans):
                model(**inputs).logits.sum().backward()
            gradients.append(weight.grad.clone())
            weight.grad = None
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


@pytest.mark.parametrize("build", [tiny.llama, tiny.mistral], ids=lambda b: b.__name__)
def test_bf16_equals_fp32_softmax_of_the_same_scores(build):
    model, inputs = tiny.make(build)
    model.to(torch.bfloat16)
    plans = [{"all": keep_all()}]
    # Two watches of one forward: one from the kernel's lse, one from fp32 rows of the same scores.
    with watch_attention(model, plans) as lse, watch_attention(model, plans, lse=False) as rows:
        model(**inputs)
    ours, theirs = lse.results[0]["all"], rows.results[0]["all"]
    assert (set(ours.paths), set(theirs.paths)) == ({"lse"}, {"rows"})
    assert ours.values.dtype == torch.float32
    assert gap(ours.values, theirs.values) <= 2e-3


@pytest.mark.parametrize(
    ("build", "path"), [(tiny.llama, "lse"), (tiny.gemma2, "rows")], ids=["lse", "rows"]
)
def test_the_path_is_reported(build, path):
    model, inputs = tiny.make(build)
    with watch_attention(model, [{"all": keep_all()}]) as watched:
        model(**inputs)
    assert watched.describe()["paths"] == [path]


@pytest.mark.parametrize("build", [tiny.llama, tiny.mistral, tiny.gpt2], ids=lambda b: b.__name__)
def test_rows_path_equals_lse_path(build):
    model, inputs = tiny.make(build)
    plan = AttentionPlan((3, 4, 9, 20), (0, 2, 5, 6), Keep(), heads=(1, 3), layers=(0, 2))
    results = []
    for lse in (True, False):
        with watch_attention(model, [{"a": plan}], lse=lse) as watched:
            model(**inputs)
        results.append(watched.results[0]["a"])
    assert results[0].paths == ("lse",) * 2 and results[1].paths == ("rows",) * 2
    assert results[0].layers == (0, 2)
    assert gap(results[0].values, results[1].values) <= 1e-6
    want = eager_patterns(model, inputs)[:, 0][[0, 2]][:, [1, 3]][:, :, [3, 4, 9, 20]]
    assert gap(results[0].values, want[..., [0, 2, 5, 6]]) <= 2e-6


@pytest.mark.parametrize("batched", [False, True])
def test_four_dimensional_masks(batched):
    model, inputs = tiny.make(tiny.llama)
    visible = torch.ones(1, 1, 24, 24, dtype=torch.bool).tril()
    visible[..., 10:, 3:5] = False
    mask = visible if batched else torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    plain = {"input_ids": inputs["input_ids"], "attention_mask": mask}
    with watch_attention(model, [{"all": keep_all()}]) as watched:
        model(**plain)
    float_mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    want = eager_patterns(model, {**plain, "attention_mask": float_mask})[:, 0]
    assert gap(watched.results[0]["all"].values, want) <= 2e-6
    assert watched.results[0]["all"].values[..., 10:, 3:5].max() == 0


def test_chunked_blocks_give_the_same_numbers(monkeypatch):
    model, inputs = tiny.make(tiny.mistral)
    plans = [{"all": keep_all()}]
    with watch_attention(model, plans) as whole:
        model(**inputs)
    monkeypatch.setattr("interp_lab.capture.blocks.CHUNK", 300)
    for lse in (True, False):
        with watch_attention(model, plans, lse=lse) as parts:
            model(**inputs)
        assert gap(whole.results[0]["all"].values, parts.results[0]["all"].values) <= 1e-6
