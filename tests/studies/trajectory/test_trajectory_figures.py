"""Figures of a written answer: what the film shows at its pixels, and which files a run gets."""

import itertools
import logging
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from known_trajectories import (
    N_LAYERS,
    PATH,
    PHRASE,
    WORDS,
    Story,
    decoded,
    token_map,
    values_of,
    written,
)
from matplotlib import font_manager
from PIL import Image

from interp_lab.config.nodes import check_arguments, conf_dir
from interp_lab.errors import ConfigError, StoreError
from interp_lab.store.results import Results
from interp_lab.studies.trajectory.figures.answers import TrajectoryStyle, read_trajectory
from interp_lab.studies.trajectory.figures.curves import distance_curves, share_curves, share_maps
from interp_lab.studies.trajectory.figures.film import Shot, attention_poster, attention_video
from interp_lab.studies.trajectory.figures.film_colors import red_green, scaled
from interp_lab.studies.trajectory.figures.film_images import cell_edges, grayed
from interp_lab.studies.trajectory.figures.film_letters import Letters
from interp_lab.studies.trajectory.figures.film_text import (
    CURRENT,
    IMAGE_GROUND,
    TEXT_STRENGTH,
    first_shown,
)
from interp_lab.studies.trajectory.figures.strip import attention_strip, chosen_steps
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.visualization.draw import check_figures, draw_all
from interp_lab.visualization.film import Film

# Colours that are the easiest to foresee: those of the tool of before, each row on a scale.
STYLE = TrajectoryStyle(
    workers=0,
    width=640,
    dpi=40,
    stretch="shown",
    gamma=0.4,
    colors="red_green",
    opacity="even",
    overlay_alpha=0.5,
    overlay_gray=True,
)
LONG = Story("long", WORDS[:-1] * 11 + WORDS[-1:], heads="all")
TWO = Story(
    "two",
    WORDS[:9],
    ((300, 500), (400, 260)),
    ((4, 6), (5, 3)),
    heads=[3, 7],
    reference=(1, 0.2, 0.9),
)
STORIES = [
    PATH,
    LONG,
    TWO,
    Story("empty", ("<|im_end|>",), predicted=None),
    Story("text only", WORDS[:6], (), ()),
    Story("pixel", WORDS[:4], ((1, 1),), ((1, 1),)),
    Story("wide", WORDS[:4], ((6, 1280),), ((1, 100),)),
    Story("cells only", WORDS[:4], keep_pictures=False),
    Story("later", (*WORDS[:10], *(f" {word}" for word in PHRASE.split()), " go")),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Answers of every shape."""
    with written(tmp_path_factory.mktemp("stories"), STORIES) as results:
        yield results


def shot_of(results: Results, story: Story, layer: int = 4, **changes: Any) -> Shot:
    """Everything of one film."""
    style = replace(STYLE, **changes)
    return Shot(read_trajectory(results, style, story.name, layer), style)


def film_of(results: Results, story: Story, **changes: Any) -> Film:
    """The film of layer 4."""
    return attention_video(results, replace(STYLE, **changes), story.name, 4)


def pure(weights: np.ndarray) -> np.ndarray:
    """Colours by hand: red 255 (1 - w), green 255 w."""
    return np.array([[round(255 * (1 - w)), round(255 * w), 0] for w in weights])


def ground_of(shot: Shot, frame: np.ndarray, position: int, step: int) -> list[int]:
    """The colour of a token's ground, at the pixel below its upper left corner."""
    place = shot.text.place(position, shot.of.n_prompt + step)
    assert place is not None, f"token {position} is not in view"
    top, _, left, _ = place
    return shot.sheet.text_room.of(frame)[top + 1, left + 1].tolist()


@pytest.mark.parametrize("gamma", [0.4, 1.0])
@pytest.mark.parametrize("step", [0, 7, 39])
def test_tokens_have_the_colours_of_hand_arithmetic(
    results: Results, gamma: float, step: int
) -> None:
    shot = shot_of(results, PATH, gamma=gamma, width=1280)
    frame = next(iter(shot.frames(step, step + 1)))
    tokens = token_map(PATH)
    n = len(tokens) - len(PATH.words)
    row = values_of(PATH)["rows"][1, 0, step, : n + step]
    first = [t.text for t in tokens].index(" Based")
    keys = range(first, n + step)
    low, high = min(row[k] for k in keys), max(row[k] for k in keys)
    for key in keys:
        color = pure(np.array([((row[key] - low) / (high - low)) ** gamma]))[0]
        expected = TEXT_STRENGTH * color + (1 - TEXT_STRENGTH) * 255
        is_special = tokens.tokens[key].text.startswith("<|")
        if not is_special and not tokens.tokens[key].text.endswith("\n"):
            found = ground_of(shot, frame, key, step)
            np.testing.assert_allclose(found, expected, atol=1, err_msg=str(key))
    if not tokens.tokens[n + step].text.startswith("<|"):
        assert ground_of(shot, frame, n + step, step) == CURRENT.tolist()


def test_tokens_that_are_not_written_yet_are_not_drawn(results: Results) -> None:
    shot = shot_of(results, PATH)
    last = shot.of.n_prompt + 4
    frame = shot.draw(4, shot.of.row(4))
    place = shot.text.place(last, last)
    later = shot.text.place(last + 1, last)
    assert place is not None and later is not None and later[0] == place[0]
    text = shot.sheet.text_room.of(frame)
    assert (text[place[1] + 2 :] == 255).all(), "lines below are empty"
    assert (text[place[0] : place[1], place[3] :] == 255).all(), "so is the rest of the line"


def test_cells_have_the_colours_of_hand_arithmetic_on_two_images(results: Results) -> None:
    shot = shot_of(results, TWO, width=1280, overlay_alpha=0.7)
    step = 6
    frame = shot.draw(step, shot.of.row(step))
    tokens = token_map(TWO)
    # Heads 3 and 7 are kept; the mean of both is shown. One scale for the cells of both images.
    row = values_of(TWO)["rows"][1, :, step].mean(axis=0)
    keys = [i for i, t in enumerate(tokens) if t.image is not None]
    weights = ((row[keys] - row[keys].min()) / np.ptp(row[keys])) ** 0.4
    colors = dict(zip(keys, pure(weights), strict=True))
    assert shot.sheet.image_room is not None
    panel = shot.sheet.image_room.of(frame)
    n_checked = 0
    for image in shot.cells:
        slot, index = image.slot, shot.cells.index(image)
        part = panel[slot.top : slot.top + slot.height, slot.left : slot.left + slot.width]
        down, across = cell_edges(image.grid[0], slot.height), cell_edges(image.grid[1], slot.width)
        for position, token in enumerate(tokens):
            if token.image != index:
                continue
            assert token.cell is not None
            row_of, col_of = token.cell
            y, x = down[row_of + 1] - 3, across[col_of + 1] - 3
            expected = 0.7 * colors[position] + 0.3 * image.pixels[y, x]
            np.testing.assert_allclose(part[y, x], expected, atol=1)
            n_checked += 1
    assert n_checked == 4 * 6 + 5 * 3
    assert np.ptp(shot.cells[0].pixels.astype(int), axis=2).max() == 0, "gray below the cells"


def test_image_tokens_are_one_chip_beside_the_scale(results: Results) -> None:
    """Without a phrase all is shown; cells neither have colours in the text nor set its scale."""
    shot = shot_of(results, PATH, start_phrase=None, width=1280)
    tokens = token_map(PATH)
    row = shot.of.row(3)
    frame = shot.draw(3, row)
    cells = list(tokens.where(image=0))
    assert [b.text for line in shot.text.lines for b in line if b.chip.kind == "image"] == [
        "image 1: 36 tokens"
    ]
    place = shot.text.place(cells[5], shot.of.n_prompt + 3)
    assert place is not None
    text = shot.sheet.text_room.of(frame)
    assert text[place[0] + 2, place[2] + 2].tolist() == IMAGE_GROUND.tolist()
    others = [k for k in range(shot.of.n_prompt + 3) if k not in cells]
    assert shot.of.shown(3).tolist() == others
    position = [t.text for t in tokens].index("user")
    weight = scaled(row[others], 0.4)[others.index(position)]
    expected = TEXT_STRENGTH * red_green(np.array([weight]))[0] + (1 - TEXT_STRENGTH) * 255
    np.testing.assert_allclose(ground_of(shot, frame, position, 3), expected, atol=1)


def test_a_user_s_own_function_colours_tokens_and_cells(results: Results) -> None:
    def blue(weights: np.ndarray) -> np.ndarray:
        return np.stack([0 * weights, 0 * weights, 255 * weights], axis=-1).astype(np.uint8)

    shot = shot_of(results, PATH, colors=blue)
    frame = shot.draw(2, shot.of.row(2))
    assert shot.sheet.image_room is not None
    panel = shot.sheet.image_room.of(frame).astype(int)
    slot = shot.cells[0].slot
    inside = panel[slot.top + 2 : slot.top + 20, slot.left + 2 : slot.left + 20]
    assert (inside[..., 0] == inside[..., 1]).all() and (inside[..., 2] >= inside[..., 0]).all()


def test_long_answers_scroll_with_the_current_token(results: Results) -> None:
    shot = shot_of(results, LONG)
    n = shot.of.n_prompt
    assert len(shot.text.lines) > shot.text.n_visible
    starts = [shot.text.window(n + step).start for step in range(shot.of.n_steps)]
    assert starts[0] == 0 and starts[-1] == len(shot.text.lines) - shot.text.n_visible
    assert all(b - a in (0, 1) for a, b in itertools.pairwise(starts))
    for step in range(0, shot.of.n_steps, 13):
        place = shot.text.place(n + step, n + step)
        assert place is not None and place[1] <= shot.text.height
    plain = next(s for s in range(shot.of.n_steps - 1, 0, -1) if LONG.words[s] == " point")
    frame = shot.draw(plain, shot.of.row(plain))
    assert ground_of(shot, frame, n + plain, plain) == CURRENT.tolist()


@pytest.mark.parametrize("story", STORIES, ids=lambda s: s.name)
def test_every_shape_of_answer_gives_one_frame_a_token(results: Results, story: Story) -> None:
    film = film_of(results, story)
    frames = list(film.frames())
    assert film.n_frames == len(frames) == len(story.words)
    assert {f.shape for f in frames} == {(360, 640, 3)} and frames[0].dtype == np.uint8


@pytest.mark.parametrize("width", [480, 1000, 1282])
def test_the_layout_follows_the_width_and_sides_are_even(results: Results, width: int) -> None:
    frame = next(film_of(results, PATH, width=width).frames())
    assert frame.shape[1] == width and frame.shape[0] % 2 == 0
    assert abs(frame.shape[0] - width * 9 / 16) <= 1


def test_text_starts_where_the_phrase_occurs_last(results: Results) -> None:
    tokens = token_map(PATH)
    texts = [t.text for t in tokens]
    assert first_shown(tokens.tokens, tokens.prompt, PHRASE) == texts.index(" Based")
    assert first_shown(tokens.tokens, tokens.prompt, None) == 0
    assert first_shown(tokens.tokens, tokens.prompt, "no such words") is None
    # In the middle of a token, and across prompt and answer.
    assert first_shown(tokens.tokens, tokens.prompt, "ased on") == texts.index(" Based")
    assert first_shown(tokens.tokens, tokens.prompt, "assistant\n<think> The") == texts.index(
        "assistant"
    )
    later = token_map(STORIES[-1])
    found = first_shown(later.tokens, later.prompt, PHRASE)
    assert found is not None and later.tokens[found].role == "generated"


def test_a_phrase_that_does_not_occur_is_said_and_all_is_shown(
    results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        shot = shot_of(results, PATH, start_phrase="Please")
    assert shot.of.start == 0 and "does not occur" in shot.of.note
    assert "start_phrase='Please' does not occur in prompt and output" in caplog.text


@pytest.mark.parametrize(
    ("story", "head", "why"),
    [
        (PATH, 2, "select.head=2: the result holds one mean over the heads"),
        (LONG, 4, "select.head=4: the result holds heads 0 to 3"),
        (TWO, 4, "select.head=4: the result holds heads 3, 7"),
    ],
)
def test_a_head_that_is_not_kept(results: Results, story: Story, head: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        shot_of(results, story, head=head)


def test_one_of_the_kept_heads_is_shown(results: Results) -> None:
    shot = shot_of(results, TWO, head=7)
    expected = values_of(TWO)["rows"][1, 1, 5, : shot.of.n_prompt + 5]
    np.testing.assert_array_equal(shot.of.row(5), expected)
    assert shot.of.heads == "head 7"


def test_rows_that_do_not_fit_the_tokens_are_an_error(tmp_path: Path) -> None:
    from interp_lab.fields import Document, LayerIndex, StepPattern
    from interp_lab.store.merge import merge
    from interp_lab.store.parts import PartWriter, list_parts
    from interp_lab.store.results import open_results

    fields = [StepPattern("rows", "rows"), LayerIndex("layers", "layers"), Document("tokens", "t")]
    writer = PartWriter(tmp_path / "parts", fields)
    tokens = token_map(PATH).to_json()
    writer.add(0, "a", {"rows": np.zeros((1, 1, 40, 9)), "layers": [4], "tokens": tokens})
    writer.flush()
    merge(list_parts(tmp_path / "parts"), ["a"], tmp_path / "results.h5", {}, lambda results: [])
    with open_results(tmp_path) as results, pytest.raises(StoreError, match="asks for"):
        next(attention_video(results, STYLE, "a", 4).frames())


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    """Peak of NumPy and Python objects over 400 frames against 60, rows on disk included."""
    peaks = {}
    for n in (60, 400):
        story = Story("s", (WORDS[:-1] * 11)[:n])
        with written(tmp_path / str(n), [story], aggregates=False) as results:
            tracemalloc.start()
            for _ in attention_video(results, STYLE, "s", 4).frames():
                pass
            peaks[n] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    frame = 640 * 360 * 3
    assert peaks[400] - peaks[60] < 5 * frame, peaks


def figures_of_yaml() -> tuple[dict[str, Any], TrajectoryStyle]:
    """The nodes and the style of the configuration that ships."""
    node = yaml.safe_load((conf_dir() / "visualization" / "trajectory.yaml").read_text())
    figures = node.pop("figures")
    node.pop("needs", None)  # of the study's fields
    figures["frames"]["enabled"] = False  # an interpolation, as the next
    figures["video"]["format"] = "mp4"
    node |= {"workers": 0, "width": 480, "dpi": 40, "start_phrase": PHRASE}
    return figures, TrajectoryStyle(**check_arguments(TrajectoryStyle, node, "visualization"))


def test_one_sample_has_its_figures_at_the_top(tmp_path: Path) -> None:
    written(tmp_path, [PATH]).close()
    figures, style = figures_of_yaml()
    figures["frames"]["enabled"] = True
    check_figures(figures)
    paths = draw_all(tmp_path, figures, style, tmp_path / "figures", {"layer": 4})
    names = [str(p.relative_to(tmp_path / "figures")) for p in paths]
    assert names == [
        "attention_path.png",
        "combined_attention_visualization_layer4.mp4",
        "frames_layer4",
        "attention_poster_layer4.png",
        "attention_strip_layer4.png",
        "attention_shares.png",
        "attention_share_curves.png",
        "distance_to_points.png",
    ]
    about, frames = decoded(paths[1])
    assert about["pix_fmt"].startswith("yuv420p")
    stills = sorted(paths[2].iterdir())
    assert len(frames) == len(stills) == len(WORDS)
    # The video is the same pictures, but for what the encoder leaves out: fine coloured lines.
    last = np.asarray(Image.open(stills[-1])).astype(int)
    assert np.abs(frames[-1].astype(int) - last).mean() < 3


def test_several_samples_and_layers_have_folders(tmp_path: Path) -> None:
    written(tmp_path, [PATH, TWO]).close()
    figures, style = figures_of_yaml()
    video = {"video": figures["video"]}
    paths = draw_all(tmp_path, video, style, tmp_path / "figures")
    assert [str(p.relative_to(tmp_path / "figures")) for p in paths] == [
        f"{sample}/combined_attention_visualization_layer{layer}.mp4"
        for sample in ("answer_1_png", "two")
        for layer in (2, 4)
    ]
    with pytest.raises(ConfigError, match="select.layer=5: sample 'answer_1.png' holds.*2, 4"):
        draw_all(tmp_path, video, style, tmp_path / "figures", {"layer": [4, 5]})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"file": "video"}, "{layer} and per: layer go together"),
        ({"per": "sample"}, "{layer} and per: layer go together"),
        ({"format": "pdf"}, "format='pdf': give one of mp4, gif, webp, frames, png"),
        ({"format": ["mp4", "wepb"]}, "format='wepb': .*Did you mean 'webp'"),
        ({"format": None}, "format=None: give one of mp4"),
        ({"step": 1}, "attention_video takes no such option"),
    ],
)
def test_mistakes_in_a_film_s_node(change: dict[str, Any], why: str) -> None:
    figures, _ = figures_of_yaml()
    with pytest.raises(ConfigError, match=why):
        check_figures({"video": figures["video"] | change})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"gamma": 0}, "visualization.gamma=0: give a number from 0.01"),
        ({"width": 641}, "visualization.width=641: give an even number"),
        ({"fps": 0}, "visualization.fps=0: give a number from 0.1"),
        ({"colors": "redgreen"}, "colors='redgreen': .* Did you mean 'red_green'"),
        ({"layer": "4"}, "visualization.layer='4': give the number of a layer"),
        ({"overlay_alpha": 0}, "overlay_alpha=0"),
        ({"colors": lambda w: w, "workers": 1}, "set workers to 0"),
    ],
)
def test_mistakes_in_the_style(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        TrajectoryStyle(**values)


def test_the_poster_is_the_frame_that_is_asked_for(results: Results) -> None:
    frames = list(film_of(results, PATH).frames())
    for step, index in ((0, 0), (-1, 39), (7, 7)):
        film = attention_poster(results, STYLE, PATH.name, 4, step=step)
        assert film.n_frames == 1 and (next(film.frames()) == frames[index]).all()
    cells = list(token_map(PATH).where(image=0))
    most = int(values_of(PATH)["rows"][1, 0][:, cells].sum(axis=1).argmax())
    assert (next(attention_poster(results, STYLE, PATH.name, 4).frames()) == frames[most]).all()
    with pytest.raises(ConfigError, match="step=40: sample 'answer_1.png' has steps 0 to 39"):
        attention_poster(results, STYLE, PATH.name, 4, step=40)


def test_steps_of_a_strip() -> None:
    evenly = ([0, 20, 40], "Shown: 3 of 41 steps, evenly.")
    assert chosen_steps(3, np.zeros(41), "s") == evenly
    assert chosen_steps(9, np.zeros(2), "s")[0] == [0, 1]
    assert chosen_steps([0, -1, 3], np.zeros(5), "s")[0] == [0, 4, 3]
    with pytest.raises(ConfigError, match="steps=5: sample 's' has steps 0 to 4"):
        chosen_steps([5], np.zeros(5), "s")


def test_a_strip_draws_attention_itself_on_one_scale(results: Results) -> None:
    figure = attention_strip(results, STYLE, TWO.name, 4, steps=[0, 4], cmap="Greens")
    rows = values_of(TWO)["rows"][1].mean(axis=0)
    tokens = token_map(TWO)
    heats = [a.images[1] for a in figure.axes if len(a.images) == 2]
    expected = [
        rows[s, list(tokens.where(image=i))].reshape(g)
        for s in (0, 4)
        for i, g in enumerate(TWO.grids)
    ]
    assert len(heats) == 4
    # From 0 to the largest of the whole answer, as in the film.
    top = max(rows[:, list(tokens.where(image=i))].max() for i in (0, 1))
    for heat, values in zip(heats, expected, strict=True):
        np.testing.assert_allclose(np.asarray(heat.get_array()), values, rtol=1e-6)
        assert heat.get_clim() == pytest.approx((0, top))
    words = [a.get_xlabel().strip() for a in figure.axes if a.get_xlabel()]
    assert [w.split("\n")[0] for w in words] == [TWO.words[0].strip(), TWO.words[4].strip()]
    assert [w.split("\n")[1].split(" · ")[0] for w in words] == ["step 0", "step 4"]
    with pytest.raises(NothingToDrawError, match="no image"):
        attention_strip(results, STYLE, "text only", 4)


def test_shares_are_drawn_as_they_are_stored(results: Results) -> None:
    maps = share_maps(results, STYLE)
    images = [a.images[0] for a in maps.axes if a.images]
    names = ("image", "prompt", "generated")
    for image, name in zip(images, names, strict=False):
        stored = results.aggregate(f"mean_share_{name}")
        np.testing.assert_array_equal(image.get_array(), stored)
        assert stored.shape[0] == N_LAYERS and image.get_clim() == (0, 1)
    curves = share_curves(results, replace(STYLE, layer=4))
    (panel,) = [a for a in curves.axes if a.lines]
    assert panel.get_title(loc="left") == "layer 4"
    for line, name in zip(panel.lines, names, strict=True):
        np.testing.assert_allclose(
            np.asarray(line.get_ydata()), results.aggregate(f"mean_share_{name}")[4]
        )


def test_distances_are_of_the_chosen_layers(results: Results) -> None:
    figure = distance_curves(results, STYLE)
    panels = [a for a in figure.axes if a.lines]
    assert [a.get_title(loc="left") for a in panels] == [
        "to the predicted point",
        "to the reference point",
    ]
    for panel, kind in zip(panels, ("predicted", "reference"), strict=True):
        stored = results.aggregate(f"mean_distance_{kind}")
        assert [line.get_label() for line in panel.lines] == ["layer 2", "layer 4"]
        for line, values in zip(panel.lines, stored, strict=True):
            np.testing.assert_allclose(np.asarray(line.get_ydata()), values)
    assert grayed(np.zeros((1, 1, 3), np.uint8)).tolist() == [[[80, 80, 80]]]


@pytest.mark.parametrize("step", [0, 7, 38])
def test_the_row_s_own_token_and_its_whole_row_by_hand(results: Results, step: int) -> None:
    """The style of VLMLocPredictor: frame t is the row of token t, scaled before text is cut."""
    published = {"stretch": "row", "mark": "query", "start_phrase": "assistant"}
    shot = shot_of(results, PATH, width=1280, overlay_alpha=128 / 255, **published)
    film = film_of(results, PATH, **published)
    tokens = token_map(PATH)
    n = len(tokens) - len(PATH.words)
    assert film.n_frames == len(PATH.words) - 1 == len(list(film.frames()))
    frame = next(iter(shot.frames(step, step + 1)))
    # The query that predicts token t + 1 is token t; its keys end with itself.
    row = values_of(PATH)["rows"][1, 0, step + 1, : n + step + 1].astype(float)
    weights = ((row - row.min()) / (row.max() - row.min())) ** 0.4
    first = [t.text for t in tokens].index("assistant")
    n_checked = 0
    for key in range(first, n + step):
        text = tokens.tokens[key].text
        if text.startswith("<|") or text.endswith("\n"):
            continue
        expected = TEXT_STRENGTH * pure(weights[[key]])[0] + (1 - TEXT_STRENGTH) * 255
        np.testing.assert_allclose(ground_of(shot, frame, key, step), expected, atol=1)
        n_checked += 1
    assert n_checked >= step // 2
    if not tokens.tokens[n + step].text.startswith("<|"):
        assert ground_of(shot, frame, n + step, step) == CURRENT.tolist()
    cells = list(tokens.where(image=0))
    own = (row[cells] - row[cells].min()) / np.ptp(row[cells])
    image, (y, x) = shot.cells[0], (cell_edges(6, shot.cells[0].slot.height)[1] - 3, 9)
    assert shot.sheet.image_room is not None
    panel = shot.sheet.image_room.of(frame)[image.slot.top :, image.slot.left :]
    color = pure(own[:1] ** 0.4)[0]
    expected = (128 * color + 127 * image.pixels[y, x].astype(float)) / 255
    np.testing.assert_allclose(panel[y, x], expected, atol=1)


def test_a_single_token_is_no_query(results: Results) -> None:
    one = next(s for s in STORIES if s.name == "empty")
    with pytest.raises(NothingToDrawError, match="nothing was written after its one token"):
        shot_of(results, one, mark="query")
    with pytest.raises(
        ConfigError, match="visualization.stretch='rows': give video or shown or row"
    ):
        replace(STYLE, stretch="rows")  # pyright: ignore[reportArgumentType]


def test_text_has_letters_of_one_width_unless_a_font_is_chosen(results: Results) -> None:
    panel = shot_of(results, PATH).text.letters
    assert len({panel.width(letter * 40) for letter in "iwM."}) == 1
    other = shot_of(results, PATH, font="DejaVu Serif").text.letters
    assert other.width("i" * 40) < other.width("w" * 40)
    both = shot_of(results, PATH, font="DejaVu Serif", text_font="DejaVu Sans Mono").text.letters
    assert both.width("i" * 40) == both.width("w" * 40)


def test_letters_of_a_font_file_are_that_file_s(results: Results, tmp_path: Path) -> None:
    own = tmp_path / "mine.ttf"
    shutil.copy(font_manager.findfont("DejaVu Serif"), own)
    letters = shot_of(results, PATH, text_font=str(own)).text.letters
    assert letters.width("wide") == Letters("DejaVu Serif", letters.size).width("wide")
    assert letters.width("wide") != Letters(None, letters.size).width("wide")
