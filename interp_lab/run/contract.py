"""The contract of an analysis: plans for one input, numbers of one sample, numbers of a run.

An analysis is a streaming statistic: `update` sees one sample and returns small arrays, `compute`
reads them back from the store. It knows neither a concrete model nor a concrete data set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from interp_lab.capture.plans import Intervention, Plan
from interp_lab.datasets.base import Sample
from interp_lab.fields import Field
from interp_lab.models.base import LoadedModel, Seen
from interp_lab.store.results import Results
from interp_lab.tokens import TokenMap


class Analysis(Protocol):
    """What the runner needs of an analysis.

    Attributes:
        fields: what `update` may return, by declaration; what a model cannot give may be missing
            in every sample alike.
        definitions: name -> definition with its version; stored with the numbers.
    """

    fields: Sequence[Field]
    definitions: Mapping[str, str]

    def check(self, model: LoadedModel) -> list[str]:
        """Return notes on what this model cannot give.

        Raises:
            UnsupportedModelError: if it can give nothing of this analysis.
        """
        ...

    def plans(self, tokens: TokenMap) -> Mapping[str, Plan]:
        """Return what to watch while the model works on this input."""
        ...

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Intervention]]:
        """Return the interventions under which the model runs on this sample again, by name."""
        ...

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return this sample's values by field name.

        Args:
            sample: the sample.
            seen: its tokens and pictures, as the model got them.
            captured: what was watched, by plan name.
            outputs: what the model returned for this sample: `plain`, and one a variant.
        """
        ...

    def compute(self, results: Results) -> Sequence[tuple[Field, Any]]:
        """Return the fields over all samples, streaming from the store.

        Other processes may have measured, so this and `export` work without a `check` before.
        """
        ...

    def export(self, results: Results, folder: Path) -> None:
        """Write the files that earlier scripts read."""
        ...
