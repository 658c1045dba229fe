"""A network on its device: with a checkpoint's weights, strictly, or random ones.

Weights go straight to their device: a worker of a large model never holds them in host memory.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil
import torch

from interp_lab.errors import ConfigError, DeviceError, UnsupportedModelError
from interp_lab.models.weights import (
    Weights,
    attention_needs_package,
    is_out_of_memory,
    refuse_partial,
)

T = TypeVar("T")

RANDOM_NOTE = "RANDOM WEIGHTS: the architecture is real, the numbers mean nothing"


def load_module(
    network: Any,
    weights: Weights,
    device: torch.device,
    device_map: str | dict[str, Any] | None,
    attn_implementation: str | None = None,
    ignored: Sequence[str] = (),
) -> Any:
    """Return the network with a checkpoint's weights, on its device, strictly loaded.

    Args:
        network: a transformers class.
        device_map: accelerate's placement over several devices; None for all on `device`.
        attn_implementation: None for the class's own choice.
        ignored: prefixes of weights that the checkpoint may hold for parts that are not used.
    """
    module, info = weights.load(
        network.from_pretrained,
        "weights",
        dtype=weights.torch_dtype,
        attn_implementation=attn_implementation,
        output_loading_info=True,
        device_map=placement(device, device_map),
    )
    refuse_partial(info, weights.checkpoint, ignored)
    return module if device_map else module.to(device)


def placement(
    device: torch.device, device_map: str | dict[str, Any] | None
) -> str | dict[str, Any] | None:
    """Return what `from_pretrained` takes as `device_map`; None leaves the weights on the CPU."""
    if device_map or device.type == "cpu":
        return device_map
    return {"": device}


def random_module(
    network: Any, config: Any, weights: Weights, attn_implementation: str, seed: int
) -> Any:
    """Return the network of a configuration with random weights of a seed, on the CPU.

    There, and not on an accelerator, a seed gives the same weights on every machine.

    Raises:
        ConfigError: if the attention's package is not there.
    """
    try:
        with seeded(seed, torch.device("cpu")):
            return network._from_config(
                config, dtype=weights.torch_dtype, attn_implementation=attn_implementation
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
        refuse_not_finite(getattr(model, "module", None), name)
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


def refuse_not_finite(module: Any, name: str) -> None:
    """Refuse weights that hold NaN or infinity: every number measured with them would be none.

    Args:
        module: the network; anything else is left alone.
        name: of the model, for the message.

    Raises:
        UnsupportedModelError: names the weights.
    """
    if not isinstance(module, torch.nn.Module):
        return
    bad = [path for path, weight in module.named_parameters() if not _finite(weight)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UnsupportedModelError(
            f"model={name}: the weights hold NaN or infinity in {', '.join(bad[:3])}{more}; take a "
            "checkpoint that is whole, or another model.dtype (float16 ends at 65504)"
        )


def _finite(weight: torch.Tensor) -> bool:
    # The smallest and the largest, and not a truth value for each: that would take memory.
    if weight.is_meta or not weight.is_floating_point() or not weight.numel():
        return True
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return True  # packed in 8 bits, for which there is no such kernel
    low, high = weight.detach().aminmax()
    return bool((low.isfinite() & high.isfinite()).item())


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
