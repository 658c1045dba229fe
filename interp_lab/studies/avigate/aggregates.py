"""The numbers of avigate over all samples: statistics of gates, what goes with |g|, moments found.

Read back from the store sample by sample, so memory does not grow with the clips and channels.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from interp_lab.fields import Field, GateValues, Histogram, LayerCurve, Scalar
from interp_lab.statistics.heads import Estimate, bootstrap_mean, paired_difference
from interp_lab.store.results import Results
from interp_lab.studies.avigate.gate_statistics import STATISTICS, describe, separation, spearman
from interp_lab.studies.avigate.moments import MEASURES, PLAIN, field_name

Named = tuple[Field, Any]
HELPS, MISLEADS = "informative", "misleading"
ALL = "all"
BINS = 80
PREFIX = "gate_"
ENDS = {"": "", "_low": ", lower 95 % bound", "_high": ", upper 95 % bound"}


def aggregates(results: Results, near_zero: float, resamples: int, seed: int) -> list[Named]:
    """Return the fields over the run.

    Args:
        results: the measured samples.
        near_zero: the largest |g| that counts as zero.
        resamples, seed: of the bootstrap.
    """
    options = {"seed": seed, "n_resamples": resamples}
    found: list[Named] = [
        (Scalar("near_zero", "largest |g| that counts as zero", dtype="float64"), near_zero)
    ]
    for kind in gate_kinds(results):
        found += _statistics(results, kind, near_zero)
        found += _associations(results, kind, options)
    return found + _measures(results, options)


def gate_kinds(results: Results) -> list[str]:
    """Return the kinds of gates that a result holds, audio's attention first."""
    kinds = [f.name.removeprefix(PREFIX) for f in results.of_kind(GateValues)]
    return sorted(kinds, key=lambda kind: (kind != "attention", kind))


def gate_blocks(results: Results, kind: str) -> Iterator[np.ndarray]:
    """Yield each sample's gates as (n_layers, clips x channels)."""
    for sample in results.sample_ids:
        gates = results.read(f"{PREFIX}{kind}", sample)
        yield gates.reshape(len(gates), -1)


def column(results: Results, name: str) -> np.ndarray:
    """Return a number of every sample, NaN where a sample has none: (n,)."""
    held = [results.holds(name, sample) for sample in results.sample_ids]
    return np.array(
        [
            float(results.read(name, sample)) if there else np.nan
            for sample, there in zip(results.sample_ids, held, strict=True)
        ]
    )


def stacked(results: Results, name: str) -> np.ndarray:
    """Return a stacked field of every sample: (n, *axes)."""
    return np.concatenate([block[name] for block in results.stream([name])])


def _statistics(results: Results, kind: str, near_zero: float) -> list[Named]:
    found: list[Named] = []
    numbers = describe(lambda: gate_blocks(results, kind), near_zero)
    definition = "avigate.statistics/1"
    for name in STATISTICS:
        about = f"{name.replace('_', ' ')} of the {kind} gate"
        *layers, overall = numbers[name]
        found.append((LayerCurve(f"{kind}_{name}", about, definition=definition), layers))
        field = Scalar(f"{kind}_{name}_overall", f"{about}, all layers", definition=definition)
        found.append((field, overall))
    low, high = numbers["min"][-1], numbers["max"][-1]
    # A tanh gate is shown over its whole range, so that figures of two models compare.
    low, high = (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)
    counts = _histograms(results, kind, low, high)
    for layer, row in enumerate(counts):
        field = Histogram(
            f"histogram_{kind}_layer{layer}",
            f"{kind} gate, layer {layer}",
            lowest=low,
            highest=high,
        )
        found.append((field, row))
    return found


def _histograms(results: Results, kind: str, low: float, high: float) -> np.ndarray:
    counts: np.ndarray | int = 0
    for block in gate_blocks(results, kind):
        counts = counts + np.array([np.histogram(row, BINS, (low, high))[0] for row in block])
    return np.asarray(counts)


def _associations(results: Results, kind: str, options: Mapping[str, int]) -> list[Named]:
    """What |g| goes with: the loss that the audio saves, and the kind of audio."""
    size = stacked(results, f"magnitude_{kind}").astype(np.float64)
    saved = column(results, "loss_difference")
    known = np.isfinite(saved)
    found = _curves(
        f"{kind}_loss_correlation",
        f"Spearman correlation of |g| ({kind}) with the loss that the audio saves",
        spearman(size[known], saved[known], **options) if known.any() else None,
    )
    groups = {name: rows for name, rows in audio_groups(results).items() if name != ALL}
    for name, rows in groups.items():
        mean = bootstrap_mean(size[rows], **options)
        found += _curves(f"{kind}_magnitude_{name}", f"mean |g| ({kind}), {name} audio", mean)
    if {HELPS, MISLEADS} <= set(groups):
        chosen = groups[HELPS] | groups[MISLEADS]
        area = separation(size[chosen], groups[HELPS][chosen], **options)
        about = f"share of pairs in which |g| ({kind}) is larger for {HELPS} audio (AUC)"
        found += _curves(f"{kind}_separation", about, area)
    return found


def _curves(name: str, about: str, estimate: Estimate | None) -> list[Named]:
    if estimate is None:
        return []
    return [
        (LayerCurve(f"{name}{suffix}", about + words), value)
        for (suffix, words), value in zip(ENDS.items(), estimate, strict=True)
    ]


def conditions(results: Results) -> list[str]:
    """Return `plain` and the variants that samples of this result were measured under."""
    found = [PLAIN]
    for name in results.fields:
        for measure in MEASURES:
            variant = name.removesuffix(f"_{measure}")
            if variant != name and variant not in found:
                found.append(variant)
    return found


def audio_groups(results: Results) -> dict[str, np.ndarray]:
    """Return which samples are of which audio kind, `all` first: name -> (n,) bool."""
    groups = {ALL: np.ones(len(results), dtype=bool)}
    if "audio_kind" in results.fields:
        kinds = stacked(results, "audio_kind").astype(str)
        groups |= {name: kinds == name for name in sorted(set(kinds) - {""})}
    return groups


def _measures(results: Results, options: Mapping[str, int]) -> list[Named]:
    groups = audio_groups(results)
    found: list[Named] = [
        (Scalar(f"n_{name}", f"samples, {name}", dtype="int64"), rows.sum())
        for name, rows in groups.items()
    ]
    for measure, about in MEASURES.items():
        values = {c: column(results, field_name(c, measure)) for c in conditions(results)}
        for (condition, numbers), (group, rows) in itertools.product(
            values.items(), groups.items()
        ):
            known = rows & np.isfinite(numbers)
            if not known.any():
                continue
            words = f"{about}; {condition.replace('_', ' ')}, {group} samples"
            name = f"{condition}_{measure}_{group}"
            found += _scalars(name, words, bootstrap_mean(numbers[known], **options))
            both = known & np.isfinite(values[PLAIN])
            if condition != PLAIN and both.any():
                paired = paired_difference(numbers[both], values[PLAIN][both], **options)
                found += _scalars(
                    f"{condition}_less_plain_{measure}_{group}", f"{words}, less plain", paired
                )
    return found


def _scalars(name: str, about: str, estimate: Sequence[Any]) -> list[Named]:
    return [
        (Scalar(f"{name}{suffix}", about + words), value)
        for (suffix, words), value in zip(ENDS.items(), estimate, strict=True)
    ]
