"""Figures of a result: chosen by the types of its fields, drawn without torch.

`base` holds style, sheet and saving, `fonts` the scripts that labels may use, `panels` the drawing
on one pair of axes, `maps` and `run_maps` whole figures, `draw` all figures of a run.
"""

import importlib.util
import os


def _drop_missing_backend() -> None:
    """Forget a backend that MPLBACKEND names but that is not installed.

    A notebook's kernel leaves `module://matplotlib_inline.backend_inline` in the environment of
    the commands it starts. In an environment without that module matplotlib cannot be imported at
    all then. Figures here are drawn with Agg and never ask for a backend, so one that is installed
    is left to the notebook's own plots.
    """
    name = os.environ.get("MPLBACKEND", "").removeprefix("module://")
    if name == os.environ.get("MPLBACKEND", ""):
        return
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        del os.environ["MPLBACKEND"]


# Every module of this package stands behind this one, so it runs before matplotlib is imported.
_drop_missing_backend()
