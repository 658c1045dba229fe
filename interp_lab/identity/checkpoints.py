"""What a checkpoint's files say of how it is loaded: its dtype, and how its weights are packed.

They are read without torch, so that a run's identity and its plan know what `model.dtype=auto`
means. A hub id says nothing until its config.json was fetched.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp_lab.identity.weights import fetched_folder, local_place

AUTO = "auto"
# Configurations within a configuration, in the order in which one is asked for its dtype.
PARTS = ("thinker_config", "text_config", "llm_config", "vision_config", "audio_config")
# What a safetensors header calls the dtypes that a model can be loaded in.
HEADER_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
# How each kind of quantisation says to how many bits weights are packed.
BITS = ("bits", "w_bit", "nbits", "num_bits", "weight_bits")
# Options of `model.quantization` by method, and what they are where they are left out.
QUANTIZATION_DEFAULTS: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"kind": "nf4", "double": False, "skip": []},
    "torchao": {"group_size": 128, "skip": []},
}
FP8 = ("fp8", "fbgemm_fp8", "mxfp8")
FP4 = ("mxfp4", "nvfp4")


def folder_of(checkpoint: str, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint here; None for one file, or what was never fetched."""
    place = local_place(checkpoint)
    if place is None:
        place = fetched_folder(checkpoint, revision)
    return place if place is not None and place.is_dir() else None


def settings_of(checkpoint: str, revision: str | None = None) -> dict[str, Any]:
    """Return a checkpoint's config.json; empty if it cannot be read here."""
    folder = folder_of(checkpoint, revision)
    try:
        found = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def dtype_said(checkpoint: str, revision: str | None = None) -> str | None:
    """Return the dtype that a checkpoint's config.json names, such as `bfloat16`.

    If it names none, it is the one in which all floating-point weights are stored. None if neither
    is known here, or the weights are of several.
    """
    settings = settings_of(checkpoint, revision)
    parts = [settings, *(settings[k] for k in PARTS if isinstance(settings.get(k), Mapping))]
    for part in parts:
        named = part.get("dtype") or part.get("torch_dtype")
        if isinstance(named, str):
            return named.removeprefix("torch.")
    folder = folder_of(checkpoint, revision)
    stored = set(_stored_dtypes(folder)) if folder else set()
    return stored.pop() if len(stored) == 1 else None


def quantization_said(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how a config.json says that the weights are packed: method, and bits if it says.

    Args:
        settings: the config.json, or an architecture's values.
    """
    parts = [settings, *(settings[k] for k in PARTS if isinstance(settings.get(k), Mapping))]
    found = next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method") or "unknown")
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return {"method": "bitsandbytes", "bits": 4 if found.get("load_in_4bit") else 8}
    bits = 8 if method in FP8 else 4 if method in FP4 else next(_numbers(found), None)
    return {"method": method} | ({} if bits is None else {"bits": bits})


def _numbers(values: Any) -> Iterator[int]:
    """Yield the bits that nested settings of a quantisation name, the outermost first."""
    if isinstance(values, Mapping):
        yield from (values[k] for k in BITS if isinstance(values.get(k), int))
        for value in values.values():
            yield from _numbers(value)


def _stored_dtypes(folder: Path) -> Iterator[str]:
    """Yield the dtype of each floating-point tensor of a folder's safetensors files."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("adapter_model"):
            continue
        try:
            with open(path, "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(min(length, 2**27)))
        except (OSError, ValueError, struct.error):
            continue  # loading it says so
        entries = (value for key, value in header.items() if key != "__metadata__")
        yield from (HEADER_DTYPES[e["dtype"]] for e in entries if e["dtype"] in HEADER_DTYPES)
