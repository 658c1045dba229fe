"""A model, a data set and an analysis that cost nothing, to measure what the framework costs.

Every value follows from the sample's number by arithmetic, so a result can be checked whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from interp_lab.datasets.base import MadeOf, Sample
from interp_lab.errors import SampleError
from interp_lab.fields import Category, Field, HeadScores, Scalar
from interp_lab.models.base import LoadedModel, Prepared, Seen
from interp_lab.store.results import Results
from interp_lab.tokens import Token, TokenMap

LAYERS, HEADS = 8, 8
REMAINDERS = ("zero", "one", "two", "three", "four")


def scores_of(numbers: np.ndarray) -> np.ndarray:
    """Return (n, layer, head) scores: the number, plus the head's place, modulo 97."""
    place = np.arange(LAYERS * HEADS).reshape(LAYERS, HEADS)
    return ((numbers[:, None, None] + place) % 97).astype(np.float32)


class Numbers:
    """The numbers from 0 on, each a sample.

    Args:
        n: how many.
        bad_every: every so many samples one cannot be loaded; 0 = none.
    """

    def __init__(self, n: int = 100_000, bad_every: int = 0) -> None:
        self._ids = [f"number-{i:07d}" for i in range(n)]
        self._bad_every = bad_every

    def ids(self) -> Sequence[str]:
        """Return the numbers' names."""
        return self._ids

    def counts(self) -> Mapping[str, int]:
        """Nothing is left out."""
        return {}

    def made_of(self, index: int) -> MadeOf:
        """Return the number."""
        return MadeOf(index)

    def load(self, index: int) -> Sample:
        """Return a number.

        Raises:
            SampleError: for the planted bad ones.
        """
        if self._bad_every and index % self._bad_every == self._bad_every - 1:
            raise SampleError(f"{self._ids[index]}: planted")
        return Sample(self._ids[index], facts={"number": index})


class Scale(torch.nn.Module):
    """Multiplies by one; the whole of `LoadedModel` without a network.

    Args:
        device: where the one weight lies.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), device=device), requires_grad=False)
        self.module, self.device = self, device
        self.hookpoints: dict[str, str] = {}
        self.notes: list[str] = []
        self._tokens = TokenMap(tokens=(Token(text="n", role="user", modality="text"),))

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return the samples' numbers as one tensor."""
        numbers = torch.tensor([s.facts["number"] for s in samples], dtype=torch.float64)
        seen = tuple(Seen(self._tokens) for _ in samples)
        return Prepared({"numbers": numbers.to(self.device)}, seen)

    def run(self, prepared: Prepared) -> Sequence[float]:
        """Return each number, once multiplied."""
        return (prepared.inputs["numbers"] * self.weight).tolist()

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the numbers."""
        return inputs["numbers"] * self.weight


class Remainders:
    """Stores what follows from a number: scores by layer and head, a word, a pure number."""

    def __init__(self) -> None:
        self.definitions = {"scores": "synthetic.scores/1"}
        self.fields: Sequence[Field] = [
            HeadScores("scores", "number plus place of the head, modulo 97"),
            Category("remainder", "remainder of the number by five"),
            Scalar("number", "the number", dtype="int64"),
        ]

    notes = ()

    def for_model(self, model: LoadedModel) -> "Remainders":
        """Every model will do, and nothing depends on it."""
        return self

    def plans(self, tokens: TokenMap) -> Mapping[str, Any]:
        """Nothing is watched."""
        return {}

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Nothing is changed."""
        return {}

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the values of one number."""
        number = int(outputs["plain"])
        return {
            "scores": scores_of(np.array([number]))[0],
            "remainder": REMAINDERS[number % 5],
            "number": number,
        }


class MeanScores:
    """Makes the mean of the scores."""

    definitions: Mapping[str, str] = MappingProxyType({})

    def compute(self, results: Results) -> Sequence[tuple[Field, Any]]:
        """Return the mean scores, streaming."""
        total = np.zeros((LAYERS, HEADS))
        for block in results.stream(["scores"]):
            total += block["scores"].sum(0)
        return [(HeadScores("mean_scores", "mean over the numbers"), total / len(results))]

    def export(self, results: Results, folder: Path) -> None:
        """Write nothing."""
