"""The moments of one sample: what was found, what is true, and how good that is, as fields.

What a data set or a model does not give is absent from the sample: no number is made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_lab.datasets.base import Sample
from interp_lab.errors import SampleError
from interp_lab.fields import Category, ClipCurve, Document, Field, Scalar, Windows, WindowScores
from interp_lab.models.moments import Moments
from interp_lab.studies.avigate.moment_metrics import RECALL_AT, as_windows, moment_values, name_of

if TYPE_CHECKING:
    from interp_lab.models.base import Seen

PLAIN = "plain"
# The variant whose loss says what the audio is worth.
AUDIO_OFF = "audio_off"
METRICS = "qvhighlights.moment_retrieval/1"
# Measure of a sample -> what it is.
MEASURES = {
    **{name_of(t): f"surest window overlaps a true one by at least {t:g}" for t in RECALL_AT},
    "average_precision": "average precision, mean over overlaps 0.5 to 0.95",
    "loss": "loss",
}


def moment_fields(variants: Sequence[str]) -> list[Field]:
    """Return the fields of moments; measures once for the plain run and once for each variant."""
    fields: list[Field] = [
        Category("audio_kind", "whether the audio helps, as the data set says"),
        Document("query", "query"),
        Scalar("clip_seconds", "length of a clip", unit="s", ragged=True),
        ClipCurve("saliency", "annotated saliency of a clip"),
        ClipCurve("predicted_saliency", "predicted saliency of a clip"),
        Windows("windows", "relevant windows"),
        Windows("predicted_windows", "predicted windows, the surest first"),
        WindowScores("predicted_scores", "scores of the predicted windows"),
        Scalar(
            "loss_difference",
            "loss without audio minus loss with it",
            ragged=True,
            definition="avigate.loss_difference/1",
        ),
    ]
    for condition in (PLAIN, *variants):
        for measure, about in MEASURES.items():
            definition = "" if measure == "loss" else METRICS
            fields.append(
                Scalar(
                    field_name(condition, measure),
                    _named(about, condition),
                    ragged=True,
                    definition=definition,
                )
            )
    return fields


def field_name(condition: str, measure: str) -> str:
    """Return the field that holds a measure of a sample under a condition."""
    return measure if condition == PLAIN else f"{condition}_{measure}"


def _named(about: str, condition: str) -> str:
    return about if condition == PLAIN else f"{about}, {condition.replace('_', ' ')}"


def fact_values(sample: Sample, seen: Seen, n_clips: int | None) -> dict[str, Any]:
    """Return what the data set knows of a sample.

    Raises:
        SampleError: if its windows are malformed.
    """
    facts = sample.facts
    values: dict[str, Any] = {
        "audio_kind": str(facts.get("audio_kind") or ""),
        "query": str(facts.get("query") or ""),
    }
    spans = [token.seconds for token in seen.tokens if token.modality == "video" and token.seconds]
    if spans:
        values["clip_seconds"] = spans[0][1] - spans[0][0]
    elif n_clips and facts.get("duration"):
        values["clip_seconds"] = float(facts["duration"]) / n_clips
    if facts.get("saliency") is not None:
        values["saliency"] = np.asarray(facts["saliency"], dtype=np.float32)
    true = true_windows(sample)
    return values if true is None else values | {"windows": true}


def output_values(sample: Sample, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the model found, plain and under each variant; nothing if it finds no moments."""
    plain = outputs[PLAIN]
    if not isinstance(plain, Moments):
        return {}
    values: dict[str, Any] = {
        "predicted_windows": _windows(plain.spans, sample.id),
        "predicted_scores": plain.scores,
        "predicted_saliency": plain.saliency,
    }
    true = true_windows(sample)
    for condition, found in outputs.items():
        measured = {} if true is None else moment_values(found.spans, true)
        measured |= {"loss": found.loss} if found.loss is not None else {}
        values |= {field_name(condition, name): number for name, number in measured.items()}
    without = outputs.get(AUDIO_OFF)
    if without is not None and None not in (plain.loss, without.loss):
        values["loss_difference"] = without.loss - plain.loss
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise SampleError(f"{name} of sample {sample.id!r} is not a finite number")
    return values


def true_windows(sample: Sample) -> np.ndarray | None:
    """Return the windows (n, 2) that the data set calls relevant, or None if it names none.

    Raises:
        SampleError: if they are malformed.
    """
    windows = sample.facts.get("windows")
    return None if windows is None or len(windows) == 0 else _windows(windows, sample.id)


def _windows(windows: Any, sample_id: str) -> np.ndarray:
    try:
        return as_windows(windows)
    except ValueError as error:
        raise SampleError(f"sample {sample_id!r}: {error}") from error
