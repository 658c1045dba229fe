"""What a watch leaves behind, refuses and explains; interventions; checks."""

import pytest
import tiny_models as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_helpers import eager_patterns, gap, keep_all
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.checks import eager_difference, live_check
from interp_lab.capture.plans import AttentionPlan, BlockAttention, ScaleAttention, ZeroHeads
from interp_lab.capture.reduce import ArgMax, Keep, Max, Sum
from interp_lab.errors import ConfigError, UnsupportedModelError

LOWEST = torch.finfo(torch.float32).min


def state_of(model):
    """Everything that a watch touches: registry, hooks, attention names."""
    hooks = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )
    names = [getattr(m, "config", model.config)._attn_implementation for m in model.modules()]
    registry = (
        dict(ALL_ATTENTION_FUNCTIONS._local_mapping),
        dict(ALL_ATTENTION_FUNCTIONS._global_mapping),
    )
    return hooks, names, registry


@pytest.mark.parametrize("method", ["fused", "eager", "eager_rows"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(method, fails):
    model, inputs = tiny.make(tiny.llava)
    model(**inputs)  # transformers installs hooks of its own on the first forward
    before = state_of(model)
    plans = [{"a": keep_all(), "v": keep_all("vision")}]
    if fails:
        with pytest.raises(ZeroDivisionError), watch_attention(model, plans, method=method):
            assert state_of(model) != before
            model(**inputs)
            raise ZeroDivisionError
    else:
        with watch_attention(model, plans, method=method):
            model(**inputs)
    assert state_of(model) == before


def test_an_error_inside_the_model_restores_it():
    model, _ = tiny.make(tiny.llama)
    before = state_of(model)
    with pytest.raises(IndexError), watch_attention(model, [{"a": keep_all()}]):
        model(input_ids=torch.tensor([[10_000]]))
    assert state_of(model) == before


def test_other_models_of_the_same_kind_are_not_watched():
    watched_model, inputs = tiny.make(tiny.llama)
    other, _ = tiny.make(tiny.llama)
    with watch_attention(watched_model, [{"a": keep_all()}]) as watched:
        other(**inputs)
        watched_model(**inputs)
        other(**inputs)
    assert len(watched.results[0]["a"].steps) == 1


@pytest.mark.parametrize("build", [tiny.falcon, tiny.bloom], ids=lambda b: b.__name__)
def test_bypassing_models_are_refused_and_eager_works(build):
    model, inputs = tiny.make(build)
    plan = AttentionPlan((4, 20), (0, 1, 2), Keep(), heads=(1, 2))
    with (
        pytest.raises(UnsupportedModelError, match="AttentionInterface.*capture.method=eager"),
        watch_attention(model, [{"a": plan}]),
    ):
        pass
    with watch_attention(model, [{"a": plan}], method="eager") as watched:
        model(**inputs)
    want = eager_patterns(model, inputs)[:, 0][:, 1:3][:, :, [4, 20]][..., :3]
    assert gap(watched.results[0]["a"].values, want) <= 2e-6
    assert watched.describe()["paths"] == ["eager"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (AttentionPlan((500,), (0,), Keep()), "1 queries are named up to token 500"),
        (AttentionPlan((5,), (0, 500), Keep()), "key column 500 is named"),
        (AttentionPlan((5,), (0,), Keep(), layers=(7,)), "no layer 7; it has 0 to 2"),
        (AttentionPlan((5,), (0,), Keep(), heads=(4,)), "head 4 is named"),
        (AttentionPlan((5,), (0,), Keep(), tower="vision"), "has no vision tower"),
        (AttentionPlan((5,), (0,), Keep(), tower="model.layer"), "no such sub.*model.layers"),
    ],
)
def test_plans_that_do_not_fit_are_explained(plan, message):
    model, inputs = tiny.make(tiny.llama)
    with (
        pytest.raises((ConfigError, UnsupportedModelError), match=message),
        watch_attention(model, [{"a": plan}]),
    ):
        model(**inputs)


@pytest.mark.parametrize("queries", [(), (3, 3), (4, 2), (-1, 2)])
def test_indices_must_be_increasing(queries):
    with pytest.raises(ConfigError, match="AttentionPlan.queries"):
        AttentionPlan(queries, None, Keep())


def test_a_batch_of_another_size_is_refused():
    model, _ = tiny.make(tiny.llama)
    with (
        pytest.raises(ConfigError, match="1 batch rows.*batch of 2"),
        watch_attention(model, [{"a": keep_all()}]),
    ):
        model(**tiny.text_inputs(batch=2))


def test_a_block_without_a_forward_is_refused():
    model, _ = tiny.make(tiny.llama)
    with (
        pytest.raises(UnsupportedModelError, match="no attention call"),
        watch_attention(model, [{"a": keep_all()}]),
    ):
        pass


# -- interventions ------------------------------------------------------------------------------


def eager_with(model, inputs, add):
    """Return eager logits and patterns with an additive (24, 24) mask in every layer and head."""
    causal = torch.zeros(24, 24).masked_fill(torch.ones(24, 24).triu(1).bool(), LOWEST)
    mask = (causal + add).clamp(min=LOWEST)[None, None]
    model.set_attn_implementation("eager")
    out = model(input_ids=inputs["input_ids"], attention_mask=mask, output_attentions=True)
    model.set_attn_implementation("sdpa")
    return out.logits, torch.stack(out.attentions)[:, 0]


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda b: b.__name__)
@pytest.mark.parametrize("factor", [0.0, 0.25, 3.0])
def test_blocking_and_scaling_equal_an_additive_mask(build, factor):
    model, inputs = tiny.make(build)
    queries, keys = (8, 9, 20, 21, 22), (1, 2, 5)
    change = (
        ScaleAttention(queries, keys, factor=factor) if factor else BlockAttention(queries, keys)
    )
    add = torch.zeros(24, 24)
    for q in queries:
        add[q, list(keys)] = torch.tensor(factor).log() if factor else LOWEST
    want_logits, want = eager_with(model, inputs, add)
    with watch_attention(model, [{"all": keep_all()}], [[change]]) as watched:
        out = model(**inputs)
    pattern = watched.results[0]["all"].values
    assert gap(out.logits, want_logits) <= 1e-5 * max(1.0, float(want_logits.abs().max()))
    assert gap(pattern, want) <= 5e-6
    assert gap(pattern.sum(-1), torch.ones(3, 4, 24)) <= 1e-5
    block = pattern[:, :, list(queries)][..., list(keys)]
    assert (block.max() == 0) == (factor == 0)
    assert watched.describe()["interventions"][0][0]["queries"] == queries


def test_blocking_concerns_its_layers_and_heads_only():
    model, inputs = tiny.make(tiny.llama)
    change = BlockAttention((10, 11), (0, 1), layers=(1,), heads=(2,))
    with watch_attention(model, [{"all": keep_all()}]) as before:
        model(**inputs)
    with watch_attention(model, [{"all": keep_all()}], [[change]]) as after:
        model(**inputs)
    blocked = after.results[0]["all"].values[:, :, 10:12, :2] == 0
    assert blocked[1, 2].all() and blocked.sum() == 4
    assert torch.equal(before.results[0]["all"].values[0], after.results[0]["all"].values[0])


def test_blocking_holds_during_generation_for_generated_tokens():
    model, inputs = tiny.make(tiny.llama)
    plans = [{"all": keep_all(when="all")}]
    with watch_attention(model, plans, [[BlockAttention(None, (3, 4), heads=(1,))]]) as watched:
        model.generate(**inputs, max_new_tokens=6, eos_token_id=None, do_sample=False)
    for step in watched.results[0]["all"].steps:
        assert step[:, 1, :, 3:5].max() == 0
        assert step[:, 0, -1, 3:5].min() > 0
        assert gap(step.sum(-1), torch.ones_like(step.sum(-1))) <= 1e-5


def test_blocking_everything_is_refused():
    model, inputs = tiny.make(tiny.llama)
    with (
        pytest.raises(ConfigError, match="without any key"),
        watch_attention(model, [{}], [[BlockAttention((0,), (0,))]]),
    ):
        model(**inputs)


def test_zeroing_heads_equals_zeroing_before_the_output_projection():
    model, inputs = tiny.make(tiny.llama)
    with watch_attention(model, [{}], [[ZeroHeads({1: (0, 3)})]]):
        ours = model(**inputs).logits

    def zero(module, args):
        states = args[0].clone()
        states[..., :8] = 0
        states[..., 24:] = 0
        return (states,)

    handle = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(zero)
    theirs = model(**inputs).logits
    handle.remove()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, model(**inputs).logits)


def test_rows_of_a_batch_are_changed_one_by_one():
    model, one = tiny.make(tiny.llama)
    batch = {k: torch.cat((v, v)) for k, v in one.items()}
    before = model(**batch).logits
    with watch_attention(model, [{}, {}], [[], [ZeroHeads({0: (1,)})]]):
        after = model(**batch).logits
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


# -- checks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "modality"),
    [(tiny.llava, "image"), (tiny.qwen2_5_vl, "image"), (tiny.omni, "audio")],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_live_check_passes_models_that_see(build, modality):
    model, inputs = tiny.make(build)
    assert live_check(lambda x: model(**x), inputs, modality) > 0


def test_live_check_stops_a_model_that_does_not_see():
    model, inputs = tiny.make(tiny.llava)
    text = model.model.language_model.embed_tokens

    def blind(x):
        return model(inputs_embeds=text(x["input_ids"]), attention_mask=x["attention_mask"])

    with pytest.raises(UnsupportedModelError, match="does not see its image"):
        live_check(blind, inputs, "image")


def test_live_check_stops_when_the_processor_gave_no_audio():
    model, inputs = tiny.make(tiny.llama)
    with pytest.raises(UnsupportedModelError, match="hold no audio tensor.*cannot hear"):
        live_check(lambda x: model(**x), inputs, "audio")


@pytest.mark.parametrize("query_rows", [None, 3])
@pytest.mark.parametrize(
    "build", [tiny.llama, tiny.mistral, tiny.gemma2, tiny.llava], ids=lambda b: b.__name__
)
def test_verify_agrees_with_the_models_own_eager_attention(build, query_rows):
    model, inputs = tiny.make(build)
    span = tuple(range(2, 22))
    plans = [
        {
            "max": AttentionPlan(span, (0, 1, 2), Max()),
            "mass": AttentionPlan(span, (1, 2), Sum(), heads=(0, 2)),
            "winner": AttentionPlan(span, (0, 1, 2), ArgMax("head")),
        }
    ]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    errors = eager_difference(
        lambda: model(**inputs), model, plans, watched.results, query_rows=query_rows
    )
    assert errors.keys() == plans[0].keys()
    assert errors["max"] <= 2e-6 and errors["mass"] <= 2e-6 and errors["winner"] <= 0.02


def test_verify_notices_wrong_numbers():
    model, inputs = tiny.make(tiny.llama)
    plans = [{"max": AttentionPlan((5, 6), (0, 1), Max())}]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    watched.results[0]["max"].steps[0][1, 2] += 0.01
    errors = eager_difference(lambda: model(**inputs), model, plans, watched.results)
    assert errors["max"] == pytest.approx(0.01, abs=1e-4)


# -- any shape, any span ------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_block_of_any_shape(data):
    length = data.draw(st.integers(1, 20))
    pad = data.draw(st.integers(0, 5))
    tokens = st.lists(st.integers(0, length - 1), min_size=1, unique=True).map(sorted).map(tuple)
    plan = AttentionPlan(data.draw(tokens), data.draw(tokens), Keep())
    model, _ = tiny.make(data.draw(st.sampled_from([tiny.llama, tiny.mistral, tiny.gpt2])))
    inputs = tiny.text_inputs(length + pad)
    inputs["attention_mask"][:, :pad] = 0
    with torch.no_grad():
        with watch_attention(model, [{"a": plan}]) as watched:
            model(**inputs)
        want = eager_patterns(model, inputs)[:, 0, :, pad:, pad:]
    want = want[:, :, list(plan.queries)][..., list(plan.keys)]
    assert gap(watched.results[0]["a"].values, want) <= 2e-6
