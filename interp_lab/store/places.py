"""Where things lie in a run directory, decided once for exports and figures.

With one sample its files lie at the top, under the names that earlier scripts know; with several
each sample has a folder of its own.
"""

import hashlib
import re
from pathlib import Path

from interp_lab.store.results import Results


def safe_name(sample_id: str) -> str:
    """Return a file name for a sample: letters of any script, digits, dots, dashes, underscores.

    A name that had to be changed ends in a hash of the id, so that no two samples share a place.
    """
    name = re.sub(r"[^\w.\-]+", "_", sample_id).strip("._")
    # File systems count bytes, of which a Hangul syllable has three.
    name = name.encode()[:150].decode(errors="ignore") or "sample"
    if name == sample_id:
        return name
    return f"{name}-{hashlib.sha256(sample_id.encode()).hexdigest()[:6]}"


def sample_folder(folder: Path, results: Results, sample_id: str) -> Path:
    """Return where a sample's files go below `folder`.

    A sample that is called like a file, `scene_0.png`, has a folder that is not: `scene_0_png`. A
    folder of an earlier version goes on being used.
    """
    alone = len(results) + len(results.failures) == 1
    if alone:
        return folder
    name = safe_name(sample_id)
    plain = re.sub(r"\.([A-Za-z]\w{0,4})$", r"_\1", name)
    if plain == name or (folder / name).is_dir():
        return folder / name
    # No other name can become this one: a name that had to be changed ends in a dash and a hash.
    if plain in results:
        plain = f"{plain}-{hashlib.sha256(sample_id.encode()).hexdigest()[:6]}"
    return folder / plain
