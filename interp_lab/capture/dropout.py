"""Dropout of attention, which watching and changing cannot follow.

A pattern that is captured is the one before dropout, and a row that is computed anew draws no
random numbers: both would be other than what the model used, so both are refused.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from interp_lab.errors import ConfigError


def refuse_dropout(path: str, module: nn.Module, name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise ConfigError if an attention call drops weights at random.

    Args:
        path: of the layer.
        module: the layer.
        name: of the attention implementation; `eager` alone leaves dropout out in eval mode.
        kwargs: of the attention function.
    """
    share = kwargs.get("dropout") or 0.0
    if share > 0 and (module.training or name != "eager"):
        _refuse(path, module, share)


def refuse_own_dropout(path: str, module: nn.Module) -> None:
    """Raise ConfigError if a layer with an attention of its own may drop weights at random."""
    layers = (m.p for m in module.modules() if isinstance(m, nn.Dropout))
    share = max((*layers, _number(module, "attention_dropout"), _number(module, "dropout")))
    if module.training and share > 0:
        _refuse(path, module, share)


def _number(module: nn.Module, name: str) -> float:
    value = getattr(module, name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _refuse(path: str, module: nn.Module, share: float) -> None:
    remedy = "call model.eval()" if module.training else "set its attention dropout to 0"
    raise ConfigError(
        f"{path}: drops {share:.3g} of its attention at random, so the pattern that it uses is not "
        f"the one that is captured or changed; {remedy}"
    )
