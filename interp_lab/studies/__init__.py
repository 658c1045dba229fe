"""The studies, a folder each, with the same file names: `analysis` measures, `numbers` makes of a
result's samples what holds over all of them, `report` and `exports` write it down, `figures` draw.

A study imports the rest of the package and no other study; nothing outside names a study. What the
studies offer to notebooks is listed here and resolved on first use.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "AttentionVisualizer": "trajectory.visualizer",
    "GateAnalyzer": "avigate.tracking",
    "SimilarityVisualizer": "clip_similarity.figures.maps",
    "TokenSimilarityAnalyzer": "clip_similarity.analyzer",
    "adapt_legacy_model": "avigate.legacy",
    "load_legacy_model_with_gate_tracking": "avigate.legacy",
    "load_traced": "avigate.tracking",
    "track_gates": "avigate.tracking",
}

__all__ = list(PUBLIC)  # pyright: ignore


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
