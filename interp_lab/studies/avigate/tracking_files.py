"""Tracked gates as files: a result like a study's, and the study's exports and figures of it."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from interp_lab.config.nodes import conf_dir
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.provenance import provenance
from interp_lab.store.results import open_results
from interp_lab.studies.avigate.aggregates import aggregates
from interp_lab.studies.avigate.exports import export, export_sample
from interp_lab.studies.avigate.gates import gate_fields, gate_values
from interp_lab.visualization.base import Style
from interp_lab.visualization.draw import draw_all

RESAMPLES = 1000
# Figures that need moments and losses beside the gates.
NEED_MOMENTS = ("benefit", "moments")


@dataclass(frozen=True)
class Tracked:
    """The gates of some samples.

    Args:
        network: the name of its class.
        gates: sample id -> kind -> (layer, clip, channel), samples in the order they are shown.
        near_zero: the largest |g| that counts as zero.
        seed: of bootstrap intervals.
    """

    network: str
    gates: dict[str, dict[str, np.ndarray]]
    near_zero: float
    seed: int

    @property
    def kinds(self) -> list[str]:
        """The kinds of gates."""
        return list(next(iter(self.gates.values())))


def write_results(tracked: Tracked, path: Path) -> Path:
    """Write a result with statistics, as a study does; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(tracked.gates)
    with tempfile.TemporaryDirectory() as parts:
        writer = PartWriter(Path(parts), gate_fields(tracked.kinds))
        for index, (name, gates) in enumerate(tracked.gates.items()):
            values: dict[str, Any] = {"id": name}
            for kind, numbers in gates.items():
                values |= gate_values(kind, numbers)
            writer.add(index, name, values)
        writer.flush()
        attributes = {
            "task_name": "avigate",
            "model": tracked.network,
            "dataset": "tracked samples",
            "notes": json.dumps([]),
            # What mode=render draws the result with.
            "config": OmegaConf.to_yaml(_config(), resolve=True),
        }
        merge(
            list_parts(Path(parts)),
            names,
            path,
            attributes | provenance(),
            lambda results: aggregates(results, tracked.near_zero, RESAMPLES, tracked.seed),
        )
    return path


def save_all(tracked: Tracked, folder: Path, *, save_raw: bool, max_samples: int) -> Path:
    """Write results.h5, statistics, samples, report and figures; return the report's path."""
    path = write_results(tracked, folder / "results.h5")
    with open_results(path) as results:
        export(results, folder, save_raw=save_raw, figures=".")
    draw_all(path, _figures(), Style(max_samples=max_samples, workers=0), folder)
    return folder / "ANALYSIS_REPORT.md"


def save_sample(tracked: Tracked, folder: Path) -> list[Path]:
    """Write the details and the figure of the one sample that is given; return their paths."""
    node = _figures()["sample"]
    node["file"] = Path(node["file"]).name
    with tempfile.TemporaryDirectory() as place:
        path = write_results(tracked, Path(place) / "results.h5")
        with open_results(path) as results:
            written = export_sample(results, next(iter(tracked.gates)), folder)
        return [written, *draw_all(path, {"sample": node}, Style(workers=0), folder)]


def save_comparison(tracked: Tracked, folder: Path) -> Path:
    """Draw the samples side by side; return the figure's path."""
    node = {**_figures()["comparison"], "compare": list(tracked.gates)}
    node["file"] = Path(node["file"]).name
    with tempfile.TemporaryDirectory() as place:
        path = write_results(tracked, Path(place) / "results.h5")
        return draw_all(path, {"comparison": node}, Style(workers=0), folder)[0]


def _figures() -> dict[str, dict[str, Any]]:
    """Return the nodes of the study's figures that need gates alone."""
    return cast(dict[str, Any], OmegaConf.to_container(_config(), resolve=True))["visualization"][
        "figures"
    ]


def _config() -> DictConfig:
    """Return the study's configuration of figures, without those that need more than gates."""
    style = cast(DictConfig, OmegaConf.load(conf_dir() / "visualization" / "avigate.yaml"))
    for name in NEED_MOMENTS:
        del style.figures[name]
    return OmegaConf.create(
        {"task_name": "avigate", "visualization": style, "select": {}, "numbers": {}}
    )
