"""interp_lab: what multimodal models attend to, as numbers that can be trusted and figures of them.

`run` and `open_results` are the notebook's entrance; the command line is `python -m interp_lab`.
Names are resolved on first use, so that importing the package costs nothing.
"""

from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "run": "interp_lab.api",
    "open_results": "interp_lab.store.results",
    "AttentionVisualizer": "interp_lab.attention_visualizer",
    "TokenSimilarityAnalyzer": "interp_lab.api",
    "SimilarityVisualizer": "interp_lab.visualization.maps",
    "track_gates": "interp_lab.gate_tracking",
    "load_traced": "interp_lab.gate_tracking",
    "GateAnalyzer": "interp_lab.gate_tracking",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'interp_lab' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_EXPORTS[name]), name)
