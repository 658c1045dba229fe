"""The log-sum-exp of each kind of kernel: found, told apart, and exact beside the model's own."""

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import eager_patterns, gap, keep_all, left_pad
from torch.nn.attention import flex_attention as flex
from torch.nn.functional import pad
from transformers.integrations import flex_attention as file

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.blocks import ACCELERATOR_CHUNK, CHUNK, chunk_numbers
from interp_lab.capture.kernels import FlexWitness, lse_rows
from interp_lab.capture.masks import Call
from interp_lab.capture.reference import Reference
from interp_lab.libraries.huggingface import overlay, set_implementation


@torch.library.custom_op("flash_attn_of_the_tests::_flash_attn_forward", mutates_args=())
def flash_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token, head, dim) without padding, one sequence: what a flash-attention package returns."""
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    k, v = (x.repeat_interleave(len(q) // len(k), 0) for x in (k, v))
    scores = (q @ k.transpose(1, 2)) * scale
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
    scores = scores.masked_fill(~hidden, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).contiguous(), scores.logsumexp(-1)


def as_flash(module, query, key, value, mask, scaling=None, **kwargs):
    """Stands where transformers' flash attention does: unpads, runs the kernel, pads again."""
    outputs = []
    for row in range(len(query)):
        real = slice(0, None) if mask is None else mask[row, -key.shape[2] :].bool()
        q, k, v = (x[row].transpose(0, 1)[real] for x in (query, key, value))
        out, _ = torch.ops.flash_attn_of_the_tests._flash_attn_forward(q, k, v, scaling)
        outputs.append(pad(out, (0, 0, 0, 0, query.shape[2] - len(out), 0)))
    return torch.stack(outputs), None


def test_a_flash_package_gives_its_lse():
    model, inputs = tiny.make(tiny.llama)
    want = eager_patterns(model, inputs)[:, 0]
    set_implementation(model.config, "flash_attention_2")
    reference = Reference([{"all": keep_all()}], inputs["attention_mask"])
    with (
        overlay("flash_attention_2", as_flash),
        watch_attention(model, [{"all": keep_all()}], reference=reference) as watched,
    ):
        model(**inputs)
    assert gap(watched.results[0]["all"].values, want) <= 2e-6
    assert watched.describe()["paths"] == ["lse"]
    assert watched.describe()["kernels"] == ["flash_attn_of_the_tests"]
    assert reference.findings(watched.results)["all"].holds


def test_several_kernel_runs_in_one_call_give_way_to_rows():
    model, one = tiny.make(tiny.llama)
    short = {k: v[:, :15] for k, v in one.items()}
    batch = {k: torch.cat((v, left_pad(short, 9)[k])) for k, v in one.items()}
    want = eager_patterns(model, short)[:, 0]
    set_implementation(model.config, "flash_attention_2")
    with (
        overlay("flash_attention_2", as_flash),
        watch_attention(model, [{"all": keep_all()}] * 2) as watched,
    ):
        model(**batch)
    assert gap(watched.results[1]["all"].values, want) <= 1e-5
    assert watched.describe()["paths"] == ["rows"]


def call(batch=2, heads=3, queries=5, padding=None) -> Call:
    states = torch.zeros(batch, heads, queries, 4)
    return Call(states, states, 1.0, padding=padding)


def test_an_lse_of_packed_rows_is_put_back_in_place():
    padding = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    packed = torch.arange(24.0).view(3, 8)
    rows = lse_rows(packed, call(padding=padding))
    assert rows is not None
    assert torch.equal(rows[0, :, 2:], packed[:, :3]) and torch.equal(rows[1], packed[:, 3:])
    assert torch.isinf(rows[0, :, :2]).all()


@pytest.mark.parametrize(
    "lse",
    [
        None,
        torch.tensor(1.0),
        torch.zeros(0),
        torch.zeros(2, 3, 0),
        torch.zeros(3, 9),
        torch.zeros(2, 2, 5),
    ],
)
def test_what_cannot_be_an_lse_is_none(lse):
    assert lse_rows(lse, call()) is None


def test_rows_that_a_kernel_rounded_up_are_cut():
    rows = lse_rows(torch.arange(48.0).view(2, 3, 8), call())
    assert rows is not None and rows.shape == (2, 3, 5) and rows[0, 1, 0] == 8


def test_flex_attention_gives_its_lse_before_it_is_rounded(monkeypatch):
    monkeypatch.setattr(
        file,
        "compile_friendly_flex_attention",
        lambda q, k, v, training=False, **rest: flex.flex_attention(q, k, v, **rest),
    )
    q, k, v = torch.randn(3, 1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    before = file.compile_friendly_flex_attention
    with FlexWitness() as witness:
        file.compile_friendly_flex_attention(q, k, v, **file.get_flex_attention_lse_kwargs(True))
    assert file.compile_friendly_flex_attention is before
    want = (q.double() @ k.double().transpose(2, 3) / 4).logsumexp(-1)
    assert witness.lse is not None and witness.lse.dtype == torch.float32
    assert gap(witness.lse, want.float()) <= 1e-5


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_exact_where_a_user_allows_rounding(precision):
    model, inputs = tiny.make(tiny.qwen2)
    before = torch.get_float32_matmul_precision()
    reference = Reference([{"all": keep_all()}], inputs["attention_mask"])
    torch.set_float32_matmul_precision(precision)
    try:
        with watch_attention(model, [{"all": keep_all()}], reference=reference) as watched:
            model(**inputs)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert reference.findings(watched.results)["all"].difference <= 1e-5


def test_a_chunk_is_small_on_a_cpu_and_large_elsewhere():
    assert chunk_numbers(torch.device("cpu")) == CHUNK
    assert chunk_numbers(torch.device("cuda")) == ACCELERATOR_CHUNK >= 2**25
