"""ScienceQA files: both layouts, what is chosen, and each way in which a record can be damaged."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp_lab.config.nodes import PACKAGE, build
from interp_lab.datasets.scienceqa import INSTRUCTION, ScienceQA
from interp_lab.errors import ConfigError, InterpLabError, MissingInputError, SampleError

Record = dict[str, Any]
Make = Callable[..., ScienceQA]
DATA = PACKAGE / "zoo" / "data" / "scienceqa"


def mcq(name: object, answer: str = "B", **changes: Any) -> Record:
    """A record of the layout with options as lines."""
    question = "<image>\nWhat is shown?\nA. a cat\nB. a dog"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": "1/image.png", "conversations": turns, **changes}


def text_only(name: object) -> Record:
    """A record of the other layout without a picture."""
    question = "What is it?\nContext: A dog.\nOptions: (A) a cat (B) a dog"
    answer = "LECTURE: Vitamin C.\nThe answer is B."
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes records and a picture, and opens them."""

    def write(records: Any, **options: Any) -> ScienceQA:
        folder = tmp_path / "images"
        (folder / "1").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 2), "red").save(folder / "1" / "image.png")
        Image.new("RGB", (4, 2), "blue").save(tmp_path / "outside.png")
        file = tmp_path / "questions.json"
        text = records if isinstance(records, str) else json.dumps(records)
        file.write_text(text, encoding="utf-8")
        return ScienceQA(str(file), **{"image_folder": str(folder), **options})

    return write


def test_the_layout_with_lines(make: Make) -> None:
    sample = make([mcq("11")]).load(0)
    question = "What is shown?\nA. a cat\nB. a dog"
    assert sample.parts == (("image", 0), ("text", f"{question}\n{INSTRUCTION}"))
    assert (sample.id, sample.answer) == ("11", "B")
    assert sample.images[0].getpixel((0, 0)) == (255, 0, 0)
    assert sample.facts == {
        "image_file": "1/image.png",
        "options": {"A": "a cat", "B": "a dog"},
        "layout": "mcq",
        "conv_mode": "vicuna_v1",
        "question": question,
    }


def test_the_layout_with_an_options_line_and_a_long_answer(make: Make) -> None:
    record = text_only("7") | {"image": "1/image.png"}
    record["conversations"][0]["value"] += "\n<image>"
    sample = make([record], conv_mode="chat_template", instruction="Letter:").load(0)
    question = "What is it?\nContext: A dog.\nOptions: (A) a cat (B) a dog"
    assert sample.parts == (("image", 0), ("text", f"{question}\nLetter:"))
    assert sample.answer == "B"
    assert sample.facts["options"] == {"A": "a cat", "B": "a dog"}
    assert sample.facts["layout"] == "qcm_lea"
    assert sample.facts["conv_mode"] == "chat_template"


def test_an_instruction_that_is_there_is_not_said_twice(make: Make) -> None:
    record = mcq("1")
    record["conversations"][0]["value"] += f"\n{INSTRUCTION}"
    (_, (_, text)) = make([record]).load(0).parts
    assert text.count(INSTRUCTION) == 1


def test_text_only_records_are_skipped_and_counted_or_measured(make: Make) -> None:
    records = [text_only("1"), mcq("2"), text_only("3") | {"image": None}, mcq("4")]
    skipping = make(records, max_samples=2)
    assert (skipping.ids(), skipping.skipped_text_only) == (["2", "4"], 2)
    both = make(records, text_only="include")
    assert (both.ids(), both.skipped_text_only) == (["1", "2", "3", "4"], 0)
    sample = both.load(0)
    assert [kind for kind, _ in sample.parts] == ["text"]
    assert (sample.images, sample.answer, sample.facts["image_file"]) == ((), "B", "")


def test_text_only_records_alone_need_no_folder_but_have_to_be_asked_for(make: Make) -> None:
    with pytest.raises(
        ConfigError, match=r"all 2 records are without a picture; give dataset.text"
    ):
        make([text_only("1"), text_only("2")])
    dataset = make([text_only("1")], text_only="include", image_folder=None)
    assert dataset.load(0).answer == "B"
    with pytest.raises(ConfigError, match="image_folder is not given: 1 of 2 records"):
        make([mcq("1"), text_only("2")], text_only="include", image_folder=None)


def test_order_and_subset_by_id(make: Make) -> None:
    records = [mcq(name) for name in ("10", "b", "9", "a", 2)]
    assert make(records).ids() == ["10", "b", "9", "a", "2"]
    assert make(records, order="id").ids() == ["2", "9", "10", "a", "b"]
    assert make(records, ids=[2, "b"]).ids() == ["b", "2"]
    assert make(records, ids=["2", "10", "9"], order="id", max_samples=2).ids() == ["2", "9"]
    with pytest.raises(ConfigError, match=r"dataset.ids: no record '11' in .*Did you mean '10'"):
        make(records, ids=["9", "11"])
    with pytest.raises(ConfigError, match=r"dataset.ids: is empty"):
        make(records, ids=[])


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ('[{"id": "1"},', MissingInputError, "not JSON"),
        ('{"id": "1"}\n{"id": "2"}', MissingInputError, "not JSON"),
        ("", MissingInputError, "not JSON"),
        ("[" * 100_000, MissingInputError, "not JSON"),
        ("[" + "9" * 5000 + "]", MissingInputError, "not JSON"),
        ('{"id": "1"}', ConfigError, "holds an object, not a list"),
        ("3", ConfigError, "holds 3, not a list"),
        ("[]", ConfigError, "is empty"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_one_line(
    make: Make, text: str, kind: type[InterpLabError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        make(text)
    assert str(caught.value).startswith("dataset.question_file=")
    assert "\n" not in str(caught.value)


def test_other_mistakes_of_the_configuration_are_one_line(make: Make, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"dataset.question_file=.*no such file"):
        ScienceQA(str(tmp_path / "none.json"))
    with pytest.raises(MissingInputError, match=r"dataset.question_file=.*cannot read it"):
        ScienceQA(str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(MissingInputError, match="not UTF-8"):
        ScienceQA(str(tmp_path / "latin.json"))
    with pytest.raises(MissingInputError, match=r"dataset.image_folder=.*no such"):
        make([mcq("1")], image_folder=str(tmp_path / "none"))
    with pytest.raises(MissingInputError, match=r"dataset.image_folder=.*not a folder"):
        make([mcq("1")], image_folder=str(tmp_path / "outside.png"))
    with pytest.raises(ConfigError, match="max_samples=0"):
        make([mcq("1")], max_samples=0)


TURNS = mcq("x")["conversations"]
HUMAN, ANSWER = TURNS


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("no object", "not an object"),
        ({k: v for k, v in mcq("x").items() if k != "id"}, "missing id: record 1 "),
        (mcq(None), "missing id"),
        (mcq(True), "missing id"),
        (mcq(" "), "missing id"),
        (mcq("a\0b"), "missing id"),
        (mcq("\ud800"), "missing id"),
        (mcq("x", image="../outside.png"), "lies outside dataset.image_folder"),
        (mcq("x", image="1/../../outside.png"), "lies outside dataset.image_folder"),
        (mcq("x", image="/etc/hostname"), "lies outside dataset.image_folder"),
        (mcq("x", image=""), "should be the path of a picture"),
        (mcq("x", image=["1/image.png"]), "should be the path of a picture"),
        (mcq("x", image="1/\0.png"), "should be the path of a picture"),
        (mcq("x", image=None), "should be the path of a picture"),  # its question says <image>
        (mcq("x", image="2/image.png"), "2/image.png: no such file"),
        (mcq("x", image="1"), "no regular file"),
        (mcq("x", conversations=None), "conversations: should be a list"),
        (mcq("x", conversations=[HUMAN]), "conversations: should be a list"),
        (mcq("x", conversations=["Hello", ANSWER]), "turn from 'human'"),
        (mcq("x", conversations=[HUMAN, HUMAN]), "turn from 'gpt'"),
        (mcq("x", conversations=[HUMAN, {"from": "gpt", "value": 1}]), "has no text"),
        (mcq("x", conversations=[HUMAN, {"from": "gpt", "value": "\ud800"}]), "has no text"),
        (mcq("x", conversations=[{"from": "human", "value": "<image>"}, ANSWER]), "is empty"),
        (mcq("x", "a dog, I think"), "no letter in the answer 'a dog, I think'"),
        (mcq("x", "C"), "answer 'C' is none of the options A, B"),
    ],
)
def test_a_damaged_record_fails_alone(make: Make, record: Any, says: str) -> None:
    dataset = make([mcq("1"), record, mcq("2")])
    assert len(set(dataset.ids())) == 3
    assert [dataset.load(0).id, dataset.load(2).id] == ["1", "2"]
    with pytest.raises(SampleError, match=says):
        dataset.load(1)


def test_ids_that_are_missing_or_double_get_names_that_stay(make: Make) -> None:
    records = [mcq("5"), mcq(5), mcq(None), mcq("record 2"), mcq("5")]
    dataset = make(records)
    names = ["5", "5 (duplicate, record 1)", "record 2'", "record 2", "5 (duplicate, record 4)"]
    assert dataset.ids() == names
    assert make(records[:3]).ids() == [*names[:2], "record 2"]
    assert [dataset.load(i).id for i in (0, 3)] == ["5", "record 2"]
    for index in (1, 4):
        with pytest.raises(SampleError, match="duplicate id '5'"):
            dataset.load(index)


def test_a_long_question_is_the_models_business(make: Make) -> None:
    record = mcq("1")
    record["conversations"][0]["value"] = "<image>\n" + "word " * 10_000 + "\nA. x\nB. y"
    assert len(make([record]).load(0).parts[1][1]) > 50_000


@pytest.mark.parametrize(
    ("layout", "file", "images", "n", "skipped"),
    [
        ("layout_a", "questions.json", "images", 60, 0),
        ("layout_b", "llava_test_QCM-LEA.json", "images/test", 15, 5),
    ],
)
def test_the_embedded_files_load_as_their_truth_says(
    layout: str, file: str, images: str, n: int, skipped: int
) -> None:
    folder = DATA / layout
    dataset = ScienceQA(str(folder / file), str(folder / images))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert (len(dataset.ids()), dataset.skipped_text_only) == (n, skipped)
    for index, name in enumerate(dataset.ids()):
        sample = dataset.load(index)
        colour = truth[name]["colours"][truth[name]["cell_index"]]
        assert sample.answer == truth[name]["answer"]
        assert sample.facts["options"][sample.answer] == colour
        assert sample.images[0].mode == "RGB"


def test_the_configurations_compose(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from interp_lab.config.nodes import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        tiny = compose("config", overrides=["dataset=scienceqa_tiny", "dataset.ids=[2,11]"])
        own = compose("config", overrides=["dataset=scienceqa"])
    assert build(tiny, "dataset").ids() == ["2", "11"]
    with pytest.raises(ConfigError, match=r"dataset.question_file has no value yet"):
        build(own, "dataset")


def problem(**changes: Any) -> Record:
    """A problem of the data set's own layout."""
    values = {
        "question": "What is shown?",
        "choices": ["a cat", "a dog"],
        "answer": 1,
        "hint": "",
        "image": "image.png",
        "split": "test",
    }
    return values | changes


def test_the_data_sets_own_layout_loads(make: Make, tmp_path: Path) -> None:
    problems = {"1": problem(), "2": problem(image=None, split="train", hint="Dogs bark.")}
    data = make(problems, text_only="include")
    assert list(data.ids()) == ["1", "2"]
    one, two = data.load(0), data.load(1)
    assert (one.answer, one.facts["options"]) == ("B", {"A": "a cat", "B": "a dog"})
    assert one.images[0].size == (4, 2) and two.images == ()
    assert two.facts["question"].startswith("What is shown?\nContext: Dogs bark.\nOptions: (A) a")
    assert list(make(problems, split="test").ids()) == ["1"]
    (tmp_path / "pid_splits.json").write_text(json.dumps({"minitest": ["2"], "gone": ["9"]}))
    assert list(make(problems, split="minitest", text_only="include").ids()) == ["2"]
    with pytest.raises(ConfigError, match="dataset.split=gone: 1 of its problems, such as '9'"):
        make(problems, split="gone")
    with pytest.raises(ConfigError, match="dataset.split=tset: unknown"):
        make(problems, split="tset")
    with pytest.raises(ConfigError, match="only a problems.json has splits"):
        make([mcq(1)], split="test")


def test_pictures_of_problems_may_lie_in_folders_of_splits(make: Make, tmp_path: Path) -> None:
    data = make({"1": problem()})
    (tmp_path / "images" / "test").mkdir()
    (tmp_path / "images" / "1").rename(tmp_path / "images" / "test" / "1")
    assert data.load(0).images[0].size == (4, 2)
    assert data.made_of(0).files == (tmp_path / "images" / "test" / "1" / "image.png",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answer": 2}, "answer=2: there are 2 choices"),
        ({"answer": "B"}, "should be the place of the right choice"),
        ({"choices": [1]}, "should be a list of texts"),
        ({"question": None}, "question=None: should be a text"),
        ({"image": 3}, "should be the name of a picture"),
    ],
)
def test_a_damaged_problem_fails_alone(make: Make, changes: Record, says: str) -> None:
    data = make({"1": problem(), "2": problem(**changes)}, text_only="include")
    assert data.load(0).id == "1"
    with pytest.raises(SampleError, match=says):
        data.load(1)


def test_the_picture_mark_within_a_question_is_text(make: Make) -> None:
    record = mcq(1)
    record["conversations"][0]["value"] = "<image>\nWhat does <image> mean in HTML?\nA. x\nB. y"
    sample = make([record]).load(0)
    assert sample.facts["question"] == "What does <image> mean in HTML?\nA. x\nB. y"
    record["conversations"][0]["value"] = "What is it?\n<image>"
    assert make([record]).load(0).facts["question"] == "What is it?"


@pytest.mark.parametrize("form", ["NFC", "NFD", "half"])
def test_a_picture_is_found_however_its_name_is_composed(
    make: Make, tmp_path: Path, form: str
) -> None:
    half = "e\u0301t\u00e9"
    name = half if form == "half" else unicodedata.normalize(form, half)
    data = make([mcq(1, image="1/\u00e9te\u0301.png")])
    Image.new("RGB", (3, 3)).save(tmp_path / "images" / "1" / f"{name}.PNG")
    assert data.load(0).images[0].size == (3, 3)
