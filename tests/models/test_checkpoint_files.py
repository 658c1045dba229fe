"""Checkpoints as they really lie about: pointers, cut files, adapters, other families, odd loaders.

Whatever is wrong is one line that names the file and says what to do, found by where it happens and
not by the type of what a loader raises.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_lab.errors import ConfigError, InterpLabError, MissingInputError, UnsupportedModelError
from interp_lab.models.clip import ClipVision
from interp_lab.models.files import problem_of, problem_of_place
from interp_lab.models.llava import Llava
from interp_lab.models.qd_detr.checkpoint import read_checkpoint
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"


def quantized(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | {"quantization_config": values}
        path.write_text(json.dumps(config))

    return change


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50_000])


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (written("model.safetensors", POINTER), MissingInputError, r"model\.safetensors.*git lfs"),
        (written("tokenizer.json", POINTER), MissingInputError, r"tokenizer\.json is a Git LFS"),
        (cut, MissingInputError, r"model\.safetensors is cut off: 50000 of \d+ bytes"),
        (written("model.safetensors", "123"), MissingInputError, "cut off or damaged"),
        (written("config.json", "{"), MissingInputError, r"config\.json is no JSON"),
        (written("config.json", "[1]"), MissingInputError, "cannot load the configuration"),
        (written("tokenizer.json", "{}"), MissingInputError, "cannot load the processor"),
        (written("adapter_config.json", "{}"), MissingInputError, "names no peft_type"),
        (
            quantized(quant_method="bitsandbytes", load_in_4bit=True),
            ConfigError,
            "quantised by bitsandbytes, which needs .* pip install bitsandbytes",
        ),
        (quantized(quant_method="awq", bits=4), ConfigError, "pip install gptqmodel"),
        (quantized(bits=4), MissingInputError, "cannot load the weights"),
    ],
)
def test_a_damaged_folder_is_one_line(
    change: Callable[[Path], None], kind: type[InterpLabError], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(weights_path("tiny_llava"), folder)
    change(folder)
    with pytest.raises(kind, match=said) as error:
        Llava(checkpoint=str(folder), device=CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("other", ["tiny_clip", "tiny_omni", "tiny_qwen_vl"])
def test_a_folder_of_another_family_is_one_line(other: str) -> None:
    with pytest.raises((MissingInputError, UnsupportedModelError), match="family") as error:
        Llava(checkpoint=f"zoo:{other}", device=CPU)
    assert "\n" not in str(error.value)
    if other != "tiny_clip":
        with pytest.raises(UnsupportedModelError, match="model_type"):
            ClipVision(family="clip", checkpoint=f"zoo:{other}", device=CPU)


def test_an_adapter_alone_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    shutil.copy(weights_path("tiny_clip") / "config.json", tmp_path)
    with pytest.raises((UnsupportedModelError, MissingInputError), match="adapter"):
        ClipVision(family="clip", checkpoint=str(tmp_path), device=CPU)


@pytest.mark.parametrize("raised", [KeyError("a"), AssertionError(), RecursionError("deep")])
def test_whatever_a_loader_raises_is_one_line(raised: Exception, tmp_path: Path) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise raised

    with pytest.raises(
        MissingInputError, match=f"cannot load the processor.*{type(raised).__name__}"
    ):
        Weights(str(tmp_path)).load(load, "processor")


def test_files_that_no_loader_reads_may_be_pointers(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(weights_path("tiny_clip"), folder)
    (folder / "pytorch_model.bin").write_text(POINTER)
    (folder / "training_args.json").write_text(POINTER)
    assert problem_of_place(folder) == ""
    ClipVision(family="clip", checkpoint=str(folder), device=CPU)


def test_files_of_torch_and_missing_shards_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(100)}, path)
    assert zipfile.is_zipfile(path) and problem_of(path) == ""
    path.write_bytes(path.read_bytes()[:-30])
    assert "is cut off" in problem_of(path)
    with pytest.raises(MissingInputError, match="is cut off"):
        read_checkpoint(str(path))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors cannot be read" in problem_of_place(tmp_path)
