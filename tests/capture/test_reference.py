"""The check of captured numbers: passes right ones in every dtype, catches every planted fault."""

from dataclasses import replace

import pytest
import tiny_models as tiny
import torch
import transformers as tf
from pattern_helpers import left_pad

from interp_lab.capture import blocks, fused, observer, tally
from interp_lab.capture.attention import watch_attention
from interp_lab.capture.blocks import KeyPick
from interp_lab.capture.forwards import Forwards
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import ArgMax, Entropy, Keep, Max, Mean, Sum
from interp_lab.capture.reference import Reference
from interp_lab.capture.reference_rows import ReferenceCall
from interp_lab.libraries import huggingface

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAST = AttentionPlan("last", None, Keep(), when="all")


def ranged(dtype: torch.dtype) -> tf.PreTrainedModel:
    """A model whose queries and keys have the ranges of Qwen2-7B's: 28 heads on 4, width 128.

    Queries have a spread of 3.2 and reach 26, keys 25 and 225, in a few dimensions as there.
    """
    torch.manual_seed(0)
    config = tf.Qwen2Config(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=28,
        num_key_value_heads=4,
        head_dim=128,
        max_position_embeddings=512,
    )
    model = tf.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            for part, spread, top in (
                (attention.q_proj, 3.2, 26.0),
                (attention.k_proj, 25.0, 225.0),
            ):
                part.weight.normal_(0, spread / 8)
                part.bias.zero_()
                part.bias[::64] = top
    return model.to(dtype)


def padded_pair() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    one = tiny.text_inputs(40)
    short = {k: v[:, :25] for k, v in one.items()}
    return {k: torch.cat((v, left_pad(short, 15)[k])) for k, v in one.items()}


def checked(model, inputs, plans, steps=0):
    """What the check finds of one watched run."""
    mask = inputs.get("attention_mask")
    reference = Reference(plans, mask)
    with (
        torch.inference_mode(),
        watch_attention(model, plans, attention_mask=mask, reference=reference) as watched,
    ):
        if steps:
            options = {"eos_token_id": None, "do_sample": False, "pad_token_id": 0}
            model.generate(**inputs, max_new_tokens=steps, **options)
        else:
            model(**inputs)
    return reference.findings(watched.results), reference


def text_plans(n: int) -> dict[str, AttentionPlan]:
    span = tuple(range(2, n))
    return {
        "max": AttentionPlan(span, (0, 1, 2), Max(over=("query", "key"))),
        "mass": AttentionPlan(span, (1, 2), Sum(over=("key",)), heads=(0, 2)),
        "profile": AttentionPlan(None, None, Mean(over=("query",))),
        "winner": AttentionPlan(span, (0, 1, 2), ArgMax("head")),
        "entropy": AttentionPlan(span, None, Entropy()),
        "last": LAST,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_numbers_pass_at_real_ranges(dtype):
    model, inputs = ranged(DTYPES[dtype]), padded_pair()
    plans = [text_plans(40), text_plans(25)]
    found, reference = checked(model, inputs, plans, steps=12)
    assert not reference.unverified
    assert found.keys() == plans[0].keys()
    for name, finding in found.items():
        assert finding.holds, (name, finding)
        # Scaling |q| |k| reaches 2,500 here, of which fp32 keeps 3e-4 in a score.
        assert finding.bound < 6e-3


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_right_numbers_pass_in_half_precision_at_small_scores(scale, dtype):
    model, inputs = tiny.make(tiny.qwen2, scale)
    plans = [text_plans(24)]
    found, _ = checked(model.to(DTYPES[dtype]), inputs, plans, steps=8)
    assert all(f.holds for f in found.values()), found


@pytest.mark.parametrize(
    "build",
    [
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
    ],
    ids=lambda b: b.__name__,
)
def test_right_numbers_pass_on_every_model(build):
    model, inputs = tiny.make(build)
    n = inputs["input_ids"].shape[1]
    found, reference = checked(model, inputs, [text_plans(n)], steps=10)
    assert not reference.unverified
    assert all(f.holds for f in found.values()), found
    assert all(f.difference <= 1e-5 for f in found.values()), found


@pytest.mark.parametrize(
    ("build", "tower"),
    [
        (tiny.llava, "vision"),
        (tiny.qwen2_vl, "vision"),
        (tiny.qwen2_5_vl, "vision"),
        (tiny.omni, "audio"),
        (tiny.clip, "vision"),
        (tiny.clip, "language"),
    ],
)
def test_right_numbers_pass_in_every_tower(build, tower):
    model, inputs = tiny.make(build)
    plans = {
        "all": AttentionPlan((3, 8), (0, 4, 5), Keep(), tower=tower),
        "mean": AttentionPlan(None, None, Mean(over=("head",)), tower=tower),
    }
    found, reference = checked(model, inputs, [plans])
    assert not reference.unverified
    assert all(f.holds for f in found.values()), found


def wrong_scale(monkeypatch):
    read = fused.read_call
    monkeypatch.setattr(
        fused, "read_call", lambda *a: replace(c := read(*a), scaling=c.scaling * 1.05)
    )


def mask_off_by_one(monkeypatch):
    """The lse is trusted, but a block's mask lets every query see one key too many, or few."""
    places = observer.query_places
    monkeypatch.setattr(
        observer, "query_places", lambda c, e, d: places([x + 1 for x in c][:-1] + [c[-1]], e, d)
    )


def lse_of_another_head(monkeypatch):
    trusted = fused.FusedObserver._trusted_lse

    def rolled(self, *args):
        lse = trusted(self, *args)
        return None if lse is None else lse.roll(1, 1)

    monkeypatch.setattr(fused.FusedObserver, "_trusted_lse", rolled)


def shifted_keys(monkeypatch):
    pick = observer.key_places

    def shifted(columns, extent, device):
        found = pick(columns, extent, device)
        index = found.index
        if isinstance(index, slice):
            stop = min(index.stop + 1, extent.keys)
            index = slice(stop - (index.stop - index.start), stop)
        else:
            index = (index + 1).clamp(max=extent.keys - 1)
        return KeyPick(index, found.count, found.slots)

    monkeypatch.setattr(observer, "key_places", shifted)


def one_key_of_a_decode_step(monkeypatch):
    """Decode steps are placed one column too early, as a renamed argument once made us do."""
    true = Forwards.extents

    def lost(self, site, shape, mask):
        [found] = true(self, site, shape, mask)
        lost_one = found if shape.queries > 1 else replace(found, start=max(0, found.start - 1))
        return (lost_one,)

    monkeypatch.setattr(Forwards, "extents", lost)


def every_call_at_column_0(monkeypatch):
    """No call is placed after another, as when transformers renamed the cache's argument."""
    true = Forwards.extents
    monkeypatch.setattr(
        Forwards,
        "extents",
        lambda self, *about: tuple(replace(e, start=0) for e in true(self, *about)),
    )
    _without_other_checks(monkeypatch)


def _without_other_checks(monkeypatch):
    """Leave the fault to the reference alone: sums and placement are looked at as well."""
    monkeypatch.setattr(tally.Tally, "refuse_wrong_sum", lambda self, layer, off: None)
    monkeypatch.setattr(Forwards, "check", lambda *about: None)


FAULTS = [wrong_scale, mask_off_by_one, lse_of_another_head, shifted_keys]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_planted_faults_are_caught_at_real_ranges(monkeypatch, fault, dtype):
    model, inputs = ranged(DTYPES[dtype]), padded_pair()
    plans = [
        {"rows": AttentionPlan(tuple(range(5, 20)), tuple(range(3, 20)), Keep())},
        {"rows": AttentionPlan(tuple(range(5, 20)), tuple(range(3, 20)), Keep())},
    ]
    assert all(f.holds for f in checked(model, inputs, plans)[0].values())
    fault(monkeypatch)
    _without_other_checks(monkeypatch)
    found, _ = checked(model, inputs, plans)
    assert not found["rows"].holds, found
    if fault is not wrong_scale:  # which moves no weight by much
        assert found["rows"].difference > 10 * found["rows"].bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_misplaced_decode_steps_are_caught(monkeypatch, dtype):
    model, inputs = ranged(DTYPES[dtype]), padded_pair()
    one_key_of_a_decode_step(monkeypatch)
    _without_other_checks(monkeypatch)
    found, _ = checked(model, inputs, [{"last": LAST}, {"last": LAST}], steps=6)
    assert not found["last"].holds


@pytest.mark.parametrize("when", ["prefill", "decode", "all"])
def test_lost_and_invented_steps_are_caught(monkeypatch, when):
    model, inputs = tiny.make(tiny.llama)
    plans = [{"last": replace(LAST, when=when)}]
    assert all(f.holds for f in checked(model, inputs, plans, steps=6)[0].values())
    every_call_at_column_0(monkeypatch)
    found, reference = checked(model, inputs, plans, steps=6)
    assert not reference.unverified
    assert found["last"].difference == float("inf")


def test_an_output_that_is_no_number_is_caught():
    model, inputs = tiny.make(tiny.llama)
    run = huggingface.registered("sdpa")

    def broken(*args, **kwargs):
        output, rest = run(*args, **kwargs)
        return output.index_fill(1, torch.tensor([3]), torch.nan), rest

    plans = [{"all": AttentionPlan((3, 9), None, Keep(), layers=(0,))}]
    with huggingface.overlay("sdpa", broken):
        found, _ = checked(model, inputs, plans)
    assert not found["all"].holds and found["all"].output == float("inf")


def test_a_mask_that_is_understood_wrongly_shows_in_the_kernels_output(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    monkeypatch.setattr(
        ReferenceCall, "_unseen", lambda self, row, chunk, n: torch.zeros(1, len(chunk), n).bool()
    )
    found, _ = checked(model, inputs, [{"all": AttentionPlan((3, 9), None, Keep())}])
    assert found["all"].output > found["all"].output_bound


def test_without_memory_the_numbers_stay_and_are_said_to_be_unverified(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    plans = [text_plans(24)]
    with watch_attention(model, plans) as plain:
        model(**inputs)

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Reference, "_work_out", full)
    reference = Reference(plans, None)
    with watch_attention(model, plans, reference=reference) as watched:
        model(**inputs)
    assert reference.findings(watched.results) == {}
    assert set(reference.unverified.values()) == {"memory"}
    for name in plans[0]:
        assert torch.equal(watched.results[0][name].steps[0], plain.results[0][name].steps[0])


def test_chunks_do_not_change_what_is_found(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    whole, _ = checked(model, inputs, [text_plans(24)])
    monkeypatch.setattr("interp_lab.capture.reference_rows.CHUNK", 300)
    parts, _ = checked(model, inputs, [text_plans(24)])
    for name, finding in whole.items():
        assert parts[name].difference == pytest.approx(finding.difference, abs=1e-12)


def test_what_costs_too_much_is_checked_on_fewer_layers_or_said(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    plans = [{"all": AttentionPlan(None, None, Keep())}]
    one_layer = 24 * 24 * 32
    monkeypatch.setattr("interp_lab.capture.reference.BUDGET", {"cpu": 2 * one_layer})
    found, _ = checked(model, inputs, plans)
    assert found["all"].layers == 2
    monkeypatch.setattr("interp_lab.capture.reference.BUDGET", {"cpu": one_layer - 1})
    found, reference = checked(model, inputs, plans)
    assert found == {} and reference.unverified == {"all": "size"}


def test_a_kernel_with_a_wrong_lse_gives_way_to_full_rows(monkeypatch):
    model, inputs = tiny.make(tiny.llama)
    plans = [text_plans(24)]
    with watch_attention(model, plans) as plain:
        model(**inputs)
    lse = fused.lse_rows
    monkeypatch.setattr(
        fused, "lse_rows", lambda x, call: None if (y := lse(x, call)) is None else y + 0.1
    )
    found, _ = checked(model, inputs, plans)
    assert all(f.holds for f in found.values())
    with watch_attention(model, plans) as watched:
        model(**inputs)
    how = watched.describe()
    assert how["paths"] == ["rows"] and "log-sum-exp is off by 0.1" in how["notes"][0]
    assert plain.describe()["paths"] == ["lse"] and plain.describe()["notes"] == []
    assert blocks.CHUNK == 2**20
