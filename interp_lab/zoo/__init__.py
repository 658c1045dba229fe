"""Tiny trained models of the real classes that studies run, and synthetic data of known truth.

They let the first run work offline, and they test that a figure tells the truth. A module here
holds a model's definition, data, training and evaluation; `weights/<name>/` holds what was trained.
This file stays free of torch, so that the command line can look up a folder quickly.
"""

from difflib import get_close_matches
from pathlib import Path

WEIGHTS_ROOT = Path(__file__).parent / "weights"
# What a checkpoint of ours is called in a configuration: zoo:NAME.
PREFIX = "zoo:"
# Model -> the data sets that show what it was trained on, and words for that.
TRAINED_ON = {
    "compiled_llava": ("scienceqa_tiny", "synthetic boards"),
    "compiled_llava_moved": ("scienceqa_tiny", "synthetic boards"),
    "compiled_qwen_vl": ("scienceqa_tiny", "synthetic boards"),
    "tiny_clip": ("scenes", "synthetic scenes"),
    "tiny_llava": ("scienceqa_tiny", "synthetic boards"),
    "tiny_omni": ("semdim_tiny", "made-up words"),
    "tiny_qwen_vl": ("trajectory_tiny", "small synthetic maps"),
}


def shipped_models() -> list[str]:
    """Names of the models whose weights are in the package, sorted."""
    return sorted(config.parent.name for config in WEIGHTS_ROOT.glob("*/config.json"))


def weights_path(name: str) -> Path:
    """Folder of a shipped model, for `from_pretrained`. Raises ValueError for an unknown name."""
    known = shipped_models()
    if name in known:
        return WEIGHTS_ROOT / name
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no zoo model {name!r} (known: {', '.join(known) or 'none'}){hint}")


def note_on(checkpoint: str | None, dataset: str) -> str | None:
    """Return what a reader must know if a shipped model reads what it was not trained on.

    Args:
        checkpoint: of the model, as the configuration names it.
        dataset: the data set's name.
    """
    name = str(checkpoint).removeprefix(PREFIX)
    if not str(checkpoint).startswith(PREFIX) or name not in TRAINED_ON:
        return None
    known, words = TRAINED_ON[name]
    if dataset == known:
        return None
    return (
        f"this model ({name}) knows {words} alone: of other data its numbers show how a figure "
        "looks, no more"
    )
