"""A transformers network on its device: with a checkpoint's weights, strictly, or random ones."""

from collections.abc import Sequence
from typing import Any

import torch

from interp_lab.models.weights import Weights, refuse_partial

RANDOM_NOTE = "RANDOM WEIGHTS: the architecture is real, the numbers mean nothing"


def load_module(
    network: Any,
    weights: Weights,
    device: torch.device,
    device_map: str | dict[str, Any] | None,
    attn_implementation: str,
    ignored: Sequence[str] = (),
) -> Any:
    """Return the network with a checkpoint's weights, on its device, strictly loaded.

    Args:
        network: a transformers class.
        ignored: prefixes of weights that the checkpoint may hold for parts that are not used.
    """
    module, info = weights.load(
        network.from_pretrained,
        "weights",
        dtype=weights.torch_dtype,
        attn_implementation=attn_implementation,
        output_loading_info=True,
        device_map=device_map,
    )
    refuse_partial(info, weights.checkpoint, ignored)
    return module if device_map else module.to(device)


def random_module(
    network: Any, config: Any, weights: Weights, attn_implementation: str, seed: int
) -> Any:
    """Return the network of a configuration with random weights of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return network._from_config(
            config, dtype=weights.torch_dtype, attn_implementation=attn_implementation
        )


def without_memory(network: Any, config: Any, weights: Weights) -> torch.nn.Module:
    """Return a network whose weights have shapes and dtypes but no memory, for plans.

    Args:
        network: a transformers class.
        config: its configuration.
        weights: say the dtype.
    """
    with torch.device("meta"):
        return network._from_config(config, dtype=weights.torch_dtype)
