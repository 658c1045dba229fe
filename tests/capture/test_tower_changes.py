"""Interventions on vision and audio towers against attention worked out in float64.

The reference takes the queries, keys and values that a layer's own projections put out, does the
softmax in plain torch, and compares the output that the layer hands to its output projection and
the captured pattern. It shares no code with the capture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import keep_all
from torch import Tensor, nn

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import BlockAttention, ScaleAttention, ZeroHeads

# fp32 against float64: of a pattern, and of an output relative to its largest number.
TOLERANCE = 5e-6


@dataclass
class Tower:
    """One layer of a tower, and how it makes attention.

    Args:
        model: what is watched and called.
        inputs: of the call.
        name: of the tower.
        layer: index of the layer that is looked at.
        attention: the module.
        projections: names of the projections of queries, keys and values; one name for all three.
        out: name of the output projection.
        heads: their number.
        n: tokens in the sequence.
        parts: lengths of the packed sequences; one for no packing.
        turn: how queries and keys are turned by position; None for not at all.
    """

    model: nn.Module
    inputs: dict[str, Any]
    name: str
    layer: int
    attention: nn.Module
    projections: tuple[str, ...]
    out: str
    heads: int
    n: int
    parts: tuple[int, ...] = ()
    turn: Callable[[Tensor], Tensor] | None = None


def clip() -> Tower:
    config = tiny.tf.CLIPVisionConfig(**tiny.VISION)
    model, inputs = tiny.make(
        lambda: (tiny.tf.CLIPVisionModel(config), {"pixel_values": torch.randn(1, 3, 16, 16)})
    )
    attention = next(m for n, m in model.named_modules() if n.endswith("layers.1.self_attn"))
    names = "q_proj", "k_proj", "v_proj"
    return Tower(model, inputs, "vision", 1, attention, names, "out_proj", 4, 17)


def siglip_pair() -> Tower:
    config = tiny.tf.SiglipConfig(
        text_config={**tiny.TEXT, "num_hidden_layers": 1}, vision_config=tiny.VISION
    )
    # Its own initial weights are large: at the usual scale fp32 rounds its scores by 1e-5.
    model, _ = tiny.make(lambda: (tiny.tf.SiglipModel(config), {}), scale=2.0)
    inputs = {"pixel_values": torch.randn(1, 3, 16, 16)}
    attention = model.vision_model.encoder.layers[0].self_attn
    names = "q_proj", "k_proj", "v_proj"
    model_part = SiglipPart(model)
    path = "model.vision_model.encoder"
    return Tower(model_part, inputs, path, 0, attention, names, "out_proj", 4, 16)


class SiglipPart(nn.Module):
    """Calls the vision part of a pair alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model.vision_model(pixel_values=pixel_values)


def llava() -> Tower:
    model, inputs = tiny.make(tiny.llava)
    tower = model.model.vision_tower
    attention = next(m for n, m in tower.named_modules() if n.endswith("layers.0.self_attn"))
    names = "q_proj", "k_proj", "v_proj"
    return Tower(model, inputs, "vision", 0, attention, names, "out_proj", 4, 17)


def _pictures(*counts: int) -> list[Tensor]:
    """Return the tokens of pictures of so many merged patches, each between its marks."""
    marks = torch.tensor([[92]]), torch.tensor([[93]])
    return [t for n in counts for t in (marks[0], torch.full((1, n), 90), marks[1])]


def qwen2_vl() -> Tower:
    """Two pictures, of 4 x 4 and 4 x 8 patches, packed into one sequence."""
    model, inputs = tiny.make(tiny.qwen2_vl)
    grid = torch.tensor([[1, 4, 4], [1, 4, 8]])
    ids = torch.cat((tiny.ids(1, 3), *_pictures(4, 8), tiny.ids(1, 4)), 1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(48, 96),
        "image_grid_thw": grid,
        "mm_token_type_ids": (ids == 90).long(),
    }
    # Patches come in squares of 2 x 2; a head of 16 is turned by row in its first quarter of
    # pairs, by column in the second, base 10,000, halves paired.
    places = []
    for rows, cols in ((4, 4), (4, 8)):
        for r in range(0, rows, 2):
            for c in range(0, cols, 2):
                places += [(r, c), (r, c + 1), (r + 1, c), (r + 1, c + 1)]
    frequency = 10000.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angle = torch.tensor(places, dtype=torch.float64)[:, :, None] * frequency
    angle = angle.flatten(1).repeat(1, 2)

    def turn(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()

    attention = model.model.visual.blocks[1].attn
    return Tower(
        model, inputs, "vision", 1, attention, ("qkv",), "proj", 2, 48, parts=(16, 32), turn=turn
    )


def qwen2_audio() -> Tower:
    """100 frames of sound become 50 tokens."""
    audio = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 16,
        "max_source_positions": 50,
    }
    config = tiny.tf.Qwen2AudioConfig(
        audio_config={**audio, "model_type": "qwen2_audio_encoder"},
        text_config={**tiny.GQA, "model_type": "qwen2"},
        audio_token_index=90,
    )
    model, _ = tiny.make(lambda: (tiny.tf.Qwen2AudioForConditionalGeneration(config), {}))
    ids = torch.cat((tiny.ids(1, 3), torch.full((1, 25), 90), tiny.ids(1, 4)), 1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.randn(1, 16, 100),
        "feature_attention_mask": torch.ones(1, 100, dtype=torch.long),
    }
    found = [m for n, m in model.named_modules() if n.endswith("audio_tower.layers.1.self_attn")]
    names = "q_proj", "k_proj", "v_proj"
    return Tower(model, inputs, "audio", 1, found[0], names, "out_proj", 4, 50)


def whisper() -> Tower:
    config = tiny.tf.WhisperConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=30,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    inputs = {"input_features": torch.randn(1, 16, 60), "decoder_input_ids": tiny.ids(1, 5)}
    model, inputs = tiny.make(lambda: (tiny.tf.WhisperModel(config), inputs))
    attention = model.encoder.layers[0].self_attn
    names = "q_proj", "k_proj", "v_proj"
    return Tower(model, inputs, "encoder", 0, attention, names, "out_proj", 4, 30)


TOWERS = [clip, siglip_pair, llava, qwen2_vl, qwen2_audio, whisper]
QUERIES, KEYS = (0, 3, 4, 5, 9), (1, 2, 6)
CHANGES: dict[str, list[Any]] = {
    "block": [BlockAttention(QUERIES, KEYS)],
    "block for all queries in two heads": [BlockAttention(None, (2, 7), heads=(0, 1))],
    "scale": [ScaleAttention(QUERIES, KEYS, factor=4.0)],
    "zero": [ZeroHeads({0: (1,), 1: (0,)})],
    "all": [
        BlockAttention((0, 4), (3,), heads=(1,)),
        ScaleAttention((4, 5), (1, 2), factor=0.5),
        ZeroHeads({0: (0,), 1: (1,)}),
    ],
}


def on(tower: Tower, changes: list[Any]) -> list[Any]:
    """Return the changes for the tower's name."""
    found = []
    for change in changes:
        fields = {n: getattr(change, n) for n in change.__dataclass_fields__}
        found.append(type(change)(**{**fields, "tower": tower.name}))
    return found


class Tap:
    """Keeps what modules put out, and what the output projection gets."""

    def __init__(self, tower: Tower) -> None:
        self.kept: dict[str, list[Tensor]] = {}
        self._handles = []
        for name in tower.projections:
            module = getattr(tower.attention, name)
            self._handles.append(module.register_forward_hook(self._keep(name)))
        out = getattr(tower.attention, tower.out)
        self._handles.append(out.register_forward_pre_hook(self._keep("out")))

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, *output: Any) -> None:
            value = output[0] if output else inputs[0]
            self.kept.setdefault(name, []).append(value.detach().double())

        return keep

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def by_hand(tower: Tower, kept: dict[str, list[Tensor]], changes: list[Any]) -> Any:
    """Return pattern (head, query, key) and output (query, head x dim) of the tower's layer."""
    n, heads = tower.n, tower.heads
    whole = torch.cat([kept[p][0].reshape(n, -1) for p in tower.projections], -1)
    q, k, v = (s.view(n, heads, -1).transpose(0, 1) for s in whole.chunk(3, -1))
    if tower.turn is not None:
        q, k = tower.turn(q), tower.turn(k)
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    start = 0
    for size in tower.parts:
        scores[:, start : start + size, :start] = -torch.inf
        scores[:, start : start + size, start + size :] = -torch.inf
        start += size
    for change in changes:
        if isinstance(change, ZeroHeads):
            continue
        amount = torch.tensor(getattr(change, "factor", 0.0), dtype=torch.float64).log()
        for head in range(heads) if change.heads is None else change.heads:
            for query in range(n) if change.queries is None else change.queries:
                for key in change.keys:
                    scores[head, query, key] += amount
    pattern = scores.softmax(-1)
    out = pattern @ v
    for change in changes:
        if isinstance(change, ZeroHeads):
            out[list(change.heads[tower.layer])] = 0
    return pattern, out.transpose(0, 1).reshape(n, -1)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("build", TOWERS, ids=lambda b: b.__name__)
def test_a_changed_tower_equals_the_arithmetic(build: Callable[[], Tower], name: str) -> None:
    tower = build()
    changes = on(tower, CHANGES[name])
    tap = Tap(tower)
    with watch_attention(tower.model, [{"all": keep_all(tower.name)}], [changes]) as watched:
        tower.model(**tower.inputs)
    tap.close()
    pattern, output = by_hand(tower, tap.kept, changes)
    # What a changed layer hands on differs from what it would have without the change.
    _, unchanged = by_hand(tower, tap.kept, [])
    assert float((output - unchanged).abs().max()) > 1e-3 * float(unchanged.abs().max())
    got = tap.kept["out"][0].reshape(tower.n, -1)
    assert float((got - output).abs().max()) <= TOLERANCE * float(output.abs().max())
    captured = watched.results[0]["all"]
    assert [len(s) for s in captured.steps] == [len(captured.layers)]
    layer = captured.steps[0][captured.layers.index(tower.layer)]
    assert float((layer - pattern).abs().max()) <= TOLERANCE


def test_rows_of_a_batch_of_pictures_are_changed_apart() -> None:
    tower = clip()
    both = {"pixel_values": torch.randn(2, 3, 16, 16)}
    with torch.no_grad():
        before = tower.model(**both).last_hidden_state
        changes = on(tower, CHANGES["block"])
        with watch_attention(tower.model, [{}, {}], [[], changes]):
            after = tower.model(**both).last_hidden_state
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
