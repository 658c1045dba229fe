"""Where a call's queries and keys stand, however the model is reached and whatever it is given."""

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import eager_patterns, gap, keep_all, left_pad
from torch import nn
from transformers import DynamicCache, StaticCache

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep
from interp_lab.errors import UnsupportedModelError

LAST = [{"row": AttentionPlan("last", None, Keep())}]
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None, "do_sample": False}


class Wrapper(nn.Module):
    """Stands around a model as PEFT and others do: every argument is handed on, none is named."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.config, self.generation_config = inner.config, inner.generation_config

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)

    def generate(self, **kwargs):
        return self.inner.generate(**kwargs)


def rows_of(model, inputs, tower="language"):
    plans = [{"row": AttentionPlan("last", None, Keep(), tower=tower)}]
    [out] = generate_watched(model, inputs, [{}], plans, **OPTIONS)
    return out.tokens, out.decode["row"].steps


def wanted_rows(model, inputs, tokens):
    whole = torch.cat((inputs["input_ids"], tokens[None]), 1)
    whole = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
    want, n = eager_patterns(model, whole)[:, 0], inputs["input_ids"].shape[1]
    return [want[:, :, n + i : n + i + 1, : n + i + 1] for i in range(len(tokens) - 1)]


@pytest.mark.parametrize("tower", ["model.layers", "model.layers.1", "model.layers.1.self_attn"])
def test_a_path_below_the_stack_counts_the_same_columns(tower):
    model, inputs = tiny.make(tiny.llama)
    tokens, steps = rows_of(model, inputs, tower)
    layers = slice(None) if tower == "model.layers" else slice(1, 2)
    for step, want in zip(steps, wanted_rows(model, inputs, tokens), strict=True):
        assert gap(step, want[layers]) <= 5e-6


@pytest.mark.parametrize("given", [True, False], ids=["given mask", "mask of the call"])
@pytest.mark.parametrize("tower", ["model.layers", "model.layers.1"])
def test_padding_reaches_a_path_below_the_stack(tower, given):
    model, one = tiny.make(tiny.llama)
    short = {k: v[:, :15] for k, v in one.items()}
    batch = {k: torch.cat((v, left_pad(short, 9)[k])) for k, v in one.items()}
    plans = [{"a": keep_all(tower)}, {"a": keep_all(tower)}]
    mask = batch["attention_mask"] if given else None
    with watch_attention(model, plans, attention_mask=mask) as both:
        model(**batch)
    layers = slice(None) if tower == "model.layers" else slice(1, 2)
    for row, alone in enumerate((one, short)):
        want = eager_patterns(model, alone)[:, 0][layers]
        assert gap(both.results[row]["a"].values, want) <= 1e-5


def test_the_inner_model_may_be_called_without_the_outer_one():
    model, one = tiny.make(tiny.llama)
    short = {k: v[:, :15] for k, v in one.items()}
    batch = {k: torch.cat((v, left_pad(short, 9)[k])) for k, v in one.items()}
    with watch_attention(model, [{"a": keep_all()}, {"a": keep_all()}]) as both:
        model.model(**batch)
    assert gap(both.results[1]["a"].values, eager_patterns(model, short)[:, 0]) <= 1e-5


def test_a_wrapper_that_names_no_argument_changes_nothing():
    model, inputs = tiny.make(tiny.llama)
    tokens, steps = rows_of(Wrapper(model), inputs, "inner.model")
    for step, want in zip(steps, wanted_rows(model, inputs, tokens), strict=True):
        assert gap(step, want) <= 5e-6


@pytest.mark.slow
def test_a_compiled_model_changes_nothing():
    model, inputs = tiny.make(tiny.llama)
    compiled = torch.compile(model, backend="eager")
    with watch_attention(compiled, [{"a": keep_all("_orig_mod.model")}]) as watched:
        compiled(**inputs)
    assert gap(watched.results[0]["a"].values, eager_patterns(model, inputs)[:, 0]) <= 2e-6


@pytest.mark.parametrize("by_place", [False, True], ids=["by name", "by place"])
def test_a_loop_of_ones_own_with_a_cache(by_place):
    model, inputs = tiny.make(tiny.llama)
    cache, ids = DynamicCache(config=model.config), inputs["input_ids"]
    plan = {"row": AttentionPlan("last", None, Keep(), when="all")}
    with watch_attention(model, [plan]) as watched:
        for start, stop in ((0, 20), (20, 21), (21, 22)):
            part, mask = ids[:, start:stop], torch.ones(1, stop, dtype=torch.long)
            # The third place is the position ids', the fourth the cache's, in every version.
            if by_place:
                model(part, mask, None, cache)
            else:
                model(input_ids=part, attention_mask=mask, past_key_values=cache)
    want = eager_patterns(model, inputs)[:, 0]
    for step, stop in zip(watched.results[0]["row"].steps, (20, 21, 22), strict=True):
        assert gap(step, want[:, :, stop - 1 : stop, :stop]) <= 2e-6


@pytest.mark.parametrize("build", [tiny.llama, tiny.mistral], ids=["full", "window"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_each_cache(build, cache):
    model, inputs = tiny.make(build)
    # A model's compiled decoding is another matter: here only the cache differs.
    kind = (
        {"static": StaticCache(config=model.config, max_cache_len=40)} if cache == "static" else {}
    )
    options = {**OPTIONS, **({"past_key_values": kind["static"]} if kind else {})}
    options |= {"disable_compile": True} if kind else {}
    [out] = generate_watched(model, inputs, [{}], LAST, **options)
    wanted = wanted_rows(model, inputs, out.tokens)
    for step, want in zip(out.decode["row"].steps, wanted, strict=True):
        assert gap(step, want) <= 5e-6


def test_generation_without_a_cache_is_refused_for_decode_plans():
    model, inputs = tiny.make(tiny.llama)
    with pytest.raises(UnsupportedModelError, match="use_cache"):
        generate_watched(model, inputs, [{}], LAST, use_cache=False, **OPTIONS)
