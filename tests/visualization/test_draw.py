"""All figures of a run: names, places, processes, failures; without torch."""

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import yaml
from PIL import Image

from interp_lab.config.nodes import conf_dir
from interp_lab.errors import ConfigError
from interp_lab.store.places import safe_name
from interp_lab.studies.clip_similarity.figures.maps import MapStyle
from interp_lab.visualization.base import FigureError
from interp_lab.visualization.draw import check_figures, draw_all

Write = Callable[..., Path]
STYLE = MapStyle(figsize=(5, 4), dpi=30, workers=0)
COMBINED = {
    "_target_": "interp_lab.studies.clip_similarity.figures.maps.combined",
    "file": "similarity_analysis_combined",
    "per": "sample",
}
CLS = {
    "_target_": "interp_lab.studies.clip_similarity.figures.maps.individual",
    "file": "individual/cls_similarity",
    "per": "sample",
    "field": "cls_similarity",
}
MEANS = {
    "_target_": "interp_lab.studies.clip_similarity.figures.run_maps.mean_maps",
    "file": "mean_similarity_maps",
    "per": "run",
}
FIGURES = {"combined": COMBINED, "cls": CLS, "means": MEANS}


OWN = {"allow_targets": ["known_maps"]}
BLANK = {"_target_": "known_maps.blank", "file": "individual/blank", "per": "sample", **OWN}
BLANK_RUN = {"_target_": "known_maps.blank_run", "file": "of_the_run", "per": "run", **OWN}
INK = {"_target_": "known_maps.fails_on_b", "file": "ink", "per": "sample", **OWN}


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_one_sample_lies_at_the_top_under_the_known_names(
    write_result: Write, tmp_path: Path
) -> None:
    paths = draw_all(write_result(), FIGURES, STYLE, tmp_path / "f")
    assert names(tmp_path / "f") == [
        "individual/cls_similarity.png",
        "similarity_analysis_combined.png",
    ]
    assert {str(p.relative_to(tmp_path / "f")) for p in paths} == set(names(tmp_path / "f"))


def test_a_failed_sample_beside_it_makes_it_several(write_result: Write, tmp_path: Path) -> None:
    draw_all(write_result(failed=["x"]), {"c": BLANK, "m": BLANK_RUN}, STYLE, tmp_path / "f")
    assert names(tmp_path / "f") == ["a_png/individual/blank.png", "of_the_run.png"]


@pytest.mark.parametrize(("limit", "drawn"), [(2, 2), (0, 0), (-1, 3)])
def test_max_samples_limits_the_samples_in_their_order(
    write_result: Write, tmp_path: Path, limit: int, drawn: int
) -> None:
    style = MapStyle(figsize=(5, 4), dpi=30, workers=0, max_samples=limit)
    figures = {"c": BLANK, "m": BLANK_RUN}
    draw_all(write_result(["x/c", "b", "a"]), figures, style, tmp_path / "f")
    expected = [f"{name}/individual/blank.png" for name in (safe_name("x/c"), "b", "a")[:drawn]]
    assert names(tmp_path / "f") == sorted([*expected, "of_the_run.png"])


def test_processes_draw_the_same_pixels(
    write_result: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = write_result(["a", "b"])
    figures = {"ink": INK, "cls": CLS, "means": MEANS}
    before = multiprocessing.get_start_method(allow_none=True), sys.modules["__main__"]
    logged = []
    for workers in (0, 2):
        style = MapStyle(figsize=(5, 4), dpi=30, workers=workers)
        caplog.clear()
        with pytest.raises(FigureError, match="1 of 5 figures could not be drawn"):
            draw_all(result, figures, style, tmp_path / str(workers))
        logged.append(caplog.messages)
    assert logged == [["figure ink of sample 'b': RuntimeError: no ink"]] * 2
    assert (
        names(tmp_path / "0")
        == names(tmp_path / "2")
        == [
            "a/individual/cls_similarity.png",
            "a/ink.png",
            "b/individual/cls_similarity.png",
            "mean_similarity_maps.png",
        ]
    )
    for name in names(tmp_path / "0"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    after = multiprocessing.get_start_method(allow_none=True), sys.modules["__main__"]
    assert after == before


def test_a_script_without_a_guard_is_not_run_again(write_result: Write, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from interp_lab.visualization.draw import draw_all\n"
        "from interp_lab.studies.clip_similarity.figures.maps import MapStyle\n"
        "style = MapStyle(figsize=(5, 4), dpi=30, workers=1)\n"
        f"print(len(draw_all({str(write_result())!r}, { ({'c': CLS})!r}, style, "
        f"{str(tmp_path / 'f')!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["started", "1"]


def test_figures_are_drawn_inside_workers_of_joblib(write_result: Write, tmp_path: Path) -> None:
    result, style = write_result(), MapStyle(figsize=(5, 4), dpi=30, workers=1)
    jobs = (joblib.delayed(draw_all)(result, {"c": BLANK}, style, tmp_path / k) for k in "ab")
    assert [len(paths) for paths in joblib.Parallel(2)(jobs)] == [1, 1]


def test_redrawing_changes_size_and_colours(write_result: Write, tmp_path: Path) -> None:
    result = write_result()
    (first,) = draw_all(result, {"c": COMBINED}, STYLE, tmp_path / "first")
    hot = MapStyle(figsize=(5, 4), dpi=60, cmap="hot", workers=0)
    (second,) = draw_all(result, {"c": COMBINED}, hot, tmp_path / "second")
    assert Image.open(first).size == (150, 120)
    assert Image.open(second).size == (300, 240)
    assert Image.open(second).resize((150, 120)).tobytes() != Image.open(first).tobytes()


@pytest.mark.parametrize("kind", ["pdf", "svg", "jpg"])
def test_other_formats_are_what_they_say(write_result: Write, tmp_path: Path, kind: str) -> None:
    style = MapStyle(figsize=(5, 4), dpi=30, workers=0, format=kind)
    (path,) = draw_all(write_result(), {"c": CLS}, style, tmp_path / "f")
    start = {"pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}[kind]
    assert path.suffix == f".{kind}"
    assert path.read_bytes().startswith(start)


def test_a_file_says_where_it_comes_from(write_result: Write, tmp_path: Path) -> None:
    result = write_result()
    (path,) = draw_all(result, {"c": CLS}, STYLE, tmp_path / "f")
    text = Image.open(path).text
    assert text["Software"].startswith("interp_lab")
    assert str(result) in text["Description"]


def test_an_absent_field_is_left_out_and_said_once(
    write_result: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = write_result(["a", "b"], has_cls=False)
    with caplog.at_level(logging.INFO):
        assert draw_all(result, {"cls": CLS}, STYLE, tmp_path / "f") == []
    lines = [(r.levelname, r.message) for r in caplog.records if "left out" in r.message]
    assert lines == [
        (
            "INFO",
            "figure cls is left out: the result holds no field cls_similarity; it has "
            "horizontal_right, vertical_down",
        )
    ]


def test_a_field_that_nobody_knows_may_be_a_slip_and_is_warned_of(
    write_result: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = CLS | {"field": "cls_similarty"}
    assert draw_all(write_result(), {"mine": node}, STYLE, tmp_path / "f") == []
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "Did you mean 'cls_similarity'" in record.message


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"_target_": "interp_lab.studies.clip_similarity.figures.maps.combind"},
            "has no function 'combind'.*comb",
        ),
        ({"_target_": "interp_lab.no_such.combined"}, "nothing of this kind is there"),
        ({"_target_": "os.system"}, "of Python's own library and was not imported"),
        ({"_target_": "known_maps.blank"}, r"allow_targets=\[known_maps\]"),
        ({"_target_": "combined"}, "give a dotted path"),
        ({"fields_": ["a"]}, r"fields_: combined takes no such option. Did you mean 'fields'"),
        ({"fields": "cls_similarity"}, "fields='cls_similarity': should fit"),
        ({"per": "samples"}, "per='samples': give sample, layer or run. Did you mean 'sample'"),
        ({"per": "run"}, r"with per=run a draw function starts with \(results, style\)"),
        ({"file": "../up"}, "give a name without suffix"),
        ({"enabled": "yes"}, "give true or false"),
    ],
)
def test_mistakes_are_found_before_a_run(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        check_figures({"one": {**COMBINED, **change}})
    assert str(caught.value).startswith("visualization.figures.one")


def test_a_missing_option_and_a_shared_place_are_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"figures\.cls\.field is not given"):
        check_figures({"cls": {k: v for k, v in CLS.items() if k != "field"}})
    with pytest.raises(ConfigError, match=r"figures\.one lies there already"):
        check_figures({"one": COMBINED, "two": COMBINED})


def test_the_configuration_that_ships_is_right() -> None:
    text = (conf_dir() / "visualization" / "clip_similarity.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    figures = node.pop("figures")
    node.pop("needs", None)  # of the study's fields
    for figure in figures.values():
        figure.pop("enabled", None)  # an interpolation
    check_figures(figures)
    assert node.pop("_target_") == "interp_lab.studies.clip_similarity.figures.maps.MapStyle"
    MapStyle(**node)


def test_drawing_needs_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, interp_lab.visualization.draw\n"
        "import interp_lab.studies.clip_similarity.figures.run_maps\n"
        "heavy = {'torch', 'transformers', 'matplotlib.pyplot', 'koreanize_matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
