"""Reads `attention_head_records.pt` of the original tool, so that its runs can be drawn here.

The file is opened without unpickling code: only plain values are accepted.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp_lab.errors import StoreError
from interp_lab.fields import Category, HeadIndex, Scalar
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results
from interp_lab.studies.scienceqa.numbers import winner_fields

FIELDS = (
    HeadIndex("max_head_per_layer", "head that looks hardest at the image"),
    Category("image_file", "image file"),
    Scalar("image_token_start", "first image token", dtype="int64"),
    Scalar("image_token_end", "end of the image tokens", dtype="int64"),
)


def import_records(path: Path, folder: Path) -> Path:
    """Write a result from a records file and return its path.

    Args:
        path: a list of {sample_id, image_file, max_head_per_layer, ...}. A `statistics.json`
            beside it tells the number of heads; without one it is the largest index plus one.
        folder: where `results.h5` goes.

    Raises:
        StoreError: if the file holds anything but such records.
    """
    records = _read(path)
    n_heads, notes = _heads(path, records)
    parts = folder / "parts"
    writer = PartWriter(parts, FIELDS)
    names = [str(record["sample_id"]) for record in records]
    if len(set(names)) < len(names):
        names = [f"{number}:{name}" for number, name in enumerate(names)]
    for index, (name, record) in enumerate(zip(names, records, strict=True)):
        values = {
            "max_head_per_layer": record["max_head_per_layer"],
            "image_file": record.get("image_file", ""),
            "image_token_start": record.get("image_token_start", -1),
            "image_token_end": record.get("image_token_end", -1),
        }
        writer.add(index, name, values)
    writer.flush()

    def compute(results: Results) -> list[tuple[Any, Any]]:
        winning = np.concatenate(
            [b["max_head_per_layer"] for b in results.stream([FIELDS[0].name])]
        )
        return winner_fields(winning, n_heads, "imported", {"seed": 0, "n_resamples": 2000})

    attributes = {
        "task_name": "scienceqa",
        "model": path.parent.name,
        "dataset": path.name,
        "notes": json.dumps(notes),
    }
    merge(list_parts(parts), names, folder / "results.h5", attributes, compute)
    for part in list_parts(parts):
        part.unlink()
    return folder / "results.h5"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        records = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise StoreError(
            f"results={path}: not a file of plain records; nothing in it was run ({first[:150]})"
        ) from error
    if not isinstance(records, list) or not records:
        raise StoreError(f"results={path}: holds no list of records")
    for number, record in enumerate(records):
        heads = record.get("max_head_per_layer") if isinstance(record, dict) else None
        if "sample_id" not in (record if isinstance(record, dict) else {}) or not isinstance(
            heads, list
        ):
            raise StoreError(f"results={path}: record {number} has no sample_id or winning heads")
        if len(heads) != len(records[0]["max_head_per_layer"]):
            raise StoreError(f"results={path}: record {number} has another number of layers")
    return records


def _heads(path: Path, records: list[dict[str, Any]]) -> tuple[int, list[str]]:
    notes = ["imported records: winners only, made by another tool"]
    beside = path.with_name("statistics.json")
    largest = max(max(record["max_head_per_layer"]) for record in records) + 1
    if not beside.is_file():
        return largest, [
            *notes,
            f"number of heads taken as {largest}: no statistics.json beside it",
        ]
    n_heads = int(json.loads(beside.read_text(encoding="utf-8"))["num_heads"])
    if n_heads < largest:
        raise StoreError(
            f"{beside}: num_heads={n_heads}, but head {largest - 1} wins in {path.name}"
        )
    return n_heads, notes
