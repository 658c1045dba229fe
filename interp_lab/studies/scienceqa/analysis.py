"""scienceqa: which head of each layer looks hardest at the image, over a data set of questions.

Attention is read on the prompt alone; n_layers x n_heads numbers of a sample leave the device. How
hard a head looks is one of the named definitions below. Looking is not using: `knockout` blocks
the image from heads and measures what that does to the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from interp_lab.capture.plans import AttentionPlan, Intervention
from interp_lab.capture.reduce import Max, Sum
from interp_lab.config.signature import Distinct
from interp_lab.datasets.answers import CHOICE, parse_letter
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError
from interp_lab.fields import Category, Field, HeadIndex, HeadScores, LayerCurve, Scalar
from interp_lab.models.base import AnsweringModel, LoadedModel, Seen
from interp_lab.models.lacks import DECODER, unfit
from interp_lab.statistics.heads import head_margins, winners
from interp_lab.studies.scienceqa.cells import by_cell, map_fields, map_values
from interp_lab.studies.scienceqa.knockout import Knockout, image_block
from interp_lab.tokens import TokenMap

Definition = Literal[
    "max_text_to_image", "last_token_image_mass", "text_to_image_mean", "image_to_text_mean"
]
# T: the positions outside the image span, I: the image span, A: the pattern on the prompt.
ABOUT: dict[str, str] = {
    "max_text_to_image": "largest attention from a text token to an image token",
    "last_token_image_mass": "attention of the last prompt token on the image",
    "text_to_image_mean": "mean attention of a text token after the image on the image",
    "image_to_text_mean": "mean attention of an image token on the text",
}
NO_WINNER = -1


def head_plan(definition: Definition, tokens: TokenMap) -> AttentionPlan | None:
    """Return what to watch for a definition, or None if this input has no image.

    Definitions, per layer l and head h:
        max_text_to_image: max over q in T, k in I of A[l, h, q, k]; T empty -> all positions.
        last_token_image_mass: sum over k in I of A[l, h, last, k].
        text_to_image_mean: mean over q in T after the image of the sum over k in I.
        image_to_text_mean: mean over q in I of the sum over k in T.
    The two means are sums here; `scores_of` divides them by the number of queries.
    """
    image = tokens.where(modality="image")
    if not image:
        return None
    text = tokens.others(image)
    if definition == "max_text_to_image":
        return AttentionPlan(text or image, image, Max(over=("query", "key")))
    if definition == "last_token_image_mass":
        return AttentionPlan((len(tokens) - 1,), image, Sum(over=("query", "key")))
    if definition == "text_to_image_mean":
        after = tuple(q for q in text if q > image[-1])
        return AttentionPlan(after or image, image, Sum(over=("query", "key")))
    return AttentionPlan(image, text or image, Sum(over=("query", "key")))


def scores_of(definition: Definition, plan: AttentionPlan, reduced: np.ndarray) -> np.ndarray:
    """Return the scores (layer, head, ...) of what the plan's reducer gave."""
    if definition in ("text_to_image_mean", "image_to_text_mean"):
        assert isinstance(plan.queries, tuple)
        return reduced / len(plan.queries)
    return reduced


def answer_of(text: str, sample: Sample) -> str:
    """Return what belongs to the answer of what a model wrote.

    In an old format a model that has answered goes on with the next turn, as its `stop` fact says.
    """
    stop = sample.facts.get("stop")
    return text.partition(stop)[0] if stop else text


class ScienceQAHeads:
    """What is measured of a vision-language model on multiple-choice questions.

    Args:
        definition: how hard a head looks at the image.
        knockout: block the image from the `winners` of each sample, from as many `random` heads of
            the same layers, or from named [layer, head] pairs; null = measure only.
        knockout_heads: how many winning heads are blocked.
        seed: of random heads.
        maps: of so many samples, the first of the data set, the map of each layer's winner over
            the picture is kept beside the scores, with picture and question; 0 = of none. It
            changes no number and makes no other run.
    """

    needs = ("text", "options")
    asks = ("answers", DECODER)
    only_with = MappingProxyType({"knockout_heads": "knockout"})

    def __init__(
        self,
        definition: Definition = "max_text_to_image",
        knockout: Literal["winners", "random"] | Distinct[tuple[int, int]] | None = None,
        knockout_heads: int = 4,
        seed: int = 0,
        maps: int = 16,
    ) -> None:
        if knockout_heads < 1:
            raise ConfigError(f"analysis.knockout_heads={knockout_heads}: from 1 on")
        if maps < 0:
            raise ConfigError(f"analysis.maps={maps}: from 0 on")
        self.maps = maps
        self.definition: Definition = definition
        self.knockout = Knockout(knockout, knockout_heads, seed) if knockout else None
        named = f"scienceqa.{definition}/1"
        self.definitions = {
            "scores": named,
            "max_head_per_layer": f"argmax of {named}, first on ties",
            "predicted": CHOICE,
        }
        self.fields: Sequence[Field] = [
            HeadScores("scores", ABOUT[definition], definition=named),
            HeadIndex("max_head_per_layer", "head that looks hardest at the image"),
            LayerCurve("margin", "lead of the first head over the second", definition=named),
            Scalar("image_token_start", "first image token", dtype="int64"),
            Scalar("image_token_end", "end of the image tokens", dtype="int64"),
            Category("image_file", "image file"),
            Category("answer", "right answer"),
            Category("predicted", "model's answer", definition=CHOICE),
            Category("output", "what the model wrote"),
            Scalar("correct", "answered correctly", dtype="int64"),
            *(self.knockout.fields if self.knockout else ()),
            *(map_fields(definition) if maps else ()),
        ]

    def for_model(self, model: LoadedModel) -> "HeadsOfModel":
        """Return what measures with a model that answers in words.

        Raises:
            UnsupportedModelError: for a model without a language part.
        """
        if not isinstance(model, AnsweringModel):
            raise unfit(type(model), "answers")
        return HeadsOfModel(self, model.token_of, (model.n_layers, model.n_heads))


@dataclass(frozen=True)
class HeadsOfModel:
    """Measures one model's heads.

    Args:
        options: what to measure.
        token_of: letter -> its token.
        shape: layers and heads.
        keeps_map: whether the winners' maps of this sample are kept.
    """

    options: ScienceQAHeads
    token_of: Callable[[str], int]
    shape: tuple[int, int]
    notes: tuple[str, ...] = ()
    keeps_map: bool = False

    @property
    def fields(self) -> Sequence[Field]:
        """What a sample holds."""
        return self.options.fields

    def at(self, place: int) -> "HeadsOfModel":
        """Return what measures the sample at a place of the data set: the first keep their maps."""
        return replace(self, keeps_map=place < self.options.maps)

    def plans(self, tokens: TokenMap) -> dict[str, AttentionPlan]:
        """Watch one block of the prompt, reduced to a number a head."""
        plan = head_plan(self.options.definition, tokens)
        if plan and self.keeps_map:
            plan = by_cell(self.options.definition, plan, tokens)
        return {"heads": plan} if plan else {}

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Return the knock-outs that the sample is answered again under."""
        if not self.options.knockout or "heads" not in captured:
            return {}
        scores, _ = self._numbers(seen.tokens, captured)
        chosen = self.options.knockout.heads(sample.id, scores, winners(scores))
        return {name: image_block(seen.tokens, heads) for name, heads in chosen.items()}

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return scores, winners and the answer of one sample.

        A sample without an image has scores 0 (no attention falls on an empty span) and no winner.
        """
        letters = list(sample.facts.get("options", {})) or list("ABCDE")
        predicted = {
            name: parse_letter(answer_of(out.text, sample), letters)
            for name, out in outputs.items()
        }
        image = seen.tokens.where(modality="image")
        scores, by_token = self._numbers(seen.tokens, captured)
        winning = winners(scores) if image else np.full(len(scores), NO_WINNER)
        values: dict[str, Any] = {
            "scores": scores,
            "max_head_per_layer": winning,
            "margin": head_margins(scores),
            "image_token_start": image[0] if image else NO_WINNER,
            "image_token_end": image[-1] + 1 if image else NO_WINNER,
            "image_file": sample.facts.get("image_file", ""),
            "answer": sample.answer or "",
            "predicted": predicted["plain"] or "",
            "output": outputs["plain"].text,
            "correct": int(sample.answer is not None and predicted["plain"] == sample.answer),
        }
        if self.options.knockout:
            tokens = {letter: self.token_of(letter) for letter in letters}
            values |= self.options.knockout.values(
                sample.answer, letters, tokens, outputs, predicted
            )
        if by_token is not None:
            values |= map_values(sample, seen, by_token, winning)
        return values

    def _numbers(
        self, tokens: TokenMap, captured: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the scores (layer, head) and, if they were watched, those by image token."""
        definition = self.options.definition
        plan = head_plan(definition, tokens)
        if plan is None:
            return np.zeros(self.shape), None
        watched = captured["heads"].values.float().cpu().numpy()
        if watched.ndim == 2:
            return scores_of(definition, plan, watched), None
        scores, by_token = watched[..., 0], watched[..., 1:]
        # A cell's own row is one query; every other map is made of the score's queries.
        of_cells = definition == "image_to_text_mean"
        by_token = by_token if of_cells else scores_of(definition, plan, by_token)
        return scores_of(definition, plan, scores), by_token
