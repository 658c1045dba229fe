"""What `interp_lab.libraries.huggingface` assumes of transformers, one test an assumption."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, WhisperConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP
from transformers.models.whisper.modeling_whisper import WhisperAttention

from interp_lab.errors import UnsupportedModelError
from interp_lab.libraries import huggingface as inside

SIZES = dict(
    hidden_size=32,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=40,
    max_position_embeddings=64,
)


def llama(attention: str = "sdpa") -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES)
    return LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()


def put(cache: object, layer: int, n: int) -> None:
    """Put `n` tokens into a cache, as an attention layer does."""
    states = torch.zeros(1, 2, n, 8)
    cache.update(states, states, layer)


class Call:
    """Keeps which cache an attention layer was called with, and how much it held before."""

    def __init__(self, module: nn.Module) -> None:
        self.caches: list[object] = []
        self.starts: list[int] = []
        self.handle = module.register_forward_pre_hook(self.hook, with_kwargs=True)

    def hook(self, module, args, kwargs) -> None:
        cache = inside.find_cache(args, kwargs)
        self.caches.append(cache)
        self.starts.append(-1 if cache is None else inside.seen_columns(cache, module.layer_idx))


def test_layers_look_their_function_up_by_the_name_in_their_configuration() -> None:
    calls = []
    model = llama()
    original = inside.registered("sdpa")
    assert inside.implementation_of(model.model.layers[0].self_attn.config) == "sdpa"

    def count(*args, **kwargs):
        calls.append(args[0])
        return original(*args, **kwargs)

    plain = model(torch.arange(5)[None]).logits
    with inside.overlay("sdpa", count):
        assert inside.registered("sdpa") is count
        watched = model(torch.arange(5)[None]).logits
    assert calls == [layer.self_attn for layer in model.model.layers]
    assert torch.equal(plain, watched)
    assert inside.registered("sdpa") is original


def test_overlays_nest_and_are_undone_after_an_exception() -> None:
    registry, before = ALL_ATTENTION_FUNCTIONS, inside.registered("sdpa")
    local = dict(registry._local_mapping)

    def outer() -> None: ...

    def inner() -> None: ...

    with pytest.raises(RuntimeError), inside.overlay("sdpa", outer):
        with inside.overlay("sdpa", inner):
            assert registry["sdpa"] is inner
        assert registry["sdpa"] is outer
        raise RuntimeError
    assert inside.registered("sdpa") is before
    assert registry._local_mapping == local


def test_eager_has_no_entry_but_may_be_overlaid() -> None:
    seen = []
    assert inside.registered("eager") is None
    model = llama("eager")

    def attend(module, *args, **kwargs):
        seen.append(module)
        return inside.eager_function(type(module))(module, *args, **kwargs)

    plain = model(torch.arange(5)[None]).logits
    with inside.overlay("eager", attend):
        watched = model(torch.arange(5)[None]).logits
    assert len(seen) == 2 and torch.equal(plain, watched)
    assert "eager" not in ALL_ATTENTION_FUNCTIONS._local_mapping


def test_the_internal_field_switches_one_configuration_alone() -> None:
    config = LlavaConfig(text_config=LlamaConfig(**SIZES))
    config._attn_implementation = "sdpa"
    inside.set_implementation(config, "eager")
    assert inside.implementation_of(config) == "eager"
    assert inside.implementation_of(config.text_config) == "sdpa"
    with pytest.raises(UnsupportedModelError):
        inside.set_implementation(object(), "eager")


def test_a_switched_layer_runs_its_files_eager_function(monkeypatch: pytest.MonkeyPatch) -> None:
    file = sys.modules[LlamaAttention.__module__]
    original, calls = file.eager_attention_forward, []
    monkeypatch.setattr(
        file, "eager_attention_forward", lambda *a, **k: calls.append(a) or original(*a, **k)
    )
    model = llama()
    inside.set_implementation(model.model.layers[1].self_attn.config, "eager")
    model(torch.arange(5)[None])
    assert len(calls) == 2, "both layers share one configuration"


@pytest.mark.parametrize("cls", [LlamaAttention, CLIPAttention, WhisperAttention])
def test_attention_classes_are_in_files_that_call_the_interface(cls: type) -> None:
    assert inside.calls_interface(cls)
    function = inside.eager_function(cls)
    assert function.__module__ == cls.__module__


def test_a_class_of_another_file_neither_calls_the_interface_nor_has_eager() -> None:
    own = ModuleType("own_attention")
    cls = type("OwnAttention", (nn.Module,), {"__module__": own.__name__})
    assert not inside.calls_interface(cls)
    assert inside.eager_function(cls) is None


def test_the_eager_function_returns_output_and_pattern() -> None:
    layer = llama().model.layers[0].self_attn
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    mask = torch.zeros(1, 1, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    output, pattern = inside.eager_function(type(layer))(layer, q, k, v, mask, scaling=0.3)
    scores = q.double() @ k.repeat_interleave(2, 1).double().transpose(2, 3) * 0.3
    expected = (scores + mask).softmax(-1)
    # fp32 against fp64 over 5 keys.
    torch.testing.assert_close(pattern.double(), expected, atol=1e-6, rtol=0)
    assert output.shape == (1, 5, 4, 8)


def test_a_cache_is_found_in_a_layers_call_and_tells_where_it_begins() -> None:
    model = llama()
    calls = [Call(layer.self_attn) for layer in model.model.layers]
    model.generate(torch.arange(6)[None], max_new_tokens=3, do_sample=False, pad_token_id=0)
    for call in calls:
        assert call.starts == [0, 6, 7]
        assert len({id(c) for c in call.caches}) == 1


def test_without_a_cache_none_is_found() -> None:
    model = llama()
    call = Call(model.model.layers[0].self_attn)
    model(torch.arange(6)[None], use_cache=False)
    assert call.caches == [None]


def test_a_cache_stands_at_the_top_of_a_call_only() -> None:
    cache = DynamicCache()
    assert inside.find_cache((1, cache), {"x": cache}) is cache
    assert inside.find_cache(([cache],), {"x": {"y": cache}}) is None


def test_of_a_pair_it_is_the_self_attentions_cache() -> None:
    own, cross = DynamicCache(), DynamicCache()
    pair = EncoderDecoderCache(own, cross)
    assert inside.find_cache((), {"any_name": pair}) is own
    assert inside.find_cache((own,), {"any_name": pair}) is own


def test_two_different_caches_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="2 caches"):
        inside.find_cache((DynamicCache(),), {"other": DynamicCache()})


def test_each_layer_of_a_cache_counts_for_itself() -> None:
    cache = DynamicCache()
    assert inside.seen_columns(cache, 3) == 0
    put(cache, 0, 4)
    assert [inside.seen_columns(cache, i) for i in (0, 1)] == [4, 0]


def windows() -> Gemma3TextConfig:
    return Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=3, layer_types=["sliding_attention", "full_attention"]
    )


def test_a_window_counts_what_it_dropped() -> None:
    cache = DynamicCache(config=windows())
    for layer in (0, 1):
        put(cache, layer, 5)
        put(cache, layer, 1)
    assert [inside.seen_columns(cache, i) for i in (0, 1)] == [6, 6]


def test_a_static_cache_hands_out_empty_places() -> None:
    model = llama()
    cache = StaticCache(config=model.config, max_cache_len=12)
    lengths: list[int] = []
    original = inside.registered("sdpa")

    def attend(module: nn.Module, query: Tensor, key: Tensor, *args, **kwargs):
        lengths.append(key.shape[2])
        return original(module, query, key, *args, **kwargs)

    calls = Call(model.model.layers[1].self_attn)
    with inside.overlay("sdpa", attend), torch.no_grad():
        # Its name in the call differs between versions; that it arrives does not.
        name = {"cache", "past_key_values"} & set(inspect.signature(model.forward).parameters)
        model.generate(
            torch.arange(6)[None],
            **{name.pop(): cache},
            max_new_tokens=2,
            do_sample=False,
            pad_token_id=0,
        )
    assert calls.starts == [0, 6]
    assert lengths == [12] * 4


def test_attention_that_may_be_cached_says_so_in_its_signature() -> None:
    whisper = WhisperConfig(d_model=16)
    assert inside.takes_cache(LlamaAttention(LlamaConfig(**SIZES), 0))
    assert inside.takes_cache(WhisperAttention(16, 2, config=whisper, layer_idx=0))
    assert not inside.takes_cache(LlamaMLP(LlamaConfig(**SIZES)))


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (DynamicCache, True),
        (DynamicCache | None, True),
        ("Cache | None", True),
        ("Optional[EncoderDecoderCache]", True),
        ("CacheConfig", False),
        (bool | None, False),
        (None, False),
    ],
)
def test_annotations_are_read_as_types_unions_and_texts(annotation, expected: bool) -> None:
    assert inside._is_cache(annotation) is expected
