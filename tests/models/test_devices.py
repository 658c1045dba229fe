"""A model spread over the CPU and the disk gives the numbers of the same model in one place."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tiny_language import architecture, save_processor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from interp_lab.capture import observer
from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Entropy, Keep, Mean, TopK
from interp_lab.capture.session import watch
from interp_lab.config.nodes import build, conf_dir
from interp_lab.errors import ConfigError, DeviceError, UnsupportedModelError
from interp_lab.models.clip import ClipVision
from interp_lab.models.devices import Placement, disjoint, own_weights, places_of, sizes_by_device
from interp_lab.models.llava import Llava
from interp_lab.models.loading import refuse_not_finite
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def numbers(cfg: DictConfig) -> tuple[Any, list[Any]]:
    """The model, and everything that the study's plans capture of its first sample."""
    model = build(cfg, "model", device=CPU, seed=0)
    study = build(cfg, "analysis", seed=0, batch_size=1).for_model(model)
    dataset = build(cfg, "dataset")
    with torch.inference_mode():
        prepared = model.prepare([dataset.load(0)])
        plans = [study.plans(seen.tokens) for seen in prepared.seen]
        with watch(model, prepared, plans) as capture:
            forward = model.forward(prepared.inputs)
    return model, [forward, *flat([capture.rows])]


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key in sorted(value) for t in flat(value[key])]
    if isinstance(value, list | tuple):
        return [t for one in value for t in flat(one)]
    return flat(value.steps) if hasattr(value, "steps") else []


@pytest.mark.parametrize(
    ("task", "dtype"),
    [
        ("clip_similarity", "float32"),
        ("scienceqa", "bfloat16"),
        ("semdim", "float32"),
        ("trajectory", "bfloat16"),
    ],
)
def test_numbers_of_a_spread_model_are_those_of_one_in_one_place(
    task: str, dtype: str, tmp_path: Path
) -> None:
    chosen = (f"task={task}", f"model.dtype={dtype}")
    whole, want = numbers(composed(*chosen))
    each = 4 if dtype == "float32" else 2
    most = sum(p.numel() for p in whole.module.parameters()) * each * 7 // 10
    spread, got = numbers(
        composed(
            *chosen,
            "model.device_map=auto",
            f"model.max_memory={{cpu:{most}}}",
            f"model.offload_folder={tmp_path / 'wait'}",
        )
    )
    waiting = [p.is_meta for p in spread.module.parameters()]
    assert any(waiting) and not all(waiting)
    assert places_of(spread.module, spread.device) == ["cpu", "disk"]
    # The same kernels in the same order: equal to the last bit.
    assert len(got) == len(want) > 1
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_result_says_where_the_model_lay_and_its_dtype(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    from interp_lab.store.results import open_results

    parts = "{embeddings:cpu,pre_layrnorm:cpu,encoder:disk,post_layernorm:cpu}"
    said = command(
        "visualization.max_samples=0",
        "device=cpu",
        "model.dtype=auto",
        f"model.device_map={parts}",
        f"model.offload_folder={tmp_path / 'wait'}",
    )
    assert said.code == 0, said.err
    with open_results(said.out.strip().splitlines()[-1].removeprefix("results: ")) as results:
        assert results.attributes["device"] == "cpu, disk"
        # As the checkpoint's config.json says.
        assert results.attributes["dtype"] == "float16"
    gc.collect()
    assert list((tmp_path / "wait").iterdir()) == []


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_weights_that_wait_are_looked_at(where: str, tmp_path: Path) -> None:
    device_map = {"embeddings": "cpu", "pre_layrnorm": "cpu", "encoder": where}
    device_map["post_layernorm"] = "disk"
    model = ClipVision(
        family="clip",
        checkpoint="zoo:tiny_clip",
        device=CPU,
        device_map=device_map,
        offload_folder=str(tmp_path),
    )
    whole = ClipVision(family="clip", checkpoint="zoo:tiny_clip", device=CPU)
    seen = dict(own_weights(model.module))
    assert seen.keys() == dict(whole.module.named_parameters()).keys()
    refuse_not_finite(model.module, "x")
    with torch.no_grad():
        for _, parameter in model.module.encoder.named_parameters():
            if not parameter.is_meta:
                parameter.fill_(torch.nan)
    if where == "cpu":
        with pytest.raises(UnsupportedModelError, match="NaN or infinity in encoder"):
            refuse_not_finite(model.module, "x")


def test_a_weight_on_the_disk_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "clip"
    shutil.copytree(weights_path("tiny_clip"), folder)
    tensors = load_file(folder / "model.safetensors")
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    tensors[name].view(-1)[3] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"infinity in encoder\.layers\.1\.mlp\.fc1"):
        ClipVision(
            family="clip",
            checkpoint=str(folder),
            device=CPU,
            device_map={"": "disk"},
            offload_folder=str(tmp_path / "wait"),
        )


def test_a_weight_that_nothing_fills_is_refused() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="weight, bias"):
        refuse_not_finite(module, "x")


def test_random_weights_are_spread_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {"checkpoint": "tiny", "device": CPU, "dtype": "float32"}
    given |= {"init": "random", "architecture": architecture()}
    given |= {"processor": save_processor(tmp_path / "processor")}
    ids = torch.tensor([[1, 5, 6, 7]])
    whole = Llava(**given)
    spread = Llava(**given, device_map={"": "disk"}, offload_folder=str(tmp_path / "wait"))
    assert all(p.is_meta for p in spread.module.parameters())
    with torch.inference_mode():
        want, got = (m.module(input_ids=ids).logits for m in (whole, spread))
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"device_map": "ballanced"}, ConfigError, "Did you mean 'balanced'"),
        ({"device_map": {"x": "gpu"}}, ConfigError, r"model.device_map.x='gpu': give a device"),
        ({"device_map": {"": "disk"}}, ConfigError, "give model.offload_folder=FOLDER"),
        ({"max_memory": {"cpu": 1}}, ConfigError, "give model.device_map"),
        ({"offload_folder": "x"}, ConfigError, "give model.device_map"),
        ({"device_map": "auto", "max_memory": {"cpu": "1 Gb x"}}, ConfigError, "10GiB"),
        ({"device_map": {"": "cpu"}, "max_memory": {"cpu": "1GiB"}}, ConfigError, "a map of your"),
    ],
)
def test_a_placement_that_cannot_be_is_one_line(given: Any, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        Placement(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({"encodr": "cpu", "": "cpu"}, r"model.device_map.encodr: .*Did you mean 'encoder'"),
        ({"encoder": "cpu", "embeddings": "cpu"}, "gives no device to pre_layrnorm"),
        ({"encoder.layers.7": "cpu", "": "cpu"}, r"device_map.encoder.layers.7: .* no such part"),
    ],
)
def test_a_map_of_other_parts_is_one_line(device_map: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ClipVision(family="clip", checkpoint="zoo:tiny_clip", device=CPU, device_map=device_map)


def test_what_does_not_fit_without_a_folder_is_one_line() -> None:
    with pytest.raises(ConfigError, match="give model.offload_folder=FOLDER"):
        ClipVision(
            family="clip",
            checkpoint="zoo:tiny_clip",
            device=CPU,
            device_map="auto",
            max_memory={"cpu": "100KB"},
        )


def test_cards_that_are_not_there_are_one_line() -> None:
    weights = Weights("zoo:tiny_clip", device_map={"": 7})
    with pytest.raises(DeviceError, match=r"^model.device_map.: device=7.*not on this machine"):
        weights.placement.check_there()


@pytest.mark.parametrize(
    ("given", "entrance", "devices"),
    [
        ({}, "cuda:1", []),
        ({"device_map": "auto"}, "cuda:0", ["cuda:0", "cuda:1", "cuda:2", "cpu"]),
        ({"device_map": "auto", "max_memory": {"2": 9, "cpu": 9}}, "cuda:2", ["cuda:2", "cpu"]),
        (
            {"device_map": {"a": "cpu", "b": 2, "c": "cuda:0"}},
            "cuda:2",
            ["cpu", "cuda:2", "cuda:0"],
        ),
        ({"device_map": {"": "cpu"}}, "cpu", ["cpu"]),
        ({"device_map": "cuda:2"}, "cuda:2", ["cuda:2"]),
    ],
)
def test_inputs_go_to_a_card_that_the_model_may_use(
    given: Any, entrance: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    placement = Placement(**given)
    assert str(placement.entrance(torch.device("cuda:1"))) == entrance
    assert [str(d) for d in placement.devices()] == devices


def test_bytes_of_each_device_by_hand() -> None:
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 5), "b": torch.nn.Linear(5, 2)})
    placement = Placement({"a": 1, "b": "cpu", "b.bias": "disk"}, offload_folder="x")
    sizes = sizes_by_device(module, placement)
    assert sizes == {"cuda:1": (15 + 5) * 4, "cpu": 10 * 4, "disk": 2 * 4}


def test_the_narrower_part_of_a_map_counts() -> None:
    inner = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1)})
    module = torch.nn.ModuleDict({"x": inner, "y": torch.nn.Linear(1, 1)})
    table = {"": "cpu", "x": 1, "x.b": "disk", "y.bias": 2}
    assert disjoint(module, table) == {
        "x.a": 1,
        "x.b": "disk",
        "y.weight": "cpu",
        "y.bias": 2,
    }
    assert disjoint(module, {"": "disk"}) == {"x": "disk", "y": "disk"}


def test_parts_within_parts_are_spread_as_they_are_named(tmp_path: Path) -> None:
    model = ClipVision(
        family="clip",
        checkpoint="zoo:tiny_clip",
        device=CPU,
        device_map={"": "disk", "encoder": "cpu", "encoder.layers.0": "disk"},
        offload_folder=str(tmp_path),
    )
    waiting = {name for name, p in model.module.named_parameters() if p.is_meta}
    named = {name for name, _ in model.module.named_parameters()}
    inside = {n for n in named if n.startswith("encoder.") and "layers.0." not in n}
    assert waiting == named - inside
    pixels = torch.randn(1, 3, model.module.config.image_size, model.module.config.image_size)
    whole = ClipVision(family="clip", checkpoint="zoo:tiny_clip", device=CPU)
    with torch.inference_mode():
        got, want = (m.forward({"pixel_values": pixels}) for m in (model, whole))
    assert torch.equal(got, want)


def moved_to(device: str) -> Callable[..., Any]:
    """What accelerate's hook does before a part's forward: its inputs go to its device."""

    def hook(_module: Any, args: Any, kwargs: Any) -> Any:
        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, torch.Tensor) else value

        return tree_map(move, args), tree_map(move, kwargs)

    return hook


def test_no_reducer_mixes_tensors_of_two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have a card without there being one, and an operation across two is an error."""
    config = tf.Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_implementation="sdpa",
    )
    # Numbers of fake tensors cannot be looked at.
    monkeypatch.setattr(observer, "refuse_wrong_sums", lambda tallies: None)
    plans = {
        "whole": AttentionPlan(None, None, Keep()),
        "some": AttentionPlan((2, 3), (0, 1, 2), Mean()),
        "largest": AttentionPlan(None, (1, 3), TopK(1)),
        "entropy": AttentionPlan((4,), None, Entropy()),
    }
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda:0"):
            module = tf.Qwen2ForCausalLM(config).eval()
        with torch.device("cuda:1"):
            module.model.layers[1] = type(module.model.layers[1])(config, 1).eval()
        for part, card in (*zip(module.model.layers, (0, 1, 0), strict=True), (module.lm_head, 0)):
            part.register_forward_pre_hook(moved_to(f"cuda:{card}"), with_kwargs=True)
        ids = torch.zeros(1, 6, dtype=torch.long, device="cuda:0")
        with torch.inference_mode(), watch_attention(module, [plans]) as watched:
            module(input_ids=ids, use_cache=False)
        found = watched.results[0]
        assert {str(found[name].values.device) for name in plans} == {"cuda:0"}
        assert found["whole"].values.shape == (3, 2, 6, 6)
        mixed = torch.zeros(2, device="cuda:0"), torch.zeros(2, device="cuda:1")
        with pytest.raises(RuntimeError, match="same device"):
            torch.stack(mixed)
