"""interp_lab: what multimodal models attend to, as numbers that can be trusted and figures of them.

`run` and `open_results` are the notebook's entrance; the command line is `python -m interp_lab`.
Names are resolved on first use, so that importing the package costs nothing.
"""

from typing import Any

__version__ = "0.1.0"

_EXPORTS = {"run": "interp_lab.api", "open_results": "interp_lab.store.results"}

# What the studies offer is found where the studies are.
_OF_STUDIES = "interp_lab.studies"


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    from importlib import import_module

    try:
        return getattr(import_module(_EXPORTS.get(name, _OF_STUDIES)), name)
    except AttributeError:
        raise AttributeError(f"module 'interp_lab' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    from interp_lab.studies import PUBLIC

    return ["__version__", *_EXPORTS, *PUBLIC]
