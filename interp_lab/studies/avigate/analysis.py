"""avigate: how far the gates of a fused network let the audio through, and whether that helps.

Works on any network whose gates are modules that its YAML names (`model.gates`). Where the network
finds moments and the data set knows them, each sample is run again with the audio gates closed
and with them forced open: a gate that opens where audio helps shows in the loss, not in itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp_lab.capture.plans import GatePlan, Intervention
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.fields import Field
from interp_lab.models.base import GatedModel, LoadedModel, Seen
from interp_lab.store.results import Results
from interp_lab.studies.avigate.exports import export
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
from interp_lab.studies.avigate.numbers import aggregates
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
        near_zero: the largest |g| that counts as zero.
        variants: name -> value that the audio gates are set to while the sample is run again, or
            gate kind -> value; `audio_off` is the one that `loss_difference` compares with.
            null = run each sample once.
        compare_samples: which samples stand beside each other in comparisons/gate_comparison:
            true = the first ones, false = none, or their ids.
        save_raw: also write every sample's gates as .npy.
        bootstrap: resamples of the intervals.
        seed: of the resamples.
        batch_size: samples a forward.
    """

    def __init__(
        self,
        masked: bool = True,
        near_zero: float = 0.05,
        variants: dict[str, float | dict[str, float]] | None = None,
        compare_samples: bool | list[str | int] = True,
        save_raw: bool = False,
        bootstrap: int = 1000,
        seed: int = 0,
        batch_size: int = 1,
    ) -> None:
        if near_zero < 0 or bootstrap < 100:
            raise ConfigError("analysis: near_zero from 0 on, bootstrap from 100 on")
        for name in variants or {}:
            if not name.isidentifier() or name == "plain":
                raise ConfigError(f"analysis.variants.{name}: give a plain name, such as audio_off")
        self.masked = masked
        self.near_zero = near_zero
        self.chosen_variants = variants or {}
        self.compare_samples = compare_samples
        self.save_raw = save_raw
        self.bootstrap = bootstrap
        self.seed = seed
        self.batch_size = batch_size
        values = ", ".join(f"{name}: {value}" for name, value in self.chosen_variants.items())
        self.definitions = {
            **DEFINITIONS,
            "masked": str(masked).lower(),
            "near_zero": f"|g| up to {near_zero:g}",
            "variants": values,
        }
        self.fields: Sequence[Field] = []

    def check(self, model: LoadedModel) -> list[str]:
        """Accept models with gates; returns notes on padding and on what has no variants.

        Raises:
            UnsupportedModelError: for a model without gates.
            ConfigError: with `masked`, if gates may depend on the padding of a batch.
        """
        if not isinstance(model, GatedModel) or not model.gates:
            raise UnsupportedModelError(
                f"task=avigate: {type(model).__name__} has no gates; name them in model.gates, or "
                "choose a model such as model=tiny_avigate"
            )
        self._gates = dict(model.gates)
        self._paths = layer_paths(model.module, model.gates)
        self._changes: dict[str, tuple[Intervention, ...]] = {}
        if model.audio_gates:
            self._changes = {
                name: gate_changes(model.gates, value, model.audio_gates)
                for name, value in self.chosen_variants.items()
            }
        self.fields = [*gate_fields(list(self._gates)), *moment_fields(list(self._changes))]
        notes = self._padding_notes(model)
        if self.chosen_variants and not model.audio_gates:
            notes.append(
                "model.audio_gates names no gates: nothing is compared with the audio switched off"
            )
        return notes

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

    def plans(self, tokens: TokenMap) -> dict[str, GatePlan]:
        """Watch every gate, kind by kind."""
        return {
            kind: GatePlan(self._paths[kind], hooks.nonlinearity)
            for kind, hooks in self._gates.items()
        }

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Return the changes of the gates that every sample is run again under."""
        return self._changes

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the gates of one sample, and its moments where model and data set have them."""
        n_clips = clips_of(sample, seen)
        values: dict[str, Any] = {"id": sample.id}
        for kind, paths in self._paths.items():
            # Alone a sample has no padding: nothing is cut of gates that are not one a clip.
            own = None if self.batch_size == 1 else n_clips
            gates = canonical(captured[kind], paths, own, sample.id)
            values |= gate_values(kind, gates)
        return values | fact_values(sample, seen, n_clips) | output_values(sample, outputs)

    def compute(self, results: Results) -> list[tuple[Field, Any]]:
        """Return statistics, what goes with |g|, and how well moments are found."""
        return aggregates(results, self.near_zero, self.bootstrap, self.seed)

    def export(self, results: Results, folder: Path) -> None:
        """Write statistics, the samples' details, the report and, if asked, raw gates."""
        export(results, folder, save_raw=self.save_raw)
