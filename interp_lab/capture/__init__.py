"""Watching a model while it works: attention, hidden states and gates, reduced on the device.

What notebooks and studies of one's own need is listed here and resolved on first use: plans and
interventions are plain data and need no torch, watching does.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    **dict.fromkeys(("AttentionPlan", "GatePlan", "HiddenPlan"), "plans"),
    **dict.fromkeys(("BlockAttention", "ScaleAttention", "ZeroHeads"), "plans"),
    **dict.fromkeys(("ClampGate", "SetGate"), "plans"),
    **dict.fromkeys(
        ("ArgMax", "Beside", "Entropy", "Keep", "Max", "Mean", "Sum", "TopK"), "reduce"
    ),
    "Generated": "generate",
    "generate_watched": "generate",
    "Reference": "reference",
    "watch_attention": "attention",
}

__all__ = list(PUBLIC)  # pyright: ignore


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
