"""What a run is: the settings that its numbers depend on, and the weights that measured them.

Two commands are the same run, in one directory, if nothing of this differs; what was measured is
compared sample by sample when a run goes on (`going_on`). Device, workers and style are not part
of it, nor are Python paths: a class goes by its name. Paths are absolute, so that the same folder
is the same data set from wherever the command is typed; weights go by their content.
"""

import datetime
import glob
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_lab import __version__
from interp_lab.identity.checkpoints import (
    AUTO,
    QUANTIZATION_DEFAULTS,
    dtype_said,
    quantization_said,
    settings_of,
)
from interp_lab.identity.names import before, each_target, identity_of
from interp_lab.identity.signatures import with_defaults
from interp_lab.identity.weights import stamps_of, weights_identity

# Where a model runs, what a node is called and where a text is shown from do not change a number;
# nor does for how many samples maps are kept beside the numbers.
NOT_IN_RUN_ID = {
    "model": ("device_map", "max_memory", "offload_folder", "name"),
    "dataset": ("name",),
    "analysis": ("name", "maps"),
}
# Keys of a model that its weights' identity stands for.
WEIGHTS = ("checkpoint", "processor", "revision", "adapter", "adapter_revision")
# Options of a model that came later -> the value that changes nothing. There they are left out, so
# that a run that was begun before goes on.
LATER = {"quantization": None, "adapter": None, "adapter_revision": None, "merge_adapter": True}
# Options that schema version 1 did not have -> what it did.
SINCE = (
    ("dataset", "prompt", "product"),
    ("dataset", "neither", False),
    ("analysis", "answer_rule", "choice"),
    ("numbers", "pooling", "word"),
    ("model", "coordinates", "thousandths"),
    ("dataset", "coordinates", "thousandths"),
    ("dataset", "split", None),
    ("dataset", "prompt", "product"),
)
# A run directory keeps its identity here, to say later in what another run differs.
KEPT_IN = "identity.json"
# Longer than a path can be.
LONGEST_PATH = 4096


def identity_of_run(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that changes the numbers of a run, apart from its samples.

    What the YAML leaves out is there by its default, so listing an option with its default makes no
    other run, and a default that changes with the program does.

    Args:
        nodes: plain values of `task_name`, `seed`, `model`, `dataset`, `analysis` and `capture`
            (its `method` and `interventions`); `numbers` is not part of it.
    """
    measured = {key: with_defaults(nodes[key]) for key in NOT_IN_RUN_ID}
    model = _without(measured, "model")
    weights = weights_identity(model)
    settings = {k: v for k, v in model.items() if k not in WEIGHTS or isinstance(v, Mapping)}
    settings, loading = _as_loaded(settings, model)
    found = {
        "version": __version__.rsplit(".", 1)[0],
        "task_name": nodes["task_name"],
        "seed": nodes["seed"],
        "model": absolute(settings, bare=False),
        "weights": weights,
        "dataset": absolute(_without(measured, "dataset")),
        "analysis": _without(measured, "analysis"),
        "capture": nodes["capture"],
    }
    return each_target(found | loading, identity_of)


def _as_loaded(
    settings: Mapping[str, Any], model: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a model's settings as its weights are loaded by, and what these say of their packing.

    `dtype: auto` is the dtype that the checkpoint names, and so no other run than that dtype typed.
    """
    found = {k: v for k, v in settings.items() if k not in LATER or v != LATER[k]}
    if not model.get("adapter"):
        found.pop("merge_adapter", None)
    if isinstance(found.get("quantization"), Mapping):
        defaults = QUANTIZATION_DEFAULTS.get(found["quantization"].get("method"), {})
        found["quantization"] = {**defaults, **found["quantization"]}
    checkpoint, revision = model.get("checkpoint"), model.get("revision")
    if not isinstance(checkpoint, str) or model.get("init") == "random":
        return found, {}
    if found.get("dtype") == AUTO:
        found["dtype"] = dtype_said(checkpoint, revision) or AUTO
    packed = quantization_said(settings_of(checkpoint, revision))
    return found, {"packed": packed} if packed else {}


def run_id_of(identity: Mapping[str, Any]) -> str:
    """Return the hash that a run is called by."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_id_before(nodes: Mapping[str, Any]) -> str:
    """Return the hash that schema version 1 called this run by, for directories of that time.

    It knows settings alone: dotted paths of classes, and the checkpoint as it was typed.
    """
    old: dict[str, Any] = {"version": "0.1"}
    old |= {key: nodes[key] for key in ("task_name", "seed")}
    old |= {key: each_target(_without(nodes, key), before) for key in NOT_IN_RUN_ID}
    # Options that came later, where they say what was done then. Only Trajectory reads points.
    reads_points = str(old["analysis"].get("_target_", "")).endswith(".Trajectory")
    for node, key, then in SINCE:
        if node in old and (
            old[node].get(key) == then or (key == "coordinates" and not reads_points)
        ):
            old[node].pop(key, None)
    # What is made of measured samples stood among the analysis's own options.
    made = {
        k: v
        for k, v in nodes["numbers"].items()
        if k not in ("_target_", "name") and ("numbers", k, v) not in SINCE
    }
    old["analysis"] = made | old["analysis"]
    old["capture"] = [nodes["capture"]["method"], nodes["capture"]["interventions"]]
    for key, value in old["dataset"].items():
        if isinstance(value, str) and ("/" in value or Path(value).exists()):
            old["dataset"][key] = str(Path(value).expanduser().absolute())
    return run_id_of(old)


def adoptable(folder: Path, nodes: Mapping[str, Any]) -> bool:
    """Return whether a run of schema version 1 in a folder is the one that these nodes describe.

    Its name says so of the settings. Of its weights it kept nothing, so they must be older than
    the first of its numbers; a run that has gone on since then has its identity beside it.
    """
    kept = kept_identity(folder)
    if kept is not None:
        return kept == json.loads(json.dumps(identity_of_run(nodes), default=str))
    began = _began(folder)
    return began is not None and weights_older_than(nodes["model"], began)


def kept_identity(folder: Path) -> dict[str, Any] | None:
    """Return the identity that a run directory keeps of itself; None if there is none."""
    try:
        return json.loads((folder / KEPT_IN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _began(folder: Path) -> float | None:
    """Return when the first process began that measured for a run directory, as Unix time."""
    import h5py

    began: list[float] = []
    for path in [*folder.glob("parts/*.part.h5"), *folder.glob("results.h5")]:
        try:
            with h5py.File(path, "r") as file:
                began.append(seconds_of(str(file.attrs["started"])))
        except (OSError, KeyError, ValueError, TypeError, RuntimeError):
            return None
    return min(began, default=None)


def seconds_of(time: str) -> float:
    """Return a time of ISO 8601 as Unix time.

    Raises:
        ValueError: if it is none.
    """
    return datetime.datetime.fromisoformat(time).timestamp()


def weights_older_than(model: Mapping[str, Any], seconds: float) -> bool:
    """Return whether no file of a model's weights was written or put there since a time (Unix)."""
    stamps = stamps_of(model)
    return stamps is not None and all(max(s[1], s[2]) / 1e9 < seconds for s in stamps)


def absolute(value: Any, bare: bool = True) -> Any:
    """Return nested values with every text that is the path of something absolute.

    A text counts as a path if something lies there, or if as a pattern it finds a file.

    Args:
        value: plain values.
        bare: whether a text without a slash can be a path.
    """
    if isinstance(value, Mapping):
        return {k: absolute(v, bare) for k, v in value.items()}
    if isinstance(value, list):
        return [absolute(v, bare) for v in value]
    if isinstance(value, str) and (bare or "/" in value) and _is_path(value):
        return str(Path(value).expanduser().absolute())
    return value


def _is_path(text: str) -> bool:
    if not text.strip() or len(text) > LONGEST_PATH or "\0" in text:
        return False
    path = Path(text).expanduser()
    try:
        if text.startswith(("/", "./", "../", "~")) or path.exists():
            return True
        return (
            glob.has_magic(text) and next(glob.iglob(str(path), recursive=True), None) is not None
        )
    except OSError:  # a text that is too long for a name is none
        return False


def differences(one: Mapping[str, Any], other: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the keys, with dots, in which two identities differ."""
    found: list[str] = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{above}{key}.")
        elif a != b:
            found.append(f"{above}{key}")
    return found


def _without(nodes: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in nodes[key].items() if k not in NOT_IN_RUN_ID[key]}
