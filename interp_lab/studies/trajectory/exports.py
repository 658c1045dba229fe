"""What other tools read of a trajectory study: one JSON record a sample."""

import json
from pathlib import Path
from typing import Any

from interp_lab.store.results import Results

COLUMNS = ("answer", "predicted", "ended", "n_prompt", "n_generated", "output")
POINTS = ("predicted_point", "reference_point")
CURVES = ("distance_predicted", "distance_reference")


def export(results: Results, folder: Path) -> None:
    """Write `trajectory_records.json`: a list of objects in the data set's order.

    Points are {image, x, y} in shares of the picture; `final_distance_*` is the distance of the
    attended place to the point at the last generated token, layer -> diagonals of the picture.
    """
    records = [_record(results, sample) for sample in results.sample_ids]
    text = json.dumps(records, ensure_ascii=False, indent=1)
    (folder / "trajectory_records.json").write_text(text + "\n", encoding="utf-8")


def _record(results: Results, sample: str) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sample}
    for name in COLUMNS:
        value = results.read(name, sample)
        record[name] = value if isinstance(value, str) else int(value)
    for name in POINTS:
        held = name in results.fields and results.holds(name, sample)
        values = results.read(name, sample).tolist() if held else None
        record[name] = {"image": int(values[0]), "x": values[1], "y": values[2]} if values else None
    layers = [str(layer) for layer in results.read("layers", sample)]
    for name in CURVES:
        if name in results.fields and results.holds(name, sample):
            last = results.read(name, sample)[:, -1].tolist()
            record[f"final_{name}"] = dict(zip(layers, last, strict=True))
    return record
