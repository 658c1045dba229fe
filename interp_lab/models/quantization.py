"""Weights in few bits: those that are packed while they are loaded, and those that come packed.

`model.quantization` packs the weights of linear layers. A checkpoint whose config.json has a
`quantization_config` is loaded as it is. Either way the numbers are those of the rounded weights,
and the result says so.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, with_config
from typing_extensions import Required, TypedDict

from interp_lab.errors import ConfigError
from interp_lab.identity.checkpoints import QUANTIZATION_DEFAULTS

_ONLY_THESE = with_config(ConfigDict(extra="forbid"))


@_ONLY_THESE
class BitsAndBytes(TypedDict, total=False):
    """bitsandbytes: 8 bits a weight, or 4 in blocks of 64.

    Keys: `bits`; `kind` of the 4 bits; `double` packs the blocks' scales too; `skip` names modules
    that stay as they are.
    """

    method: Required[Literal["bitsandbytes"]]
    bits: Required[Literal[4, 8]]
    kind: Literal["nf4", "fp4"]
    double: bool
    skip: list[str]


@_ONLY_THESE
class TorchAO(TypedDict, total=False):
    """torchao: by a kind of its own; `group_size` is of the kinds with 4 bits."""

    method: Required[Literal["torchao"]]
    kind: Required[
        Literal[
            "int8_weight_only",
            "int4_weight_only",
            "float8_weight_only",
            "int8_dynamic_activation_int8_weight",
        ]
    ]
    group_size: Literal[32, 64, 128, 256]
    skip: list[str]


Quantization = Annotated[BitsAndBytes | TorchAO, Field(discriminator="method")]

TORCHAO = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int4_weight_only": "Int4WeightOnlyConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
}
# Method -> the packages that read it, by the name to import and the name to install.
PACKAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "bitsandbytes": (("bitsandbytes", "bitsandbytes"),),
    "torchao": (("torchao", "torchao"),),
    "awq": (("gptqmodel", "gptqmodel"),),
    "gptq": (("optimum", "optimum"), ("gptqmodel", "gptqmodel")),
    "compressed-tensors": (("compressed_tensors", "compressed-tensors"),),
    "hqq": (("hqq", "hqq"),),
    "quanto": (("optimum.quanto", "optimum-quanto"),),
    "aqlm": (("aqlm", "aqlm[gpu,cpu]"),),
    "auto-round": (("auto_round", "auto-round"),),
    "eetq": (("kernels", "kernels"),),
    "fbgemm_fp8": (("fbgemm_gpu", "fbgemm-gpu-genai"),),
    "mxfp4": (("kernels", "kernels"),),
}
# Methods whose kernels run on accelerators alone.
ON_CARDS = ("fbgemm_fp8", "eetq", "vptq", "spqr")
# Bits of scales that come with each packed weight, beside its own: blocks of 64 have one of 32.
BLOCK_BITS = {4: 32 / 64}


def check_quantization(
    wanted: Mapping[str, Any] | None, packed: Mapping[str, Any] | None, where: str
) -> None:
    """Refuse what cannot be loaded so, before anything is.

    Args:
        wanted: `model.quantization`.
        packed: how the checkpoint says that it comes packed (`quantization_said`).
        where: how messages begin.

    Raises:
        ConfigError: if both are given, or a package or an accelerator is missing.
    """
    if wanted and packed:
        raise ConfigError(
            f"{where}: its weights come quantised ({named(packed)}) and cannot be quantised again; "
            "leave model.quantization out (null)"
        )
    if wanted and wanted["method"] == "bitsandbytes" and wanted["bits"] == 8:
        given = [k for k in ("kind", "double") if k in wanted]
        if given:
            raise ConfigError(f"model.quantization.{given[0]}: is of bits: 4, and bits is 8")
    if wanted and "group_size" in wanted and not wanted.get("kind", "").startswith("int4"):
        raise ConfigError(
            f"model.quantization.group_size: {wanted['kind']} has one scale a row and no groups"
        )
    method = (wanted or packed or {}).get("method")
    key = f"{where}: quantised by {method}"
    if wanted:
        key = f"model.quantization: packs by {named(full(wanted))}"
    missing = [pip for name, pip in PACKAGES.get(str(method), ()) if not _installed(name)]
    if missing:
        raise ConfigError(
            f"{key}, which needs a Python package that is not installed: pip install "
            f"{' '.join(missing)}"
        )
    if (method in ON_CARDS or _on_cards(wanted)) and not torch.cuda.is_available():
        instead = "another model.quantization" if wanted else "the checkpoint that is not quantised"
        raise ConfigError(f"{key}, which runs on NVIDIA GPUs alone; take {instead}")


def _on_cards(wanted: Mapping[str, Any] | None) -> bool:
    return (wanted or {}).get("kind") == "int4_weight_only"


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def full(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a quantisation with the defaults of those that are left out."""
    return {**QUANTIZATION_DEFAULTS[wanted["method"]], **wanted}


def loading_options(wanted: Mapping[str, Any] | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return what `from_pretrained` is given for `model.quantization`.

    Args:
        wanted: its value.
        dtype: that the packed weights are unpacked to for each product.
    """
    if not wanted:
        return {}
    from transformers import BitsAndBytesConfig, TorchAoConfig

    values = full(wanted)
    skip = list(values["skip"]) or None
    if values["method"] == "torchao":
        kinds: Any = import_module("torchao.quantization")
        kind = getattr(kinds, TORCHAO[values["kind"]])
        four = values["kind"].startswith("int4")
        chosen = kind(group_size=values["group_size"]) if four else kind()
        return {"quantization_config": TorchAoConfig(chosen, modules_to_not_convert=skip)}
    if values["bits"] == 8:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=values["kind"],
            bnb_4bit_use_double_quant=values["double"],
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=skip,
        )
    return {"quantization_config": config}


def named(values: Mapping[str, Any]) -> str:
    """Return a quantisation in words: `bitsandbytes, 4 bits, nf4`."""
    words = [str(values["method"])]
    words += [f"{values['bits']} bits"] if "bits" in values else []
    words += [str(values["kind"])] if values.get("kind") and values.get("bits") != 8 else []
    return ", ".join(words)


def note_on(wanted: Mapping[str, Any] | None, packed: Mapping[str, Any] | None) -> str | None:
    """Return what a reader of the numbers must know of quantised weights; None if they are not."""
    values = full(wanted) if wanted else packed
    if not values:
        return None
    packages = [pip for name, pip in PACKAGES.get(str(values["method"]), ()) if _installed(name)]
    by = ", ".join(f"{name} {version(name)}" for name in packages)
    how = "when loaded" if wanted else "as the checkpoint comes"
    note = f"QUANTISED WEIGHTS ({named(values)}; {how}{f'; {by}' if by else ''}): rounded"
    if values["method"] == "bitsandbytes" and values.get("bits") == 8:
        note += "; outliers are picked over a batch, so a sample's numbers depend on batch_size"
    return note


def packed_size(
    module: torch.nn.Module, values: Mapping[str, Any] | None, keep: tuple[str, ...] = ()
) -> int:
    """Return the bytes of a network's weights and buffers when it is quantised; an estimate.

    The weights of linear layers are packed, but for the output layer and those that are skipped.

    Args:
        module: the network without memory, in the dtype of what is not packed.
        values: method, bits, kind and skip; None for not at all.
        keep: more names of modules that stay as they are.
    """
    bits = bits_of(values)
    skip = (*(values or {}).get("skip", ()), *keep)
    head = getattr(module, "get_output_embeddings", lambda: None)()
    size = sum(t.numel() * t.element_size() for t in _each(module))
    if bits is None:
        return size
    for name, part in module.named_modules():
        if not isinstance(part, torch.nn.Linear) or part is head:
            continue
        if any(word in name.split(".") or name.startswith(f"{word}.") for word in skip):
            continue
        weight = part.weight
        each = bits + BLOCK_BITS.get(int(bits), 0)
        size -= weight.numel() * weight.element_size() - int(weight.numel() * each / 8)
    return size


def bits_of(values: Mapping[str, Any] | None) -> float | None:
    """Return the bits of a packed weight; None if that is not known."""
    if not values:
        return None
    kind = str(values.get("kind", ""))
    by_kind = {"int4": 4, "int8": 8, "floa": 8}.get(kind[:4])
    return values.get("bits") or by_kind


def _each(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
