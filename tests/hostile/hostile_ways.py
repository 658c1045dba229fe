"""The ways in which a bad input comes in, each as a function that returns what was said of it.

A way takes the folder of the test and what a row of the table gives, and returns one line: the
error without `error: `, or `<sample>: <reason>` of a sample that was recorded as failed.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from interp_lab.capture.roles import check_interventions
from interp_lab.config.complaints import explain
from interp_lab.config.nodes import build, check_arguments, check_root, conf_dir, plain
from interp_lab.errors import InterpLabError
from interp_lab.fields import Scalar
from interp_lab.libraries.hydra_inside import composed, parsed
from interp_lab.run.fit import check_fit
from interp_lab.run.study import style_of
from interp_lab.store.checksum import seal
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import open_results
from interp_lab.store.summary import summary

NOTHING = "nothing was said"


class Standing(Enum):
    """What stands in the place of a file's content; a test's name shows it."""

    FOLDER = "a folder of that name"
    ABSENT = "no file at all"

    def __repr__(self) -> str:
        return self.name


FOLDER, ABSENT = Standing


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Args:
        way: a name in `WAYS`.
        given: what the way takes.
        says: the exact line, with `{tmp}` for the test's folder.
        options: of a data set, by name.
    """

    way: str
    given: tuple[Any, ...]
    says: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the test is called."""
        shown = [str(g) if isinstance(g, str) else repr(g) for g in self.given]
        shown += [f"{k}={v}" for k, v in self.options.items()]
        text = " ".join(shown).encode("unicode_escape").decode("ascii")
        return f"{self.way}: {text[:90]}"


def placed(value: Any, tmp: Path) -> Any:
    """Return a value with `{tmp}` in its texts replaced by the test's folder."""
    if isinstance(value, str):
        return value.replace("{tmp}", str(tmp))
    if isinstance(value, Mapping):
        return {k: placed(v, tmp) for k, v in value.items()}
    return [placed(v, tmp) for v in value] if isinstance(value, list) else value


def put(path: Path, content: Any) -> None:
    """Write a file: bytes, a text, or what JSON can hold; or make a folder, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is FOLDER:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not ABSENT:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")


def said_of(data: Callable[[], Any]) -> str:
    """Return what making a data set, or the first of its samples that fails, says."""
    try:
        dataset = data()
    except InterpLabError as error:
        return str(error)
    for index, name in enumerate(dataset.ids()):
        try:
            dataset.load(index)
        except InterpLabError as error:
            return f"{name}: {error}"
    return NOTHING


def opened(option: str, values: Mapping[str, Any]) -> Any:
    """Make a data set as a command does: values checked against the signature, then the class."""
    node = yaml.safe_load((conf_dir() / "dataset" / f"{option}.yaml").read_text(encoding="utf-8"))
    module, _, name = node["_target_"].rpartition(".")
    kind = getattr(import_module(module), name)
    return kind(**check_arguments(kind, values, "dataset"))


def scienceqa(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """Take changes of a good record (None takes a key away), or the file's whole content."""
    question = "<image>\nWhat is shown?\nA. a cat\nB. a dog"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "B"}]
    good = {"id": "q", "image": "1.png", "conversations": turns}
    put(tmp / "questions.json", changed(good, given))
    put(tmp / "images" / "text.png", "no picture")
    Image.new("RGB", (8, 8)).save(tmp / "images" / "1.png")
    values = {"question_file": f"{tmp}/questions.json", "image_folder": f"{tmp}/images"}
    return said_of(lambda: opened("scienceqa", {**values, **options}))


def trajectory(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """As `scienceqa`, of a problem with a picture."""
    put(tmp / "data.json", changed({"id": "p", "image": "1.png", "problem": "Where?"}, given))
    Image.new("RGB", (8, 8)).save(tmp / "1.png")
    return said_of(lambda: opened("trajectory", {"data_file": f"{tmp}/data.json", **options}))


def semdim(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """As `scienceqa`, of an English word that is spoken."""
    good = {"word": "achoo", "dimensions": {"big-small": {"answer": "small"}}}
    content = changed(good, given)
    put(tmp / "words.json", {"en": content} if isinstance(content, list) else content)
    (tmp / "audio" / "en").mkdir(parents=True)
    soundfile.write(tmp / "audio" / "en" / "achoo.wav", np.sin(np.arange(8000) / 5), 16_000)
    put(tmp / "audio" / "en" / "text.wav", "no sound")
    values = {"data_file": f"{tmp}/words.json", "audio_root": f"{tmp}/audio"}
    values["data_type"] = "audio"
    return said_of(lambda: opened("semdim", {**values, **options}))


def qvhighlights(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """As `scienceqa`, of a query of a video of 4 clips."""
    good = {"qid": 7, "query": "a dog", "duration": 8, "vid": "v", "relevant_windows": [[2, 4]]}
    content = changed(good, given)
    put(tmp / "val.jsonl", json.dumps(content[0]) if isinstance(content, list) else content)
    rows = np.ones((4, 3))
    for folder in ("slowfast_features", "clip_features", "clip_text_features", "pann_features"):
        (tmp / folder).mkdir()
    for folder in ("slowfast_features", "clip_features"):
        np.savez(tmp / folder / "v.npz", features=rows)
        put(tmp / folder / "text.npz", "no array")
        np.savez(tmp / folder / "other.npz", rows=rows)
    np.savez(tmp / "clip_text_features" / "qid7.npz", last_hidden_state=rows)
    for name in ("v", "text", "other"):
        np.save(tmp / "pann_features" / f"{name}.npy", rows)
    widths = {"video_widths": [3, 3], "text_width": 3, "audio_width": 3}
    values = {"annotations": f"{tmp}/val.jsonl", "feature_root": str(tmp), **widths}
    return said_of(lambda: opened("qvhighlights", {**values, **options}))


def images(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """Take files by name, in a folder that is the data set's path if no other is given."""
    (tmp / "pictures").mkdir()
    for name, content in given.items():
        if isinstance(content, tuple):
            Image.new(content[0], content[1]).save(tmp / "pictures" / name)
        else:
            put(tmp / "pictures" / name, content)
    return said_of(lambda: opened("images", {"path": f"{tmp}/pictures", **options}))


def changed(good: Mapping[str, Any], given: Any) -> Any:
    """Return a list of one changed record, or what was given in its place."""
    if not isinstance(given, dict):
        return given
    if set(given) == {"file"}:
        return given["file"]
    return [{k: v for k, v in {**good, **given}.items() if v is not None}]


def stored(tmp: Path, given: Any, options: Mapping[str, Any]) -> str:
    """Take what becomes of a good results.h5: new content, a damage, or its length."""
    writer = PartWriter(tmp / "parts", [Scalar("number", "a number")])
    writer.add(0, "a", {"number": 1.0})
    writer.flush()
    path = tmp / "results.h5"
    merge(list_parts(tmp / "parts"), ["a"], path, {"task_name": "t"}, lambda results: [])
    if isinstance(given, str) and given.startswith("@"):
        with h5py.File(path, "r+") as file:
            DAMAGES[given[1:]](file)
        # Else the checksum alone would tell.
        seal(path)
    elif isinstance(given, int):
        path.write_bytes(path.read_bytes()[:given])
    else:
        path.unlink()
        put(path, given)
    try:
        with open_results(placed(options.get("path", "{tmp}/results.h5"), tmp)) as results:
            summary(results)
    except InterpLabError as error:
        return str(error)
    return NOTHING


def without(name: str) -> Callable[[h5py.File], None]:
    """Return a damage: a group or dataset is gone."""
    return lambda file: file.__delitem__(name)


def saying(place: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    """Return a damage: an attribute says something else."""
    return lambda file: file[place].attrs.__setitem__(key, value)


DAMAGES: dict[str, Callable[[h5py.File], Any]] = {
    "empty_group": lambda file: [file.__delitem__(name) for name in list(file)],
    "no_schema": lambda file: file.attrs.__delitem__("schema_version"),
    "newer": saying("/", "schema_version", 99),
    "unfinished": saying("/", "complete", False),
    "no_samples": without("samples"),
    "no_failures": without("failures"),
    "no_index": without("samples/index"),
    "notes": saying("/", "notes", "{"),
    "counts": saying("/", "counts", "["),
    "kind": saying("samples/number", "kind", "Nowhere"),
}


@lru_cache
def composed_once(task: str) -> DictConfig:
    """Return a task's configuration; composing it takes half a second."""
    return composed(conf_dir(), [f"task={task}"])


def setting(tmp: Path, given: str, options: Mapping[str, Any]) -> str:
    """Take `task key=value ...`: what a command checks of its nodes, without Hydra's composing."""
    task, *typed = given.split(" ")
    cfg = copy.deepcopy(composed_once(task))
    cfg.output.root = str(tmp)
    for override in parsed(typed):
        OmegaConf.update(cfg, override.key, override.value, force_add=True)
    try:
        check_root(cfg)
        style_of(cfg)
        check_interventions(plain(cfg.capture)["interventions"])
        check_fit(cfg, build(cfg, "dataset"))
    except InterpLabError as error:
        return explain(error, typed, []) or ""
    return NOTHING


WAYS: dict[str, Callable[[Path, Any, Mapping[str, Any]], str]] = {
    "images": images,
    "qvhighlights": qvhighlights,
    "scienceqa": scienceqa,
    "semdim": semdim,
    "setting": setting,
    "stored": stored,
    "trajectory": trajectory,
}
