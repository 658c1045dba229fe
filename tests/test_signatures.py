"""The signature is the schema: what a YAML leaves out can be typed, and counts by its default."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from omegaconf import OmegaConf

from interp_lab.api import run as run_here
from interp_lab.config.nodes import check_arguments, conf_dir, run_id, target_of
from interp_lab.config.signature import parameters_of, typed
from interp_lab.errors import ConfigError
from interp_lab.identity.signatures import REQUIRED, defaults_by_source, defaults_of, with_defaults
from interp_lab.libraries.hydra_inside import composed

Command = Callable[..., Any]
GROUPS = ("model", "dataset", "analysis", "visualization")
YAMLS = [(g, p.stem) for g in GROUPS for p in sorted((conf_dir() / g).glob("*.yaml"))]
# Where a YAML of ours means another value than its class's default, and why it may.
CHOSEN = {
    # Small networks that are exact and quick on a CPU; their answers are a letter or a short path.
    ("model", "compiled_llava"): {"dtype", "max_new_tokens"},
    ("model", "compiled_llava_moved"): {"dtype", "max_new_tokens"},
    ("model", "compiled_qwen_vl"): {"dtype", "max_new_tokens"},
    ("model", "tiny_llava"): {"dtype", "max_new_tokens"},
    ("model", "tiny_omni"): {"dtype", "max_new_tokens"},
    ("model", "tiny_qwen_vl"): {"dtype", "max_new_tokens"},
    # The formats that these were trained on.
    ("dataset", "scienceqa_tiny"): {"conv_mode"},
    ("dataset", "trajectory_tiny"): {"instruction"},
    # A look that another tool published.
    ("visualization", "reason_rft"): {
        *("stretch", "mark", "start_phrase", "gamma", "colors", "overlay_alpha"),
    },
}
MODEL = """\
_target_: interp_lab.models.clip.ClipVision
name: mine
family: clip
checkpoint: zoo:tiny_clip
"""
DATASET = "_target_: interp_lab.datasets.images.ImageFiles\nname: mine\npath: ???\n"
STYLE = "_target_: interp_lab.studies.clip_similarity.figures.maps.MapStyle\n"
QUICK = ("~visualization.figures", "output.exports=false", "device=cpu", "capture.live_check=false")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's own YAML files, short ones."""
    for group, text in (("model", MODEL), ("dataset", DATASET), ("visualization", STYLE)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    return tmp_path / "conf"


def id_of(folder: Path, *overrides: str) -> str:
    return run_id(composed(conf_dir(), [*overrides, f"hydra.searchpath=[file://{folder}]"]))


def last_result(said: Any) -> Path:
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


@pytest.mark.parametrize("group", ["model", "dataset", "visualization"])
def test_every_key_of_the_signature_can_be_set_without_a_plus(mine: Path, group: str) -> None:
    search = f"hydra.searchpath=[file://{mine}]"
    first = composed(conf_dir(), [f"{group}=mine", search])
    for name in inspect.signature(target_of(first[group], group)).parameters:
        cfg = composed(conf_dir(), [f"{group}=mine", f"{group}.{name}=5", search])
        assert cfg[group][name] == 5


def test_a_key_that_the_yaml_does_not_list_is_shown_and_used(
    command: Command, mine: Path, pictures: Callable[..., Path]
) -> None:
    given = (f"--config-dir={mine}", "model=mine", "model.dtype=bfloat16")
    said = command(*given, "--cfg", "job")
    assert OmegaConf.create(said.out).model.dtype == "bfloat16"
    data = ("dataset=mine", f"dataset.path={pictures(2)}", *QUICK)
    half, full = command(*given, *data), command(*given[:2], *data)
    assert half.code == full.code == 0, half.err + full.err
    assert last_result(half) != last_result(full)
    assert f"mine-mine-{id_of(mine, *given[1:], *data[:2])}" == last_result(half).parent.name


def test_a_key_that_the_signature_does_not_have_is_one_line(command: Command, mine: Path) -> None:
    for mode in ("run", "plan", "merge"):
        said = command(f"--config-dir={mine}", f"mode={mode}", "model=mine", "model.ini=random")
        assert said.code == 1
        (line,) = [text for text in said.err.splitlines() if text.startswith("error: ")]
        assert line.startswith("error: model.ini: ClipVision takes no such option. Did you mean")
        assert "'init'" in line and "Traceback" not in said.err


def test_a_plan_takes_a_key_that_the_yaml_does_not_list(command: Command, mine: Path) -> None:
    said = command(f"--config-dir={mine}", "mode=plan", "model=mine", "model.dtype=bfloat16")
    assert said.code == 0, said.err
    assert "parameters in bfloat16" in said.out


def test_a_sweep_over_such_a_key(
    command: Command, mine: Path, pictures: Callable[..., Path]
) -> None:
    said = command(
        f"--config-dir={mine}",
        "--multirun",
        "hydra/launcher=basic",
        "dataset=mine",
        f"dataset.path={pictures(3)}",
        "dataset.max_samples=1,2",
        *QUICK,
    )
    assert said.code == 0, said.err
    found = [line for line in said.out.splitlines() if line.startswith("results: ")]
    assert len(set(found)) == 2
    # The same keys, swept by a file.
    (mine / "swept.yaml").write_text(
        "defaults: [config, {override hydra/launcher: basic}, _self_]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {dataset.max_samples: '1,2'}}}\n"
    )
    again = command(
        f"--config-dir={mine}",
        "--config-name=swept",
        "dataset=mine",
        f"dataset.path={mine.parent}/pictures",
        *QUICK,
    )
    assert again.code == 0, again.err
    assert [line for line in again.out.splitlines() if line.startswith("results: ")] == found


def test_drawing_again_takes_a_key_of_the_style_that_was_not_listed(
    command: Command, mine: Path
) -> None:
    path = last_result(command(f"--config-dir={mine}", "visualization=mine"))
    for given, code in (("dpi=50", 0), ("dpy=50", 1)):
        said = command("mode=render", f"results={path}", f"visualization.{given}")
        assert said.code == code, said.err
    assert "'dpi'" in said.err


def test_a_function_takes_such_keys_too(mine: Path, tmp_path: Path) -> None:
    given = ["model=mine", "model.dtype=bfloat16", *QUICK, f"output.root={tmp_path}/o"]
    with run_here(given, str(mine)) as results:
        assert OmegaConf.create(results.attributes["config"]).model.dtype == "bfloat16"
    with pytest.raises(ConfigError, match=r"model\.dtyp: .*'dtype'"):
        run_here(["model=mine", "model.dtyp=bfloat16"], str(mine))


def test_listing_an_option_with_its_default_makes_no_other_run(
    command: Command, mine: Path, pictures: Callable[..., Path]
) -> None:
    data = ("dataset=mine", f"dataset.path={pictures(2)}")
    given = (f"--config-dir={mine}", "model=mine", *data, *QUICK)
    first = last_result(command(*given))
    stamp = first.stat().st_mtime_ns
    (mine / "model" / "mine.yaml").write_text(MODEL + "dtype: float32\narchitecture: null\n")
    (mine / "dataset" / "mine.yaml").write_text(DATASET + "max_samples: -1\n")
    again = last_result(command(*given))
    assert again == first and again.stat().st_mtime_ns == stamp
    base = id_of(mine, "model=mine", *data)
    assert id_of(mine, "model=mine", *data, "model.init=pretrained") == base
    assert id_of(mine, "model=mine", *data, "model.dtype=bfloat16") != base
    assert id_of(mine, "model=mine", *data, "dataset.max_samples=1") != base


def test_a_default_that_changes_with_the_program_makes_another_run(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own class: what its YAML leaves out is part of what it measures."""
    (mine / "own_images.py").write_text(
        "from interp_lab.datasets.images import ImageFiles\n"
        "class Own(ImageFiles):\n"
        "    def __init__(self, path: str, max_samples: int = 3) -> None:\n"
        "        super().__init__(path, max_samples)\n"
    )
    monkeypatch.syspath_prepend(str(mine))
    (mine / "dataset" / "own.yaml").write_text(
        "_target_: own_images.Own\nname: o\npath: x\nallow_targets: [own_images]\n"
    )
    base = id_of(mine, "dataset=own")
    assert id_of(mine, "dataset=own", "dataset.max_samples=3") == base
    assert id_of(mine, "dataset=own", "dataset.max_samples=-1") != base


def test_numbers_are_compared_as_numbers_and_the_runner_s_stay_out() -> None:
    target = "interp_lab.datasets.qvhighlights.QVHighlights"
    node = {"_target_": target, "clip_seconds": 2, "normalise": 1}
    found = with_defaults(node)
    assert found["clip_seconds"] == 2.0 and isinstance(found["clip_seconds"], float)
    assert found["normalise"] == 1 and found["normalise"] is not True
    assert found["video_features"] == ["slowfast_features", "clip_features"]
    assert "annotations" not in found and node == {
        "_target_": target,
        "clip_seconds": 2,
        "normalise": 1,
    }
    assert not {"device", "seed"} & set(with_defaults({"_target_": CLIP}))


CLIP = "interp_lab.models.clip.ClipVision"


@pytest.mark.parametrize(("group", "name"), [y for y in YAMLS if y[0] != "visualization"])
def test_defaults_by_source_are_those_of_the_class(group: str, name: str) -> None:
    """Python's own word on the imported class; tuples there are lists here."""
    target = values_of(group, name)["_target_"]
    parameters = inspect.signature(target_of({"_target_": target}, group)).parameters
    wanted = {
        k: list(p.default) if isinstance(p.default, tuple) else p.default
        for k, p in parameters.items()
    }
    assert dict(defaults_by_source(target)) == wanted
    assert list(defaults_of(target)) == list(parameters)


def test_what_the_source_does_not_say_is_imported() -> None:
    """A dataclass writes its `__init__` by itself."""
    target = "interp_lab.visualization.base.Style"
    assert defaults_of(target)["dpi"] == 150
    assert defaults_of("interp_lab.no_such.Thing") == {} == defaults_of("")
    assert defaults_of(CLIP)["family"] is REQUIRED


def values_of(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("group", "name"), YAMLS)
def test_a_default_in_both_places_is_equal(group: str, name: str) -> None:
    """None in a signature means unset, so a YAML's value of it repeats nothing."""
    values = values_of(group, name)
    parameters = inspect.signature(target_of(values, group)).parameters
    other = set()
    for key in set(values) & set(parameters):
        default, value = parameters[key].default, values[key]
        if default is inspect.Parameter.empty or default is None:
            continue
        taken = re.fullmatch(r"\$\{oc\.select:[\w.]+,(.*)\}", str(value))
        value = yaml.safe_load(taken[1]) if taken else value
        if value != (list(default) if isinstance(default, tuple) else default):
            other.add(key)
    assert other == CHOSEN.get((group, name), set())


def test_the_run_of_a_command_is_found_without_torch(tmp_path: Path) -> None:
    """`mode=summary` without `results` needs the run_id; the identity knows torch's classes."""
    code = (
        "import sys; from interp_lab.cli.command import run; "
        "code = run(['mode=summary', 'task=scienceqa', 'model.temperature=0.5', "
        f"'output.root={tmp_path}/o']); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1 False", done.stderr
    assert done.stderr.startswith("error: results=")


class Thing:
    """Parameters of every kind that a YAML fills, two of them named as pydantic's own methods."""

    def __init__(
        self,
        copy: int,
        json: list[float] | None = None,
        word: Literal["a", "b"] = "a",
        shape: tuple[int, int] = (1, 2),
        own: "Thing | None" = None,
        anything=3,
    ) -> None:
        pass


def test_a_signature_is_validated_whole_and_any_part_of_it() -> None:
    given = {"copy": "3", "json": [1], "shape": [3, 4], "anything": "x"}
    wanted = {"copy": 3, "json": [1.0], "shape": (3, 4), "anything": "x"}
    assert check_arguments(Thing, given, "thing") == wanted
    assert typed(Thing, {"word": "b"}, "thing") == {"word": "b"}
    assert parameters_of(Thing) is parameters_of(Thing)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"copy": "x"}, "thing.copy='x': should be a valid integer, unable to parse"),
        ({"copy": 1, "word": "bb"}, "thing.word='bb': should be 'a' or 'b'. Did you mean 'b'?"),
        ({"copy": 1, "own": 3}, "thing.own=3: should be "),
        ({"copy": 1, "jsn": 3}, "thing.jsn: Thing takes no such option. Did you mean 'json'?"),
        ({"copy": "???"}, "thing.copy has no value yet: give thing.copy=..."),
        ({"word": "a"}, "thing.copy is not given: Thing needs it"),
    ],
)
def test_what_does_not_fit_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_arguments(Thing, given, "thing")
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
