"""PEFT adapters: the numbers of weights merged by hand, and one line for all that does not fit."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from interp_lab.errors import ConfigError, MissingInputError, UnsupportedModelError
from interp_lab.identity.weights import weights_identity
from interp_lab.models.llava import Llava
from interp_lab.models.loading import refuse_not_finite
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 6, 7, 8]])
TARGETS = ("q_proj", "v_proj", "up_proj")
RANK, ALPHA = 2, 6
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


def lora(folder: Path, base: str = "zoo:tiny_llava", **settings: Any) -> Path:
    """Write a LoRA adapter of the language model's layers as peft writes it, without peft."""
    folder.mkdir(parents=True)
    module = LlavaForConditionalGeneration.from_pretrained(weights_path("tiny_llava"))
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, part in module.named_modules():
        if "language_model" in name and name.rsplit(".")[-1] in TARGETS:
            for key, shape in (
                ("lora_A", (RANK, part.in_features)),
                ("lora_B", (part.out_features, RANK)),
            ):
                value = torch.randn(shape, generator=generator) * 0.3
                tensors[f"base_model.model.{name}.{key}.weight"] = value
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": rf".*language_model.*\.({'|'.join(TARGETS)})",
        "inference_mode": True,
        **settings,
    }
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def merged_by_hand(folder: Path) -> LlavaForConditionalGeneration:
    """The base with alpha/r * B A added to each weight."""
    module = LlavaForConditionalGeneration.from_pretrained(
        weights_path("tiny_llava"), dtype=torch.float32
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    for key, a in tensors.items():
        if ".lora_A." in key:
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = tensors[key.replace("lora_A", "lora_B")]
            with torch.no_grad():
                module.get_submodule(path).weight += ALPHA / RANK * (b @ a)
    return module.eval()


def llava(**given: Any) -> Llava:
    given = {"checkpoint": "zoo:tiny_llava", "device": CPU, "dtype": "float32"} | given
    return Llava(**given)


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        return module(input_ids=IDS).logits


@needs_peft
@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("waits", [False, True])
def test_numbers_are_those_of_a_model_merged_by_hand(
    merge: bool, waits: bool, tmp_path: Path
) -> None:
    adapter = lora(tmp_path / "adapter")
    place: dict[str, Any] = {
        "device_map": {"model": "disk", "lm_head": "cpu"},
        "offload_folder": str(tmp_path / "wait"),
    }
    model = llava(adapter=str(adapter), merge_adapter=merge, **(place if waits else {}))
    assert any(p.is_meta for p in model.module.parameters()) == waits
    refuse_not_finite(model.module, "x")
    want, plain = logits(merged_by_hand(adapter)), logits(llava().module)
    assert float((want - plain).abs().max()) > 1e-2
    # Beside the weights the same sum is rounded in another order, of logits up to 15.
    bound = 1e-6 if merge else 2e-6 * float(want.abs().max())
    torch.testing.assert_close(logits(model.module), want, atol=bound, rtol=0)
    assert any("lora" in name for name, _ in model.module.named_parameters()) != merge
    how = "merged into" if merge else "beside"
    assert f"ADAPTER {adapter} (LORA, {how} the weights)" in model.notes[0]


@needs_peft
def test_attention_is_captured_over_an_adapter(tmp_path: Path) -> None:
    from interp_lab.capture.attention import watch_attention
    from interp_lab.capture.plans import AttentionPlan
    from interp_lab.capture.reduce import Keep

    adapter = lora(tmp_path / "adapter")
    want = merged_by_hand(adapter)
    want.set_attn_implementation("eager")
    with torch.inference_mode():
        eager = want(input_ids=IDS, output_attentions=True).attentions
    for merge in (True, False):
        module = llava(adapter=str(adapter), merge_adapter=merge).module
        plan = {"all": AttentionPlan(None, None, Keep())}
        with torch.inference_mode(), watch_attention(module, [plan]) as watched:
            module(input_ids=IDS)
        got = watched.results[0]["all"].values
        torch.testing.assert_close(got, torch.stack(eager)[:, 0], atol=1e-5, rtol=0)


@needs_peft
def test_an_adapter_beside_the_weights_is_put_on_them(tmp_path: Path) -> None:
    adapter = lora(tmp_path / "adapter")
    both = tmp_path / "both"
    shutil.copytree(weights_path("tiny_llava"), both)
    for file in adapter.iterdir():
        shutil.copy(file, both)
    model = llava(checkpoint=str(both))
    torch.testing.assert_close(
        logits(model.module), logits(merged_by_hand(adapter)), atol=1e-6, rtol=1e-6
    )
    assert "beside the weights" in model.notes[0] and "counts twice" in model.notes[0]
    with pytest.raises(ConfigError, match="has one beside its weights already"):
        llava(checkpoint=str(both), adapter=str(adapter))
    # It was read strictly: weights of the model itself that are missing are seen too.
    tensors = load_file(both / "model.safetensors")
    tensors.pop(next(n for n in tensors if "up_proj" in n))
    save_file(tensors, both / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="lacks weights"):
        llava(checkpoint=str(both))


def lacking(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(n for n in tensors if "lora_B" in n))
    save_file(tensors, path, metadata={"format": "pt"})


def extra(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.model.language_model.layers.9.mlp.up_proj.lora_A.weight"] = (
        torch.zeros(2, 2)
    )
    save_file(tensors, path, metadata={"format": "pt"})


def misshapen(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if "lora_A" in n)
    tensors[name] = tensors[name][:, :-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})


def settings(**values: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def emptied(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"")


@needs_peft
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lacking, UnsupportedModelError, "lacks .*lora_B.*was it trained on this model"),
        (extra, UnsupportedModelError, r"no place for: .*layers\.9"),
        (misshapen, UnsupportedModelError, "misshapen|does not fit this model"),
        (settings(target_modules="none_of_it"), UnsupportedModelError, "does not fit this model"),
        (settings(peft_type="PREFIX_TUNING"), UnsupportedModelError, "changes the input or the"),
        (settings(peft_type=None), MissingInputError, "names no peft_type"),
        (settings(base_model_name_or_path="zoo:tiny_qwen_vl"), UnsupportedModelError, "trained on"),
        (emptied, MissingInputError, "adapter_model.safetensors is empty"),
        (
            lambda f: (f / "adapter_config.json").unlink(),
            MissingInputError,
            "has no adapter_config",
        ),
        (shutil.rmtree, MissingInputError, "no such folder"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(
    change: Any, kind: type, said: str, tmp_path: Path
) -> None:
    adapter = lora(tmp_path / "adapter")
    change(adapter)
    with pytest.raises(kind, match=said) as error:
        llava(adapter=str(adapter))
    assert "\n" not in str(error.value) and "adapter" in str(error.value)


@pytest.mark.parametrize(
    ("checkpoint", "base", "refused"),
    [
        ("org/a", "org/a", False),
        ("org/a", "Org/A", False),
        ("org/a", "org/b", True),
        ("org/a", "/home/someone/a", False),
        ("zoo:tiny_llava", "org/a", False),
        ("zoo:tiny_llava", "zoo:tiny_omni", True),
        ("zoo:tiny_llava", "", False),
    ],
)
def test_a_wrong_base_is_refused_where_it_can_be_known(
    checkpoint: str, base: str, refused: bool
) -> None:
    from interp_lab.models.adapters import base_note, check_base

    values = {"base_model_name_or_path": base, "peft_type": "LORA"}
    if refused:
        with pytest.raises(UnsupportedModelError, match=f"trained on {base}"):
            check_base(values, checkpoint, "model.adapter=x")
        return
    check_base(values, checkpoint, "model.adapter=x")
    unsure = "by shapes alone" in base_note(values, checkpoint, "x", True)
    assert unsure == (base in ("/home/someone/a", "") or checkpoint.startswith("zoo"))


def test_the_same_weights_in_another_folder_are_the_same_base(tmp_path: Path) -> None:
    from interp_lab.models.adapters import check_base

    copy = tmp_path / "copy"
    shutil.copytree(weights_path("tiny_llava"), copy)
    (copy / "README.md").write_text("mine")
    check_base({"base_model_name_or_path": str(copy)}, "zoo:tiny_llava", "x")


def test_an_adapter_alone_says_what_to_type(tmp_path: Path) -> None:
    adapter = lora(tmp_path / "adapter", base="org/base")
    with pytest.raises(UnsupportedModelError) as error:
        Weights(str(adapter)).load(lambda *_, **__: None, "weights")
    assert f"give model.adapter={adapter} and model.checkpoint=org/base" in str(error.value)


def test_without_peft_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp_lab.models.adapters.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install peft"):
        llava(adapter=str(lora(tmp_path / "adapter")))


def test_an_adapter_is_part_of_the_runs_identity(tmp_path: Path) -> None:
    adapter = lora(tmp_path / "a")
    node = {"checkpoint": "zoo:tiny_llava", "init": "pretrained", "adapter": str(adapter)}
    one = weights_identity(node)
    assert one["checkpoint"] == weights_identity({"checkpoint": "zoo:tiny_llava"})["checkpoint"]
    copy = tmp_path / "b"
    shutil.copytree(adapter, copy)
    assert weights_identity(node | {"adapter": str(copy)}) == one
    lacking(adapter)
    assert weights_identity(node) != one
