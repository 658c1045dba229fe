"""Images: one file, a folder or a glob; every file is one sample.

The decoder's corners are decided here, once: what a picture of an unusual kind means as RGB, and
which files are refused with a reason.
"""

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from interp_lab.config.signature import Distinct
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.limits import check_picture, check_regular
from interp_lab.errors import ConfigError, MissingInputError, SampleError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
    + (".ppm", ".pgm", ".jp2", ".avif")
)
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
        for entry in [path] if isinstance(path, str) else path:
            for file, name in _expand(entry):
                found.setdefault(file, name)
        if not found:
            raise MissingInputError("dataset.path=[]: is empty; give a path")
        self._files = _distinct(found)
        if max_samples > 0:
            self._files = self._files[:max_samples]

    def ids(self) -> Sequence[str]:
        """Return the file names, relative to the folder or the pattern's fixed part."""
        return [name for _, name in self._files]

    def counts(self) -> dict[str, int]:
        """Return nothing: every picture that was found is a sample."""
        return {}

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
    of an animation the first frame is taken.

    Raises:
        SampleError: if the file cannot be read as a picture.
    """
    check_regular(file, "picture")
    try:
        with Image.open(file) as image:
            check_picture(image, file)
            animated = getattr(image, "n_frames", 1) > 1
            image.load()
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise SampleError(f"{file}: no such file") from error
    except UnidentifiedImageError as error:
        raise SampleError(f"{file}: not a picture, or of a format that is not supported") from error
    # Pillow's decoders raise many types on damaged data; each is this file's fault, none the run's.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise SampleError(f"{file}: damaged or unreadable picture ({error})") from error
    if max(upright.size) > MAX_ASPECT_RATIO * min(upright.size):
        raise SampleError(
            f"{file}: {upright.width}x{upright.height} pixels is more than "
            f"{MAX_ASPECT_RATIO} times as long as it is wide; cut it before use"
        )
    return _as_rgb(upright, file), "first frame of an animation" if animated else ""


def _as_rgb(image: Image.Image, file: Path) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips wider grey values at 255; 16 bits are scaled instead.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise SampleError(f"{file}: grey values outside 16 bits; convert it to 8 or 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise SampleError(f"{file}: floating-point pixels have no defined range; convert to 8 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _expand(entry: str) -> list[tuple[Path, str]]:
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
        files = [f for f in files if f.suffix.lower() in SUFFIXES]
    if not files:
        raise MissingInputError(
            f"dataset.path={entry}: no picture found; known endings: {', '.join(sorted(SUFFIXES))}"
        )
    return [(f.absolute(), f.absolute().relative_to(root).as_posix()) for f in files]


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
