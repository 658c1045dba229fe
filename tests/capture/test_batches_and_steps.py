"""Left padding, caches, prompts in parts and generation give the numbers of a plain forward."""

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import eager_patterns, gap, keep_all, left_pad
from transformers import DynamicCache, StaticCache

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Max, Mean
from interp_lab.errors import ConfigError, UnsupportedModelError

MODELS = [tiny.llama, tiny.mistral, tiny.gpt2, tiny.gemma2, tiny.gemma3_text]
STEPS = 12


def named(function):
    return function.__name__


@pytest.mark.parametrize("build", MODELS, ids=named)
def test_left_padded_batch_equals_batch_of_one(build):
    model, one = tiny.make(build)
    short = {k: v[:, :15] for k, v in one.items()}
    batch = {k: torch.cat((v, left_pad(short, 9)[k])) for k, v in one.items()}
    # GPT-2's positions are absolute: without these it would count the padding.
    batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    plan = AttentionPlan((1, 2, 14), (0, 3, 4), Keep())
    with watch_attention(model, [{"a": plan}, {"a": plan, "all": keep_all()}]) as both:
        model(**batch)
    for row, inputs in enumerate((one, short)):
        with watch_attention(model, [{"a": plan}]) as alone:
            model(**inputs)
        assert gap(both.results[row]["a"].values, alone.results[0]["a"].values) <= 1e-5
    assert gap(both.results[1]["all"].values, eager_patterns(model, short)[:, 0]) <= 1e-5


@pytest.mark.parametrize("build", [*MODELS, tiny.qwen2_5_vl, tiny.llava, tiny.omni], ids=named)
def test_generation_equals_one_forward_over_everything(build):
    model, inputs = tiny.make(build)
    last = [{"row": AttentionPlan("last", None, Keep())}]
    [out] = generate_watched(
        model, inputs, [{"all": keep_all()}], last, max_new_tokens=STEPS, eos_token_id=None
    )
    plain = model.generate(**inputs, max_new_tokens=STEPS, eos_token_id=None, do_sample=False)
    n = inputs["input_ids"].shape[1]
    assert torch.equal(out.tokens, plain[0, n:])
    whole = {**inputs, "input_ids": plain, "attention_mask": torch.ones_like(plain)}
    if "mm_token_type_ids" in whole:
        whole["mm_token_type_ids"] = (plain == 90).long()
    want = eager_patterns(model, whole)[:, 0]
    assert gap(out.prefill["all"].values, want[:, :, :n, :n]) <= 5e-6
    assert len(out.decode["row"].steps) == STEPS - 1
    for step, values in enumerate(out.decode["row"].steps):
        at = n + step
        assert gap(values, want[:, :, at : at + 1, : at + 1]) <= 5e-6


def test_generation_of_a_padded_batch_equals_batches_of_one():
    model, one = tiny.make(tiny.llama)
    short = {k: v[:, :15] for k, v in one.items()}
    batch = {k: torch.cat((v, left_pad(short, 9)[k])) for k, v in one.items()}
    before = {"mass": AttentionPlan("last", (0, 1, 2), Mean(over=("head",)))}
    after = {"row": AttentionPlan("last", None, Max(over=("head",)))}
    options = {"max_new_tokens": STEPS, "eos_token_id": None, "do_sample": False}
    both = generate_watched(model, batch, [before] * 2, [after] * 2, **options)
    for row, inputs in enumerate((one, short)):
        [alone] = generate_watched(model, inputs, [before], [after], **options)
        assert torch.equal(both[row].tokens, alone.tokens)
        assert gap(both[row].prefill["mass"].values, alone.prefill["mass"].values) <= 1e-5
        for ours, theirs in zip(
            both[row].decode["row"].steps, alone.decode["row"].steps, strict=True
        ):
            assert gap(ours, theirs) <= 1e-5


def test_generated_rows_end_with_their_end_token():
    model, inputs = tiny.make(tiny.llama)
    free = model.generate(**inputs, max_new_tokens=8, eos_token_id=None, do_sample=False)
    end = int(free[0, -4])
    model.generation_config.eos_token_id = end
    row = {"row": AttentionPlan("last", None, Keep())}
    [out] = generate_watched(model, inputs, [{}], [row], max_new_tokens=8, do_sample=False)
    assert out.tokens[-1] == end
    assert len(out.decode["row"].steps) == len(out.tokens) - 1


def test_sampling_with_a_seed_repeats_and_leaves_the_random_state_alone():
    model, inputs = tiny.make(tiny.llama)
    options = {"max_new_tokens": 10, "do_sample": True, "seed": 3, "eos_token_id": None}
    state = torch.get_rng_state()
    runs = [generate_watched(model, inputs, [{}], [{}], **options)[0] for _ in range(2)]
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert torch.equal(state, torch.get_rng_state())


def test_beams_are_refused():
    model, inputs = tiny.make(tiny.llama)
    with pytest.raises(ConfigError, match="num_beams"):
        generate_watched(model, inputs, [{}], [{}], num_beams=2)


def test_a_generation_that_leaves_out_part_of_its_prompt_is_refused(monkeypatch):
    """As BLIP's, whose new tokens do not begin where its inputs end."""
    model, inputs = tiny.make(tiny.llama)
    own = type(model).generate

    def generate(self, input_ids, attention_mask, **options):
        shorter = {"input_ids": input_ids[:, :-1], "attention_mask": attention_mask[:, :-1]}
        return own(self, **shorter, **options)

    monkeypatch.setattr(type(model), "generate", generate)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    first = int(model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] - 1])
    inputs["input_ids"][0, -1] = (first + 1) % 50
    row = {"row": AttentionPlan("last", None, Keep())}
    with pytest.raises(UnsupportedModelError, match="does not continue the tokens"):
        generate_watched(model, inputs, [{}], [row], **options)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("build", [tiny.llama, tiny.mistral], ids=named)
def test_prompt_in_parts_equals_prompt_in_one(build, cache):
    model, inputs = tiny.make(build)
    kind = StaticCache if cache == "static" else DynamicCache
    options = {"config": model.config, **({"max_cache_len": 40} if cache == "static" else {})}
    past = kind(**options)
    plan = {"all": keep_all(), "last": AttentionPlan("last", (0, 5), Keep())}
    mask = inputs["attention_mask"]
    with watch_attention(model, [plan], attention_mask=mask) as parts:
        for start, stop in ((0, 10), (10, 11), (11, 24)):
            model(
                input_ids=inputs["input_ids"][:, start:stop],
                attention_mask=mask[:, :stop],
                past_key_values=past,
            )
    want = eager_patterns(model, inputs)[:, 0]
    assert gap(parts.results[0]["all"].values, want) <= 2e-6
    assert gap(parts.results[0]["last"].values, want[:, :, -1:][..., [0, 5]]) <= 2e-6


def test_many_decode_steps_wait_without_changing_a_number(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    rows = [{"row": AttentionPlan("last", None, Keep())}]
    options = {"max_new_tokens": 20, "eos_token_id": None, "do_sample": False}
    [bulk] = generate_watched(model, inputs, [{}], rows, **options)
    monkeypatch.setattr("interp_lab.capture.decode.MAX_STEPS", 1)
    [single] = generate_watched(model, inputs, [{}], rows, **options)
    for ours, theirs in zip(bulk.decode["row"].steps, single.decode["row"].steps, strict=True):
        assert gap(ours, theirs) <= 1e-6


def test_each_forward_in_a_block_is_a_step():
    model, inputs = tiny.make(tiny.llama)
    with watch_attention(model, [{"a": AttentionPlan((3,), (0, 1), Keep())}]) as watched:
        model(**inputs)
        model(**tiny.text_inputs())
    assert watched.results[0]["a"].values.shape == (2, 3, 4, 1, 2)


def test_steps_keep_their_order_when_a_window_begins_to_slide():
    """The first steps wait for others; those after the window is full are computed at once."""
    model, inputs = tiny.make(tiny.mistral)
    inputs = {k: v[:, :3] for k, v in inputs.items()}
    plan = {"row": AttentionPlan("last", None, Keep())}
    [out] = generate_watched(
        model, inputs, [{}], [plan], max_new_tokens=12, eos_token_id=None, do_sample=False
    )
    whole = torch.cat((inputs["input_ids"], out.tokens[None]), 1)
    want = eager_patterns(model, {"input_ids": whole, "attention_mask": torch.ones_like(whole)})
    for i, step in enumerate(out.decode["row"].steps):
        assert gap(step, want[:, 0, :, 3 + i : 4 + i, : 4 + i]) <= 5e-6, i
