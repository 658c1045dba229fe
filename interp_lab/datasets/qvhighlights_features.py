"""Feature files of QVHighlights: read one, check it, and make of it what a network is given.

A video has one row a clip in each file. The rows are normalised file by file before files are laid
side by side, as in the published data loader (Moment-DETR, QD-DETR).
"""

from pathlib import Path

import numpy as np

from interp_lab.datasets.limits import check_array
from interp_lab.errors import SampleError, did_you_mean

# Added to a row's length before dividing by it, as published.
EPSILON = 1e-5


def read_features(path: Path, key: str | None, width: int | None, what: str) -> np.ndarray:
    """Return the rows of a feature file, float32 (rows, width).

    Args:
        path: an `.npz` file if `key` is given, else `.npy`.
        key: the array's name in the file.
        width: how many columns are expected; None for any.
        what: what the file holds, for messages ("audio").

    Raises:
        SampleError: if it is missing or damaged, has another width, no rows, or values that are
            not finite.
    """
    values = _array(path, key, what)
    if values.ndim == 3 and len(values) == 1:  # some files keep a batch axis
        values = values[0]
    if values.ndim == 1 and key is not None:  # a pooled query: one row
        values = values[None]
    where = f"{what} features {path}"
    if values.ndim != 2 or not len(values) or not np.issubdtype(values.dtype, np.number):
        raise SampleError(f"{where}: {values.dtype} {values.shape}, not a table of rows")
    if width is not None and values.shape[1] != width:
        raise SampleError(
            f"{where}: {values.shape[1]} columns, expected {width}; name the right folder, or the "
            "width in the data set's YAML"
        )
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise SampleError(
            f"{where}: {int(bad.sum())} of {len(values)} rows hold NaN or infinity (first: row "
            f"{int(bad.argmax())}); extract this file again"
        )
    return values.astype(np.float32)


def _array(path: Path, key: str | None, what: str) -> np.ndarray:
    if not path.is_file():
        raise SampleError(f"no {what} features: {path} is missing")
    try:
        check_array(path, key)
        loaded = np.load(path, allow_pickle=False)
        if key is None:
            if not isinstance(loaded, np.ndarray):
                raise SampleError(f"{what} features {path}: several arrays in a file for one")
            return loaded
        with loaded as file:
            if key not in file:
                raise SampleError(
                    f"{what} features {path}: no array {key!r}; it holds {', '.join(file)}."
                    f"{did_you_mean(key, file)}"
                )
            return file[key]
    except SampleError:
        raise
    except Exception as error:  # a reader can raise anything about a damaged file
        first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise SampleError(f"{what} features {path}: cannot be read ({first})") from error


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Return the rows divided by their Euclidean length, (rows, width)."""
    return features / (np.linalg.norm(features, axis=-1, keepdims=True) + EPSILON)


def with_time(features: np.ndarray) -> np.ndarray:
    """Return the rows with two columns more: where a clip begins and ends, in 0..1 of the video."""
    n = len(features)
    start = np.arange(n, dtype=np.float32) / n
    return np.concatenate([features, np.stack([start, start + 1 / n], 1)], 1).astype(np.float32)
