"""What is wrong with a checkpoint's files, by their own heads: pointers, cut files, adapters.

A loader raises whatever it likes for such files, and some it reads without a word: a Git LFS
pointer as a vocabulary, full weights without the adapter beside them. So files are looked at before
a loader gets them, and what a loader raises all the same becomes one line here, whatever its type.
"""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from interp_lab.errors import InterpLabError, MissingInputError, UnsupportedModelError
from interp_lab.identity.weights import NOT_READ, SUFFIXES

LFS = b"version https://git-lfs.github.com/spec/"
ADAPTER = "adapter_config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def problem_of(path: Path, parse: bool = False) -> str:
    """Return what is wrong with a file of a checkpoint, as its head tells; empty if nothing is.

    Args:
        path: of the file.
        parse: whether JSON is read as a whole; some that no loader reads may be of another kind.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(len(LFS))
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if head == LFS:
        return (
            f"{path.name} is a Git LFS pointer and not the file itself; run `git lfs pull` in "
            f"{path.parent}"
        )
    if not size and path.suffix in (*WEIGHTS, ".json"):
        return f"{path.name} is empty; copy it again"
    if path.suffix == ".safetensors":
        return _problem_of_safetensors(path, size)
    if path.suffix in WEIGHTS and head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"{path.name} is cut off ({size} bytes, its end is missing); copy it again"
    if parse and path.suffix == ".json":
        return _problem_of_json(path)
    return ""


def _problem_of_safetensors(path: Path, size: int) -> str:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(size, 2**27):
            return f"{path.name} is cut off or damaged ({size} bytes); copy it again"
        try:
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            whole = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return f"{path.name} is damaged: its header cannot be read; copy it again"
    if size < whole:
        return f"{path.name} is cut off: {size} of {whole} bytes; copy it again"
    return ""


def _problem_of_json(path: Path) -> str:
    try:
        json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"{path.name} is no JSON ({error}); copy it again"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return ""


def problem_of_place(place: Path, parse: bool = False) -> str:
    """Return what is wrong with the first such file of a checkpoint's folder, or of a file."""
    if place.is_file():
        return problem_of(place, parse)
    texts = [p for p in sorted(place.iterdir()) if p.suffix in SUFFIXES and p.is_file()]
    texts = [p for p in texts if p.suffix not in (*WEIGHTS, ".gguf") and not NOT_READ.match(p.name)]
    found = (problem_of(path, parse) for path in [*texts, *_weight_files(place)])
    return next((problem for problem in found if problem), "")


def _weight_files(place: Path) -> list[Path]:
    """Return the files that a folder's weights are read from; others may lie there unfinished."""
    whole, index = place / "model.safetensors", place / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [place / name for name in sorted(set(shards))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []  # loading says so
    return [p for p in sorted(place.iterdir()) if p.suffix in WEIGHTS and p.is_file()]


def check_place(place: Path, where: str, weights: bool) -> None:
    """Refuse what a loader would read without a word, and be wrong.

    Args:
        place: a checkpoint's folder or file on this machine.
        where: how messages begin.
        weights: whether weights are loaded, beside which an adapter counts.

    Raises:
        MissingInputError: if a file is a pointer, cut off or damaged.
        UnsupportedModelError: if there is an adapter and nothing that it belongs to.
    """
    problem = problem_of_place(place)
    if problem:
        raise MissingInputError(f"{where}: {problem}")
    if not weights or not (place / ADAPTER).is_file():
        return
    full = any(
        p.suffix in WEIGHTS and not p.name.startswith("adapter_model") for p in place.iterdir()
    )
    if not full:
        raise UnsupportedModelError(
            f"{where}: is an adapter ({ADAPTER}) without its base model's weights; give "
            f"model.adapter={place} and model.checkpoint={base_of(place) or 'its base model'}"
        )


def base_of(place: Path) -> str | None:
    """Return the model that an adapter's settings say it was trained on; None if they do not."""
    try:
        found = json.loads((place / ADAPTER).read_text(encoding="utf-8-sig"))
        return found.get("base_model_name_or_path") or None
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def reading(place: Path | str, where: str, what: str) -> Iterator[None]:
    """Turn whatever a loader raises inside the block into one line that names the file.

    Args:
        place: the file or folder that it reads.
        where: how messages begin.
        what: is read, such as "weights".

    Raises:
        MissingInputError: what is wrong with the file, or what the loader said.
    """
    try:
        yield
    except InterpLabError:
        raise
    except Exception as error:  # third-party code: any type at all
        if is_out_of_memory(error):
            raise
        path = Path(place)
        problem = problem_of_place(path, parse=True) if path.exists() else ""
        said = problem or f"damaged, or of another kind? Cause: {cause_of(error)}"
        raise MissingInputError(f"{where}: cannot load the {what} from {path}: {said}") from error


def cause_of(error: BaseException) -> str:
    """Return the type and the first line of an error's text, cut."""
    return f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, cut; empty if it has none."""
    return next(iter(str(error).strip().splitlines()), "")[:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or this machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    text = str(error).lower()
    said = ("out of memory", "can't allocate memory", "cannot allocate memory")
    return any(words in text for words in said)
