"""Names of classes and draw functions that stay when their module moves.

A result and a run's identity name what made them without a Python path, so that moving a module
makes no old result unreadable and no run another one. The name is the last part of the `_target_`
in the package's own YAML files, which are the table of names; they all differ. What is not of this
package has no such name: it goes by its own module, and in a run's identity by its source.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from interp_lab.errors import StoreError, did_you_mean

PACKAGE = Path(__file__).parents[1]
OWN = "interp_lab."
KEY = "_target_"
LINE = re.compile(rf"^\s*(?:{KEY}:\s*|.*{{{KEY}:\s*)({re.escape(OWN)}[\w.]+)", re.MULTILINE)
# Where things stood when results held dotted paths (schema version 1). Such a path is read as its
# last part; a name that was changed since has a line in `RENAMED`.
BEFORE = {
    "interp_lab.models.clip": ("ClipVision",),
    "interp_lab.models.llava": ("Llava",),
    "interp_lab.models.own": ("OwnModule",),
    "interp_lab.models.qd_detr": ("QdDetr",),
    "interp_lab.models.qwen_omni": ("QwenOmni",),
    "interp_lab.models.qwen_vl": ("QwenVL",),
    "interp_lab.models.text": ("TextModel",),
    "interp_lab.datasets.images": ("ImageFiles",),
    "interp_lab.datasets.qvhighlights": ("QVHighlights",),
    "interp_lab.datasets.scienceqa": ("ScienceQA",),
    "interp_lab.datasets.semdim": ("SemanticDimensions",),
    "interp_lab.datasets.trajectory": ("TrajectoryFile",),
    "interp_lab.analyses.avigate": ("GateTracing",),
    "interp_lab.analyses.clip_similarity": ("ClipSimilarity",),
    "interp_lab.analyses.scienceqa": ("ScienceQAHeads",),
    "interp_lab.analyses.semdim": ("SemanticDimensionAttention",),
    "interp_lab.analyses.trajectory": ("Trajectory",),
    "interp_lab.visualization.answer_split": ("accuracy_split",),
    "interp_lab.visualization.base": ("Style",),
    "interp_lab.visualization.dimension_curves": ("dimension_layer_curves",),
    "interp_lab.visualization.gate_benefit": ("gate_benefit", "moments_under_gates"),
    "interp_lab.visualization.gate_comparison": ("gate_comparison",),
    "interp_lab.visualization.gate_patterns": ("activation_patterns", "gate_clustering"),
    "interp_lab.visualization.gate_samples": ("gate_analysis",),
    "interp_lab.visualization.gate_statistics": ("layer_distributions", "overall_statistics"),
    "interp_lab.visualization.head_curves": ("head_share_intervals", "layer_diversity"),
    "interp_lab.visualization.heads": (
        *("head_frequency_total", "max_attention_head_distribution"),
        *("max_attention_head_heatmap", "mean_scores", "top_k_heads_per_layer"),
    ),
    "interp_lab.visualization.knockout": ("knockout",),
    "interp_lab.visualization.knockout_bands": ("knockout_bands",),
    "interp_lab.visualization.maps": ("MapStyle", "combined", "individual"),
    "interp_lab.visualization.phones": ("phone_dimension_heatmap",),
    "interp_lab.visualization.run_maps": ("distributions", "mean_maps"),
    "interp_lab.visualization.trajectory": ("TrajectoryStyle",),
    "interp_lab.visualization.trajectory_curves": (
        *("distance_curves", "share_curves", "share_maps"),
    ),
    "interp_lab.visualization.trajectory_film": ("attention_poster", "attention_video"),
    "interp_lab.visualization.trajectory_strip": ("attention_strip",),
    "interp_lab.visualization.word_average": ("average_heatmap",),
    "interp_lab.visualization.word_flow": ("attention_flow",),
    "interp_lab.visualization.word_maps": ("attention_heatmap",),
    "interp_lab.visualization.word_units": ("fraction_by_unit",),
    "interp_lab.visualization.words": ("WordStyle",),
}
# Name of schema version 1 -> name of today, where they differ.
RENAMED: dict[str, str] = {}
# What only users' own YAML files name.
OF_USERS = {"OwnModule": "interp_lab.models.own.OwnModule"}


def name_of(target: str) -> str:
    """Return the name of a dotted path: its last part if that is registered, else the path."""
    last = target.rsplit(".", 1)[-1]
    return last if target.startswith(OWN) and registered().get(last) == target else target


def before(target: str) -> str:
    """Return the dotted path that something of today had in schema version 1."""
    name = name_of(target)
    old = next((old for old, new in RENAMED.items() if new == name), name)
    return next((f"{module}.{old}" for module, names in BEFORE.items() if old in names), target)


def target_of_name(name: str) -> str:
    """Return today's dotted path of a name, or of a dotted path of schema version 1.

    A path that neither is one of those nor of this package stays as it is.

    Raises:
        StoreError: if a name is not known.
    """
    module, _, last = name.rpartition(".")
    if module and last not in BEFORE.get(module, ()):
        return name
    last = RENAMED.get(last, last)
    known = registered()
    if last in known:
        return known[last]
    if module:
        return name
    raise StoreError(f"no class or figure {name!r} in this version.{did_you_mean(last, known)}")


@lru_cache(maxsize=1)
def registered() -> dict[str, str]:
    """Return name -> dotted path of everything that the package's YAML files name."""
    installed = PACKAGE / "conf"
    folder = installed if installed.is_dir() else PACKAGE.parent / "conf"
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml")))
    paths = [path for text in texts for path in LINE.findall(text)]
    return OF_USERS | {path.rsplit(".", 1)[-1]: path for path in paths}


def each_target(value: Any, change: Callable[[str], str]) -> Any:
    """Return nested plain values with every `_target_` changed."""
    if isinstance(value, Mapping):
        return {
            k: change(v) if k == KEY and isinstance(v, str) else each_target(v, change)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [each_target(v, change) for v in value]
    return value


def identity_of(target: str) -> str:
    """Return what a class or function is called in a run's identity.

    One of this package goes by its name, wherever it is imported from. One of the user's own goes
    by its qualified name and a hash of its source: two classes of one name are not taken for each
    other, and one that is imported from elsewhere is still the same. What it calls is not looked
    at.
    """
    if target.startswith(OWN):
        return target.rsplit(".", 1)[-1]
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
        source = inspect.getsource(found)
    except Exception:  # importing the user's code can raise anything; building the node says it
        return target
    if str(found.__module__).startswith(OWN):
        return found.__qualname__
    return f"{found.__qualname__} {hashlib.sha256(source.encode()).hexdigest()[:16]}"
