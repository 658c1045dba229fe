"""Figures of a result: chosen by the types of its fields, drawn without torch.

`base` holds style, sheet and saving, `fonts` the scripts that labels may use, `panels` the drawing
on one pair of axes, `maps` and `run_maps` whole figures, `draw` all figures of a run.
"""

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path


def _drop_missing_backend() -> None:
    """Forget a backend that MPLBACKEND names but that is not installed, or is none at all.

    A notebook's kernel leaves `module://matplotlib_inline.backend_inline` in the environment of
    the commands it starts. In an environment without that module matplotlib cannot be imported at
    all then. Figures here are drawn with Agg and never ask for a backend, so one that is installed
    is left to the notebook's own plots.
    """
    name = os.environ.get("MPLBACKEND", "")
    if name and not (_is_module(name) if name.startswith("module://") else _is_known(name)):
        del os.environ["MPLBACKEND"]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.removeprefix("module://")) is not None
    except (ImportError, ValueError):
        return False


def _is_known(name: str) -> bool:
    """Return whether matplotlib or a package beside it has a backend of this name.

    By files and entry points: importing matplotlib to ask it is what an unknown name prevents.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None or not re.fullmatch(r"\w+", name):
        return False
    own = Path(found.origin).parent / "backends" / f"backend_{name.lower()}.py"
    others = importlib.metadata.entry_points(group="matplotlib.backend")
    return own.is_file() or name.lower() == "headless" or name in others.names


# Every module of this package stands behind this one, so it runs before matplotlib is imported.
_drop_missing_backend()
