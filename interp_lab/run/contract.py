"""What a study gives: an analysis, which measures, and numbers, which need no model.

An analysis is asked once for the model that is there and returns what measures with it: plans for
one input, and the small arrays of one sample. Its options change stored numbers. Numbers are made
of a result alone, streaming, so memory does not grow with the number of samples; their options can
be changed afterwards, without measuring again (`mode=compute`). Neither knows a concrete model or
data set. Any class that fits does; nothing is subclassed.
"""

from __future__ import annotations

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
    """The options of what is measured.

    It may state what it `needs` of every sample (kinds of input, names of facts), what it `asks` of
    a model (words of `LoadedModel.lacks`), and which fields it `measures` beside `fields`, such as
    `gate_*`; `check_model(kind)` may refuse a class of models before one is loaded.

    Attributes:
        fields: what a sample may hold, as far as it is known before a model is.
        definitions: name -> definition with its version; stored with the numbers.
    """

    fields: Sequence[Field]
    definitions: Mapping[str, str]

    def for_model(self, model: LoadedModel) -> Measuring:
        """Return what measures with this model.

        Raises:
            UnsupportedModelError: if it can give nothing of this analysis.
            ConfigError: if an option names what the model does not have.
        """
        ...


class Measuring(Protocol):
    """An analysis of one model, frozen.

    It may have `at(place)`, which returns what measures the sample at a place of the data set, from
    0 on: so the first few can be looked at more closely than the others. What they all hold must
    not depend on it.

    Attributes:
        fields: what `update` may return, by declaration; what a model cannot give may be missing
            in every sample alike.
        notes: what a reader of the numbers must know, such as what this model cannot give.
    """

    @property
    def fields(self) -> Sequence[Field]: ...

    @property
    def notes(self) -> Sequence[str]: ...

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


class Numbers(Protocol):
    """The options of what is made of measured samples: aggregates, intervals, reports, exports.

    It may state the fields that it `needs`; so may the YAML of a visualization, in `needs`.

    A module of numbers imports no torch.

    Attributes:
        definitions: name -> what an aggregate is; stored with the numbers.
    """

    @property
    def definitions(self) -> Mapping[str, str]: ...

    def compute(self, results: Results) -> Sequence[tuple[Field, Any]]:
        """Return the fields over all samples, streaming from the store."""
        ...

    def export(self, results: Results, folder: Path) -> None:
        """Write the files that earlier scripts read."""
        ...
