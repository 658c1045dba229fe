"""The score that finds a head, the figures of it, and the planted truth of the shipped model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_trajectories import PATH, Story, values_of, written

from interp_lab.errors import InterpLabError
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results
from interp_lab.studies.trajectory.analysis import Trajectory
from interp_lab.studies.trajectory.figures.answers import TrajectoryStyle, read_trajectory
from interp_lab.studies.trajectory.figures.film import Shot
from interp_lab.studies.trajectory.figures.heads import head_overview, peak_path
from interp_lab.studies.trajectory.figures.standout import hint_beside, standout
from interp_lab.studies.trajectory.figures.strip import attention_strip
from interp_lab.studies.trajectory.numbers import AnswerNumbers
from interp_lab.studies.trajectory.peaks import moving_peak
from interp_lab.tokens import TokenMap
from interp_lab.visualization.base import NothingToDrawError

STYLE = TrajectoryStyle(workers=0, width=640, dpi=40)


def test_the_score_by_hand() -> None:
    """Heads of one layer: three places, two places, one place always, three with the same cell."""
    peaks = np.array(
        [[[0.9, 0.1, 0.7, 0.8, 0.2], [0.9, 0.8, 0.9, 0.8, 0.9], [0.99] * 5, [0.5] * 5]]
    )
    cells = np.array([[[4, 4, 1, 2, 0], [4, 1, 4, 1, 4], [3] * 5, [0, 1, 2, 2, 2]]])
    np.testing.assert_allclose(moving_peak(peaks, cells, 6)[0], [0.7, 0, 0, 0.5], atol=1e-7)
    # Fewer than three tokens, or cells.
    assert moving_peak(peaks[..., :2], cells[..., :2], 6).tolist() == [[0, 0, 0, 0]]
    assert moving_peak(peaks, cells * 0, 2).tolist() == [[0, 0, 0, 0]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory):
    """The study at its default on the model and the map that are shipped."""
    from interp_lab.api import run

    folder = tmp_path_factory.mktemp("shipped")
    options = ("device=cpu", "visualization.max_samples=0", "~visualization.figures")
    with run(["task=trajectory", f"output.root={folder}", *options]) as results:
        yield results


def test_the_overview_s_highest_cell_is_the_planted_head(shipped: Results) -> None:
    """tiny_qwen_vl copies the current cell's arrow with head 3 of layer 0."""
    drawn = np.asarray(head_overview(shipped, STYLE).axes[0].images[0].get_array())
    assert drawn.shape == (4, 4)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (0, 3)
    others = np.delete(drawn.ravel(), 3)
    assert drawn[0, 3] > 0.8 and others.max() < 0.5
    axes = head_overview(shipped, STYLE).axes[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "layer 0 on top"


def test_the_path_figure_shows_the_way_on_the_map(shipped: Results) -> None:
    """The answer names the cells that it passes, `3 c2` for one; those are the framed ones."""
    figure = peak_path(shipped, STYLE, shipped.sample_ids[0])
    words = [t.text for t in TokenMap.from_json(str(shipped.read("tokens", 0))).tokens]
    words = [w.strip() for w in words[-int(shipped.read("n_generated", 0)) :]]
    heat = next(a for a in figure.axes if len(a.images) == 2)
    numbers = {t.get_text(): t.get_position() for t in heat.texts}
    assert len(numbers) >= 5
    for step, (x, y) in numbers.items():
        # The token before the direction is the cell: row a to f, column 1 to 6.
        cell = words[int(step) - 1]
        assert cell == f"{'abcdef'[int(y)]}{int(x) + 1}", (step, cell)
    values = np.asarray(heat.images[1].get_array())
    assert (values > 0.5).sum() == len(numbers)


def test_figures_of_another_head_say_which_stands_out(shipped: Results) -> None:
    name, layer = shipped.sample_ids[0], int(shipped.read("layers", 0)[0])
    told = "The highest moving peak, 0.87, is that of head 3 of layer 0; "
    told += "analysis.layers=0 analysis.heads=[3]"
    assert hint_beside(shipped, layer, "mean over heads").startswith(told)
    assert hint_beside(shipped, 0, "head 3") == ""
    foot = " ".join(t.get_text() for t in attention_strip(shipped, STYLE, name, layer).texts)
    assert told in " ".join(foot.split())
    style = replace(STYLE, width=1280)
    shot = Shot(read_trajectory(shipped, style, name, layer), style)
    # A line of letters above the rule, below the one of layer and model.
    assert (shot.sheet.blank[66:84, 28:600] < 128).any()


def test_an_older_result_has_its_other_figures(tmp_path: Path) -> None:
    with written(tmp_path, [PATH], aggregates=False) as results:
        assert standout(results) is None and hint_beside(results, 4, "mean over heads") == ""
        with pytest.raises(
            NothingToDrawError, match="no sample holds moving_peak: .* resume=false"
        ):
            head_overview(results, STYLE)


def test_parts_of_an_older_version_go_together_with_new_ones(tmp_path: Path) -> None:
    """Those without the score are left out of its mean; their number is stored."""
    new = Story("new", PATH.words[:9])
    fields = Trajectory().fields
    names = {f.name for f in fields}
    for index, (story, drop) in enumerate(((PATH, True), (new, False))):
        values = {k: v for k, v in values_of(story).items() if k in names}
        values |= {"n_prompt": 1, "n_generated": len(story.words)}
        if drop:
            values = {k: v for k, v in values.items() if "peak" not in k}
        writer = PartWriter(tmp_path / "parts", fields)
        writer.add(index, story.name, values)
        writer.flush()
    final = tmp_path / "results.h5"
    merge(list_parts(tmp_path / "parts"), [PATH.name, "new"], final, {}, AnswerNumbers().compute)
    with open_results(final) as results:
        np.testing.assert_allclose(
            results.aggregate("mean_moving_peak"), values_of(new)["moving_peak"], rtol=1e-6
        )
        assert int(results.aggregate("n_moving_peak")) == 1
        assert head_overview(results, STYLE).axes
        with pytest.raises(InterpLabError, match="moving_peak"):
            peak_path(results, STYLE, PATH.name)
