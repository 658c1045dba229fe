"""Where a figure's file goes: in its sample's folder, or where a template of the node says.

A template such as `{language}/heatmap_{word}` is filled from the Category fields of the sample, so
that a figure is found by what it shows.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.fields import Category
from interp_lab.store.places import safe_name, sample_folder
from interp_lab.store.results import Results
from interp_lab.visualization.film import FOLDER

# The name in braces that stands for a layer's number, which is no field of the sample.
LAYER = "layer"


def template_fields(file: str) -> list[str]:
    """Return the names in braces of a `file` value, none if it is a plain name.

    Raises:
        ValueError: if braces are unbalanced or hold more than a name.
    """
    names = []
    for _, name, spec, conversion in Formatter().parse(file):
        if name is not None:
            if not name.isidentifier() or spec or conversion:
                raise ValueError(f"{{{name}}} is not a name of a field")
            names.append(name)
    return names


def figure_path(
    folder: Path, results: Results, file: str, sample: str | None, layer: int | None = None
) -> Path:
    """Return the place of a figure below `folder`, without suffix.

    Args:
        folder: of all figures.
        results: an open result.
        file: of the figure's node. With names in braces it is the place below `folder`; without,
            it lies in the sample's folder.
        sample: whose figure it is (of a group: one that stands for all); None = the run's.
        layer: of a figure of one layer, its number.

    Raises:
        ConfigError: if the samples have no Category of a name in braces.
    """
    if sample is None:
        return folder / file
    if layer is not None:
        file = file.replace(f"{{{LAYER}}}", str(layer))
    names = template_fields(file)
    if not names:
        return sample_folder(folder, results, sample) / file
    known = [name for name, field in results.fields.items() if isinstance(field, Category)]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"file={file}: the samples of this result have no {name}."
                f"{did_you_mean(name, known)} They have: {', '.join(known) or 'no Category'}"
            )
    values = {name: str(results.read(name, sample)) for name in names}
    # Part by part: a slash in a word must not open a folder.
    parts = [part.format(**values) for part in file.split("/")]
    return folder.joinpath(*(safe_name(part) for part in parts))


def with_format(path: Path, kind: str) -> Path:
    """Return the path with its suffix; a folder of pictures has none."""
    # Not with_suffix: a name may hold a dot.
    return path if kind == FOLDER else path.with_name(f"{path.name}.{kind}")


def apart(paths: Sequence[Path], samples: Sequence[str | None]) -> list[Path]:
    """Give every path a name of its own, by a hash of the sample where two would be one.

    Args:
        paths: places, in the order of drawing; the first of equal ones keeps its name.
        samples: whose figure each is.
    """
    # Compared without case: on many file systems names that differ in it are one.
    taken: set[str] = set()
    found = []
    for path, sample in zip(paths, samples, strict=True):
        if str(path).casefold() in taken:
            mark = hashlib.sha256(str(sample).encode()).hexdigest()[:6]
            path = path.with_name(f"{path.stem}-{mark}{path.suffix}")
        taken.add(str(path).casefold())
        found.append(path)
    return found
