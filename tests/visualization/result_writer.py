"""A result written by the real store, small, with numbers that a test can foresee."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from known_maps import MAPS, SIDE, values_of

from interp_lab.fields import Field, Histogram, Picture, Scalar
from interp_lab.store.merge import merge
from interp_lab.store.parts import Failure, PartWriter, list_parts
from interp_lab.store.results import Results


@pytest.fixture
def write_result(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a result and returns its path."""

    def write(
        samples: Sequence[str] = ("a.png",),
        *,
        has_cls: bool = True,
        notes: Sequence[str] = (),
        failed: Sequence[str] = (),
        folder: str = "run",
    ) -> Path:
        names = [n for n in MAPS if has_cls or n != "cls_similarity"]
        about = {n: MAPS[n][2] for n in names}
        fields = [MAPS[n][0](n, about[n], definition=f"x.{n}/1 (cosine)") for n in names]
        scalars = [Scalar(f"mean_{n}", f"mean {about[n]}") for n in names]
        picture = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        parts = tmp_path / folder / "parts"
        writer = PartWriter(parts, [*fields, *scalars, Picture("picture", "as seen")])
        for index, sample in enumerate(samples):
            maps = {n: values_of(n, index) for n in names}
            means = {f"mean_{n}": maps[n].mean() for n in names}
            writer.add(index, sample, {**maps, **means, "picture": picture})
        for index, sample in enumerate(failed, len(samples)):
            writer.fail(Failure(index, sample, "read", "truncated"))
        writer.flush()

        def compute(results: Results) -> list[tuple[Field, np.ndarray]]:
            found: list[tuple[Field, np.ndarray]] = []
            for name in names:
                kind, _, text = MAPS[name]
                stack = np.concatenate([b[name] for b in results.stream([name])])
                low, high = float(stack.min()), float(stack.max())
                counts = np.histogram(stack, 20, (low, high))[0]
                found += [
                    (kind(f"mean_{name}", f"mean {text}"), stack.mean(0)),
                    (kind(f"std_{name}", f"std of {text}"), stack.std(0)),
                    (Histogram(f"histogram_{name}", text, lowest=low, highest=high), counts),
                ]
            return found

        final = tmp_path / folder / "results.h5"
        attributes = {
            "task_name": "maps",
            "model": "a_model",
            "dataset": "some_images",
            "notes": json.dumps(list(notes)),
        }
        merge(list_parts(parts), [*samples, *failed], final, attributes, compute)
        return final

    return write
