"""Where things lie in a run directory, decided once for exports and figures.

With one sample its files lie at the top, under the names that earlier scripts know; with several
each sample has a folder of its own.
"""

import re
from pathlib import Path

from interp_lab.store.results import Results


def safe_name(sample_id: str) -> str:
    """Return a file name for a sample: letters of any script, digits, dots, dashes, underscores."""
    name = re.sub(r"[^\w.\-]+", "_", sample_id).strip(".")
    return name[:150] or "sample"


def sample_folder(folder: Path, results: Results, sample_id: str) -> Path:
    """Return where a sample's files go below `folder`."""
    alone = len(results) + len(results.failures) == 1
    return folder if alone else folder / safe_name(sample_id)
