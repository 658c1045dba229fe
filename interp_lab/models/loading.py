"""A network on its device: with a checkpoint's weights, strictly, or random ones.

Weights go straight to their device: a worker of a large model never holds them in host memory.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from transformers import AutoConfig

from interp_lab.errors import ConfigError, DeviceError, UnsupportedModelError, did_you_mean
from interp_lab.identity.weights import INSTALLED
from interp_lab.libraries.huggingface import implementation_of
from interp_lab.libraries.transformers_loading import attention_names
from interp_lab.models import quantization
from interp_lab.models.adapters import (
    adapter_of,
    adapter_settings,
    add_adapter,
    base_note,
    check_base,
)
from interp_lab.models.devices import (
    Placement,
    check_paths,
    disjoint,
    own_weights,
    place,
    refuse_waiting,
    removing,
    waiting_in,
)
from interp_lab.models.weights import (
    Weights,
    attention_needs_package,
    is_out_of_memory,
    refuse_partial,
)

T = TypeVar("T")

RANDOM_NOTE = "RANDOM WEIGHTS: the architecture is real, the numbers mean nothing"
# Attention for which transformers takes a kernel of the hub where its own package is missing.
INSTEAD = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_module(
    network: Any,
    weights: Weights,
    device: torch.device,
    attn_implementation: str | None = None,
    ignored: Sequence[str] = (),
    **more: Any,
) -> Any:
    """Return the network with a checkpoint's weights, where they belong, strictly loaded.

    Args:
        network: a transformers class.
        weights: say what is loaded, in which dtype, packed how, with which adapter, and where to.
        device: of the job, for all that has no device_map.
        attn_implementation: None for the class's own choice.
        ignored: prefixes of weights that the checkpoint may hold for parts that are not used.
        more: what `from_pretrained` is given beside, such as `gguf_file` or a `state_dict`.
    """
    where = f"model.checkpoint={weights.checkpoint}"
    quantization.check_quantization(weights.quantization, weights.packed, where)
    kernels = check_attention(attn_implementation, weights.trust_remote_code)
    adapter = _checked_adapter(weights)
    placement = weights.placement
    # Spread weights that wait elsewhere take no adapter: it is put on them before they are spread.
    # Those of a GGUF file, or made here of others, are in host memory first in any case.
    made_here = "state_dict" in more or "gguf_file" in more
    late = bool(placement) and (adapter is not None or made_here)
    if late and (weights.quantization or weights.packed):
        raise ConfigError(
            f"{where}: quantised weights with an adapter, of a GGUF file or of the original layout "
            "lie on one device; leave model.device_map out (null)"
        )
    table = None if late else _checked_map(network, weights, more)
    with waiting_in(Placement() if late else placement) as folder:
        where_to = {} if late else placement.loading(device, folder, table)
        module, info = weights.load(
            network.from_pretrained,
            "weights",
            dtype=weights.torch_dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **where_to,
            **quantization.loading_options(weights.quantization, weights.torch_dtype),
            **kernels,
            **more,
        )
        refuse_waiting(module, placement)
        refuse_partial(info, weights.checkpoint, ignored)
        removing(module, folder)
    if adapter is not None:
        name, found = adapter
        module = add_adapter(module, found, weights.merge_adapter, f"model.adapter={name}")
    return place(module, placement, device) if late or not where_to else module


def _checked_adapter(weights: Weights) -> tuple[str, Path] | None:
    """Return name and folder of the adapter that belongs on weights, checked as far as it can be.

    Raises:
        InterpLabError: if it cannot be read, or was trained on other weights.
    """
    adapter = adapter_of(weights)
    if adapter is not None:
        name, place = adapter
        settings = adapter_settings(place, f"model.adapter={name}")
        if name != weights.checkpoint:
            check_base(settings, weights.checkpoint, f"model.adapter={name}")
    return adapter


def _checked_map(network: Any, weights: Weights, more: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the map of parts, if there is one, checked: transformers reads over unknown parts.

    Raises:
        ConfigError: names the part, or a weight without one.
    """
    if not isinstance(weights.device_map, Mapping):
        return None
    config = more.get("config")
    if config is None:
        reader = getattr(network, "config_class", None) or AutoConfig
        given = {k: v for k, v in more.items() if k == "gguf_file"}
        config = weights.load(reader.from_pretrained, "configuration", **given)
    skeleton = without_memory(network, config, weights)
    check_paths(skeleton, weights.placement)
    return disjoint(skeleton, weights.device_map)


def loading_notes(
    weights: Weights, module: Any, attn_implementation: str | None = None
) -> list[str]:
    """Return what a reader of the numbers must know of how a network was loaded."""
    notes = [RANDOM_NOTE] if weights.init == "random" else []
    packed = quantization.note_on(weights.quantization, weights.packed)
    notes += [packed] if packed else []
    if weights.checkpoint.startswith(INSTALLED):
        notes.append(
            f"GGUF: the weights of {weights.checkpoint} are unpacked to {weights.dtype_name}, as "
            "rounded as the file holds them"
        )
    adapter = None if weights.init == "random" else adapter_of(weights)
    if adapter is not None:
        name, found = adapter
        settings = adapter_settings(found, f"model.adapter={name}")
        if name == weights.checkpoint:
            notes.append(
                f"ADAPTER beside the weights of {name}: it was put on them; if they were merged "
                "already it counts twice, and adapter_config.json should be moved away"
            )
        else:
            notes.append(base_note(settings, weights.checkpoint, name, weights.merge_adapter))
    if weights.trust_remote_code:
        notes.append(f"REMOTE CODE: {weights.checkpoint} may run Python code of its own")
    chosen = implementation_of(getattr(module, "config", None))
    if attn_implementation and chosen and chosen != attn_implementation:
        notes.append(f"attention: {chosen} runs, which takes the place of {attn_implementation}")
    return notes


def check_attention(name: str | None, trusted: bool) -> Mapping[str, Any]:
    """Check the name of an attention implementation; return what its loading is given beside.

    Args:
        name: one that transformers has, or `org/kernel` of the hub.
        trusted: whether code of others may run (`model.trust_remote_code`).

    Raises:
        ConfigError: for an unknown name, or a kernel of the hub that may not run.
    """
    known = attention_names()
    if name is None:
        return {}
    if name in INSTEAD and find_spec(INSTEAD[name]) is None and find_spec("kernels") is not None:
        if not trusted:
            raise ConfigError(
                f"model.attn_implementation={name}: {INSTEAD[name]} is not installed, and compiled "
                "code of the hub would take its place; install it, give model.trust_remote_code="
                "true if you trust that code, or model.attn_implementation=sdpa"
            )
        return {"allow_all_kernels": True}
    if name in known:
        return {}
    if "/" not in name:
        raise ConfigError(
            f"model.attn_implementation={name!r}: give one of {', '.join(known)}, or org/kernel of "
            f"the hub.{did_you_mean(name, known)}"
        )
    if not trusted:
        raise ConfigError(
            f"model.attn_implementation={name}: is compiled code of the hub, which would run here "
            "with all your rights; if you trust it give model.trust_remote_code=true too, else "
            "model.attn_implementation=sdpa"
        )
    if find_spec("kernels") is None:
        raise ConfigError(
            f"model.attn_implementation={name}: is a kernel of the hub, which needs the package "
            "kernels: pip install kernels, or give model.attn_implementation=sdpa"
        )
    return {"allow_all_kernels": True}


def random_network(
    network: Any, config: Any, weights: Weights, device: torch.device, attn: str, seed: int
) -> Any:
    """Return the network of a configuration with random weights, where they belong."""
    made = random_module(network, config, weights, attn, seed)
    return place(made, weights.placement, device)


def random_module(
    network: Any, config: Any, weights: Weights, attn_implementation: str, seed: int
) -> Any:
    """Return the network of a configuration with random weights of a seed, on the CPU.

    There, and not on an accelerator, a seed gives the same weights on every machine.

    Raises:
        ConfigError: if the attention's package is not there.
    """
    kernels = check_attention(attn_implementation, weights.trust_remote_code)
    try:
        with seeded(seed, torch.device("cpu")):
            return network._from_config(
                config,
                dtype=weights.torch_dtype,
                attn_implementation=attn_implementation,
                **kernels,
            )
    except ImportError as error:
        raise ConfigError(attention_needs_package(attn_implementation, error)) from error


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let random numbers start from a seed inside, on the CPU and on the device of this job.

    Outside they go on as before, and no other accelerator is touched.
    """
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(seed)
        for card in cards:
            torch.cuda.default_generators[card.index or 0].manual_seed(seed)
        if device.type not in ("cpu", "cuda"):
            getattr(torch, device.type).manual_seed(seed)
        yield


def make_current(device: torch.device) -> None:
    """Let what names no device of its own run on this card, and not on the first one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def load_on(device: torch.device, name: str, load: Callable[[], T]) -> T:
    """Return what `load` loads, with the device made current.

    Args:
        device: where the model goes.
        name: of the model, for the message.
        load: loads it.

    Raises:
        DeviceError: if there is no memory for it.
        UnsupportedModelError: if its weights hold NaN or infinity.
    """
    make_current(device)
    try:
        model = load()
        refuse_not_finite(getattr(model, "module", None), f"model={name}")
        return model
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The traceback holds what was loaded of it.
        error.__traceback__ = error.__context__ = error.__cause__ = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, where = torch.cuda.mem_get_info(device)[0], str(device)
    else:
        free, where = psutil.virtual_memory().available, "this machine"
    raise DeviceError(
        f"model={name}: does not fit in the memory of {where} ({free / 2**30:.1f} GiB free now); "
        "give a smaller model.dtype, model.device_map=auto for several devices, or another device. "
        "mode=plan says what it needs"
    )


def refuse_not_finite(module: Any, where: str) -> None:
    """Refuse weights that hold NaN or infinity: every number measured with them would be none.

    Args:
        module: the network; anything else is left alone.
        where: how the message begins.

    Raises:
        UnsupportedModelError: names the weights.
    """
    if not isinstance(module, torch.nn.Module):
        return
    bad = [path for path, weight in own_weights(module) if not _finite(weight)]
    if getattr(module, "hf_quantizer", None) is not None:  # scales are buffers there
        bad += [path for path, value in module.named_buffers() if not _finite(value)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UnsupportedModelError(
            f"{where}: the weights hold NaN or infinity in {', '.join(bad[:3])}{more}; take a "
            "checkpoint that is whole, or another model.dtype (float16 ends at 65504)"
        )


def _finite(weight: Any) -> bool:
    if hasattr(weight, "__tensor_flatten__"):  # packed: numbers and scales, each a tensor
        return all(_finite(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    if not weight.is_floating_point() or not weight.numel():
        return True
    if weight.is_meta:
        return False  # never filled
    if weight.dtype not in FLOATS:  # of 8 bits or fewer, for which there is no such kernel
        return _finite(weight.to(torch.float32))
    # The smallest and the largest, and not a truth value for each: that would take memory.
    low, high = weight.detach().aminmax()
    return bool((low.isfinite() & high.isfinite()).item())


def inputs_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a network's inputs: of its first weight that is not packed."""
    found = (p.dtype for p in module.parameters() if p.dtype in FLOATS)
    return next(found, torch.float32)


def without_memory(network: Any, config: Any, weights: Weights) -> torch.nn.Module:
    """Return a network whose weights have shapes and dtypes but no memory, for plans.

    Args:
        network: a transformers class, or one of its `AutoModel...`.
        config: its configuration.
        weights: say the dtype.
    """
    make = network.from_config if hasattr(network, "from_config") else network._from_config
    with torch.device("meta"):
        return make(config, dtype=weights.torch_dtype)
