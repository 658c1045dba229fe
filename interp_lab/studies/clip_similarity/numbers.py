"""The numbers of clip_similarity over all images, and the files that earlier scripts read."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from interp_lab.fields import CellMap, DownEdgeMap, Field, RightEdgeMap
from interp_lab.statistics.streaming import RunningMoments, histogram, ragged_histogram
from interp_lab.store.places import sample_folder
from interp_lab.store.results import Results

MAPS: dict[str, tuple[type[Field], str]] = {
    "horizontal_right": (RightEdgeMap, "similarity to the right neighbour"),
    "vertical_down": (DownEdgeMap, "similarity to the neighbour below"),
    "cls_similarity": (CellMap, "similarity to CLS"),
}


class SimilarityNumbers:
    """Mean and spread of each map, pooled histograms, and one archive an image."""

    needs = ("horizontal_right",)
    definitions: Mapping[str, str] = MappingProxyType({})

    def compute(self, results: Results) -> list[tuple[Field, Any]]:
        """Return mean and standard deviation maps over the samples, and pooled histograms."""
        there = [name for name in MAPS if name in results.fields]
        names = [name for name in there if not results.fields[name].ragged]
        moments = {name: RunningMoments() for name in names}
        for block in results.stream(names):
            for name, values in block.items():
                moments[name].update(values)
        # Maps of different grids have no mean; their values are pooled.
        aggregates: list[tuple[Field, Any]] = [
            ragged_histogram(results, name) for name in there if name not in names
        ]
        for name in names:
            kind, about = MAPS[name]
            definition = results.definitions[name]
            aggregates += [
                (kind(f"mean_{name}", f"mean {about}", definition=definition), moments[name].mean),
                (kind(f"std_{name}", f"std of {about}", definition=definition), moments[name].std),
                histogram(results, name, moments[name].lowest, moments[name].highest),
            ]
        return aggregates

    def export(self, results: Results, folder: Path) -> None:
        """Write `similarities.npz` of each sample, with the names that earlier scripts read."""
        for row, sample_id in enumerate(results.sample_ids):
            maps = {name: results.read(name, row) for name in MAPS if name in results.fields}
            right, down = maps["horizontal_right"], maps["vertical_down"]
            rows, cols = len(right), down.shape[1]
            place = sample_folder(folder, results, sample_id)
            place.mkdir(parents=True, exist_ok=True)
            np.savez(
                place / "similarities.npz",
                horizontal_left=right,
                vertical_up=down,
                grid_size=rows if rows == cols else (rows, cols),
                num_patches=rows * cols,
                **maps,
            )
