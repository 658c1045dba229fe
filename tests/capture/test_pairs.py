"""Encoder, decoder and cross attention: each a tower with axes of its own, equal to eager.

The tolerance is 2e-5: sharpened weights give scores of some hundreds, and two fp32 kernels that sum
in another order were seen to differ by 1.5e-5.
"""

import pytest
import tiny_models as tiny
import tiny_pairs as pairs
import torch
from pattern_helpers import gap, keep_all

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan, BlockAttention
from interp_lab.capture.reduce import Keep, Sum
from interp_lab.capture.reference import Reference
from interp_lab.errors import ConfigError, UnsupportedModelError

TOWERS = ("encoder", "decoder", "cross")
OWN = {
    "encoder": "encoder_attentions",
    "decoder": "decoder_attentions",
    "cross": "cross_attentions",
}


def eager(model, inputs, **options):
    """The model's own three stacks of patterns, tower -> (layer, batch, head, query, key)."""
    model.set_attn_implementation("eager")
    try:
        output = model(**inputs, output_attentions=True, **options)
    finally:
        model.set_attn_implementation("sdpa")
    return {tower: torch.stack(list(getattr(output, name))) for tower, name in OWN.items()}


@pytest.mark.parametrize("build", pairs.PAIRS, ids=lambda b: b.__name__)
def test_the_three_towers_equal_eager_at_once(build):
    model, inputs = tiny.make(build)
    plans = [{tower: keep_all(tower) for tower in TOWERS}]
    reference = Reference(plans, inputs.get("attention_mask"))
    with watch_attention(model, plans, reference=reference) as watched:
        model(**inputs)
    want = eager(model, inputs)
    for tower in TOWERS:
        assert gap(watched.results[0][tower].values, want[tower][:, 0]) <= 2e-5, tower
    found = reference.findings(watched.results)
    assert found.keys() == set(TOWERS) and all(f.holds for f in found.values())


@pytest.mark.parametrize(("read", "written"), [(15, 17), (4, 17), (12, 12), (17, 1)])
def test_cross_attention_has_a_key_axis_of_its_own(read, written):
    model, inputs = tiny.make(tiny.bart)
    inputs = pairs.seq2seq_inputs(read, written)
    first = AttentionPlan((0,), (0, 1, 2), Sum(("key",)), tower="cross")
    whole = keep_all("cross")
    with watch_attention(model, [{"first": first, "whole": whole}]) as watched:
        model(**inputs)
    want = eager(model, inputs)["cross"][:, 0]
    assert want.shape[-2:] == (written, read)
    assert gap(watched.results[0]["whole"].values, want) <= 2e-5
    mass = want[:, :, 0, :3].sum(-1)
    assert gap(watched.results[0]["first"].values.squeeze(), mass.squeeze()) <= 2e-5


@pytest.mark.parametrize("given", [True, False], ids=["given mask", "mask of the call"])
@pytest.mark.parametrize("build", [tiny.bart, pairs.t5], ids=["bart", "t5"])
def test_padding_of_both_sides(build, given):
    """Row 1 reads 11 of 17 tokens and has written 3 of 6; each row equals a batch of one."""
    # T5 does not scale its scores down: smaller weights keep fp32's own rounding small.
    model, _ = tiny.make(build, scale=3.0)
    long, short = pairs.seq2seq_inputs(17, 6), pairs.seq2seq_inputs(11, 3)
    batch = {
        "input_ids": torch.cat((long["input_ids"], pad(short["input_ids"], 6, 0))),
        "attention_mask": torch.cat((torch.ones(1, 17), pad(torch.ones(1, 11), 6, 0))).long(),
        "decoder_input_ids": torch.cat(
            (long["decoder_input_ids"], pad(short["decoder_input_ids"], 3, 0))
        ),
        "decoder_attention_mask": torch.cat((torch.ones(1, 6), pad(torch.ones(1, 3), 3, 0))).long(),
    }
    plans = [{tower: keep_all(tower) for tower in TOWERS}] * 2
    mask = batch["attention_mask"] if given else None
    with watch_attention(model, plans, attention_mask=mask) as watched:
        model(**batch)
    for row, alone in enumerate((long, short)):
        want = eager(model, alone)
        for tower in TOWERS:
            assert gap(watched.results[row][tower].values, want[tower][:, 0]) <= 2e-5, (row, tower)


def pad(tensor, by, value):
    return torch.nn.functional.pad(tensor, (0, by), value=value)


@pytest.mark.parametrize("build", [tiny.bart, pairs.t5], ids=["bart", "t5"])
def test_each_written_token_equals_a_forward_over_everything(build):
    model, inputs = tiny.make(build)
    inputs = {k: v for k, v in inputs.items() if k != "decoder_input_ids"}
    last = {t: AttentionPlan("last", None, Keep(), tower=t) for t in ("decoder", "cross")}
    [out] = generate_watched(
        model, inputs, [last], [last], max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    plain = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert out.tokens.tolist() == plain[0, 1:].tolist()
    start = torch.tensor([[model.generation_config.decoder_start_token_id]])
    whole = {**inputs, "decoder_input_ids": torch.cat((start, out.tokens[None]), 1)}
    want = eager(model, whole)
    for i, step in enumerate(out.decode["cross"].steps):
        assert gap(step, want["cross"][:, 0, :, i + 1 : i + 2]) <= 2e-5
    for i, step in enumerate(out.decode["decoder"].steps):
        assert gap(step, want["decoder"][:, 0, :, i + 1 : i + 2, : i + 2]) <= 2e-5
    assert gap(out.prefill["cross"].values, want["cross"][:, 0, :, :1]) <= 2e-5


def test_a_block_in_cross_attention_equals_the_encoders_mask():
    model, inputs = tiny.make(tiny.bart)
    inputs = pairs.seq2seq_inputs(9, 4)
    block = BlockAttention(None, (0, 3), tower="cross")
    with watch_attention(model, [{"a": keep_all("cross")}], [[block]]) as watched:
        got = model(**inputs).logits
    states = model.get_encoder()(inputs["input_ids"], inputs["attention_mask"])
    mask = torch.ones(1, 9, dtype=torch.long)
    mask[:, [0, 3]] = 0
    want = model(
        encoder_outputs=states, attention_mask=mask, decoder_input_ids=inputs["decoder_input_ids"]
    ).logits
    assert gap(got, want) <= 2e-5
    assert watched.results[0]["a"].values[..., [0, 3]].max() == 0


def test_one_stack_by_path_and_name():
    model, inputs = tiny.make(tiny.bart)
    towers = ("model.decoder:encoder_attn", "model.decoder:self_attn", "model.decoder.layers.1")
    plans = [{t: keep_all(t) for t in towers[:2]}]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    want = eager(model, inputs)
    assert gap(watched.results[0][towers[0]].values, want["cross"][:, 0]) <= 2e-5
    assert gap(watched.results[0][towers[1]].values, want["decoder"][:, 0]) <= 2e-5
    with watch_attention(model, [{"a": keep_all(towers[2])}]) as watched:
        model(**inputs)
    assert gap(watched.results[0]["a"].values, want["decoder"][1:, 0]) <= 2e-5


def test_what_an_encoder_decoder_has_is_said():
    model, _ = tiny.make(tiny.bart)
    with (
        pytest.raises(ConfigError, match="no language tower; it has encoder, decoder, cross"),
        watch_attention(model, [{"a": keep_all()}]),
    ):
        pass
    with (
        pytest.raises(UnsupportedModelError, match=r"2 stacks.*tower=model.encoder.layers:self"),
        watch_attention(model, [{"a": keep_all("model")}]),
    ):
        pass


def test_the_keys_of_a_qformer_are_the_pictures():
    model, inputs = tiny.make(pairs.qformer)
    plans = [{"cross": keep_all("cross"), "self": keep_all("encoder.layer")}]
    with watch_attention(model, plans) as watched:
        model(**inputs)
    model.set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True)
    assert watched.results[0]["cross"].values.shape[-2:] == (5, 9)
    # What it puts out has the layers' self attention and cross attention in turn.
    for name, n_keys in (("self", 5), ("cross", 9)):
        want = torch.stack([p[0] for p in output.attentions if p.shape[-1] == n_keys])
        assert gap(watched.results[0][name].values, want) <= 2e-5


def test_speech_is_counted_after_it_was_made_shorter():
    """The mask of 40 frames counts another axis than the encoder's 20 positions."""
    model, inputs = tiny.make(pairs.whisper)
    mask = torch.ones(1, 40, dtype=torch.long)
    mask[:, 30:] = 0
    plans = [{"encoder": keep_all("encoder"), "cross": keep_all("cross")}]
    with watch_attention(model, plans, attention_mask=mask) as watched:
        model(**inputs, attention_mask=mask)
    want = eager(model, inputs)
    assert gap(watched.results[0]["encoder"].values, want["encoder"][:, 0]) <= 2e-5
    assert gap(watched.results[0]["cross"].values, want["cross"][:, 0]) <= 2e-5


def test_stacks_of_a_pair_by_path_count_as_the_named_ones():
    """T5's attention takes no cache that its class names; that it is text its model says."""
    model, _ = tiny.make(pairs.t5, scale=3.0)
    batch = pairs.seq2seq_inputs(9, 4, batch=2)
    batch["attention_mask"][1, 6:] = 0
    same = {"encoder": "encoder.block", "cross": "decoder.block:EncDecAttention"}
    with watch_attention(model, [{t: keep_all(t) for t in same}] * 2) as named:
        model(**batch)
    with watch_attention(model, [{t: keep_all(t) for t in same.values()}] * 2) as by_path:
        model(**batch)
    for name, path in same.items():
        for row in (0, 1):
            first, second = named.results[row][name].values, by_path.results[row][path].values
            assert first.shape[-1] == (9, 6)[row] and gap(first, second) == 0


def test_a_name_that_is_only_a_path_is_a_path():
    model, inputs = tiny.make(pairs.swin)
    with watch_attention(model, [{"a": keep_all("encoder", layers=(0,))}]) as watched:
        model(**inputs)
    with watch_attention(model, [{"a": keep_all("vision", layers=(0,))}]) as named:
        model(**inputs)
    assert gap(watched.results[0]["a"].values, named.results[0]["a"].values) == 0


@pytest.mark.parametrize("tower", ["cross", "qformer:crossattention"])
def test_what_reads_pictures_for_a_text_has_no_padding_of_the_text(tower):
    model, inputs = tiny.make(pairs.blip2)
    two = {k: torch.cat((v, v)) for k, v in inputs.items()}
    two["attention_mask"][1, :2] = 0
    with watch_attention(model, [{"a": keep_all(tower)}] * 2) as watched:
        model(**two)
    with watch_attention(model, [{"a": keep_all(tower)}]) as alone:
        model(**inputs)
    want = alone.results[0]["a"].values
    assert want.shape == (2, 4, 5, 17)
    for row in (0, 1):
        assert gap(watched.results[row]["a"].values, want) <= 2e-5
