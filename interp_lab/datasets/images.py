"""Images: one file, a folder or a glob; every file is one sample.

The decoder's corners are decided here, once: what a picture of an unusual kind means as RGB, and
which files are refused with a reason.
"""

import glob
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from interp_lab.config.signature import Distinct
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.limits import check_picture, check_regular
from interp_lab.errors import ConfigError, MissingInputError, SampleError

log = logging.getLogger(__name__)
# Formats that Pillow names and cannot draw by itself: stubs, films, and programs in PostScript.
NO_PICTURES = frozenset("BUFR EPS FLI GRIB HDF5 MPEG PDF WMF".split())
# Formats whose further pictures are moments of one; of others they are pages or other views.
ANIMATED = frozenset("AVIF GIF PNG WEBP".split())
WITHOUT = "without an ending"
# A processor scales the shorter side to its size; beyond this ratio that alone fills the memory.
MAX_ASPECT_RATIO = 100


class ImageFiles:
    """Pictures on disk.

    Args:
        path: a file, a folder (searched at every depth), or a glob pattern; or a list of these.
        max_samples: use the first so many; -1 = all.

    Raises:
        MissingInputError: if a path is not there or holds no picture.
        ConfigError: if `max_samples` is neither -1 nor positive.
    """

    gives = ("image",)

    def __init__(self, path: str | Distinct[str], max_samples: int = -1) -> None:
        if max_samples != -1 and max_samples < 1:
            raise ConfigError(f"dataset.max_samples={max_samples}: give -1 (all) or at least 1")
        found: dict[Path, str] = {}
        others: dict[Path, str] = {}
        for entry in [path] if isinstance(path, str) else path:
            for file, name in _expand(entry, others):
                found.setdefault(file, name)
        kinds = Counter(kind for file, kind in others.items() if file not in found)
        self._left_out = dict(sorted(kinds.items()))
        if kinds:
            log.warning("dataset.path=%s: %s", path, _said(self._left_out))
        if not found:
            raise MissingInputError("dataset.path=[]: is empty; give a path")
        self._files = _distinct(found)
        if max_samples > 0:
            self._files = self._files[:max_samples]

    def ids(self) -> Sequence[str]:
        """Return the file names, relative to the folder or the pattern's fixed part."""
        return [name for _, name in self._files]

    def counts(self) -> dict[str, int]:
        """Return how many files of the folders are no pictures that can be read, by ending."""
        return {f"left_out {kind}": n for kind, n in self._left_out.items()}

    def made_of(self, index: int) -> MadeOf:
        """Return the picture's file."""
        return MadeOf(files=(self._files[index][0],))

    def load(self, index: int) -> Sample:
        """Return the picture as a sample.

        Raises:
            SampleError: if the file is not a picture, is damaged, or is of no use as one.
        """
        file, name = self._files[index]
        image, note = read_image(file)
        facts = {"image_file": str(file)} | ({"note": note} if note else {})
        return Sample(id=name, parts=(("image", 0),), images=(image,), facts=facts)


def read_image(file: Path) -> tuple[Image.Image, str]:
    """Return an upright 8-bit RGB picture, and a note on what was chosen, if anything was.

    EXIF rotation is applied; 16-bit grey is scaled, not clipped; transparency is laid on white;
    of several pictures in a file, frames or pages, the first is taken.

    Raises:
        SampleError: if the file cannot be read as a picture.
    """
    check_regular(file, "picture")
    try:
        with Image.open(file) as image:
            check_picture(image, file)
            n_frames, kind = getattr(image, "n_frames", 1), image.format or ""
            raw = _raw_mode(image)
            image.load()
            if "transparency" in image.info:
                image.info["transparency"] = _scaled(image.info["transparency"], image.mode, raw)
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise SampleError(f"{file}: no such file") from error
    except UnidentifiedImageError as error:
        raise SampleError(f"{file}: not a picture, or of a format that is not supported") from error
    # Pillow's decoders can raise anything on damaged data; it is this file's fault, not the run's.
    except Exception as error:
        raise SampleError(f"{file}: damaged or unreadable picture ({error})") from error
    if max(upright.size) > MAX_ASPECT_RATIO * min(upright.size):
        raise SampleError(
            f"{file}: {upright.width}x{upright.height} pixels is more than "
            f"{MAX_ASPECT_RATIO} times as long as it is wide; cut it before use"
        )
    return _as_rgb(upright, file), _note(n_frames, kind)


def _note(n_frames: int, kind: str) -> str:
    if n_frames < 2:
        return ""
    if kind in ANIMATED:
        return "first frame of an animation"
    return f"first of {n_frames} pictures in one file"


def _raw_mode(image: Image.Image) -> str:
    """Return how the file holds its values, such as `RGB;16B`, before they become 8 bits."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _scaled(clear: Any, mode: str, raw: str) -> Any:
    """Return the value that a file calls transparent, on the scale that its pixels now have."""
    if mode == "RGB" and raw.endswith("16B") and isinstance(clear, tuple):
        return tuple(value >> 8 for value in clear)
    bits = {"1": 1, "L;1": 1, "L;2": 2, "L;4": 4}.get(raw)
    if bits and mode in ("1", "L") and isinstance(clear, int):
        return clear * 255 // (2**bits - 1)
    return clear


def _as_rgb(image: Image.Image, file: Path) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips wider grey values at 255; 16 bits are scaled instead.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise SampleError(f"{file}: grey values outside 16 bits; convert it to 8 or 16 bits")
        grey = (values // 257).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise SampleError(f"{file}: floating-point pixels have no defined range; convert to 8 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _expand(entry: str, others: dict[Path, str]) -> list[tuple[Path, str]]:
    """Return the pictures of an entry with their names; add to `others` what is none, and why."""
    path = Path(entry).expanduser()
    if glob.has_magic(entry) and not path.exists():
        files = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        root = Path(*_fixed_parts(path)).absolute()
        files = [f for f in files if f.is_file()]
    else:
        path = existing_path("dataset.path", entry)
        if path.is_file():
            return [(path, path.name)]
        root = path
        files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
        found = [f for f in files if _is_picture(f)]
        left = {f.absolute(): f.suffix.lower() or WITHOUT for f in files if f not in set(found)}
        others |= left
        files = found
    if not files:
        there = _said(Counter(others.values())) if others else "it holds no file"
        raise MissingInputError(
            f"dataset.path={entry}: no picture found ({there}); give pictures that Pillow reads, "
            "such as .png, .jpg, .tif or .webp"
        )
    return [(f.absolute(), f.absolute().relative_to(root).as_posix()) for f in files]


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Return the endings of what Pillow reads, with the plugins that are registered."""
    endings = Image.registered_extensions()
    return frozenset(e for e, k in endings.items() if k in Image.OPEN and k not in NO_PICTURES)


def _is_picture(file: Path) -> bool:
    """Return whether a file's ending says that it is a picture; without one, whether it is."""
    if file.suffix:
        return file.suffix.lower() in suffixes()
    try:
        with Image.open(file) as image:
            return image.format not in NO_PICTURES
    except Exception:  # a decoder can raise anything about what is no picture
        return False


def _said(kinds: Mapping[str, int]) -> str:
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    return f"{sum(kinds.values())} files are left out, which are no pictures to Pillow: {listed}"


def _fixed_parts(pattern: Path) -> list[str]:
    parts: list[str] = []
    for part in pattern.parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts or ["."]


def _distinct(found: dict[Path, str]) -> list[tuple[Path, str]]:
    """Give pictures from several places that share a name their whole path as the id."""
    counts: dict[str, int] = {}
    for name in found.values():
        counts[name] = counts.get(name, 0) + 1
    return [(f, n if counts[n] == 1 else f.as_posix()) for f, n in found.items()]
