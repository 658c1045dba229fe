"""Options of the original tools answer with what is typed here, and what they say is true."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

import interp_lab
from interp_lab.config.former import instead
from interp_lab.config.nodes import PACKAGE, conf_dir
from interp_lab.errors import OldOptionError
from interp_lab.identity.signatures import defaults_of
from interp_lab.libraries.hydra_inside import composed

TABLE = yaml.safe_load((PACKAGE / "studies" / "former_options.yaml").read_text(encoding="utf-8"))
IMAGES = "dataset=images dataset.path="

# What is typed -> the line. Values with blanks and signs come as one argument.
TYPED: list[tuple[list[str], str]] = [
    (
        ["image.path=cat.jpg"],
        "image.path is dataset.path here, with dataset=images: type dataset=images "
        "dataset.path=cat.jpg",
    ),
    (
        ["image.path=my cat (1).jpg"],
        "image.path is dataset.path here, with dataset=images: type dataset=images "
        "'dataset.path=\"my cat (1).jpg\"'",
    ),
    (
        ["+output.dpi=300"],
        "output.dpi is visualization.dpi here: type visualization.dpi=300",
    ),
    (
        ["similarity.metric=dot_product", "visualization.cmap=hot"],
        "similarity.metric is analysis.metric here: type analysis.metric=dot_product",
    ),
    (["output.dir=my_results"], "output.dir is output.root here: type output.root=my_results"),
    (
        ["output.format=pdf"],
        "output.format is visualization.format here: type visualization.format=pdf",
    ),
    (
        ["output.save_similarities=false"],
        "output.save_similarities is output.exports here: type output.exports=false",
    ),
    (
        ["output.save_visualizations=false"],
        "output.save_visualizations is "
        "visualization.max_samples here: type visualization.max_samples=0",
    ),
    (
        ["output.save_visualizations=true"],
        "leave output.save_visualizations out: figures are drawn "
        "unless visualization.max_samples=0 is given",
    ),
    (
        ["--multirun", "image.path=image1.jpg,image2.jpg,image3.jpg"],
        "image.path is dataset.path here, with dataset=images: type dataset=images "
        "dataset.path=image1.jpg,image2.jpg,image3.jpg",
    ),
    (
        ["dataset=images", "image.path=cat.jpg"],
        "image.path is dataset.path here: type dataset.path=cat.jpg",
    ),
    (
        ["task=scienceqa", "visualization.save_individual=false"],
        "leave visualization.save_individual out: each figure is turned off by "
        "visualization.figures.NAME.enabled=false; --help lists them",
    ),
    # The commands of the five seeds, whole.
    (
        "--model-path liuhaotian/llava-v1.5-7b --image-folder ./data/scienceqa/images/test "
        "--question-file ./data/scienceqa/llava_test_QCM-LEA.json --output-dir ./heads "
        "--num-samples 100 --conv-mode vicuna_v1".split(),
        "--model-path, --image-folder, --question-file, --output-dir, --num-samples, --conv-mode: "
        "options of the original tool; type task=scienceqa model=llava_1_5_7b dataset=scienceqa "
        "dataset.image_folder=./data/scienceqa/images/test "
        "dataset.question_file=./data/scienceqa/llava_test_QCM-LEA.json output.root=./heads "
        "dataset.max_samples=100 dataset.conv_mode=vicuna_v1",
    ),
    (
        "--input-dir ./heads".split(),
        "--input-dir is results here, with task=scienceqa and mode=render: type task=scienceqa "
        "mode=render results=./heads",
    ),
    (
        "--max-samples 100 --languages en".split(),
        "--max-samples, --languages: options of the original tool; type task=semdim "
        "dataset.max_samples=100 dataset.language=en",
    ),
    (
        "--data-type original --languages en fr --output-dir results/mine".split(),
        "--data-type, --languages, --output-dir: options of the original tool; type task=semdim "
        "dataset.data_type=original 'dataset.language=[en,fr]' output.root=results/mine",
    ),
    (
        "--model Qwen/Qwen2.5-Omni-7B --data-path words.json".split(),
        "--model, --data-path: options of the original tool; type task=semdim model=qwen_omni_7b "
        "dataset=semdim dataset.data_file=words.json",
    ),
    (
        ["--summary"],
        "--summary is mode here, with task=semdim: type task=semdim mode=summary results=PATH",
    ),
    (
        "--auto-process-all --data-type original".split(),
        "--auto-process-all, --data-type: options of the original tool; type task=semdim "
        "visualization.max_samples=-1 dataset.data_type=original",
    ),
    (
        "--batch-mode --languages en".split(),
        "--batch-mode, --languages: options of the original tool; type task=semdim "
        "visualization.max_samples=-1 dataset.language=en",
    ),
    (
        "--word-tokens apple --dimension1 big --dimension2 small --lang en".split(),
        "--word-tokens, --dimension1, --dimension2, --lang: options of the original tool; type "
        "task=semdim mode=render results=PATH select.word=apple 'select.dimensions=[big,small]' "
        "select.language=en",
    ),
    (
        "task=semdim --layer-type self --layer 3 --head -1".split(),
        "--layer-type, --layer, --head: options of the original tool; type "
        "analysis.layer_type=self select.layer=3 select.head=-1",
    ),
    (
        [
            *"--model_path checkpoints/m --benchmark_json test.json --image_dir VLM".split(),
            *"--sample_idx 0 --layer_idx 20 --start_phrase".split(),
            "Based on the following requirements",
        ],
        "--model_path, --benchmark_json, --image_dir, --sample_idx, --layer_idx, --start_phrase: "
        "options of the original tool; type task=trajectory model=qwen2_vl_2b dataset=trajectory "
        "model.checkpoint=checkpoints/m dataset.data_file=test.json dataset.image_dir=VLM "
        "dataset.sample_idx=0 analysis.layers=20 "
        "'visualization.start_phrase=Based on the following requirements'",
    ),
    (
        "--model_path m.pth --data_path d.json --legacy_model --gating_type global --max_samples "
        "50 --compare_samples --save_raw_data".split(),
        "--model_path, --data_path, --gating_type, --max_samples, --compare_samples, "
        "--save_raw_data: options of the original tool; type task=avigate model=qd_detr_avigate "
        "dataset=qvhighlights model.checkpoint=m.pth dataset.annotations=d.json "
        "dataset.feature_root=FOLDER model.gating_type=global dataset.max_samples=50 "
        "numbers.compare_samples=true numbers.save_raw=true; leave --legacy_model out: every "
        "trained checkpoint is traced as it is",
    ),
    (["--quick"], "leave --quick out: task=avigate alone runs a tiny model on shipped videos"),
    # The other spellings of one option.
    (["num-samples=100"], "num-samples is dataset.max_samples here: type dataset.max_samples=100"),
    (["num_samples=100"], "num_samples is dataset.max_samples here: type dataset.max_samples=100"),
    (
        ["--num-samples=-1"],
        "--num-samples is dataset.max_samples here, with task=scienceqa: type "
        "task=scienceqa dataset.max_samples=-1",
    ),
    (
        ["task=trajectory", "layer_idx=20"],
        "layer_idx is analysis.layers here: type analysis.layers=20",
    ),
    (
        ["task=avigate", "save_raw_data=true"],
        "save_raw_data is numbers.save_raw here: type numbers.save_raw=true",
    ),
    # An option of another study, where the task was chosen.
    (
        ["task=semdim", "similarity.metric=cosine"],
        "leave similarity.metric out: it belongs to "
        "task=clip_similarity, where it is analysis.metric=cosine",
    ),
    # A name that two studies have, and nothing says which is meant.
    (
        "--model_path x".split(),
        "--model_path is model.checkpoint here, with task=trajectory and model=qwen2_vl_2b: type "
        "task=trajectory model=qwen2_vl_2b model.checkpoint=x (or, in another study: --model_path "
        "is model.checkpoint here, with task=avigate and model=qd_detr_avigate: type task=avigate "
        "model=qd_detr_avigate model.checkpoint=x)",
    ),
    # Our own keys, typed as flags.
    (
        ["--dataset.max_samples", "3"],
        "--dataset.max_samples is dataset.max_samples here: type dataset.max_samples=3",
    ),
    (["--device", "0"], "--device is device here: type device=0"),
]


@pytest.mark.parametrize(("given", "says"), TYPED, ids=lambda value: " ".join(value)[:40])
def test_an_old_option_says_what_to_type(
    command: Callable[..., Any], given: list[str], says: str
) -> None:
    said = command(*given)
    assert said.code == 1
    assert [x for x in said.err.splitlines() if x.startswith("error: ")] == [f"error: {says}"]


def test_a_result_that_is_drawn_again_has_its_task(tmp_path: Path) -> None:
    given = ["mode=render", "results=a/results.h5", "--word-tokens", "apple"]
    assert instead(given) == "--word-tokens is select.word here: type select.word=apple"


def test_an_experiment_or_a_file_may_have_chosen_the_task(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "defaults:\n  - override /task: scienceqa\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    (tmp_path / "my_config.yaml").write_text("defaults: [config, override task: trajectory]\n")
    says = "num-samples is dataset.max_samples here: type dataset.max_samples=3"
    assert instead(["experiment=mine", "num-samples=3"], [tmp_path]) == says
    says = "sample_idx is dataset.sample_idx here: type dataset.sample_idx=3"
    for name in (["--config-name=my_config"], ["--config-name", "my_config"]):
        assert instead([*name, "sample_idx=3"], [tmp_path]) == says


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("model=openai/clip-vit-base-patch32", "is a checkpoint; type model=clip_vit_base_patch32"),
        (
            "model=me/mine",
            "no such option; for a checkpoint give an option of its family and "
            "model.checkpoint=me/mine",
        ),
    ],
)
def test_a_checkpoint_in_the_place_of_an_option(
    command: Callable[..., Any], typed: str, says: str
) -> None:
    assert command(typed).err.strip() == f"error: {typed}: {says}"


def test_a_checkpoint_that_an_option_has_is_that_option() -> None:
    line = instead(["--model", "Qwen/Qwen2.5-VL-3B-Instruct"])
    assert line == "--model is model here, with task=semdim: type task=semdim model=qwen2_5_vl_3b"


@pytest.mark.parametrize(
    "given",
    [
        ["visualization.save_individual=false"],
        ["dataset.max_samples=3", "task=semdim"],
        ["model=tiny_clip"],
        ["++output.dir=x"],
        ["--multirun", "device=0,1"],
        ["task=mine", "layer=3"],
    ],
)
def test_what_is_right_here_is_left_alone(given: list[str]) -> None:
    assert instead(given) is None


def replacements() -> list[tuple[str, str, str]]:
    """Every (task, old name, what is typed) of the table."""
    rows = []
    for task, names in TABLE.items():
        for name, entry in names.items():
            ways = entry.values() if isinstance(entry, dict) and "note" not in entry else [entry]
            rows += [(task, name, way) for way in ways if isinstance(way, str)]
    return rows


@lru_cache(maxsize=64)
def cfg_of(task: str, *options: str) -> DictConfig:
    return composed(conf_dir(), [f"task={task}", *options])


@pytest.mark.parametrize(("task", "name", "way"), replacements())
def test_every_new_key_and_option_is_there(task: str, name: str, way: str) -> None:
    """A template's keys are keys of the task it names, and its options are files."""
    chosen = "clip_similarity" if task == "any" else task
    options = [part for part in way.split() if (conf_dir() / part.partition("=")[0]).is_dir()]
    cfg = cfg_of(chosen, *(o for o in options if "{" not in o))
    for part in way.split():
        node, _, key = part.partition("=")[0].partition(".")
        assert node in cfg
        taken = defaults_of(cfg[node].get("_target_", "")) if key and node != "output" else {}
        assert not key or key in taken or key in cfg[node], f"{name}: {node}.{key}"


MINE = """
defaults:
  - config
  - _self_

image:
  path: "my_special_image.jpg"

device: 0

output:
  dir: "my_outputs"
  dpi: 300

visualization:
  cmap: "plasma"
  figsize: [24, 20]
"""


def test_the_seeds_own_file_says_what_to_write_and_then_runs(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf" / "my_config.yaml"
    path.parent.mkdir()
    path.write_text(MINE, encoding="utf-8")
    (line,) = command("--config-name=my_config").err.splitlines()
    assert line == (
        f"error: {path}: image.path is dataset.path, output.dir is output.root, output.dpi is "
        "visualization.dpi here: write dataset: {path: my_special_image.jpg}, output: {root: "
        "my_outputs}, visualization: {dpi: 300}, and among its defaults `override dataset: images`"
    )
    mended = (
        "defaults: [config, override dataset: images, _self_]\n"
        "dataset: {path: my_special_image.jpg}\noutput: {root: my_outputs}\n"
        "visualization: {dpi: 300, cmap: plasma, figsize: [24, 20]}\n"
    )
    path.write_text(mended, encoding="utf-8")
    said = command("--config-name=my_config", "--cfg", "job")
    cfg = yaml.safe_load(said.out)
    assert cfg["dataset"]["path"] == "my_special_image.jpg"
    assert cfg["visualization"]["dpi"] == 300 and cfg["visualization"]["figsize"] == [24, 20]


def test_an_old_key_in_a_file_that_composition_refuses_is_answered(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    """Of another study, so that only the refusal shows that it is old."""
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nnum-samples: 3\n")
    said = command(f"--config-dir={tmp_path}", "--config-name=mine")
    assert "num-samples is dataset.max_samples here: write dataset: {max_samples: 3}" in said.err


def test_python_says_the_same_and_can_be_asked_twice() -> None:
    for _ in range(2):
        with pytest.raises(OldOptionError, match="image.path is dataset.path here"):
            interp_lab.run(["image.path=cat.jpg"])
