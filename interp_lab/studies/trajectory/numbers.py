"""Curves over samples: at each generated token the mean over the samples that have come so far."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from interp_lab.fields import Field, HeadScores, Scalar, StepCounts, StepCurve
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.exports import export
from interp_lab.studies.trajectory.peaks import PEAK

SHARE = "trajectory.region_share/1"
CENTRE = "trajectory.centre_of_mass/1"
# Version 1 read every answer as thousandths of the picture.
DISTANCE = "trajectory.distance_to_point/2"
# name, what a figure calls it, unit, definition
CURVES = (
    ("share_image", "attention on the image", "1", SHARE),
    ("share_prompt", "attention on the prompt's text", "1", SHARE),
    ("share_generated", "attention on generated text", "1", SHARE),
    ("centre_x", "attended place, share of the width", "1", CENTRE),
    ("centre_y", "attended place, share of the height", "1", CENTRE),
    ("distance_predicted", "distance to the predicted point, diagonals", "1", DISTANCE),
    ("distance_reference", "distance to the reference point, diagonals", "1", DISTANCE),
)
AVERAGED = tuple(name for name, *_ in CURVES if not name.startswith("centre"))


class AnswerNumbers:
    """Mean curves over samples, step by step, the mean score of each head, a record a sample."""

    needs = ("rows",)
    definitions: Mapping[str, str] = MappingProxyType({})

    def compute(self, results: Results) -> list[tuple[Field, np.ndarray]]:
        """Return the mean curves over samples, and the mean score of each head."""
        return [*aggregates(results), *mean_peaks(results)]

    def export(self, results: Results, folder: Path) -> None:
        """Write one record a sample: output, points, what ended it."""
        export(results, folder)


def aggregates(results: Results) -> list[tuple[Field, np.ndarray]]:
    """Return for each curve its mean (layer, step) and how many samples stand behind each step.

    A sample counts at the steps that it has; the counts fall where short answers end. The curves
    differ in layers and length, so each has axes of its own.
    """
    found: list[tuple[Field, np.ndarray]] = []
    about = {name: (text, unit, definition) for name, text, unit, definition in CURVES}
    for name in AVERAGED:
        sums, counts = _sums(_curves(results, name))
        if not counts.size:
            continue
        text, unit, definition = about[name]
        field = StepCurve(f"mean_{name}", f"mean {text}", unit, definition)
        short = "n_samples_at_step" if name == "share_image" else f"n_{name}_at_step"
        if name == "share_image" or name.startswith("distance"):
            count = StepCounts(short, f"samples behind the mean {text}", ragged=True)
            found.append((count, counts))
        found.append((field, (sums / counts).astype(np.float32)))
    return found


def mean_peaks(results: Results) -> list[tuple[Field, np.ndarray]]:
    """Return the mean of the moving peak, (layer, head), over the samples that have an image.

    Nothing if none has one, or if all were measured by a version that did not have it.
    """
    if not isinstance(results.fields.get("moving_peak"), HeadScores):
        return []
    total, n = np.float64(0.0), 0
    for sample in range(len(results)):
        if results.holds("moving_peak", sample):
            total = total + results.read("moving_peak", sample).astype(np.float64)
            n += 1
    field = HeadScores("mean_moving_peak", "mean moving peak of attention", "1", PEAK)
    count = Scalar("n_moving_peak", "samples behind the mean moving peak", dtype="int64")
    found: list[tuple[Field, np.ndarray]] = []
    if n:
        found = [(field, np.asarray(total / n, dtype=np.float32)), (count, np.array(n))]
    return found


def _curves(results: Results, name: str) -> Iterator[np.ndarray]:
    if name not in results.fields:
        return
    for sample in range(len(results)):
        if results.holds(name, sample):
            yield results.read(name, sample)


def _sums(curves: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return sums (layer, step) in float64 and counts (step,) of curves of different lengths."""
    sums, counts = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
    for curve in curves:
        n_layers, n_steps = curve.shape
        if n_steps > len(counts):
            grown = np.zeros((n_layers, n_steps))
            grown[: len(sums), : len(counts)] = sums
            sums = grown
            counts = np.concatenate([counts, np.zeros(n_steps - len(counts), dtype=np.int64)])
        sums[:, :n_steps] += curve
        counts[:n_steps] += 1
    return sums, counts
