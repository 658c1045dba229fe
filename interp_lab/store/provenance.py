"""What a result says of its making: versions, commit, machine, times."""

import datetime
import json
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("interp_lab", "torch", "transformers", "numpy", "h5py", "hydra-core", "omegaconf")


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, str]:
    """Return versions (JSON), git commit, host and Python, for a result's root attributes."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": json.dumps(versions),
        "git_commit": _git_commit(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def _git_commit() -> str:
    """Return the commit of the checkout that the code runs from, "+" if it was changed, or ""."""
    folder = Path(__file__).parent
    if not any((parent / ".git").exists() for parent in folder.parents):
        return ""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
