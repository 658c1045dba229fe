"""The spot check that a run makes of its token map, before the first numbers of a picture.

It costs two forwards of the vision tower for each of eight tokens, once for a model and its
processor's options in a process, and tells a map that is wrong from one that is right without
knowing how either was made.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from interp_lab.datasets.base import Sample
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.placing.spots import SpotCheck, spot_check
from interp_lab.tokens import TokenMap, View

log = logging.getLogger(__name__)
# What was checked in this process: models are often loaded again, and one check tells.
_CHECKED: set[str] = set()


class Checkable(Protocol):
    """What the check needs of a model."""

    module: Any

    def render(self, sample: Sample) -> tuple[str, Any]: ...

    def processed(self, prompts: Sequence[str], samples: Sequence[Sample]) -> Any: ...

    def token_boxes(self, sample: Sample, tokens: TokenMap) -> np.ndarray: ...


def check_once(model: Checkable, sample: Sample, tokens: TokenMap, key: str) -> None:
    """Check the map of a sample with pictures, if nothing of this key was checked before.

    Raises:
        UnsupportedModelError: if tokens are not where the map has them; says which.
    """
    if key in _CHECKED:
        return
    started = time.perf_counter()
    found = check_map(model, sample, tokens)
    if not found.holds:
        raise UnsupportedModelError(
            f"{sample.id}: the token map is wrong: of {found.n} image tokens that were looked at, "
            f"{len(found.bad)} (numbers {', '.join(map(str, found.bad[:4]))}) follow another place "
            "of the picture than theirs; take model=vlm, which measures the map, and report this"
        )
    _CHECKED.add(key)
    log.info(
        "token map: %d of %d image tokens looked at follow their places (%d forwards of the "
        "vision tower, %.1f s, once a run)",
        *(found.n - len(found.bad), found.n, found.forwards),
        time.perf_counter() - started,
    )


def check_map(model: Checkable, sample: Sample, tokens: TokenMap) -> SpotCheck:
    """Return what changing places of a sample's pictures says of its map."""
    prompt = model.render(sample)[0]

    def process(pictures: Sequence[Image.Image]) -> Mapping[str, Any]:
        return model.processed([prompt], [replace(sample, images=tuple(pictures))])

    boxes = model.token_boxes(sample, tokens)
    own = [tokens.tokens[at] for at in tokens.where(modality="image")]
    which = [t.image if t.image is not None else 0 for t in own]
    views = tokens.views or tuple(View(i) for i in range(len(tokens.grids)))
    pictures = np.array([views[i].picture if views else 0 for i in which])
    sizes = [image.size for image in sample.images]
    return spot_check(model.module, process, sizes, boxes, pictures)


def cell_boxes(tokens: TokenMap, views: Sequence[View]) -> np.ndarray:
    """Return the box of every image token, (token, 4) in shares of its picture; NaN: no cell.

    Args:
        tokens: a map.
        views: what each grid shows.
    """
    boxes = []
    for at in tokens.where(modality="image"):
        token = tokens.tokens[at]
        if token.image is None or token.cell is None:
            boxes.append([np.nan] * 4)
            continue
        (rows, cols), (row, col) = tokens.grids[token.image], token.cell
        view = views[token.image]
        left, top = view.outside(col / cols, row / rows)
        right, bottom = view.outside((col + 1) / cols, (row + 1) / rows)
        boxes.append([left, top, right, bottom])
    return np.array(boxes).reshape(-1, 4)
