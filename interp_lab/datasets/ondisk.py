"""Finding files by names that annotations give: one name has several spellings on disk.

A name with an accent or in Korean may be composed, decomposed or half of each, in the annotations
as on disk, and an ending may be written in capitals. These are one name; two files of one name are
an error, never a choice.
"""

import os
import unicodedata
from functools import lru_cache
from pathlib import Path

from interp_lab.errors import SampleError


def spelling(folder: Path, relative: str) -> Path:
    """Return the path of a file in a folder, as the disk spells it; as given if it is not there.

    Args:
        folder: is taken as it is.
        relative: a path in it; each of its parts may be spelled otherwise on disk, and the case of
            its ending does not count.

    Raises:
        SampleError: if several files have the name, none of them as given.
    """
    given = folder / relative
    if os.path.lexists(given):
        return given
    place = folder
    parts = Path(relative).parts
    for number, part in enumerate(parts):
        entry = place / part
        if part != ".." and not os.path.lexists(entry):
            found = _entries(place).get(_key(part), ())
            if len(found) > 1:
                raise SampleError(f"{given}: {len(found)} files have this name: {', '.join(found)}")
            if not found:
                return place.joinpath(*parts[number:])
            entry = place / found[0]
        place = entry
    return place


def _entries(folder: Path) -> dict[str, tuple[str, ...]]:
    try:
        return _listed(str(folder), os.stat(folder).st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> dict[str, tuple[str, ...]]:
    """Return key -> names of a folder's entries; `changed` makes a changed folder another one."""
    names: dict[str, tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        names[_key(name)] = (*names.get(_key(name), ()), name)
    return names


def _key(name: str) -> str:
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", name))
    return stem + ending.lower()
