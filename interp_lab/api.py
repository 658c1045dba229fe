"""For notebooks and scripts: a run as a function, and the similarity analyzer as a class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interp_lab.config import build, conf_dir, quoted
from interp_lab.errors import StoreError
from interp_lab.libraries.hydra_inside import composed
from interp_lab.runner import run_study
from interp_lab.store.results import Results, open_results


def run(overrides: list[str] | None = None, config_dir: str | None = None) -> Results:
    """Run a study, as the command line does, and return its result, opened.

    Args:
        overrides: what would be typed, such as `["model=clip_vit_base_patch32", "device=cuda"]`.
        config_dir: a folder of your own configs.

    Raises:
        InterpLabError: what the command line prints as one line.
    """
    overrides = [quoted(override) for override in overrides or []]
    search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    cfg = composed(conf_dir(), overrides + search)
    path = run_study(cfg, overrides).results
    if path is None:
        raise StoreError(
            f"shard.index={cfg.shard.index}: this share is finished, others of the "
            f"{cfg.shard.count} are not; the last one makes the result"
        )
    return open_results(path)


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
        cfg = composed(conf_dir(), ["task=clip_similarity", *chosen, *(overrides or [])])
        self.analysis = build(cfg, "analysis")
        place = resolve_device(device)
        self.model = load_on(
            place, model_type, lambda: build(cfg, "model", device=place, seed=cfg.seed)
        )
        self.analysis.check(self.model)

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
            plans = [self.analysis.plans(prepared.seen[0].tokens)]
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
