"""Figures of one sample whose fields lie on an image's token grid, chosen by the fields' kinds.

`combined` shows all of them, `individual` one. `SimilarityVisualizer` draws the same figures of a
result that was never stored, in a notebook.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from interp_lab.fields import CellMap, DownEdgeMap, Field, Picture, RightEdgeMap
from interp_lab.store.results import Results
from interp_lab.studies.clip_similarity.figures.map_figures import (
    MapStyle,
    combined_figure,
    individual_figure,
)
from interp_lab.visualization import panels
from interp_lab.visualization.base import NothingToDrawError, save
from interp_lab.visualization.sheets import Heading

# The field that says how much of a picture the model saw; below this share the figure says it too.
SEEN, MOSTLY_SEEN = "seen_share", 0.98

# (kind, attribute, what it is, file name), as earlier scripts know them.
SEED_MAPS: tuple[tuple[type[Field], str, str, str], ...] = (
    (RightEdgeMap, "horizontal_right", "similarity to the right neighbour", "horizontal"),
    (DownEdgeMap, "vertical_down", "similarity to the neighbour below", "vertical"),
    (CellMap, "cls_similarity", "similarity to CLS", "cls"),
)


def combined(
    results: Results, style: MapStyle, sample: str | int, *, fields: Sequence[str] | None = None
) -> Figure:
    """Draw everything that a sample holds on its token grid.

    Args:
        results: an open result.
        style: how.
        sample: its id, or its row.
        fields: which maps; all of them where None. What this result does not hold is left out.

    Raises:
        NothingToDrawError: if the result holds none of them.
    """
    chosen = choose(results.fields, fields)
    maps = [(field, results.read(field.name, sample)) for field in chosen]
    return combined_figure(
        maps, picture_of(results, sample), heading(results, sample, chosen), style
    )


def individual(results: Results, style: MapStyle, sample: str | int, *, field: str) -> Figure:
    """Draw one field of a sample: the map, and the map on the photograph.

    Args:
        results: an open result.
        style: how.
        sample: its id, or its row.
        field: the map's name.

    Raises:
        NothingToDrawError: if the result does not hold it.
    """
    chosen = choose(results.fields, [field])
    shown = [*chosen, *_same_scale(chosen[0], in_kind_order(results.fields))]
    maps = [(one, results.read(one.name, sample)) for one in shown]
    return individual_figure(
        maps, picture_of(results, sample), heading(results, sample, chosen), style
    )


def choose(held: Mapping[str, Field], names: Sequence[str] | None) -> list[Field]:
    """Return the maps among the fields: as `names` has them, else right, down, cells.

    Raises:
        NothingToDrawError: if there is none.
    """
    maps = {name: field for name, field in held.items() if isinstance(field, panels.MAP_KINDS)}
    chosen = in_kind_order(held) if names is None else [maps[n] for n in names if n in maps]
    if not chosen:
        wanted = f"no field {' or '.join(names)}" if names else "no map on a token grid"
        raise NothingToDrawError(
            f"the result holds {wanted}; it has {', '.join(maps) or 'no maps at all'}",
            names[0] if names else "",
            maps,
        )
    return chosen


def _same_scale(field: Field, others: Sequence[Field]) -> list[Field]:
    """Return the other fields that are drawn with the same colour limits."""
    group = panels.limit_group(field)
    return [o for o in others if o is not field and panels.limit_group(o) == group]


def in_kind_order(held: Mapping[str, Field]) -> list[Field]:
    """Return the maps among the fields: right, down, cells; by name within a kind."""
    maps = [field for field in held.values() if isinstance(field, panels.MAP_KINDS)]
    return sorted(maps, key=lambda field: (panels.MAP_KINDS.index(type(field)), field.name))


def picture_of(results: Results, sample: str | int) -> np.ndarray | None:
    """Return the picture as the model saw it, (y, x, 3), or None if it was not kept."""
    pictures = results.of_kind(Picture)
    return results.read(pictures[0].name, sample) if pictures else None


def heading(
    results: Results,
    sample: str | int | None,
    fields: Sequence[Field],
    foot: str = "",
    *,
    over_run: str = "Maps",
) -> Heading:
    """Return what stands above a figure: sample, task, model, data set, variant, notes.

    Of a figure of the run (`sample` is None), `over_run` is what it shows of the samples.
    """
    known = results.attributes
    words = [str(known[key]) for key in ("task_name", "model", "dataset") if known.get(key)]
    words += sorted({panels.unit_of(field) for field in fields} - {""})
    name = results.sample_ids[sample] if isinstance(sample, int) else sample
    notes = tuple(results.notes)
    if sample is not None:
        notes = (*notes, *_cropped(results, sample))
    if name is None:
        name = f"{over_run} of {len(results)} samples"
        words += [f"{len(results.failures)} failed"] if results.failures else []
    return Heading(name, " · ".join(words), notes, foot)


def _cropped(results: Results, sample: str | int) -> tuple[str, ...]:
    """Return a note where the model saw only the middle of the picture's file."""
    if not results.holds(SEEN, sample):
        return ()
    share = float(results.read(SEEN, sample))
    if share > MOSTLY_SEEN:
        return ()
    return (f"the model saw the middle {share:.0%} of this picture, the rest was cropped",)


class SimilarityVisualizer:
    """Draw what `TokenSimilarityAnalyzer.analyze` returns, from a notebook or a script.

    Args:
        figsize: inches; the combined figure fills it, the others fit in it.
        cmap: a colormap that matplotlib knows.
        style: everything else, as in conf/visualization; the two arguments above win.
    """

    def __init__(
        self,
        figsize: tuple[float, float] | None = (20, 16),
        cmap: str = "viridis",
        **style: Any,
    ) -> None:
        self.style = MapStyle(cmap=cmap, figsize=figsize, **style)

    def visualize_all(self, result: Any, save_path: str | Path) -> Path:
        """Draw the combined figure; the suffix of `save_path` decides the format.

        Args:
            result: has grid_size, horizontal_right, vertical_down, cls_similarity (or None), and
                may have picture (y, x, 3), sample_id, metric.
            save_path: where.
        """
        maps = [(field, values) for field, values, _ in self._maps(result)]
        figure = combined_figure(maps, *self._rest(result), self.style)
        return save(figure, Path(save_path), self.style)

    def visualize_individual(self, result: Any, output_dir: str | Path) -> list[Path]:
        """Draw one figure a field into a folder (`result` as for `visualize_all`)."""
        paths = []
        maps = [(field, values) for field, values, _ in self._maps(result)]
        for field, values, name in self._maps(result):
            same = _same_scale(field, [f for f, _ in maps])
            shown = [(field, values), *(m for m in maps if m[0] in same)]
            figure = individual_figure(shown, *self._rest(result), self.style)
            path = Path(output_dir) / f"{name}_similarity.{self.style.format}"
            paths.append(save(figure, path, self.style))
        return paths

    @staticmethod
    def _maps(result: Any) -> list[tuple[Field, np.ndarray, str]]:
        variant = getattr(result, "metric", "")
        definition = f"({variant})" if variant else ""
        maps = []
        for kind, name, about, file in SEED_MAPS:
            values = getattr(result, name, None)
            if values is not None and np.size(values):
                maps.append((kind(name, about, definition=definition), np.asarray(values), file))
        return maps

    @staticmethod
    def _rest(result: Any) -> tuple[np.ndarray | None, Heading]:
        rows = cols = result.grid_size
        if not np.isscalar(rows):
            rows, cols = rows
        title = getattr(result, "sample_id", None) or "Token similarity"
        notes = tuple(getattr(result, "notes", ()))
        head = Heading(str(title), f"{rows} x {cols} tokens", notes)
        return getattr(result, "picture", None), head
