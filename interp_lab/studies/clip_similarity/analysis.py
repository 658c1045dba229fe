"""clip_similarity: how alike are a vision tower's patch tokens to their neighbours and to CLS?

Tokens are the hidden states of one layer, by default the last before the final layer norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F

from interp_lab.capture.plans import HiddenPlan, Intervention
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError
from interp_lab.fields import Field, Picture, Scalar
from interp_lab.models.base import LoadedModel, Seen
from interp_lab.models.lacks import unfit
from interp_lab.studies.clip_similarity.numbers import MAPS
from interp_lab.tokens import TokenMap

Metric = Literal["cosine", "dot_product"]


def similarity(a: torch.Tensor, b: torch.Tensor, metric: Metric) -> torch.Tensor:
    """Return the similarity of vectors, in float32.

    Args:
        a, b: (..., d_model); they broadcast.
        metric: `cosine` (a.b / |a||b|) or `dot_product` (a.b, in squared activation units).

    Returns:
        (...)
    """
    a, b = a.float(), b.float()
    return F.cosine_similarity(a, b, dim=-1) if metric == "cosine" else (a * b).sum(-1)


def neighbour_maps(cells: torch.Tensor, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every cell's similarity to its right neighbour and to the one below.

    Args:
        cells: (rows, cols, d_model).
        metric: see `similarity`.

    Returns:
        (rows, cols - 1) and (rows - 1, cols).
    """
    right = similarity(cells[:, :-1], cells[:, 1:], metric)
    down = similarity(cells[:-1], cells[1:], metric)
    return right, down


class ClipSimilarity:
    """Neighbour and CLS similarity maps of one hidden layer.

    Args:
        metric: `cosine` or `dot_product`.
        layer: hidden state; 0 = what the first layer reads, n = after layer n, -1 = the last.
        keep_picture: store the crop that the model saw (uint8, compressed).
    """

    needs = ("image",)
    asks = ("hidden states",)

    def __init__(
        self, metric: Metric = "cosine", layer: int = -1, keep_picture: bool = True
    ) -> None:
        self.metric: Metric = metric
        self.layer = layer
        self.keep_picture = keep_picture
        self.definitions = {name: f"clip_similarity.{name}/1 ({metric})" for name in MAPS}
        maps = [
            kind(name, about, definition=self.definitions[name])
            for name, (kind, about) in MAPS.items()
        ]
        means = [
            Scalar(f"mean_{name}", f"mean {about}", definition=self.definitions[name])
            for name, (_, about) in MAPS.items()
        ]
        seen = Scalar("seen_share", "share of the picture's area that the model saw", ragged=True)
        picture = Picture("picture", "as the model saw it")
        self.fields: Sequence[Field] = [*maps, *means, picture, seen]

    def for_model(self, model: LoadedModel) -> "SimilarityOfModel":
        """Return what measures this layer of a model.

        Raises:
            ConfigError: if the model has no such layer.
            UnsupportedModelError: if its hidden states cannot be watched.
        """
        layers = [name for name in model.hookpoints if name.startswith("hidden.")]
        if not layers:
            raise unfit(type(model), "hidden states")
        if not -len(layers) <= self.layer < len(layers):
            raise ConfigError(
                f"analysis.layer={self.layer}: this model has hidden states 0 to "
                f"{len(layers) - 1} (or -1 to -{len(layers)} from the end)"
            )
        notes: tuple[str, ...] = ()
        if not getattr(model, "has_cls", True):
            notes = ("this tower has no CLS token: cls_similarity is not given",)
        one_grid = getattr(model, "one_grid", True)
        if not one_grid:
            notes += ("this tower's grid follows the picture's shape: no maps over all pictures",)
        return SimilarityOfModel(self, f"hidden.{self.layer % len(layers)}", notes, one_grid)


@dataclass(frozen=True)
class SimilarityOfModel:
    """Measures one hidden layer of one model.

    Args:
        options: what to measure.
        hookpoint: the name of the layer's hidden state.
        notes: what this model cannot give.
        one_grid: whether all pictures have the same grid of cells.
    """

    options: ClipSimilarity
    hookpoint: str
    notes: tuple[str, ...] = ()
    one_grid: bool = True

    @property
    def fields(self) -> Sequence[Field]:
        """What a sample holds; maps and pictures of their own sizes where grids differ."""
        own = self.options.fields
        if self.one_grid:
            return own
        return [replace(f, ragged=True) if f.name in (*MAPS, "picture") else f for f in own]

    def plans(self, tokens: TokenMap) -> dict[str, HiddenPlan]:
        """Watch one hidden state and reduce it to the maps on the device."""
        rows, cols = tokens.grids[0]
        cells, cls = list(tokens.cells(0)), tokens.where(role="cls")

        def reduce(hidden: torch.Tensor) -> dict[str, torch.Tensor]:
            grid = hidden[cells].view(rows, cols, -1)
            right, down = neighbour_maps(grid, self.options.metric)
            maps = {"horizontal_right": right, "vertical_down": down}
            if cls:
                maps["cls_similarity"] = similarity(grid, hidden[cls[0]], self.options.metric)
            return maps

        return {"maps": HiddenPlan(self.hookpoint, reduce)}

    def variants(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any]
    ) -> dict[str, tuple[Intervention, ...]]:
        """Nothing is changed in this study."""
        return {}

    def update(
        self, sample: Sample, seen: Seen, captured: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the maps, their means, the picture, and how much of it was seen."""
        values: dict[str, Any] = {k: v.cpu().numpy() for k, v in captured["maps"].items()}
        values |= {f"mean_{name}": array.mean() for name, array in values.items()}
        if self.options.keep_picture:
            values["picture"] = seen.pictures[0]
        if seen.shares:
            values["seen_share"] = seen.shares[0]
        return values
