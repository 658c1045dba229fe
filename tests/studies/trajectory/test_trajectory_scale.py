"""The default look of an answer's figures: one scale, and steps in which much happens."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_trajectories import PATH, Story, token_map, values_of, written

from interp_lab.errors import ConfigError
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import TrajectoryStyle, read_trajectory
from interp_lab.studies.trajectory.figures.film import Shot
from interp_lab.studies.trajectory.figures.film_images import cell_edges
from interp_lab.studies.trajectory.figures.strip import attention_strip, chosen_steps, peak_steps

STYLE = TrajectoryStyle(workers=0, width=1280, dpi=40)
BLUE = np.array([0, 58, 214])
TEXT_ONLY = Story("text only", PATH.words[:6], (), ())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    """An answer about a picture, and one about none."""
    with written(tmp_path_factory.mktemp("scale"), [PATH, TEXT_ONLY]) as results:
        yield results


def shot_of(results: Results, name: str = PATH.name, **changes) -> Shot:
    style = replace(STYLE, **changes)
    return Shot(read_trajectory(results, style, name, 4), style)


def rows_and_cells() -> tuple[np.ndarray, list[int]]:
    return values_of(PATH)["rows"][1, 0].astype(float), list(token_map(PATH).where(image=0))


@pytest.mark.parametrize("step", [0, 5, 39])
def test_cells_of_all_frames_have_one_scale_and_none_hides_what_is_not_attended(
    results: Results, step: int
) -> None:
    """By hand: a cell is covered by 0.7 of its attention's share of the largest in the film."""
    rows, cells = rows_and_cells()
    top = rows[:, cells].max()
    shot = shot_of(results)
    frame = shot.draw(step, shot.of.row(step))
    assert shot.sheet.image_room is not None
    image, panel = shot.cells[0], shot.sheet.image_room.of(frame)
    slot = image.slot
    part = panel[slot.top : slot.top + slot.height, slot.left : slot.left + slot.width]
    down, across = cell_edges(6, slot.height), cell_edges(6, slot.width)
    for place, key in enumerate(cells):
        row, col = divmod(place, 6)
        # Within the frame that a strong cell has, beside its lower right corner.
        y, x = down[row + 1] - 7, across[col + 1] - 7
        cover = 0.7 * rows[step, key] / top
        expected = cover * BLUE + (1 - cover) * image.pixels[y, x]
        np.testing.assert_allclose(part[y, x], expected, atol=1)
        # The line between cells is drawn before the frame; a pixel of white is the frame's.
        is_framed = (part[down[row] + 1, across[col] + 20] == 255).all()
        assert is_framed == (rows[step, key] >= top / 2), (row, col)


def test_a_token_with_next_to_no_attention_is_white(results: Results) -> None:
    shot = shot_of(results)
    rows, cells = rows_and_cells()
    top, step = rows[:, cells].max(), 20
    frame = shot.draw(step, shot.of.row(step))
    n = shot.of.n_prompt
    text = shot.sheet.text_room.of(frame)
    tokens = token_map(PATH).tokens
    n_checked = 0
    for key in range(n, n + step):
        if tokens[key].text.startswith("<|") or tokens[key].text.endswith("\n"):
            continue
        place = shot.text.place(key, n + step)
        assert place is not None
        cover = 0.55 * min(1.0, rows[step, key] / top)
        expected = cover * BLUE + (1 - cover) * 255
        np.testing.assert_allclose(text[place[0] + 1, place[2] + 1], expected, atol=1)
        n_checked += 1
    assert n_checked > 10


def test_the_legend_says_the_scale_in_numbers(results: Results) -> None:
    rows, cells = rows_and_cells()
    top = rows[:, cells].max()
    told = " ".join(shot_of(results).sheet.guide())
    assert f"0 to {top:.2g}, the largest on one image cell in all frames" in told
    assert "cover 0% to 70%" in told and "power" not in told
    told = " ".join(shot_of(results, scale_top=0.25, gamma=0.5).sheet.guide())
    assert "0 to 0.25, as it was set, raised to the power 0.5" in told
    assert shot_of(results, scale_top=0.25).scale.weights(np.array([0.5, 0.125])).tolist() == [
        1,
        0.5,
    ]
    text = shot_of(results, TEXT_ONLY.name)
    shown = max(text.of.row(t)[text.of.shown(t)].max() for t in range(6))
    assert text.scale.top == pytest.approx(shown)
    assert "one shown token" in " ".join(text.sheet.guide())
    told = " ".join(shot_of(results, stretch="row").sheet.guide())
    assert "min–max scaled in each row, text over the whole row" in told


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"opacity": "even"}, "colors='blue': one colour .* needs visualization.opacity=grows"),
        ({"opacity": "grow"}, "opacity='grow': give grows or even"),
        ({"stretch": "row", "scale_top": 0.5}, "scale_top=0.5: has an effect with .*stretch=video"),
        ({"scale_top": 2}, "scale_top=2: give a number from"),
    ],
)
def test_options_without_effect_are_refused(values: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        replace(STYLE, **values)


def test_a_style_of_before_still_covers_all_cells_alike(results: Results) -> None:
    """A result keeps its style, which said nothing of opacity: each row on a scale, all covered."""
    before = {"stretch": "shown", "gamma": 0.4, "colors": "red_green", "overlay_alpha": 0.5}
    shot = shot_of(results, **before)
    covers = shot.scale.ink(np.array([0.0, 0.3, 1.0]), 0.5)[1]
    assert covers.tolist() == [0.5] * 3 and shot.scale.top is None
    assert shot_of(results, stretch="row").scale.grows, "one colour says nothing otherwise"


def test_steps_are_those_in_which_a_cell_is_attended() -> None:
    peaks = np.full(40, 0.01)
    peaks[[4, 5, 11, 17, 30]] = 0.9, 0.8, 0.7, 0.6, 0.5
    found, apart = peak_steps(peaks, 3)
    # 40 // 6 = 6 steps apart: 5 lies beside 4.
    assert (found, apart) == ([4, 11, 17], 6)
    assert peak_steps(np.zeros(2), 6)[0] == [0, 1]
    for n in range(1, 60):
        assert len(peak_steps(np.random.default_rng(n).random(n), 6)[0]) == min(n, 6)
    with pytest.raises(ConfigError, match="steps='peak': give peaks"):
        chosen_steps("peak", peaks, "s")


def test_a_strip_says_how_its_steps_were_chosen_and_has_the_film_s_scale(results: Results) -> None:
    rows, cells = rows_and_cells()
    peaks = rows[:, cells].max(axis=1)
    figure = attention_strip(results, STYLE, PATH.name, 4)
    heats = [a.images[1] for a in figure.axes if len(a.images) == 2]
    words = [a.get_xlabel() for a in figure.axes if a.get_xlabel()]
    steps = [int(re.search(r"step (\d+)", word)[1]) for word in words]  # pyright: ignore
    assert int(peaks.argmax()) in steps and steps == peak_steps(peaks, 6)[0]
    foot = " ".join(" ".join(t.get_text() for t in figure.texts).split())
    assert "of 40 steps the 6 in which one image cell gets most attention" in foot
    assert "at least 3 steps apart" in foot
    for heat, step in zip(heats, steps, strict=True):
        np.testing.assert_allclose(
            np.asarray(heat.get_array()).ravel(), rows[step, cells], rtol=1e-6
        )
        assert heat.get_clim() == pytest.approx((0, peaks.max()))
        assert heat.cmap(0.0)[3] == 0 and heat.cmap(1.0)[3] == pytest.approx(0.7)


def test_all_frames_of_the_film_are_of_one_scale_whatever_a_result_holds(tmp_path: Path) -> None:
    """Rows of zeros, as a knocked-out picture leaves them, are no division by zero."""
    with written(tmp_path, [Story("dot", PATH.words[:3], ((1, 1),), ((1, 1),))]) as results:
        shot = shot_of(results, "dot")
        assert len(list(shot.frames())) == 3 and shot.scale.top is not None
        assert shot.scale.weights(np.zeros(3)).tolist() == [0, 0, 0]
        assert replace(shot.scale, top=0.0).weights(np.ones(2)).tolist() == [0, 0]
