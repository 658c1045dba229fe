"""What a model's weights are, for a run's identity: found without loading them and without torch.

A checkpoint on the hub is its id and the commit that its revision means; one on this machine is
the content of its files. So weights that were replaced in their folder are other weights, and the
same weights in another folder are not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interp_lab.identity.files import Stamp, stamp_of, weights_content
from interp_lab.zoo import weights_path

ZOO = "zoo:"
INSTALLED = "package:"
COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS_FOR_THE_HUB = 10.0
# What a folder may hold that a model is made of: weights, settings, vocabulary, templates, code.
SUFFIXES = frozenset(
    (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
    + (".json", ".model", ".txt", ".jinja", ".py")
)
# What training leaves beside the weights and no loading reads.
NOT_READ = re.compile(
    r"(optimizer|scheduler|rng_state|training_args|trainer_state|scaler).*|README.*|requirements.*"
)
# Keys of a model that name files of weights or processors -> the key of their revision.
REVISIONS = {"checkpoint": "revision", "processor": "revision", "adapter": "adapter_revision"}
# Settings that name a second checkpoint whose weights are loaded too (LLaVA's original layout).
REFERS = ("mm_vision_tower",)


def weights_identity(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the weights and processors that a model node names.

    Args:
        node: the model's values; the keys of `REVISIONS` and `init` are looked at.
    """
    random = node.get("init") == "random"
    found: dict[str, Any] = {}
    for key, revision in REVISIONS.items():
        value = node.get(key)
        # With `init: random` a YAML's processor is a table of values, which stays as it is.
        if isinstance(value, str):
            # A random network has no weights to be sure of; its processor goes by its id.
            found[key] = value if random else checkpoint_identity(value, node.get(revision))
    return found


def checkpoint_identity(checkpoint: str, revision: str | None = None) -> dict[str, Any]:
    """Return what identifies a checkpoint; `unknown` if it is not there or was never fetched."""
    place = local_place(checkpoint)
    if place is None:
        commit = commit_of(checkpoint, revision)
        return {"hub": checkpoint, "commit": commit or f"unknown ({revision or 'main'})"}
    if not place.exists():
        return {"unknown": checkpoint}
    try:
        files = {name: weights_content(path) for name, path in _files(place)}
    except OSError:  # not readable; loading it says so
        return {"unknown": checkpoint}
    others = {key: checkpoint_identity(name) for key, name in _references(place)}
    return {"files": files} | others


def local_place(checkpoint: str) -> Path | None:
    """Return where a checkpoint lies on this machine, there or not; None for a hub id."""
    if checkpoint.startswith(ZOO):
        try:
            return weights_path(checkpoint.removeprefix(ZOO))
        except ValueError:
            return Path(checkpoint)  # it is not there, which loading says with near names
    if checkpoint.startswith(INSTALLED):
        try:
            found = find_spec(checkpoint.removeprefix(INSTALLED))
        except (ImportError, ValueError):
            found = None
        return Path(found.origin).parent if found and found.origin else Path(checkpoint)
    path = Path(checkpoint).expanduser()
    looks_local = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
    looks_local = looks_local or path.suffix in SUFFIXES
    return path if path.exists() or looks_local else None


@lru_cache(maxsize=64)
def commit_of(checkpoint: str, revision: str | None = None) -> str | None:
    """Return the commit that a revision of a hub id means; None if that cannot be known here.

    What was fetched before counts; the hub is asked only if nothing was.
    """
    if revision and COMMIT.fullmatch(revision):
        return revision
    return fetched_commit(checkpoint, revision) or _asked(checkpoint, revision)


def fetched_commit(checkpoint: str, revision: str | None = None) -> str | None:
    """Return the commit of a revision that was fetched before; None if none was."""
    from huggingface_hub import constants

    name = "models--" + checkpoint.replace("/", "--")
    try:
        text = (Path(constants.HF_HUB_CACHE) / name / "refs" / (revision or "main")).read_text()
    except (OSError, ValueError):
        return None
    return text.strip() if COMMIT.fullmatch(text.strip()) else None


def _asked(checkpoint: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        found = HfApi().model_info(checkpoint, revision=revision, timeout=SECONDS_FOR_THE_HUB)
    except Exception:  # no network, no such id, no access: loading it says which
        return None
    return found.sha


def stamps_of(node: Mapping[str, Any]) -> list[Stamp] | None:
    """Return what the file system says of all files of a node's weights; None if it cannot.

    It tells whether weights were written after something that was measured with them.
    """
    stamps: list[Stamp] = []
    for key, revision in REVISIONS.items():
        value = node.get(key)
        if not isinstance(value, str) or node.get("init") == "random":
            continue
        place = local_place(value)
        if place is None:
            place = _snapshot(value, commit_of(value, node.get(revision)))
        files = [] if place is None or not place.exists() else list(_files(place))
        if not files or place is None or _references(place):
            return None
        stamps += [s for _, path in files if (s := stamp_of(path)) is not None]
    return stamps


def fetched_folder(checkpoint: str, revision: str | None = None) -> Path | None:
    """Return the folder of what was fetched before of a hub id; None if nothing was."""
    known = revision if revision and COMMIT.fullmatch(revision) else None
    return _snapshot(checkpoint, known or fetched_commit(checkpoint, revision))


def _snapshot(checkpoint: str, commit: str | None) -> Path | None:
    from huggingface_hub import constants

    name = "models--" + checkpoint.replace("/", "--")
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / commit if commit else None


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each file that the checkpoint is made of."""
    if place.is_file():
        yield place.suffix, place  # its name says nothing of its weights
        return
    for path in sorted(place.iterdir()):
        if path.suffix in SUFFIXES and path.is_file() and not NOT_READ.fullmatch(path.name):
            yield path.name, path


def _references(place: Path) -> list[tuple[str, str]]:
    """Return key and id of each checkpoint that a folder's settings refer to."""
    try:
        settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
        return [(key, settings[key]) for key in REFERS if isinstance(settings.get(key), str)]
    except (OSError, ValueError, AttributeError):
        return []
