"""Where on the question's picture a head looks: its score, told cell by cell.

A head's score is one number made of a block of attention. Reduced over the other axis alone, the
same block says how much of it falls on each cell of the picture; the largest cell of a maximum, and
the sum or the mean over cells of the others, is the score again. Both are reduced side by side from
one block, so the scores are those of a run that keeps no maps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Beside, Max, Sum
from interp_lab.datasets.base import Sample
from interp_lab.fields import Document, Field, LayerMaps, Picture, Scalar
from interp_lab.models.base import Seen
from interp_lab.tokens import TokenMap

# Definition -> the reduction that keeps the image's tokens, and what a cell's number is.
BY_CELL: dict[str, tuple[Max | Sum, str]] = {
    "max_text_to_image": (Max(("query",)), "largest attention from a text token to the cell"),
    "last_token_image_mass": (Sum(("query",)), "attention of the last prompt token on the cell"),
    "text_to_image_mean": (
        Sum(("query",)),
        "mean attention of a text token after the image on the cell",
    ),
    "image_to_text_mean": (Sum(("key",)), "attention of the cell's token on the text"),
}
# What is kept of the first samples: ragged, since the others do not have it.
MAP, PICTURE, QUESTION, SHARE = "winner_maps", "picture", "question", "seen_share"
VIEW = "map_view"


def map_fields(definition: str) -> Sequence[Field]:
    """Return the fields of the samples whose maps are kept."""
    named = f"scienceqa.{definition}.by_cell/1"
    return [
        LayerMaps(MAP, BY_CELL[definition][1], definition=named),
        Picture(PICTURE, "as the model saw it", ragged=True),
        Document(QUESTION, "question", ragged=True),
        Scalar(SHARE, "share of the picture's area that the model saw", ragged=True),
        Document(VIEW, "which view of the picture the maps lie on, of several", ragged=True),
    ]


def by_cell(definition: str, plan: AttentionPlan, tokens: TokenMap) -> AttentionPlan:
    """Return the plan that gives a head's numbers by cell behind its score, if there is a grid."""
    if mapped(tokens) is None:
        return plan
    assert isinstance(plan.reduce, Max | Sum)
    return replace(plan, reduce=Beside(plan.reduce, BY_CELL[definition][0]))


def mapped(tokens: TokenMap) -> int | None:
    """Return the image whose cells a map is of: the finest view of the only picture; None: no map.

    A place may have a token in each of several views; they are not added up.
    """
    pictures = {view.picture for view in tokens.views} or range(len(tokens.grids))
    found = tokens.view_of(0) if len(pictures) == 1 else None
    return None if found is None else found[0]


def map_values(
    sample: Sample, seen: Seen, by_token: np.ndarray, winners: np.ndarray
) -> dict[str, Any]:
    """Return what is kept of a sample with maps.

    Args:
        sample, seen: as of `Measuring.update`.
        by_token: (layer, head, image token), in the score's unit.
        winners: (layer,) the head of each layer whose map is kept.
    """
    tokens = seen.tokens
    image = mapped(tokens)
    assert image is not None
    place = {token: i for i, token in enumerate(tokens.where(modality="image"))}
    cells = [place[token] for token in tokens.cells(image)]
    maps = by_token[np.arange(len(winners)), winners][:, cells]
    values: dict[str, Any] = {
        MAP: maps.reshape(len(winners), *tokens.grids[image]),
        QUESTION: "\n".join(text for kind, text in sample.parts if kind == "text"),
    }
    values |= {PICTURE: seen.pictures[image]} if seen.pictures else {}
    if len(tokens.views) > 1:
        values[VIEW] = f"{tokens.name_of(image)}, of {len(tokens.views)} views of the picture"
    return values | ({SHARE: seen.shares[image]} if seen.shares else {})
