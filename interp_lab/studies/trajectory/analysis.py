"""trajectory: what a model attends to, in text and image, while it writes its answer.

One row of attention is kept for each chosen layer and generated token: the row of the query that
predicts the token. Of all layers the shares on image, prompt text and generated text are kept,
three numbers a token, and of all heads a score that says which to look at. No pattern of the whole
sequence is ever made.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp_lab.capture.plans import AttentionPlan, Intervention, When
from interp_lab.capture.reduce import ArgMax, Keep, Max, Mean, Sum
from interp_lab.config.signature import Distinct
from interp_lab.datasets.base import Sample
from interp_lab.datasets.points import POINT, Coordinates, parse_point
from interp_lab.errors import ConfigError, SampleError
from interp_lab.fields import (
    Category,
    Document,
    Field,
    HeadIndex,
    HeadScores,
    LayerIndex,
    Picture,
    Point,
    Scalar,
    StepCurve,
    StepPattern,
)
from interp_lab.models.answers import Answer
from interp_lab.models.base import AnsweringModel, LoadedModel, Seen
from interp_lab.models.lacks import DECODER, unfit
from interp_lab.models.tokenmaps import with_generated
from interp_lab.studies.trajectory.numbers import CENTRE, CURVES, DISTANCE, SHARE
from interp_lab.studies.trajectory.peaks import (
    PEAK,
    PEAK_CELL,
    PEAK_SHARE,
    moving_peak,
    of_best_heads,
)
from interp_lab.studies.trajectory.points import centres, distances
from interp_lab.studies.trajectory.rows import (
    ENDS,
    ended_by,
    final_answer,
    peaks_of,
    rows_of,
    shares_of,
)
from interp_lab.tokens import TokenMap

log = logging.getLogger(__name__)
# Layer 20 of 28, where the model of the original study was looked at; the same depth elsewhere.
DEPTH = 20 / 28
# Pictures that a result has places for, and the longest side of one that is stored.
MOST_PICTURES = 8
LONGEST_SIDE = 1280
ROWS = "trajectory.predicting_row/1"
NO_UNIT = "model.coordinates is not known for this model, so no point is read from its answers"
CROPPED = "the model crops this picture; the data set's point, which lies in all of it, is left out"


class Trajectory:
    """Attention of the token that is being written, token by token.

    Definitions, for layer l, generated token t of T and a prompt of N tokens; A is the pattern, and
    the query that predicts token t stands at N + t - 1 (for t = 0 it is the prompt's last token):
        row: A[l, h, N + t - 1, k] for k < N + t, of each head kept, or its mean over `heads`.
        share: the row's sum over image tokens, over the prompt's other tokens, over generated
            ones, mean over `heads`; the three add up to 1.
        centre: mean of the cells' centres of one image, weighted by the row on its cells.
        distance: of that centre to a point, in diagonals of the picture.
        moving peak: of every layer and head, whether it looks hard at one place of the image after
            the other; see `peaks.moving_peak`.

    Args:
        layers: layers whose rows are kept; negative from the end; `all`; null = layer 20 of 28 or
            the same depth in a model of another size.
        heads: `mean` over all heads, `all` kept apart, or the heads [3, 7] kept apart.
        point_image: the picture that coordinates in an answer refer to, from 0.
    """

    needs = ("text",)
    asks = ("answers", DECODER)

    def __init__(
        self,
        layers: int | Distinct[int] | Literal["all"] | None = None,
        heads: Literal["mean", "all"] | Distinct[int] = "mean",
        point_image: int = 0,
    ) -> None:
        if layers == [] or heads == []:
            raise ConfigError("analysis.layers, analysis.heads: an empty list shows nothing")
        if not 0 <= point_image < MOST_PICTURES:
            raise ConfigError(f"analysis.point_image={point_image}: from 0 to {MOST_PICTURES - 1}")
        self.layers = layers
        self.heads: Literal["mean", "all"] | list[int] = heads
        self.point_image = point_image
        self.definitions = {"rows": ROWS, "shares": SHARE, "centre": CENTRE}
        self.definitions |= {"distance": DISTANCE, "point": POINT, "moving_peak": PEAK}
        self.fields: Sequence[Field] = [
            StepPattern("rows", "attention while writing", definition=ROWS),
            LayerIndex("layers", "layers of the rows"),
            Document("heads", "heads of the rows"),
            Document("tokens", "tokens of prompt and answer"),
            Document("output", "what the model wrote"),
            Category("answer", "right answer"),
            Category("predicted", "model's final answer"),
            Category("ended", "what ended the answer"),
            Scalar("n_prompt", "prompt tokens", dtype="int64"),
            Scalar("n_generated", "generated tokens", dtype="int64"),
            Point("predicted_point", "predicted point", definition=POINT),
            Point("reference_point", "reference point", definition=POINT),
            *(StepCurve(name, about, unit, definition) for name, about, unit, definition in CURVES),
            # Ragged, so that parts of a version that did not have them go together with these.
            HeadScores("moving_peak", "moving peak of attention", "1", PEAK, ragged=True),
            HeadIndex("peak_head", "each layer's head of the highest moving peak", ragged=True),
            StepCurve("peak_share", "that head's attention on its peak", "1", PEAK_SHARE),
            StepCurve(
                "peak_cell", "that head's peak, as a place among the image cells", "1", PEAK_CELL
            ),
            *(Picture(f"image_{i}", f"picture {i}", ragged=True) for i in range(MOST_PICTURES)),
        ]

    def for_model(self, model: LoadedModel) -> "AnswersOfModel":
        """Return what measures with a model that writes and has these layers and heads.

        Raises:
            UnsupportedModelError: for a model without a language part.
            ConfigError: for a layer or head that the model does not have.
        """
        if not isinstance(model, AnsweringModel):
            raise unfit(type(model), "answers")
        chosen = chosen_layers(self.layers, model.n_layers)
        for head in self.heads if isinstance(self.heads, list) else ():
            if not 0 <= head < model.n_heads:
                raise ConfigError(
                    f"analysis.heads: no head {head}; this model has {model.n_heads}, 0 to "
                    f"{model.n_heads - 1}"
                )
        coordinates = getattr(model, "coordinates", None)
        notes = () if coordinates else (NO_UNIT,)
        return AnswersOfModel(self, chosen, coordinates, notes)


@dataclass(frozen=True)
class AnswersOfModel:
    """Measures what one model attends to while it writes.

    Args:
        options: what to measure.
        layers: the layers whose rows are kept, from 0 on.
        coordinates: the unit in which the model writes places; None if it is not known.
    """

    options: Trajectory
    layers: tuple[int, ...]
    coordinates: Coordinates | None = None
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> Sequence[Field]:
        """What a sample may hold."""
        return self.options.fields

    def plans(self, tokens: TokenMap) -> dict[str, AttentionPlan]:
        """Watch the prompt's last row and every decode step's, whole and summed by region."""
        heads = (
            tuple(sorted(set(self.options.heads))) if isinstance(self.options.heads, list) else None
        )
        row = Mean(over=("head",)) if self.options.heads == "mean" else Keep()
        image = tokens.where(modality="image")
        regions = {"image": image, "prompt": tokens.others(image)}
        regions = {name: keys for name, keys in regions.items() if keys}
        moments: tuple[tuple[When, tuple[int, ...] | Literal["last"]], ...] = (
            ("prefill", (len(tokens) - 1,)),
            ("decode", "last"),
        )
        plans = {}
        for when, queries in moments:
            plans[f"row/{when}"] = AttentionPlan(queries, None, row, self.layers, heads, when=when)
            for name, keys in regions.items():
                plans[f"{name}/{when}"] = AttentionPlan(
                    queries, keys, Sum(over=("key",)), heads=heads, when=when
                )
            if tokens.placed:
                # Of all heads, also where the rows of some are kept: they are to be found by it.
                for name, reducer in (("peak", Max(over=("key",))), ("cell", ArgMax(over="key"))):
                    plans[f"{name}/{when}"] = AttentionPlan(
                        queries, tokens.placed, reducer, when=when
                    )
        return plans

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Ask for nothing beyond the plain run."""
        return {}

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return one sample's rows, shares, points, pictures and tokens."""
        answer: Answer = outputs["plain"]
        if len(seen.pictures) > MOST_PICTURES:
            raise SampleError(f"{len(seen.pictures)} pictures; a result holds {MOST_PICTURES}")
        n_prompt, n_new = len(seen.tokens), len(answer.tokens)
        ended = ended_by(answer)
        if ended != "end_token":
            log.warning("sample %s: %s", sample.id, ENDS[ended])
        rows = rows_of(captured, n_prompt, n_new)
        values: dict[str, Any] = {
            "rows": rows,
            "layers": captured["row/prefill"].layers,
            "heads": str(self.options.heads)
            if isinstance(self.options.heads, str)
            else str(list(self.options.heads)),
            "tokens": with_generated(seen.tokens, answer.pieces).to_json(),
            "output": answer.text,
            "answer": sample.answer or "",
            "predicted": final_answer(answer.text),
            "ended": ended,
            "n_prompt": n_prompt,
            "n_generated": n_new,
            **shares_of(captured, n_new),
            **self._peaks(captured, seen.tokens, n_new),
            **{f"image_{i}": _bounded(p) for i, p in enumerate(seen.pictures)},
        }
        return values | self._places(rows, sample, seen, self._points(sample, seen, answer.text))

    def _points(
        self, sample: Sample, seen: Seen, text: str
    ) -> dict[str, tuple[float, float] | None]:
        """Return the point that the model wrote and the one of the data set, where they are known.

        A model that crops its pictures saw another one than the data set's point lies in.
        """
        image = self.options.point_image
        size = seen.sizes[image] if image < len(seen.sizes) else (0, 0)
        predicted = parse_point(text, self.coordinates, size) if self.coordinates else None
        known = max(len(seen.tokens.grids), len(sample.images))
        whole = (sample.facts.get("reference_point"),) * known
        references = sample.facts.get("reference_points", whole)
        reference = references[image] if image < len(references) else None
        views = seen.tokens.views  # tell which part of the picture each grid is
        if reference and not views and _is_cropped(sample, seen, image):
            log.warning("sample %s: %s", sample.id, CROPPED)
            reference = None
        return {"predicted": predicted, "reference": reference}

    @staticmethod
    def _peaks(captured: Mapping[str, Any], tokens: TokenMap, n_new: int) -> dict[str, Any]:
        """Return the score of every head and the peaks of each layer's best, given cells."""
        if not tokens.placed:
            return {}
        peaks, cells = peaks_of(captured, n_new)
        # Image by image, row by row, also where tiles stand in another order.
        ordered = [at for image in range(len(tokens.grids)) for at in tokens.cells(image)]
        place = {at: number for number, at in enumerate(ordered)}
        cells = np.array([place[at] for at in tokens.placed])[cells]
        scores = moving_peak(peaks, cells, len(ordered))
        return {"moving_peak": scores, **of_best_heads(scores, peaks, cells)}

    def _places(
        self,
        rows: np.ndarray,
        sample: Sample,
        seen: Seen,
        points: Mapping[str, tuple[float, float] | None],
    ) -> dict[str, Any]:
        """Return the attended centre, the points and the distances, where there is a grid.

        Of a picture with several grids it is the finest that shows it.
        """
        found = seen.tokens.view_of(self.options.point_image)
        if found is None:
            return {}
        image, view = found
        weights = rows.mean(1)[:, :, list(seen.tokens.cells(image))]
        x, y = view.outside(*centres(weights, seen.tokens.grids[image]))
        values: dict[str, Any] = {"centre_x": x, "centre_y": y}
        size = seen.pictures[image].shape[1::-1] if image < len(seen.pictures) else (1, 1)
        size = sample.images[view.picture].size if seen.tokens.views else size
        for name, point in points.items():
            if point is not None:
                values[f"{name}_point"] = (image, *point)
                values[f"distance_{name}"] = distances(x, y, point, (size[0], size[1]))
        return values


def chosen_layers(layers: int | list[int] | str | None, n_layers: int) -> tuple[int, ...]:
    """Return layer indices, increasing, for what `analysis.layers` says.

    Raises:
        ConfigError: for a layer that the model does not have.
    """
    if layers == "all":
        return tuple(range(n_layers))
    if layers is None:
        return (min(n_layers - 1, round(DEPTH * n_layers)),)
    wanted = [layers] if isinstance(layers, int) else layers
    for layer in wanted:
        if not isinstance(layer, int) or not -n_layers <= layer < n_layers:
            raise ConfigError(
                f"analysis.layers: no layer {layer}; this model has {n_layers}, 0 to {n_layers - 1}"
            )
    return tuple(sorted({int(layer) % n_layers for layer in wanted}))


def _is_cropped(sample: Sample, seen: Seen, image: int) -> bool:
    """Return whether the model saw another cut of a picture: its sides stand to each other so."""
    if image >= len(seen.pictures):
        return False
    height, width = seen.pictures[image].shape[:2]
    own = sample.images[image] if image < len(sample.images) else None
    return own is not None and abs(np.log((width / height) / (own.width / own.height))) > 0.05


def _bounded(picture: np.ndarray) -> np.ndarray:
    """Return the picture with its longest side at most LONGEST_SIDE pixels."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)
