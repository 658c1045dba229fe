"""An intervention or a gate change that changes nothing is refused, and the error says why."""

from typing import Any

import pytest
import tiny_models as tiny
import torch
from pattern_helpers import keep_all
from torch import nn

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.gates import watch_gates
from interp_lab.capture.plans import (
    BlockAttention,
    ClampGate,
    ScaleAttention,
    SetGate,
    ZeroHeads,
)
from interp_lab.errors import ConfigError, UnsupportedModelError


def run(build: Any, changes: list[Any], implementation: str = "sdpa", **more: Any) -> None:
    """Run a model of one row under the changes."""
    model, inputs = tiny.make(build)
    model.set_attn_implementation(implementation)
    with watch_attention(model, [{}], [changes]):
        model(**inputs, **more)


CAUSAL = {
    "a query beyond the prompt": (
        BlockAttention((500,), (0,)),
        "row 0 .BlockAttention. changed nothing: query token 500 is named, but the model read 24",
    ),
    "a key beyond the prompt": (
        BlockAttention((5,), (500,)),
        "key token 500 is named, but the model read 24",
    ),
    "keys after their queries": (BlockAttention((5, 6), (7, 9)), "own mask.*layers 0 to 2"),
    "the same in one layer": (BlockAttention((5, 6), (7,), layers=(1,)), r"layer 1\)"),
    "scaled keys after their queries": (ScaleAttention((5,), (7,), factor=2.0), "own mask"),
    "all keys scaled alike": (ScaleAttention((5,), None, factor=2.0), "softmax takes out"),
    "all keys of the prompt": (
        ScaleAttention((5,), tuple(range(6)), factor=2.0),
        "softmax takes out",
    ),
}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_change_of_no_score_is_refused_and_explained(name: str, implementation: str) -> None:
    change, says = CAUSAL[name]
    with pytest.raises(ConfigError, match=says):
        run(tiny.llama, [change], implementation)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "change",
    [
        BlockAttention((5, 500), (4, 600)),
        BlockAttention((5, 6), (6,)),
        BlockAttention(None, (20,), layers=(2,), heads=(3,)),
        ScaleAttention((5,), (0, 1, 2, 3, 4), factor=2.0),
        ScaleAttention((5,), (3,), factor=1.0),
    ],
    ids=repr,
)
def test_a_change_of_one_score_is_enough(change: Any, implementation: str) -> None:
    run(tiny.llama, [change], implementation)


def test_the_number_of_the_intervention_is_named() -> None:
    good, bad = BlockAttention((5,), (4,)), BlockAttention((5,), (6,))
    with pytest.raises(ConfigError, match=r"intervention 1 of row 0 \(BlockAttention\)"):
        run(tiny.llama, [good, bad])


def test_the_row_is_named_and_the_others_do_not_stand_in_for_it() -> None:
    model, one = tiny.make(tiny.llama)
    batch = {k: torch.cat((v, v)) for k, v in one.items()}
    change = BlockAttention((5,), (2, 23))
    with watch_attention(model, [{}, {}], [[change], [change]]):
        model(**batch)
    bad = BlockAttention((5,), (23,))
    with (
        pytest.raises(ConfigError, match="intervention 0 of row 1"),
        watch_attention(model, [{}, {}], [[change], [bad]]),
    ):
        model(**batch)


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_no_score(left: bool) -> None:
    """Token 19 is the last of a row of 20; token 20 of the same mask is padding or not there."""
    model, inputs = tiny.make(tiny.llama)
    mask = inputs["attention_mask"]
    mask[:, slice(0, 4) if left else slice(20, 24)] = 0

    def block(query: int, key: int) -> None:
        with watch_attention(model, [{}], [[BlockAttention((query,), (key,))]]):
            model(**inputs)

    block(19, 18)
    for query, key, says in ((18, 19, "own mask"), (20, 3, "query token 20"), (19, 20, "key")):
        with pytest.raises(ConfigError, match=says):
            block(query, key)


@pytest.mark.parametrize(
    ("layers", "refused"), [((0,), True), ((1,), False), ((0, 1), False), (None, False)]
)
def test_a_sliding_window_hides_scores(layers: Any, refused: bool) -> None:
    """Layers 0 and 2 see 7 tokens back, layers 1 and 3 see all."""
    change = BlockAttention((20,), (1, 2), layers=layers)
    if not refused:
        run(tiny.gemma3_text, [change])
        return
    with pytest.raises(ConfigError, match=r"window.*layer 0"):
        run(tiny.gemma3_text, [change])


def test_a_scale_of_what_is_blocked_is_refused() -> None:
    block, scale = BlockAttention((9,), (1, 2)), ScaleAttention((9,), (2,), factor=3.0)
    with pytest.raises(ConfigError, match="intervention 1.*blocked by another"):
        run(tiny.llama, [block, scale])
    run(tiny.llama, [block, ScaleAttention((9,), (2, 3), factor=3.0)])


def test_a_generation_counts_as_a_whole() -> None:
    model, inputs = tiny.make(tiny.llama)
    options = {"max_new_tokens": 4, "eos_token_id": None, "do_sample": False}
    for change in (BlockAttention((25,), (1,)), BlockAttention((5,), (1,))):
        with watch_attention(model, [{}], [[change]]):
            model.generate(**inputs, **options)
    with (
        pytest.raises(ConfigError, match="query token 27 is named, but the model read 27"),
        watch_attention(model, [{}], [[BlockAttention((27,), (1,))]]),
    ):
        model.generate(**inputs, **options)


def test_a_tower_that_was_not_called_is_named() -> None:
    model, inputs = tiny.make(tiny.llava)
    text = {**inputs, "pixel_values": None, "input_ids": tiny.ids(1, 24)}
    text = {k: v[:, :24] if k == "attention_mask" else v for k, v in text.items()}
    for change in (BlockAttention((1,), (0,), tower="vision"), ZeroHeads({0: (1,)}, "vision")):
        with (
            pytest.raises(ConfigError, match="no attention call of the vision tower"),
            watch_attention(model, [{}], [[change]]),
        ):
            model(**text)


def test_a_block_without_any_call_is_refused() -> None:
    model, _ = tiny.make(tiny.llama)
    with (
        pytest.raises(ConfigError, match="no attention call of the language tower"),
        watch_attention(model, [{}], [[ZeroHeads({0: (1,)})]]),
    ):
        pass


@pytest.mark.parametrize(
    "change", [BlockAttention((5,), (1,), layers=(0, 2)), ZeroHeads({2: (1,)})]
)
def test_a_layer_that_was_not_called_is_named(change: Any) -> None:
    model, inputs = tiny.make(tiny.llama)

    def run_two_layers() -> None:
        kept = model.model.layers
        model.model.layers = kept[:2]
        model.config.num_hidden_layers = 2
        model(**inputs, use_cache=False)
        model.model.layers = kept
        model.config.num_hidden_layers = 3

    with (
        pytest.raises(ConfigError, match="layer 2 was never called"),
        watch_attention(model, [{}], [[change]]),
    ):
        run_two_layers()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (BlockAttention((), (1,)), "queries are empty"),
        (BlockAttention((1,), ()), "keys are empty"),
        (BlockAttention((1,), (0,), layers=()), "layers are empty"),
        (BlockAttention((1,), (0,), heads=()), "heads are empty"),
        (ZeroHeads({}), "heads are empty"),
        (ZeroHeads({1: ()}), "heads are empty"),
    ],
    ids=repr,
)
def test_what_names_nothing_is_refused_before_the_model_runs(change: Any, says: str) -> None:
    model, _ = tiny.make(tiny.llama)
    with pytest.raises(ConfigError, match=says), watch_attention(model, [{}], [[change]]):
        raise AssertionError


@pytest.mark.parametrize(("first", "second"), [((0, 15), (16, 30)), ((20, 31), (3,))])
def test_images_packed_into_one_row_do_not_see_each_other(first: Any, second: Any) -> None:
    """Two pictures of 16 patches: each is a call of its own under sdpa."""
    model, inputs = tiny.make(tiny.qwen2_vl)
    pixels = {
        "pixel_values": torch.randn(32, 96),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
    }
    vision = model.model.visual

    def block(queries: Any, keys: Any) -> None:
        change = BlockAttention(queries, keys, tower="vision")
        with watch_attention(model, [{}], [[change]]):
            vision(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])

    del inputs
    with pytest.raises(ConfigError, match="no attention call held both"):
        block(first, second)
    block((0, 20), (5, 31))


# -- gates --------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two gates, of which the second is used if asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, both: bool = False) -> torch.Tensor:
        x = x * torch.sigmoid(self.first(x))
        return x * torch.sigmoid(self.second(x)) if both else x


@pytest.mark.parametrize(
    "change",
    [SetGate(("second",), 0.5, "sigmoid"), ClampGate(("first", "second"), 0.1, 0.9, "sigmoid")],
)
def test_a_gate_that_did_not_run_was_not_changed(change: Any) -> None:
    network, x = Two(), torch.ones(1, 3)
    with (
        pytest.raises(ConfigError, match="gate change 0 .* changed nothing: second did not run"),
        watch_gates(network, [{}], [change]),
    ):
        network(x)
    with watch_gates(network, [{}], [change]):
        network(x, both=True)


# -- dropout ------------------------------------------------------------------------------------


def _dropping(implementation: str) -> tuple[nn.Module, dict[str, Any]]:
    config = tiny.tf.LlamaConfig(**tiny.GQA, attention_dropout=0.5)
    model, inputs = tiny.make(lambda: (tiny.tf.LlamaForCausalLM(config), tiny.text_inputs()))
    model.set_attn_implementation(implementation)
    return model, inputs


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["fused", "eager", "eager_rows"])
def test_dropped_attention_is_refused_and_eval_mode_is_not(
    method: Any, implementation: str
) -> None:
    model, inputs = _dropping(implementation)
    with watch_attention(model, [{"a": keep_all()}], method=method):
        model(**inputs)
    model.train()
    with (
        pytest.raises(ConfigError, match=r"layers\.0\.self_attn: drops 0\.5 .*model\.eval\(\)"),
        watch_attention(model, [{"a": keep_all()}], method=method),
    ):
        model(**inputs)


def test_changed_rows_under_dropout_are_refused_and_zeroed_heads_are_not() -> None:
    model, inputs = _dropping("sdpa")
    model.train()
    with (
        pytest.raises(ConfigError, match="drops 0.5"),
        watch_attention(model, [{}], [[BlockAttention((5,), (1,))]]),
    ):
        model(**inputs)
    with watch_attention(model, [{}], [[ZeroHeads({1: (0,)})]]):
        model(**inputs)


def test_train_mode_without_dropout_is_watched() -> None:
    model, inputs = tiny.make(tiny.llama)
    with watch_attention(model.train(), [{"a": keep_all()}]):
        model(**inputs)


def test_an_attention_of_the_models_own_that_drops_is_refused() -> None:
    model, inputs = tiny.make(tiny.bloom)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    with (
        pytest.raises((ConfigError, UnsupportedModelError), match="drops 0.1"),
        watch_attention(model, [{"a": keep_all()}], method="eager"),
    ):
        model(**inputs)
