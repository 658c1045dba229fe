"""ScienceQA's own layout: `problems.json`, with `pid_splits.json` beside it.

A problem becomes a record of the layout `qcm_lea`, so that it is asked and scored as LLaVA's file
of the same problem. What a problem has wrong stays in its record, which then fails alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.records import is_storable
from interp_lab.errors import ConfigError, SampleError, did_you_mean

KEY = "dataset.question_file"
SPLITS = "pid_splits.json"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Why a record cannot be used; a key that no file has.
PROBLEM = "\0problem"


def is_problems(found: Any) -> bool:
    """Return whether a JSON value is of this layout: pid -> problem."""
    return (
        isinstance(found, dict)
        and bool(found)
        and any(isinstance(v, dict) and "choices" in v for v in found.values())
    )


def records_of(found: Mapping[str, Any], file: str, split: str | None) -> list[dict[str, Any]]:
    """Return the records of the problems of a split, in its order; of all if `split` is None.

    Args:
        found: what `problems.json` holds.
        file: its path; `pid_splits.json` beside it says the splits, else each problem's `split`.
        split: such as `test` or `minitest`.

    Raises:
        ConfigError: if there is no such split, or it names problems that the file lacks.
        MissingInputError: if `pid_splits.json` cannot be read.
    """
    if split is None:
        return [_record(pid, problem) for pid, problem in found.items()]
    splits = _splits(found, Path(file).expanduser().absolute().parent / SPLITS)
    if split not in splits:
        known = ", ".join(splits) or "none"
        raise ConfigError(
            f"dataset.split={split}: unknown.{did_you_mean(split, splits)} Known: {known}"
        )
    pids = [str(pid) for pid in splits[split]]
    missing = [pid for pid in pids if pid not in found]
    if missing or not pids:
        what = f"{len(missing)} of its problems, such as {missing[0]!r}, are not in {file}"
        raise ConfigError(f"dataset.split={split}: {what if missing else 'names no problem'}")
    return [_record(pid, found[pid]) for pid in pids]


def _splits(found: Mapping[str, Any], beside: Path) -> dict[str, list[Any]]:
    """Return split -> pids."""
    if beside.is_file():
        said = read_json(KEY, str(beside))
        if not isinstance(said, dict) or not all(isinstance(v, list) for v in said.values()):
            raise ConfigError(f"{beside}: should be an object, split -> list of problems")
        return said
    splits: dict[str, list[Any]] = {}
    for pid, problem in found.items():
        name = problem.get("split") if isinstance(problem, dict) else None
        if isinstance(name, str):
            splits.setdefault(name, []).append(pid)
    return splits


def _record(pid: str, problem: Any) -> dict[str, Any]:
    try:
        question, answer = _turns(problem)
    except SampleError as error:
        return {"id": pid, PROBLEM: str(error)}
    record: dict[str, Any] = {
        "id": pid,
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"The answer is {answer}."},
        ],
    }
    image = problem.get("image")
    if image is None or image == "":
        return record
    if not isinstance(image, str):
        return {"id": pid, PROBLEM: f"image={image!r:.60}: should be the name of a picture"}
    split = problem.get("split")
    return record | {"image": f"{pid}/{image}", "split": split if isinstance(split, str) else None}


def _turns(problem: Any) -> tuple[str, str]:
    """Return the question with its options, and the letter of the right one."""
    if not isinstance(problem, dict):
        raise SampleError(f"{problem!r:.60} is not a problem")
    question, hint = problem.get("question"), problem.get("hint") or ""
    for name, text in (("question", question), ("hint", hint)):
        if not isinstance(text, str) or not is_storable(text) or (name == "question" and not text):
            raise SampleError(f"{name}={text!r:.60}: should be a text")
    choices, answer = problem.get("choices"), problem.get("answer")
    if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices):
        raise SampleError(f"choices={choices!r:.60}: should be a list of texts")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise SampleError(f"answer={answer!r:.60}: should be the place of the right choice, from 0")
    if not 0 <= answer < len(choices) <= len(LETTERS):
        raise SampleError(f"answer={answer}: there are {len(choices)} choices, 0 to the last")
    options = " ".join(f"({k}) {c}" for k, c in zip(LETTERS, choices, strict=False))
    return f"{question}\nContext: {hint.strip() or 'N/A'}\nOptions: {options}", LETTERS[answer]
