"""The maps' truth, checked by hand and by the pixels themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp_lab.zoo import paths, paths_trajectory
from interp_lab.zoo.paths import CELL_NAMES, SIDE, PathMap, Question, map_of, render


def named(*names: str) -> list[int]:
    return [CELL_NAMES.index(name) for name in names]


def drawn(n: int, seed: int = 0, *, held_out: bool = False) -> list[PathMap]:
    rng = np.random.default_rng(seed)
    return [paths.draw_map(rng, held_out=held_out) for _ in range(n)]


def read_off(picture: np.ndarray) -> list[int]:
    """Walk from the red start along the white arrows to a yellow end, by colour alone.

    An arrow's head is broader than its tail, so its white pixels have their mean on the head's
    side of the cell's centre.
    """
    size = len(picture) // SIDE
    cells = picture.reshape(SIDE, size, SIDE, size, 3).swapaxes(1, 2).astype(int)
    red, green, blue = np.moveaxis(cells, -1, 0)
    is_start = ((red > 240) & (green < 60) & (blue < 60)).any((2, 3))
    is_end = ((red > 240) & (green > 200) & (blue < 60)).any((2, 3))
    assert is_start.sum() == 1
    (row, column), walked = np.argwhere(is_start)[0], []
    while True:
        walked.append(int(row * SIDE + column))
        if is_end[row, column]:
            return walked
        white = np.argwhere(cells[row, column].min(-1) > 250).mean(0) - size / 2
        down, right = np.where(abs(white) == abs(white).max(), np.sign(white), 0).astype(int)
        row, column = row + down, column + right


def test_a_reply_by_hand() -> None:
    path = map_of(named("c2", "c3", "d3", "d4"))
    whole = (
        "<think>1 c2 right 2 c3 down 3 d3 right 4 d4</think>"
        "<answer><|box_start|>(583,583),(584,584)<|box_end|></answer>"
    )
    assert Question(path).reply == whole
    assert Question(path, 4).reply == whole
    assert Question(path, 3).reply == (
        "<think>1 c2 right 2 c3 down 3 d3</think>"
        "<answer><|box_start|>(417,583),(418,584)<|box_end|></answer>"
    )
    assert Question(path, 3).said(1) == "<think>1 c2 right 2 c3"
    assert "location of the 3rd point" in Question(path, 3).problem
    assert "location of the last point" in Question(path).problem


def test_coordinates_are_thousandths_of_width_and_height() -> None:
    # Column 4 of 6 has its centre at 3.5 / 6 of the width, row c at 2.5 / 6 of the height.
    assert paths.centre(CELL_NAMES.index("c4")) == (583, 417)
    assert paths.centre(CELL_NAMES.index("a1")) == (83, 83)
    assert paths.centre(CELL_NAMES.index("f6")) == (917, 917)


def test_the_path_can_be_read_off_the_pixels() -> None:
    maps = drawn(60)
    for path, picture in zip(maps, render(maps, 64), strict=True):
        assert read_off(picture) == list(path.cells)


def test_a_small_map_is_the_large_one_made_small() -> None:
    maps = drawn(10)
    shrunk = render(maps, 64).reshape(10, 48, 8, 48, 8, 3).mean((2, 4))
    assert abs(shrunk - render(maps, 8)).max() < 1.01  # rounded twice: rows, then columns


@pytest.mark.parametrize("cell_pixels", [8, 64])
def test_a_cell_is_painted_by_itself(cell_pixels: int) -> None:
    for path in drawn(20, 1):
        cell = path.cells[1]
        start = path.cells[0]
        turned = paths.turned(path, start, paths.other_moves(path, 0)[0])
        for changed, where in ((paths.blanked(path, cell), cell), (turned, start)):
            before, after = render([path, changed], cell_pixels)
            differs = (before != after).any(-1)
            cells = differs.reshape(SIDE, cell_pixels, SIDE, cell_pixels).any((1, 3)).ravel()
            assert np.flatnonzero(cells).tolist() == [where]


def test_a_path_follows_the_arrows_to_its_end() -> None:
    for path in drawn(200, 2):
        assert paths.SHORTEST <= len(path.cells) <= paths.LONGEST
        assert len(set(path.cells)) == len(path.cells)
        places = [divmod(cell, SIDE) for cell in path.cells]
        steps = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
        for cell, (row, column), then in zip(path.cells, places, places[1:], strict=False):
            down, right = steps[path.move(cell)]
            assert then == (row + down, column + right)
        with pytest.raises(ValueError, match="has no arrow"):
            path.move(path.cells[-1])


def test_neighbours_do_not_give_the_way_away() -> None:
    """Beside a cell of the path, arrows and ends are as frequent as anywhere else."""
    beside, on = [], []
    for path in drawn(400, 6):
        signs = path.signs.reshape(SIDE, SIDE)
        for cell, then in zip(path.cells, path.cells[1:], strict=False):
            row, column = divmod(cell, SIDE)
            on.append(path.signs[then] == paths.END_SIGN)
            for r, c in (
                (row + 1, column),
                (row - 1, column),
                (row, column + 1),
                (row, column - 1),
            ):
                if 0 <= r < SIDE and 0 <= c < SIDE and r * SIDE + c not in path.cells:
                    beside.append(signs[r, c])
    shares = np.bincount(beside, minlength=6) / len(beside)
    assert shares[paths.BLANK] == pytest.approx(paths.BLANK_SHARE, abs=0.02)
    assert shares[paths.END_SIGN] == pytest.approx(paths.END_SHARE, abs=0.02)
    assert all(shares[1:5] > 0.15)
    assert np.mean(on) < 0.3  # one step in five leads to the end


def test_no_training_path_is_held_out() -> None:
    # 1 * 13 + 2 * 14 + 3 * 20 = 101 = 8 * 12 + 5; 1 * 12 + 2 * 12 + 3 * 20 = 96 = 8 * 12.
    assert not paths.is_held_out([13, 14, 20])
    assert paths.is_held_out([12, 12, 20])
    assert not any(paths.is_held_out(path.cells) for path in drawn(500))
    assert all(paths.is_held_out(path.cells) for path in drawn(100, held_out=True))
    questions = paths.draw_questions(100, np.random.default_rng(3), held_out=True)
    assert all(paths.is_held_out(question.map.cells) for question in questions)
    assert 30 < sum(question.point is None for question in questions) < 70


def test_other_moves_stay_on_the_map_and_do_not_go_back() -> None:
    path = map_of(named("a2", "a1", "b1", "b2"))
    assert paths.other_moves(path, 0) == ["right", "down"]
    assert paths.other_moves(path, 1) == []  # a corner: in, out, two walls
    assert paths.other_moves(path, 2) == ["down"]


def test_a_jump_is_refused() -> None:
    with pytest.raises(ValueError, match="b6 is no neighbour of c1"):
        map_of(named("c1", "b6"))


def test_a_seed_names_its_maps() -> None:
    assert [path.cells for path in drawn(5, 4)] == [path.cells for path in drawn(5, 4)]
    assert [path.cells for path in drawn(5, 4)] != [path.cells for path in drawn(5, 5)]


def test_the_samples_are_what_the_command_writes(tmp_path: Path) -> None:
    paths_trajectory.write_records(tmp_path)
    shipped = sorted(p for p in paths_trajectory.FOLDER.rglob("*") if p.is_file())
    assert len(shipped) == 12 + 1
    assert sum(path.stat().st_size for path in shipped) <= 100_000
    for path in shipped:
        again = tmp_path / path.relative_to(paths_trajectory.FOLDER)
        if path.suffix == ".png":  # the pixels are fixed, the compression is the library's
            assert np.array_equal(Image.open(path), Image.open(again)), path
        else:
            assert path.read_text() == again.read_text(), path


def test_the_samples_tell_what_their_pictures_show() -> None:
    records = json.loads((paths_trajectory.FOLDER / "maps.json").read_text())
    assert len({record["id"] for record in records}) == 12
    for record in records:
        (image,) = record["image"]
        walked = read_off(np.asarray(Image.open(paths_trajectory.FOLDER / image).convert("RGB")))
        assert paths.is_held_out(walked)
        point = record["problem"].split("location of the ")[1].split()[0]
        number = len(walked) if point == "last" else int(point[0])
        question = Question(map_of(walked), number)
        assert record["solution"] == question.reply
        box = paths.box(walked[number - 1])
        assert record["answer"] == (f"<|object_ref_start|>the {point} point<|object_ref_end|>{box}")


def test_drawing_maps_needs_no_torch() -> None:
    code = (
        "import sys, numpy, interp_lab.zoo.paths_trajectory as t; t.sample_questions()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
