"""Records in every shape that the format has, and in those that it should not have."""

import json
from pathlib import Path

import pytest
from PIL import Image

from interp_lab.datasets.points import parse_point
from interp_lab.datasets.trajectory import TrajectoryFile
from interp_lab.errors import ConfigError, MissingInputError, SampleError


def written(folder: Path, records: object) -> str:
    for i, size in enumerate([(40, 30), (20, 50), (1, 1), (10_000, 50)]):
        Image.new("RGB", size, (10 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "data.json").write_text(json.dumps(records), encoding="utf-8")
    return str(folder / "data.json")


def record(**changes: object) -> dict[str, object]:
    values = {
        "id": "a.png",
        "image": ["./0.png"],
        "problem": "where?",
        "answer": "<|box_start|>(225,843),(226,844)<|box_end|>",
    }
    return {k: v for k, v in (values | changes).items() if v is not None}


def test_every_published_shape_loads(tmp_path: Path) -> None:
    shapes = [
        record(),
        record(id="b", image="0.png", answer=[500, 250], solution="<answer>x</answer>"),
        record(id="c", image=["0.png", "1.png"], answer=None, solution="<answer>[1, 2]</answer>"),
        record(id=7, answer="no place"),
        record(id="e", answer=None),
    ]
    data = TrajectoryFile(written(tmp_path, shapes), instruction="Think.")
    assert data.ids() == ["a.png", "b", "c", "7", "e"]
    samples = [data.load(i) for i in range(5)]
    points = [s.facts["reference_points"][0] for s in samples]
    assert points == [(0.225, 0.843), (0.5, 0.25), (0.001, 0.002), None, None]
    assert samples[2].facts["reference_points"] == ((0.001, 0.002),) * 2
    assert samples[2].parts == (("image", 0), ("image", 1), ("text", "where?\nThink."))
    assert [s.size for s in samples[2].images] == [(40, 30), (20, 50)]
    assert samples[1].answer == "[500, 250]" and samples[4].answer is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "missing id"),
        ({"problem": ""}, "problem='': should be a text"),
        ({"problem": 3}, "problem=3: should be a text"),
        ({"image": []}, "the list of pictures is empty"),
        ({"image": 5}, "should be a path or a list of paths"),
        ({"image": None}, "should be a path or a list of paths"),
        ({"image": "gone.png"}, "gone.png: no such file"),
        ({"image": "data.json"}, "not a picture"),
        ({"image": "3.png"}, "10000x50 pixels is more than 100 times"),
        ({"image": ["0.png"] * 3}, "3 pictures, dataset.max_images=2 allows 2"),
    ],
)
def test_a_damaged_record_is_one_failed_sample(tmp_path: Path, changes, message) -> None:
    data = TrajectoryFile(written(tmp_path, [record(id="good"), record(**changes)]))
    assert data.load(0).id == "good"
    with pytest.raises(SampleError, match=message):
        data.load(1)


def test_records_are_chosen_by_place_and_id(tmp_path: Path) -> None:
    file = written(tmp_path, [record(id=f"s{i}") for i in range(5)])
    assert TrajectoryFile(file, sample_idx=2).ids() == ["s2"]
    assert TrajectoryFile(file, sample_idx=[-1, 0, 4]).ids() == ["s4", "s0"]
    assert TrajectoryFile(file, ids=["s3", "s1"], sample_idx=1).ids() == ["s3"]
    assert TrajectoryFile(file, max_samples=2).ids() == ["s0", "s1"]
    with pytest.raises(ConfigError, match="dataset.sample_idx=5: there are 5 records, 0 to 4"):
        TrajectoryFile(file, sample_idx=5)
    with pytest.raises(ConfigError, match="no record 's9' in the file"):
        TrajectoryFile(file, ids=["s9"])


def test_files_that_are_no_list_of_records(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset.data_file=.*holds an object, not a list"):
        TrajectoryFile(written(tmp_path, {"id": 1}))
    with pytest.raises(MissingInputError, match=r"dataset.data_file=.*not JSON"):
        Path(tmp_path / "data.json").write_text("{")
        TrajectoryFile(str(tmp_path / "data.json"))
    with pytest.raises(MissingInputError, match="dataset.image_dir"):
        TrajectoryFile(written(tmp_path, [record()]), image_dir=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("answer", "point"),
    [
        ("<|box_start|>(225,843),(226,844)<|box_end|>", (0.225, 0.843)),
        ("(1,2),(3,4) then (500, 600),(700,800)", (0.5, 0.6)),
        ("[225, 843]", (0.225, 0.843)),
        ([0, 1000], (0.0, 1.0)),
        ("<think>(1,2)</think><answer>(3, 4)</answer>", (0.003, 0.004)),
        ("<think>it is at (1,2), no (3,", None),  # cut off before it answered
        ("(2000,1)", None),
        (["a", "b"], None),
        ([1, 2, 3], None),
        # A list of points is its last, in every notation.
        ("(1,2),(3,4),(500,600)", (0.5, 0.6)),
        ("[1,2],[500,600]", (0.5, 0.6)),
        ("[[1,2],[500,600]]", (0.5, 0.6)),
        ([[1, 2], [500, 600]], (0.5, 0.6)),
        ("[(1, 2), (500, 600)]", (0.5, 0.6)),
        ("[(1, 2), (3, 4), (500, 600)]", (0.5, 0.6)),
        ('{"bbox_2d": [100, 200, 300, 400]}', (0.1, 0.2)),
        ('{"point_2d": [100, 200]}', (0.1, 0.2)),
        ([100, 200, 300, 400], (0.1, 0.2)),
        ([], None),
        ([True, False], None),
        ([10**400, 1], None),
        ("nothing", None),
        (None, None),
    ],
)
def test_points_of_answers(answer, point) -> None:
    assert parse_point(answer) == point


@pytest.mark.parametrize(
    ("answer", "coordinates", "point"),
    [
        ("(320,320)", "pixels", (0.5, 320 / 480)),
        ("(640,480)", "pixels", (1.0, 1.0)),
        ("(641,1)", "pixels", None),
        ("(320,320)", "thousandths", (0.32, 0.32)),
        ("[0.25, .5]", "shares", (0.25, 0.5)),
        ("[2, 3]", "shares", None),
    ],
)
def test_coordinates_have_a_unit_that_is_given(answer, coordinates, point) -> None:
    assert parse_point(answer, coordinates, (640, 480)) == point


def test_a_data_sets_pixels_are_those_of_each_picture(tmp_path: Path) -> None:
    file = written(tmp_path, [record(image=["0.png", "1.png"], answer=[10, 15])])
    sample = TrajectoryFile(file, coordinates="pixels").load(0)
    assert sample.facts["reference_points"] == ((0.25, 0.5), (0.5, 0.3))


PUBLISHED = {
    "reason_rft": " Output the thinking process in <think> </think> and final answer in <answer> "
    "</answer> tags.",
    "vlmlocpredictor": "  Output the thinking process in <think> </think> and final answer in "
    "<answer> </answer> tags.",
}
# As in the published files: line breaks around it, special tokens in it.
PROBLEM = "\n\n  Based on <|object_ref_start|>the 13th point<|object_ref_end|> {x} \n"


@pytest.mark.parametrize("prompt", PUBLISHED)
def test_a_published_prompt_is_asked_character_by_character(tmp_path: Path, prompt: str) -> None:
    file = written(tmp_path, [record(problem=PROBLEM)])
    data = TrajectoryFile(file, prompt=prompt)
    sample = data.load(0)
    assert sample.parts == (("image", 0), ("text", PROBLEM + PUBLISHED[prompt]))
    assert data.prompts == {prompt: "{problem}" + PUBLISHED[prompt]}
    with pytest.raises(ConfigError, match=r"dataset.instruction='Think.': dataset.prompt=.*null"):
        TrajectoryFile(file, prompt=prompt, instruction="Think.")


def test_own_prompts_keep_every_blank(tmp_path: Path) -> None:
    file = written(tmp_path, [record(problem=PROBLEM)])
    own = TrajectoryFile(file, prompt=" Q: {problem}\n ", instruction=None)
    assert own.load(0).parts[1] == ("text", f" Q: {PROBLEM}\n ")
    assert own.prompts == {"own": " Q: {problem}\n "}
    ours = TrajectoryFile(file, instruction=" Think. \n")
    assert ours.load(0).parts[1] == ("text", f"{PROBLEM.strip()}\n Think. \n")
    assert TrajectoryFile(file, instruction="").prompts == {"product": "{problem}"}
    assert TrajectoryFile(file, instruction=None).load(0) == TrajectoryFile(file).load(0)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("reason-rft", "product, reason_rft, vlmlocpredictor, or a text .* Did you mean 'reason"),
        ("", "or a text that holds {problem} once"),
        ("{problem} and {problem}", "or a text that holds {problem} once"),
    ],
)
def test_a_prompt_that_is_none(tmp_path: Path, prompt: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"dataset.prompt={prompt!r}: give .*{says}"):
        TrajectoryFile(written(tmp_path, [record()]), prompt=prompt)
