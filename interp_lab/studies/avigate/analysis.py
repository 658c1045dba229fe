"""avigate: how far the gates of a fused network let the audio through, and whether that helps.

Works on any network whose gates are modules that its YAML names (`model.gates`). Where the network
finds moments and the data set knows them, each sample is run again with the audio gates closed
and with them forced open: a gate that opens where audio helps shows in the loss, not in itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp_lab.capture.plans import GatePlan, Intervention
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError
from interp_lab.fields import Field
from interp_lab.models.base import GatedModel, GateHooks, LoadedModel, Seen
from interp_lab.models.lacks import unfit
from interp_lab.studies.avigate.gates import (
    VERSION,
    canonical,
    clips_of,
    gate_changes,
    gate_fields,
    gate_values,
    layer_paths,
)
from interp_lab.studies.avigate.moments import fact_values, moment_fields, output_values
from interp_lab.tokens import TokenMap

DEFINITIONS = {
    "gate": f"{VERSION}: after the nonlinearity, (layer, clip, channel), padding cut",
    "magnitude": "avigate.magnitude/1: mean |g| over clips and channels; the sign of a tanh gate "
    "is arbitrary, since the branch behind it can change sign with it",
    "loss_difference": "avigate.loss_difference/1: loss with the audio gates closed minus loss as "
    "the model is; above 0 the audio helps",
    "moment_retrieval": "qvhighlights.moment_retrieval/1: R1 and mAP of arXiv 2107.09609",
}


class GateTracing:
    """Gate values of every layer and kind, with moment retrieval beside them.

    Args:
        masked: the gates must not depend on how samples are batched; false = trace them even so,
            and say so in the result.
        variants: name -> value that the audio gates are set to while the sample is run again, or
            gate kind -> value; `audio_off` is the one that `loss_difference` compares with.
            null = run each sample once.
        batch_size: samples a forward.
    """

    def __init__(
        self,
        masked: bool = True,
        variants: dict[str, float | dict[str, float]] | None = None,
        batch_size: int = 1,
    ) -> None:
        for name in variants or {}:
            if not name.isidentifier() or name == "plain":
                raise ConfigError(f"analysis.variants.{name}: give a plain name, such as audio_off")
        self.masked = masked
        self.chosen_variants = variants or {}
        self.batch_size = batch_size
        values = ", ".join(f"{name}: {value}" for name, value in self.chosen_variants.items())
        self.definitions = {
            **DEFINITIONS,
            "masked": str(masked).lower(),
            "variants": values,
        }
        self.fields: Sequence[Field] = []

    asks = ("gates",)
    # Which kinds of gates there are, and so the fields, the model says.
    measures = ("gate_*", "magnitude_*", "audio_kind", "query")

    def for_model(self, model: LoadedModel) -> "GatesOfModel":
        """Return what measures with a model that has gates.

        Raises:
            UnsupportedModelError: for a model without gates.
            ConfigError: with `masked`, if gates may depend on the padding of a batch.
        """
        if not isinstance(model, GatedModel) or not model.gates:
            raise unfit(type(model), "gates")
        changes: dict[str, tuple[Intervention, ...]] = {}
        if model.audio_gates:
            changes = {
                name: gate_changes(model.gates, value, model.audio_gates)
                for name, value in self.chosen_variants.items()
            }
        notes = self._padding_notes(model)
        if self.chosen_variants and not model.audio_gates:
            notes.append(
                "model.audio_gates names no gates: nothing is compared with the audio switched off"
            )
        return GatesOfModel(
            gates=dict(model.gates),
            paths=layer_paths(model.module, model.gates),
            changes=changes,
            # Alone a sample has no padding: nothing is cut of gates that are not one a clip.
            padded=self.batch_size > 1,
            fields=(*gate_fields(list(model.gates)), *moment_fields(list(changes))),
            notes=tuple(notes),
        )

    def _padding_notes(self, model: LoadedModel) -> list[str]:
        if getattr(model, "masked", False) is True or self.batch_size == 1:
            return []
        if self.masked:
            raise ConfigError(
                f"analysis.masked=true: with batch_size={self.batch_size} the gates of this "
                "network may depend on how long the other samples of a batch are; use "
                "batch_size=1 or model.masked=true, or analysis.masked=false to trace them so"
            )
        return [
            f"masked: false: with batch_size={self.batch_size} gates may depend on how long the "
            "other samples of their batch are"
        ]


@dataclass(frozen=True)
class GatesOfModel:
    """Measures the gates of one model.

    Args:
        gates: kind -> where its gates are.
        paths: kind -> module paths, by layer.
        changes: variant -> what is set while a sample is run again.
        padded: samples may stand in a batch with longer ones.
        fields: what a sample may hold.
        notes: on padding and on what has no variants.
    """

    gates: Mapping[str, GateHooks]
    paths: Mapping[str, Any]
    changes: Mapping[str, tuple[Intervention, ...]]
    padded: bool
    fields: tuple[Field, ...]
    notes: tuple[str, ...]

    def plans(self, tokens: TokenMap) -> dict[str, GatePlan]:
        """Watch every gate, kind by kind."""
        return {
            kind: GatePlan(self.paths[kind], hooks.nonlinearity)
            for kind, hooks in self.gates.items()
        }

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Return the changes of the gates that every sample is run again under."""
        return dict(self.changes)

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the gates of one sample, and its moments where model and data set have them."""
        n_clips = clips_of(sample, seen)
        values: dict[str, Any] = {"id": sample.id}
        for kind, paths in self.paths.items():
            own = n_clips if self.padded else None
            gates = canonical(captured[kind], paths, own, sample.id)
            values |= gate_values(kind, gates)
        return values | fact_values(sample, seen, n_clips) | output_values(sample, outputs)
