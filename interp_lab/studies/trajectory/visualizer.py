"""For notebooks and scripts: the attention video of one sample, in three lines.

It is the trajectory study with one sample: the same capture, the same result file, the same video,
so that what is drawn here can be drawn again from `results.h5` without the model.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from PIL import Image

from interp_lab.config.composing import composed_here
from interp_lab.config.nodes import conf_dir, quoted
from interp_lab.datasets.images import read_image
from interp_lab.datasets.records import read_records
from interp_lab.errors import ConfigError, SampleError
from interp_lab.run.study import run_study, style_of
from interp_lab.store.places import safe_name
from interp_lab.store.results import open_results
from interp_lab.visualization.base import FigureError
from interp_lab.visualization.draw import draw_all

ColorFunction = Callable[[np.ndarray], np.ndarray]


class AttentionVisualizer:
    """Makes attention videos of a Qwen-VL model.

    Args:
        model_name_or_path: an option of the `model` group (`qwen2_5_vl_3b`), a hub id, or the
            folder of a checkpoint.
        max_image_num: pictures a sample may have.
        device: null, cpu, cuda, cuda:1 or a number.
        output_dir: results and videos go below it.
        overrides: further configuration, such as `["model.max_new_tokens=256"]`.
    """

    def __init__(
        self,
        model_name_or_path: str = "tiny_qwen_vl",
        max_image_num: int = 2,
        device: int | str | None = None,
        output_dir: str | Path = "outputs",
        overrides: Sequence[str] = (),
    ) -> None:
        if max_image_num < 1:
            raise ConfigError(f"max_image_num={max_image_num}: give at least 1")
        self.max_image_num = max_image_num
        self._output = Path(output_dir).absolute()
        known = (conf_dir() / "model" / f"{model_name_or_path}.yaml").is_file()
        chosen = (
            [f"model={model_name_or_path}"]
            if known
            else [
                "model=qwen2_vl_2b",
                f"model.checkpoint='{model_name_or_path}'",
                f"model.name='{safe_name(Path(model_name_or_path).name)}'",
            ]
        )
        where = [] if device is None else [f"device={device}"]
        self._overrides = [*chosen, *where, *(quoted(override) for override in overrides)]

    def load_sample_data(
        self, benchmark_json: str | Path, image_dir: str | Path, sample_idx: int = 0
    ) -> tuple[dict[str, Any], list[Image.Image]]:
        """Return a record of a data file and its pictures.

        Raises:
            MissingInputError: if the file is not there or is not JSON.
            ConfigError: if there is no such record.
            SampleError: if a picture cannot be read, or there are too many.
        """
        records = read_records(str(benchmark_json), "benchmark_json")
        if not -len(records) <= sample_idx < len(records):
            raise ConfigError(f"sample_idx={sample_idx}: there are {len(records)} records")
        record = records[sample_idx]
        files = record.get("image", []) if isinstance(record, dict) else None
        files = [files] if isinstance(files, str) else files
        if not isinstance(files, list) or not files:
            raise SampleError(f"record {sample_idx}: image should be a path or a list of paths")
        if len(files) > self.max_image_num:
            raise SampleError(
                f"record {sample_idx}: {len(files)} pictures, max_image_num={self.max_image_num}"
            )
        return record, [read_image(Path(image_dir) / str(file))[0] for file in files]

    def create_attention_visualization_for_sample(
        self,
        sample: Mapping[str, Any],
        images: Sequence[Image.Image],
        layer_idx: int | None = None,
        start_phrase: str | EllipsisType | None = ...,
        color: ColorFunction | str | None = None,
        **style: Any,
    ) -> str:
        """Let the model write its answer to one sample; return the path of the video.

        A sample and layer that were measured before are drawn from their result.

        Args:
            sample: a record with `id`, `problem` and, if known, `answer` or `solution`.
            images: its pictures, in the order in which the problem speaks of them.
            layer_idx: the layer that is shown; None = layer 20 of a model of 28, such as
                Qwen2-VL-2B, and the same depth in another.
            start_phrase: text is shown from its last occurrence on; None = from the beginning. Left
                out it is the configuration's, "Based on the following requirements" by default.
            color: weights (n,) from 0 to 1 -> (n, 3) uint8, or the name of a colormap.
            style: further options of `TrajectoryStyle`, such as `gamma=0.8`.

        Raises:
            InterpLabError: one line that says what is wrong, where, and what to do.
        """
        data_file = self._written(sample, images)
        cfg = self._composed(
            f"dataset.data_file='{data_file}'",
            f"dataset.max_images={self.max_image_num}",
            f"analysis.layers={'null' if layer_idx is None else [layer_idx]}",
            # The one video is drawn below, in this process, where a function can be a colour.
            "visualization.max_samples=0",
            # The next call finds the model where this one leaves it.
            "keep_models=1",
        )
        path = run_study(cfg).results
        if path is None:
            raise ConfigError("shard.index: one sample has no shares; leave it out")
        with open_results(path) as results:
            if results.failures:
                raise SampleError(f"sample {sample.get('id')}: {results.failures[0].reason}")
            layer = int(results.read("layers", 0)[0])
        options = {**style, "max_samples": 1, "workers": 0}
        options |= {} if start_phrase is ... else {"start_phrase": start_phrase}
        look, figures = style_of(cfg)
        look = dataclasses.replace(look, **options, **({"colors": color} if color else {}))
        node = {"video": figures["video"]}
        folder = path.parent / "figures"
        drawn = draw_all(path, node, look, folder, {"layer": layer})
        if not drawn:
            raise FigureError(f"no video was drawn of sample {sample.get('id')}; see the log")
        return str(drawn[0])

    def _composed(self, *overrides: str) -> Any:
        own = ["task=trajectory", "dataset=trajectory", f"output.root='{self._output}'"]
        return composed_here([*own, *self._overrides, *overrides])

    def _written(self, sample: Mapping[str, Any], images: Sequence[Image.Image]) -> Path:
        """Write a sample as a data file of its own; equal samples have one place."""
        if not images:
            raise SampleError(f"sample {sample.get('id')}: has no picture")
        pixels = hashlib.sha256()
        for image in images:
            pixels.update(repr((image.mode, image.size)).encode() + image.tobytes())
        text = json.dumps(dict(sample), ensure_ascii=False, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode() + pixels.digest()).hexdigest()[:10]
        name = f"{safe_name(str(sample.get('id', 'sample')))}-{digest}"
        folder = self._output / "trajectory" / "samples" / name
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{i}.png" for i in range(len(images))]
        for name, image in zip(names, images, strict=True):
            image.convert("RGB").save(folder / name)
        record = {**sample, "image": names}
        data_file = folder / "sample.json"
        data_file.write_text(json.dumps([record], ensure_ascii=False), encoding="utf-8")
        return data_file
