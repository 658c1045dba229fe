"""Where the towers of a model lie in the layouts of different versions of transformers."""

from types import SimpleNamespace

import pytest
from torch import nn

from interp_lab.capture.towers import tower_path


def model(model_type: str, *paths: str) -> nn.Module:
    """A model of nothing but modules at these paths."""
    root = nn.Module()
    root.config = SimpleNamespace(model_type=model_type)
    for path in paths:
        at = root
        for name in path.split("."):
            if not hasattr(at, name):
                at.add_module(name, nn.Module())
            at = getattr(at, name)
    return root


@pytest.mark.parametrize("prefix", ["", "thinker."])
@pytest.mark.parametrize(
    ("paths", "language", "audio"),
    [
        (("model.layers", "visual", "audio_tower"), "model", "audio_tower"),
        (
            ("model.language_model.layers", "model.visual", "model.audio_tower"),
            "model.language_model",
            "model.audio_tower",
        ),
    ],
    ids=["before 5.23", "since 5.23"],
)
def test_the_text_model_of_omni_is_found_in_both_layouts(
    prefix: str, paths: tuple[str, ...], language: str, audio: str
) -> None:
    kind = "qwen2_5_omni" if prefix else "qwen2_5_omni_thinker"
    omni = model(kind, *(prefix + p for p in paths))
    assert tower_path(omni, "language") == prefix + language
    assert tower_path(omni, "audio") == prefix + audio
    assert tower_path(omni, "vision") == prefix + audio.replace("audio_tower", "visual")
