"""semdim: what a word's sound makes a model attend to, between two features that it must choose.

Queries are the tokens of the two dimension words, keys the tokens of the word, read or heard.
Attention is read on the prompt, in the language part unless `layer_type` says otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp_lab.capture.plans import AttentionPlan, Intervention, Reducer
from interp_lab.capture.reduce import Keep, Mean
from interp_lab.config.signature import Distinct
from interp_lab.datasets.answers import CHOICE, parse_letter
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError
from interp_lab.fields import Category, Document, Field, Pattern, Scalar, Spectrogram, UnitScores
from interp_lab.models.base import AnsweringModel, LoadedModel, Seen
from interp_lab.models.lacks import unfit
from interp_lab.studies.semdim.knockout import knockout_fields, knockout_values, word_blocks
from interp_lab.studies.semdim.shares import fraction, masses
from interp_lab.studies.semdim.spans import WordSpans, word_spans
from interp_lab.tokens import TokenMap

LayerType = Literal["self", "encoder", "output", "cross"]
# The roles that the dimension words have where they count.
SCOPES = {"options": ("option",), "dimension": ("dimension",), "both": ("dimension", "option")}
AnswerRule = Literal["choice", "first_number"]
ANSWER_RULES = {"choice": CHOICE, "first_number": "semdim.first_number/1"}
LABELS = ("language", "word", "data_type", "word_group", "dimension1", "dimension2", "pair")


class SemanticDimensionAttention:
    """Attention of dimension words on a word, and the answer.

    Args:
        dimension_scope: the dimension words in the `options`, in the `dimension` block, or `both`,
            wherever they stand in the prompt.
        layers, heads: which are stored in the matrices and averaged in the fractions; null = all.
        matrix_heads: `mean` over heads, or `all` of them, in `attention_matrix`.
        layer_type: `self` (the language model), `encoder` (the audio tower on itself), `output`
            (the answer position's row), `cross` (the row of cross attention that predicts the
            answer; of encoder-decoder models, whose `self` is the encoder).
        flip: whether each pair is asked in both orders of the options.
        knockout: block the word from the options by layer band and answer again.
        answer_rule: `choice`, the option that a free text chooses (`datasets.answers`), or
            `first_number`, the first number of an option in it, whatever surrounds it.
    """

    needs = ("text", "word", "dimension1", "dimension2")
    asks = ("answers",)

    def __init__(
        self,
        dimension_scope: Literal["options", "dimension", "both"] = "options",
        layers: Distinct[int] | None = None,
        heads: Distinct[int] | None = None,
        matrix_heads: Literal["mean", "all"] = "mean",
        layer_type: LayerType = "self",
        flip: bool = True,
        knockout: bool = False,
        answer_rule: AnswerRule = "choice",
    ) -> None:
        for name, chosen in (("layers", layers), ("heads", heads)):
            if chosen is not None and (not chosen or min(chosen) < 0):
                raise ConfigError(
                    f"analysis.{name}={chosen}: give numbers from 0 on, or null for all"
                )
        self.dimension_roles = SCOPES[dimension_scope]
        self.layers = tuple(layers) if layers is not None else None
        self.heads = tuple(heads) if heads is not None else None
        self.matrix_heads = matrix_heads
        self.layer_type: LayerType = layer_type
        self.knockout = knockout
        self.answer_rule: AnswerRule = answer_rule
        self.definitions = {
            "fraction": f"semdim.fraction/1 ({dimension_scope})",
            "attention_matrix": f"semdim.attention_matrix/1 ({layer_type})",
            "answer": ANSWER_RULES[answer_rule],
            "flip": str(flip).lower(),
            # What numbers and figures call the rows of the arrays by.
            "layers": json.dumps(self.layers),
            "heads": json.dumps(self.heads),
        }
        self.fields: Sequence[Field] = _fields(self.definitions, knockout)

    def check_model(self, kind: type) -> None:
        """Refuse a class of models that has not the attention asked for."""
        crossing = getattr(kind, "reading_tower", "language") == "encoder"
        if self.layer_type == "cross" and not crossing:
            raise ConfigError(
                "analysis.layer_type=cross: cross attention exists in encoder-decoder models only "
                f"(such as model=flan_t5_base); {kind.__name__} is a decoder, whose text "
                "attends to the word by self attention: analysis.layer_type=self"
            )
        if self.layer_type in ("output", "encoder") and crossing:
            raise ConfigError(
                f"analysis.layer_type={self.layer_type}: {kind.__name__} is an "
                "encoder-decoder; give self (its encoder) or cross (the answer's row)"
            )
        if self.knockout and crossing:
            raise ConfigError(
                f"analysis.knockout=true: not for {kind.__name__}, whose answer reads the "
                "word by another attention than the options do"
            )

    def for_model(self, model: LoadedModel) -> "WordsOfModel":
        """Return what measures with a model that answers in words.

        Raises:
            UnsupportedModelError: for a model without a language part, or without an audio tower.
            ConfigError: if a layer or head is not there.
        """
        self.check_model(type(model))
        if not isinstance(model, AnsweringModel):
            raise unfit(type(model), "answers")
        for name, chosen, count in (
            ("layers", self.layers, model.n_layers),
            ("heads", self.heads, model.n_heads),
        ):
            if chosen and self.layer_type != "encoder" and max(chosen) >= count:
                raise ConfigError(
                    f"analysis.{name}={list(chosen)}: the model has {count} {name}, from 0 on"
                )
        seconds = getattr(model, "encoder_seconds", None)
        return WordsOfModel(self, int(model.n_layers), model.reading_tower, seconds)


@dataclass(frozen=True)
class WordsOfModel:
    """Measures one model's attention on words.

    Args:
        options: what to measure.
        n_layers: of the model, for bands of them.
        tower: whose tokens the prompt's are.
        encoder_seconds: how long each of the audio tower's own tokens is; None = not known.
    """

    options: SemanticDimensionAttention
    n_layers: int
    tower: str = "language"
    encoder_seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> Sequence[Field]:
        """What a sample may hold."""
        return self.options.fields

    def plans(self, tokens: TokenMap) -> dict[str, AttentionPlan]:
        """Watch the square block, the dimension rows and the flow to the answer."""
        heads = Mean(over=("head",)) if self.options.matrix_heads == "mean" else Keep()
        if self.options.layer_type == "encoder":
            return {"matrix": self._plan(None, None, heads, tower="audio")}
        spans = word_spans(tokens, self.options.dimension_roles)
        matrix, flow = tuple(sorted(spans.matrix)), tuple(sorted(spans.flow))
        rows = (spans.answer,) if self.options.layer_type == "output" else matrix
        if self.options.layer_type == "cross":
            # The decoder's start token is the query that predicts the answer.
            first = self._plan((0,), matrix, heads, tower="cross")
        else:
            first = self._plan(rows, matrix, heads)
        return {
            "matrix": first,
            "fraction": self._plan(spans.dimensions, spans.word, Keep()),
            "flow": self._plan(flow, flow, Mean(over=("head",))),
        }

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Hide the word from the options by layer band, and from everything as the control."""
        if not self.options.knockout:
            return {}
        spans = word_spans(seen.tokens, self.options.dimension_roles)
        readers = (*spans.options, spans.answer)
        return word_blocks(spans.word, readers, len(seen.tokens), self.n_layers)

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return matrices, fractions, labels and the answer of one sample."""
        spans = word_spans(seen.tokens, self.options.dimension_roles)
        options: Mapping[str, str] = sample.facts.get("options") or {"1": "", "2": ""}
        read = first_number if self.options.answer_rule == "first_number" else parse_letter
        predicted = {n: read(out.text, list(options)) for n, out in outputs.items()}
        values: dict[str, Any] = {name: str(sample.facts.get(name) or "") for name in LABELS}
        values |= {
            "tokens": seen.tokens.to_json(),
            "answer": sample.answer or "",
            "answer_word": options.get(sample.answer or "", ""),
            "predicted": predicted["plain"] or "",
            "predicted_word": options.get(predicted["plain"] or "", ""),
            "correct": int(predicted["plain"] is not None and predicted["plain"] == sample.answer),
            "flipped": int(bool(sample.facts.get("flipped"))),
            "n_options": len(options),
            "n_word_tokens": len(spans.word),
            "n_dim1_tokens": len(spans.dim1),
            "n_dim2_tokens": len(spans.dim2),
        }
        values |= self._matrices(seen.tokens, spans, captured)
        if "fraction" in captured:
            values |= self._fractions(sample, seen.tokens, spans, captured)
        if seen.spectrogram is not None:
            values["spectrogram"] = seen.spectrogram
        if self.options.knockout:
            values |= knockout_values(sample.answer, predicted)
        return values

    def _plan(
        self,
        queries: tuple[int, ...] | None,
        keys: tuple[int, ...] | None,
        reduce: Reducer,
        tower: str | None = None,
    ) -> AttentionPlan:
        layers, heads = self.options.layers, self.options.heads
        return AttentionPlan(queries, keys, reduce, layers, heads, tower or self.tower)

    def _matrices(
        self, tokens: TokenMap, spans: WordSpans, captured: Mapping[str, Any]
    ) -> dict[str, Any]:
        matrix = _with_heads(captured["matrix"].values, self.options.matrix_heads == "mean")
        if self.options.layer_type == "encoder":
            each = self.encoder_seconds
            listed = [
                {
                    "text": str(i),
                    "group": "word",
                    "seconds": [i * each, i * each + each] if each else None,
                }
                for i in range(matrix.shape[-1])
            ]
            return {"attention_matrix": matrix, "matrix_tokens": json.dumps(listed)}
        order = np.argsort(np.argsort(spans.matrix))
        matrix = matrix[..., order]
        one_row = self.options.layer_type in ("output", "cross")
        matrix = matrix if one_row else matrix[..., order, :]
        flow_order = np.argsort(np.argsort(spans.flow))
        flow = _with_heads(captured["flow"].values, True)[..., flow_order, :][..., flow_order]
        return {
            "attention_matrix": matrix,
            "matrix_tokens": spans.described(tokens, "matrix"),
            "flow_matrix": flow,
            "flow_tokens": spans.described(tokens, "flow"),
        }

    def _fractions(
        self, sample: Sample, tokens: TokenMap, spans: WordSpans, captured: Mapping[str, Any]
    ) -> dict[str, Any]:
        units = spans.units(tokens, sample.facts.get("phones", ()), sample.facts.get("phone_unit"))
        block = captured["fraction"].values.float().cpu().numpy()
        place = {token: i for i, token in enumerate(spans.dimensions)}
        dim1, dim2 = ([place[t] for t in side] for side in (spans.dim1, spans.dim2))
        keys = [unit["keys"] for unit in units]
        first, second = masses(block, keys, dim1, dim2)
        return {
            "mass": first + second,
            "units": json.dumps(units, ensure_ascii=False),
            "fraction_sum": fraction(block, keys, dim1, dim2, normalize="sum"),
            "fraction_mean": fraction(block, keys, dim1, dim2, normalize="mean"),
        }


def first_number(text: str, numbers: Sequence[str]) -> str | None:
    """Return the option whose number comes first in a text (`semdim.first_number/1`), or None.

    Args:
        text: what the model wrote.
        numbers: of the options, one digit each.
    """
    return next((sign for sign in text if sign in numbers), None)


_COUNTS = {
    "correct": "answered correctly",
    "flipped": "options in the other order",
    "n_options": "options to choose from",
    "n_word_tokens": "tokens of the word",
    "n_dim1_tokens": "tokens of dimension 1",
    "n_dim2_tokens": "tokens of dimension 2",
}


def _fields(definitions: Mapping[str, str], knockout: bool) -> list[Field]:
    """Return what a sample may hold."""
    share = definitions["fraction"]
    return [
        Pattern("attention_matrix", "attention", definition=definitions["attention_matrix"]),
        Document("matrix_tokens", "tokens of attention_matrix"),
        Pattern("flow_matrix", "attention, mean over heads", definition="semdim.flow/1"),
        Document("flow_tokens", "tokens of flow_matrix"),
        UnitScores("fraction_sum", "share toward dimension 1", definition=f"{share} sum"),
        UnitScores("fraction_mean", "share toward dimension 1", definition=f"{share} mean"),
        UnitScores("mass", "attention of both dimensions on the unit, summed"),
        Document("units", "phones or tokens of the word"),
        Spectrogram("spectrogram", "log mel spectrogram"),
        Document("tokens", "every token of the prompt"),
        *(Category(name, name.replace("_", " ")) for name in LABELS),
        Category("answer", "right answer", definition=definitions["answer"]),
        Category("answer_word", "right answer, as a word"),
        Category("predicted", "model's answer", definition=definitions["answer"]),
        Category("predicted_word", "model's answer, as a word"),
        *(Scalar(name, about, dtype="int64") for name, about in _COUNTS.items()),
        *(knockout_fields() if knockout else ()),
    ]


def _with_heads(values: Any, averaged: bool) -> np.ndarray:
    """Return (layer, head, query, key); a mean over heads gets a head axis of length 1."""
    array = values.float().cpu().numpy()
    return array[:, None] if averaged else array
