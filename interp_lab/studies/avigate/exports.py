"""The files of avigate that earlier scripts read, under their names: JSON, NumPy and the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.store.places import safe_name
from interp_lab.store.results import Results
from interp_lab.studies.avigate.aggregates import PREFIX, gate_kinds
from interp_lab.studies.avigate.gate_statistics import STATISTICS
from interp_lab.studies.avigate.report import report

SHORT = {"attention": "att"}
PER_SAMPLE = (
    "audio_kind",
    "query",
    "clip_seconds",
    "windows",
    "saliency",
    "predicted_windows",
    "predicted_scores",
    "predicted_saliency",
    "loss_difference",
)


def export(results: Results, folder: Path, *, save_raw: bool, figures: str = "../figures") -> None:
    """Write overall_statistics.json, individual_samples/, raw_data/ on request, the report.

    Args:
        results: a finished run.
        folder: where; made if it is not there.
        save_raw: also write raw_data/<id>_layer<i>_<kind>.npy, each (clip, channel).
        figures: where figures lie, seen from `folder`; the report links them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "overall_statistics.json", overall_statistics(results))
    for sample in results.sample_ids:
        export_sample(results, sample, folder / "individual_samples")
        if save_raw:
            _write_raw(results, sample, folder / "raw_data")
    text = report(results, figures)
    (folder / "ANALYSIS_REPORT.md").write_text(text, encoding="utf-8")


def export_sample(results: Results, sample: str, folder: Path) -> Path:
    """Write <id>_details.json and return its path."""
    path = folder / f"{safe_name(f'{sample}_details')}.json"
    write_json(path, sample_details(results, sample))
    return path


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def overall_statistics(results: Results) -> dict[str, Any]:
    """Return gate statistics by kind, overall and by layer, and every other aggregate by name."""
    attributes = results.attributes
    gates: dict[str, Any] = {}
    used = {"near_zero"}
    for kind in gate_kinds(results):
        curves = {name: results.aggregate(f"{kind}_{name}") for name in STATISTICS}
        used |= {f"{kind}_{name}{end}" for name in STATISTICS for end in ("", "_overall")}
        gates[kind] = {
            "overall": {n: float(results.aggregate(f"{kind}_{n}_overall")) for n in STATISTICS},
            "layers": by_layer(curves),
        }
    others = {
        name: np.asarray(results.aggregate(name)).tolist()
        for name in results.aggregates
        if name not in used and not name.startswith("histogram_")
    }
    return {
        "model": attributes.get("model", ""),
        "dataset": attributes.get("dataset", ""),
        "n_samples": len(results),
        "n_failed": len(results.failures),
        "near_zero": float(results.aggregate("near_zero")),
        "notes": results.notes,
        "prompts": results.prompts,
        "gates": gates,
        "measures": others,
    }


def by_layer(curves: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """Return one mapping a layer from curves (n_layers,)."""
    n_layers = len(next(iter(curves.values())))
    return [
        {"layer": i, **{name: float(curve[i]) for name, curve in curves.items()}}
        for i in range(n_layers)
    ]


def sample_details(results: Results, sample: str) -> dict[str, Any]:
    """Return what a result holds of one sample: gates by kind and layer, moments, measures.

    Gates stand in full where they have one channel, else as means over the channels.
    """
    details: dict[str, Any] = {"sample_id": sample, "gates": {}}
    for kind in gate_kinds(results):
        gates = results.read(f"{PREFIX}{kind}", sample)
        details["gates"][kind] = [
            {
                "layer": i,
                "clips": layer.shape[0],
                "channels": layer.shape[1],
                "mean": float(layer.mean()),
                "std": float(layer.std()),
                "min": float(layer.min()),
                "max": float(layer.max()),
                "magnitude": float(np.abs(layer).mean()),
                "by_clip": layer.mean(axis=1).tolist(),
            }
            for i, layer in enumerate(gates.astype(np.float64))
        ]
    numbers = [name for name, field in results.fields.items() if field.ragged and not field.axes]
    for name in dict.fromkeys([*PER_SAMPLE, *numbers]):
        if results.holds(name, sample):
            value = results.read(name, sample)
            details[name] = value if isinstance(value, str) else np.asarray(value).tolist()
    return details


def _write_raw(results: Results, sample: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in gate_kinds(results):
        for i, layer in enumerate(results.read(f"{PREFIX}{kind}", sample)):
            name = safe_name(f"{sample}_layer{i}_{SHORT.get(kind, kind)}")
            np.save(folder / f"{name}.npy", layer)
