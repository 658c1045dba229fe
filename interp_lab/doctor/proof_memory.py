"""Proofs of capture that were made before, as small JSON files in the user's cache folder."""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import interp_lab

# The packages of this project that a proof speaks for; a change in them asks for a new one.
PROVEN = ("capture", "doctor")


def default_folder() -> Path:
    """Return where proofs are: INTERP_LAB_CACHE, else interp_lab/ in the user's cache folder."""
    own = os.environ.get("INTERP_LAB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    cache_home = Path(base) if base else Path("~/.cache").expanduser()
    return (Path(own).expanduser() if own else cache_home / "interp_lab") / "proofs"


def combination(device: str, dtype: torch.dtype, implementation: str) -> dict[str, str]:
    """Return everything that a proof depends on, as text by name."""
    return {
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "interp_lab": interp_lab.__version__,
        "code": _code(),
        "device": f"{device} ({platform.machine()})",
        "dtype": str(dtype).removeprefix("torch."),
        "implementation": implementation,
    }


@cache
def _code() -> str:
    """Return a hash of the source of capture, so that edited code is proven again."""
    digest = hashlib.sha256()
    root = Path(interp_lab.__file__).parent
    for path in sorted(p for name in PROVEN for p in (root / name).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _path(folder: Path, combination: Mapping[str, str]) -> Path:
    text = json.dumps(combination, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def remembered(folder: Path, combination: Mapping[str, str]) -> bool:
    """Return whether this combination was proven; a file that cannot be read does not count."""
    try:
        stored = json.loads(_path(folder, combination).read_text(encoding="utf-8"))
        return stored["combination"] == dict(combination)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember(
    folder: Path, combination: Mapping[str, str], checks: Mapping[str, tuple[float, float]]
) -> str:
    """Write a proof, whole or not at all; return a note if it cannot be written, else nothing."""
    about = {
        "combination": dict(combination),
        "checks": {name: {"difference": d, "bound": b} for name, (d, b) in checks.items()},
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    path = _path(folder, combination)
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(about, file, indent=1)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return (
            f"{folder}: cannot be written ({error.strerror}), so capture is proven anew each time; "
            "set INTERP_LAB_CACHE to a folder that can"
        )
    return ""
