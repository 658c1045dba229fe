"""Flash and flex tell about masks in their own ways; all mean what the 4D mask means."""

import pytest
import torch
from pattern_helpers import gap
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask

from interp_lab.capture.blocks import row_output
from interp_lab.capture.masks import read_call
from interp_lab.errors import UnsupportedModelError

HEADS, KV, DIM = 4, 2, 8


class Causal(nn.Module):
    is_causal = True


def states(queries, keys):
    torch.manual_seed(0)
    shapes = (HEADS, queries), (KV, keys), (KV, keys)
    return [torch.randn(1, heads, n, DIM) for heads, n in shapes]


def reference(query, key, value, visible):
    """Attention as its definition says, (query, head, dim)."""
    key, value = (t.repeat_interleave(HEADS // KV, 1) for t in (key, value))
    scores = (query @ key.transpose(2, 3) * DIM**-0.5).masked_fill(~visible, -torch.inf)
    return (scores.softmax(-1) @ value)[0].transpose(0, 1)


def visible_places(queries, keys, window=None, segments=None, padding=0):
    q = torch.arange(queries)[:, None] + keys - queries
    k = torch.arange(keys)[None, :]
    visible = (k <= q) & (k >= padding)
    if window:
        visible &= k > q - window
    if segments is not None:
        visible = segments[:, None] == segments[None, :]
    return visible


@pytest.mark.parametrize(
    ("queries", "keys", "mask", "options", "meaning"),
    [
        (9, 9, None, {}, {}),
        (3, 9, None, {}, {}),
        (1, 9, None, {}, {}),
        (9, 9, None, {"sliding_window": 4}, {"window": 4}),
        (4, 9, torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1]]), {}, {"padding": 2}),
        (
            9,
            9,
            None,
            {"cu_seq_lens_q": torch.tensor([0, 4, 9]), "is_causal": False},
            {"segments": torch.tensor([0] * 4 + [1] * 5)},
        ),
    ],
    ids=["causal", "chunk", "decode", "window", "padding", "packed"],
)
def test_flash_arguments(queries, keys, mask, options, meaning):
    query, key, value = states(queries, keys)
    call = read_call("flash_attention_2", Causal(), query, key, mask, options)
    out, _ = row_output(call, 0, value[0], slice(0, queries))
    assert gap(out, reference(query, key, value, visible_places(queries, keys, **meaning))) < 1e-6


def test_packed_rows_under_flash_are_refused():
    query, key, _ = states(6, 6)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with pytest.raises(UnsupportedModelError, match="packs several sequences"):
        read_call("flash_attention_2", Causal(), query, key, None, {"position_ids": positions})


def test_arguments_that_cannot_be_followed_are_refused():
    query, key, _ = states(6, 6)
    with pytest.raises(UnsupportedModelError, match="'block_indices'"):
        read_call("sdpa", Causal(), query, key, None, {"block_indices": query})


def test_flex_block_mask():
    query, key, value = states(9, 9)

    def window(batch, head, q, k):
        return (k <= q) & (k > q - 4)

    mask = create_block_mask(window, 1, None, 9, 9, device="cpu")
    call = read_call("flex_attention", Causal(), query, key, mask, {})
    out, _ = row_output(call, 0, value[0], slice(0, 9))
    assert gap(out, reference(query, key, value, visible_places(9, 9, window=4))) < 1e-6


@pytest.mark.parametrize("causal", [True, False])
def test_position_bias_is_added(causal):
    query, key, value = states(9, 9)
    bias = torch.randn(1, HEADS, 9, 9)
    options = {"position_bias": bias, "is_causal": causal}
    call = read_call("sdpa", Causal(), query, key, None, options)
    out, _ = row_output(call, 0, value[0], slice(0, 9))
    visible = visible_places(9, 9) if causal else torch.ones(9, 9, dtype=torch.bool)
    k, v = (t.repeat_interleave(HEADS // KV, 1) for t in (key, value))
    scores = (query @ k.transpose(2, 3) * DIM**-0.5 + bias).masked_fill(~visible, -torch.inf)
    assert gap(out, (scores.softmax(-1) @ v)[0].transpose(0, 1)) < 1e-6
