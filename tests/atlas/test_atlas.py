"""Types as unlike each other as can be, watched in this very run: equal, or refused with a reason.

`make atlas` goes through all; here each stands for a kind. A version of transformers that lacks a
type passes it over.
"""

import pytest
from atlas_page import faults
from forked import apart
from model_types import all_types

import interp_lab.capture.attention
import interp_lab.capture.generate
import interp_lab.capture.reference  # noqa: F401

# Type -> a tower that must be equal at least for one row by itself.
SUBSET = {
    "llama": "language",
    "gemma2": "language",  # windows and a soft cap
    "gpt_oss": "language",  # sinks
    "qwen3_next": "language",  # linear attention between
    "lfm2": "language",  # convolutions between
    "falcon": "language",  # attention in the class's own forward
    "gpt2": "language",
    "bert": "language",
    "deberta-v2": "language",  # relative positions, attention of its own
    "albert": None,  # one layer called many times
    "diffllama": None,  # two attention calls a layer
    "clip": "vision",
    "siglip": "language",  # a pooling head with another attention
    "vit": "vision",
    "swin": None,  # shifted windows
    "qwen2_5_vl": "language",  # pictures packed into one sequence
    "llava": "vision",
    "internvl": None,
    "mllama": None,  # cross attention to tiles
    "t5": None,  # encoder and decoder, a bias for positions
    "bart": None,
    "whisper": None,  # sound into text
    "wav2vec2": None,
    "colpali": None,  # at odds with itself
    "blip": None,  # a generation that leaves out a part of its prompt
    "clvp": None,  # texts beside speech, named by none of the usual names
    "rag": "cross",  # an encoder-decoder inside another model
    "pp_formulanet_text": "language",  # inherits the name of an input that it does not take
}


@pytest.mark.parametrize("model_type", SUBSET)
def test_a_type_is_equal_or_refused(model_type: str) -> None:
    if model_type not in all_types():
        pytest.skip("this version of transformers does not have the type")
    row = apart(model_type)
    assert row["towers"], (row["reason"], row["why"])
    assert faults([row]) == []
    tower = SUBSET[model_type]
    if tower is not None:
        found = {t["tower"]: t["outcomes"] for t in row["towers"]}
        assert found[tower]["prefill"]["status"] == "equal"
