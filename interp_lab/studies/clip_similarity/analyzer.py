"""For notebooks: one vision tower, loaded once, measures image after image without files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interp_lab.config.composing import composed_here
from interp_lab.config.nodes import build


@dataclass(frozen=True)
class TokenSimilarity:
    """Similarity maps of one image.

    Attributes:
        sample_id: the file's name.
        grid_size: patches along a side.
        horizontal_right: (grid, grid - 1).
        vertical_down: (grid - 1, grid).
        cls_similarity: (grid, grid), or None if the model has no CLS token.
        picture: the crop that the model saw, uint8 (height, width, 3).
    """

    sample_id: str
    grid_size: int
    horizontal_right: np.ndarray
    vertical_down: np.ndarray
    cls_similarity: np.ndarray | None
    picture: np.ndarray


class TokenSimilarityAnalyzer:
    """Loads a vision tower once and measures image after image, without files.

    Args:
        model_type: an option of the `model` group; dashes are read as underscores.
        device: null, cpu, cuda, cuda:1 or a number.
        similarity_metric: `cosine` or `dot_product`.
        overrides: further configuration, such as `["analysis.layer=-2"]`.
    """

    def __init__(
        self,
        model_type: str = "tiny_clip",
        device: int | str | None = None,
        similarity_metric: str = "cosine",
        overrides: list[str] | None = None,
    ) -> None:
        from interp_lab.models.base import resolve_device
        from interp_lab.models.loading import load_on

        chosen = [f"model={model_type.replace('-', '_')}", f"analysis.metric={similarity_metric}"]
        cfg = composed_here(["task=clip_similarity", *chosen, *(overrides or [])])
        place = resolve_device(device)
        self.model = load_on(
            place, model_type, lambda: build(cfg, "model", device=place, seed=cfg.seed)
        )
        self.study = build(cfg, "analysis").for_model(self.model)

    def analyze(self, path: str | Path) -> TokenSimilarity:
        """Measure one image file.

        Raises:
            SampleError: if it cannot be read as a picture.
        """
        import torch

        from interp_lab.capture.session import watch
        from interp_lab.datasets.images import ImageFiles

        sample = ImageFiles(str(path)).load(0)
        with torch.inference_mode():
            prepared = self.model.prepare([sample])
            plans = [self.study.plans(prepared.seen[0].tokens)]
            with watch(self.model, prepared, plans) as capture:
                self.model.run(prepared)
            maps = {name: v.cpu().numpy() for name, v in capture.rows[0]["maps"].items()}
        return TokenSimilarity(
            sample_id=sample.id,
            grid_size=len(maps["horizontal_right"]),
            horizontal_right=maps["horizontal_right"],
            vertical_down=maps["vertical_down"],
            cls_similarity=maps.get("cls_similarity"),
            picture=prepared.seen[0].pictures[0],
        )
