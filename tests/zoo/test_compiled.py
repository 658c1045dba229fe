"""Compiled models: what a truth file says of each head and route is what cutting them does.

Counts are exact: of 200 boards every answer is right, or every answer is the guess.
"""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from interp_lab.config.nodes import conf_dir
from interp_lab.datasets.base import Sample
from interp_lab.models.llava import Llava
from interp_lab.store.results import open_results
from interp_lab.zoo import boards, weights_path
from interp_lab.zoo.compiled import qwen_vl
from interp_lab.zoo.compiled.claims import claimed
from interp_lab.zoo.compiled.heads import Copy, Head, Product, slow_dimensions, write_head
from interp_lab.zoo.compiled.llava import build_model, build_untrained
from interp_lab.zoo.compiled.make import MODELS
from interp_lab.zoo.compiled.measure import (
    Asked,
    ClaimError,
    asked,
    blind,
    closed,
    measured_head,
    patterns,
    without,
    written,
)
from interp_lab.zoo.compiled.scores import held_against
from interp_lab.zoo.compiled.stream import Stream
from interp_lab.zoo.compiled.truth import HeadTruth, Truth, read_truth, write_truth
from interp_lab.zoo.tiny_llava.checks import answers, painted
from interp_lab.zoo.tiny_llava.make import load
from interp_lab.zoo.tiny_llava.model import instructed
from interp_lab.zoo.training import MAX_WEIGHT_BYTES

HOME, MOVED, QWEN = MODELS
USED = ("pointer", "twin_a", "twin_b", "binder", "diffuse", "relay", "choice")
PLANTED = (*USED, "decoy", "late_decoy", "image_sink")
ROUTES = 5


@cache
def shipped(name: str) -> Any:
    """A shipped model in float32."""
    return load(weights_path(name))[0]


@cache
def truth(name: str = HOME) -> Truth:
    return read_truth(name)


@cache
def boards_200() -> Asked:
    """The boards that the truth was measured on."""
    return asked()


def place(part: str, name: str = HOME) -> tuple[int, int]:
    return truth(name).named(part).place


def stays(said: np.ndarray, to: Asked) -> bool:
    """Whether every answer is right; that not every right one is the guess is given."""
    return (said == to.letters).all()


def fails(said: np.ndarray) -> bool:
    """Whether every answer is the guess."""
    return (said == "A").all()


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_weights_are_what_is_made(name: str) -> None:
    module, layout = MODELS[name]
    made = {k: v.half() for k, v in module.build_model(layout).state_dict().items()}
    found = type(module.build_model()).from_pretrained(weights_path(name), dtype=torch.float16)
    found = found.state_dict()
    assert made.keys() == found.keys()
    assert all(torch.equal(made[key], found[key]) for key in made)
    assert (weights_path(name) / "model.safetensors").stat().st_size <= MAX_WEIGHT_BYTES
    assert (weights_path(name) / "CARD.md").is_file()


@pytest.mark.parametrize("name", [HOME, QWEN])
def test_the_untrained_network_of_the_yaml_is_the_same_network(name: str) -> None:
    node = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    config = MODELS[name][0].build_config()
    assert type(config)(**node["architecture"]).to_dict() == config.to_dict()
    assert isinstance(build_untrained(0), LlavaForConditionalGeneration)


def test_the_boards_tell_the_guess_from_the_right_answer() -> None:
    to = boards_200()
    assert len(to) == truth().boards == 200
    counts = Counter(to.letters.tolist())
    assert counts["A"] == truth().guessed
    assert all(40 <= counts[letter] <= 90 for letter in boards.LETTERS)


def test_all_answers_are_right() -> None:
    assert stays(written(shipped(HOME), boards_200()), boards_200())
    assert [truth(name).right for name in MODELS] == [200] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_answers_are_right_in_half_precision(dtype: torch.dtype) -> None:
    to = boards_200().part(range(60))
    assert stays(written(build_model().to(dtype), to), to)


@pytest.mark.parametrize("part", PLANTED)
def test_each_answer_flips_or_stays_without_a_head_as_the_truth_says(part: str) -> None:
    head, to = truth().named(part), boards_200()
    said = written(shipped(HOME), to, without([head.place]))
    assert fails(said) if head.needed else stays(said, to)
    assert head.right_without == (truth().guessed if head.needed else 200)
    assert head.needed == (part in USED and not part.startswith("twin"))


def test_hiding_the_image_from_a_head_that_reads_it_is_as_cutting_it() -> None:
    to, heads = boards_200(), [place("pointer"), place("diffuse")]
    cuts = [blind([heads[i % 2]], to.roles()) for i in range(len(to))]
    assert fails(written(shipped(HOME), to, cuts=cuts))
    for part in ("pointer", "diffuse"):
        assert truth().named(part).right_blind == truth().guessed


def test_hiding_the_image_from_all_that_need_no_image_changes_no_answer() -> None:
    to, seeing = boards_200().part(range(40)), [place(p) for p in ("pointer", "diffuse", "twin_a")]
    others = {head.place for head in truth().heads} - set(seeing)
    assert stays(written(shipped(HOME), to, blind(others, to.roles())), to)
    assert {h.right_blind for h in truth().heads if h.place in others} == {200}


def test_of_the_redundant_heads_either_suffices_and_both_are_needed() -> None:
    to, twins = boards_200(), {place("twin_a"), place("twin_b")}
    assert truth().redundant_sets() == {frozenset(twins)}
    assert fails(written(shipped(HOME), to, without(twins)))
    everything = {head.place for head in truth().heads}
    used = {place(part) for part in USED}
    assert truth().places("used") == used
    some = to.part(range(50))
    for left_out in sorted(twins):
        cut = everything - used | {left_out}
        assert stays(written(shipped(HOME), some, without(cut)), some)


def test_moved_parts_are_found_where_they_were_moved_to() -> None:
    to, heads = boards_200(), [truth(MOVED).named(part) for part in PLANTED]
    rows = [heads[i % len(heads)] for i in range(len(to))]
    said = written(shipped(MOVED), to, cuts=[without([head.place]) for head in rows])
    expected = [
        "A" if head.needed else letter for head, letter in zip(rows, to.letters, strict=True)
    ]
    assert said.tolist() == expected
    assert not truth(MOVED).places("used") & truth().places("used")
    assert fails(written(shipped(MOVED), to, without(truth(MOVED).redundant_sets().pop())))


def test_no_two_planted_heads_are_redundant_unless_the_truth_says_so() -> None:
    pairs = list(combinations([place(part) for part in PLANTED], 2))
    telling = np.flatnonzero(boards_200().letters != "A")
    rows = boards_200().part(telling[: 2 * len(pairs)])
    tried = (pairs * 2)[: len(rows)]
    assert len(tried) > len(pairs)
    said = written(shipped(HOME), rows, cuts=[without(pair) for pair in tried])
    flips = [truth().fails_without(pair) for pair in tried]
    assert said.tolist() == np.where(flips, "A", rows.letters).tolist()
    assert sum(truth().fails_without(pair) for pair in pairs) == 36  # 10 with a needed head, 1 not


@pytest.mark.parametrize("number", range(ROUTES))
def test_a_route_closed_in_its_layers_ends_every_answer_and_in_others_none(number: int) -> None:
    route, to = truth().routes[number], boards_200().part(range(25))
    others = [n for n in range(6) if n not in route.layers]
    assert fails(written(shipped(HOME), to, closed(route, route.layers, to.roles())))
    assert stays(written(shipped(HOME), to, closed(route, others, to.roles())), to)
    for layer in set(route.layers) - set(route.needed):
        assert stays(written(shipped(HOME), to, closed(route, [layer], to.roles())), to)
    assert (route.right_without, route.right_alone) == (truth().guessed, 200)


def test_the_roles_are_those_of_the_token_map() -> None:
    to = boards_200().part([0])
    text = boards.layout_a_text(int(to.questions.cells[0]), to.questions.options[0])
    options = {
        letter: boards.COLOURS[c]
        for letter, c in zip(boards.LETTERS, to.questions.options[0], strict=True)
    }
    parts = (("image", 0), ("text", instructed(text)))
    facts = {"options": options}
    sample = Sample("one", parts, tuple(painted(to.boards)), answer="A", facts=facts)
    model = Llava("zoo:compiled_llava", torch.device("cpu"))
    tokens = model.prepare([sample]).seen[0].tokens
    for role, found in to.roles().items():
        assert tuple(tokens.where(role=role)) == found


def test_patterns_are_as_the_truth_says() -> None:
    to = boards_200().part(range(40))
    seen = patterns(shipped(HOME), to)
    image = to.roles()["image"]
    last = seen[:, :, :, -1]
    layer, head = place("diffuse")
    assert last[:, layer, head][:, image].sub(1 / 16).abs().max() < 0.002
    layer, head = next(h.place for h in truth().heads if h.part == "even")
    assert last[:, layer, head].sub(1 / len(to.words)).abs().max() < 1e-5
    name = to.words.index("cell") + 1
    looks = [
        seen[i, n, h, name, image[0] + int(to.questions.cells[i])]
        for i in range(len(to))
        for n, h in (place("pointer"), place("decoy"))
    ]
    assert min(looks) > 0.9
    # The decoy looks hardest on some boards, the pointer on others.
    harder = np.array(looks).reshape(-1, 2)
    assert 0 < (harder[:, 0] > harder[:, 1]).mean() < 1


def test_an_untrained_network_knows_nothing() -> None:
    to = boards_200().part(range(100))
    assert (written(build_untrained(0), to) == to.letters).mean() < 0.6


def test_the_other_layout_of_questions_is_answered_too_and_the_turn_ends() -> None:
    to = boards_200().part(range(24))
    pairs = zip(to.questions.cells.tolist(), to.questions.options, strict=True)
    texts = [boards.layout_b_text(cell, options) for cell, options in pairs]
    model, processor = load(weights_path(HOME))
    said = answers(model, processor, texts, painted(to.boards))
    assert said.tolist() == to.letters.tolist()


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("twin_a", {"needed": True}),
        ("decoy", {"needed": True}),
        ("relay", {"needed": False}),
        ("relay", {"looks_at_image": True}),
        ("late_decoy", {"looks_at": "first"}),
    ],
)
def test_a_false_claim_is_not_written(part: str, wrong: dict[str, Any]) -> None:
    to = boards_200().part(range(12))
    head = replace(truth().named(part), **wrong)
    with pytest.raises(ClaimError, match=part):
        measured_head(shipped(HOME), truth(), head, to, patterns(shipped(HOME), to))


@pytest.mark.parametrize("name", MODELS)
def test_the_file_says_what_the_mechanism_claims_and_was_measured(name: str) -> None:
    found = truth(name)
    bare = replace(
        found,
        **{"boards": -1, "right": -1, "guessed": -1},
        heads=tuple(replace(h, right_without=-1, right_blind=-1, mass=-1.0) for h in found.heads),
        routes=tuple(replace(r, right_without=-1, right_alone=-1) for r in found.routes),
    )
    assert bare == claimed(name, MODELS[name][1])
    assert [h.place for h in found.heads] == [(i, j) for i in range(6) for j in range(8)]
    assert min(h.mass for h in found.heads) >= 0.9
    for head in found.heads:
        assert head.right_without == (found.guessed if head.needed else 200)
        blinded = head.needed and head.looks_at_image
        assert head.right_blind == (found.guessed if blinded else 200)
    assert len(found.routes) == ROUTES


def test_a_truth_is_read_as_it_was_written_and_another_schema_is_refused(tmp_path: Path) -> None:
    path = write_truth(truth(), tmp_path)
    assert read_truth(tmp_path) == truth()
    values = json.loads(path.read_text()) | {"schema": "compiled_truth/0"}
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="compiled_truth/0.*is for compiled_truth/1"):
        read_truth(tmp_path)
    with pytest.raises(ValueError, match="no zoo model"):
        read_truth("compiled_lava")
    with pytest.raises(KeyError, match="heads are called 'even'"):
        truth().named("even")


def test_what_fails_follows_from_needed_and_redundant_heads() -> None:
    def row(head: int, **facts: Any) -> HeadTruth:
        return HeadTruth(0, head, f"h{head}", "last", "first", False, **facts)

    heads = (
        row(0, used=True, needed=True),
        row(1, used=True, needed=False, redundant_with=((0, 2),)),
        row(2, used=True, needed=False, redundant_with=((0, 1),)),
        row(3, used=False, needed=False),
    )
    made = Truth("m", "home", 1, 1, "A", 0, heads, ())
    cuts = {(): False, (0,): True, (1,): False, (2, 3): False, (1, 2): True, (3,): False}
    for cut, expected in cuts.items():
        assert made.fails_without([(0, h) for h in cut]) is expected


def test_scores_of_heads_are_held_against_the_truth() -> None:
    facts = ({"used": True, "looks_at_image": True}, {"decoy": True}, {"used": True}, {})
    heads = tuple(
        replace(HeadTruth(i // 2, i % 2, "h", "last", "first", False, False, False), **given)
        for i, given in enumerate(facts)
    )
    made = Truth("m", "home", 1, 1, "A", 0, heads, ())
    found = held_against(made, np.array([[0.5, 0.9], [0.2, 0.2]]))
    # Used 0.5 and 0.2 against 0.9 and 0.2: lost, won, lost, tied; the reader 0.5: lost, won, won.
    assert found.auroc == pytest.approx(1.5 / 4)
    assert found.auroc_readers == pytest.approx(2 / 3)
    assert (found.used_found, found.decoys_accepted, found.sinks_accepted) == (1, 1, 0)
    with pytest.raises(ValueError, match=r"of shape \(2, 2\), got \(2, 3\)"):
        held_against(made, np.zeros((2, 3)))


def test_a_head_that_does_not_fit_is_refused() -> None:
    assert slow_dimensions(16, 1e8) == [7, 15, 6, 14, 5, 13, 4, 12, 3, 11]
    weights = tuple(torch.zeros(shape) for shape in ((16, 8), (16, 8), (16, 8), (8, 16)))
    product = Product({0: 1.0}, {1: 1.0}, 4.0)
    write_head(weights, 0, Head((product,), (Copy({2: 1.0}, {3: 5.0}),)), 1e8, 1)
    query, key, value, output = weights
    # 4 logits after scaling by 1 / sqrt(16)
    assert (query[7, 0] * key[7, 1]).item() == pytest.approx(16.0)
    assert (output @ value)[3, 2].item() == 5.0
    with pytest.raises(ValueError, match="11 products for 10"):
        write_head(weights, 0, Head((product,) * 11), 1e8, 1)
    with pytest.raises(ValueError, match="need 9 dimensions, the stream has 8"):
        Stream({"a": 4, "b": 5}, 8)
    with pytest.raises(IndexError, match="a has 4 items"):
        Stream({"a": 4}, 8).at("a", 4)


def test_the_normal_command_runs_on_it(command: Any) -> None:
    """Winners by pattern: the decoys and the image's sink take the place of what is used."""
    given = ("~visualization.figures", "output.exports=false", "batch_size=4")
    said = command("experiment=compiled_truth", *given, "dataset.max_samples=4")
    assert said.code == 0, said.err
    with open_results(Path(said.out.strip().splitlines()[-1].removeprefix("results: "))) as found:
        names = found.sample_ids
        assert [int(found.read("correct", name)) for name in names] == [1] * 4
        winners = np.array([found.read("max_head_per_layer", name) for name in names])
        scores = np.mean([found.read("scores", name) for name in names], axis=0)
    assert (winners[:, 1] == place("image_sink")[1]).all()
    against = held_against(truth(), scores)
    assert (against.decoys_accepted, against.redundant_missed) == (2, 0)


def test_the_same_parts_do_the_same_in_another_family() -> None:
    processor = qwen_vl.build_processor()
    to = asked(120, 1, processor, qwen_vl.vocabulary(), processor.image_token)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(weights_path(QWEN), dtype="float32")
    rows = [truth(QWEN).named(part) for part in PLANTED] * 12
    said = written(model, to, cuts=[without([head.place]) for head in rows])
    flips = [head.needed for head in rows]
    assert said.tolist() == np.where(flips, "A", to.letters).tolist()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        some = to.part(range(20))
        assert stays(written(model.to(dtype), some), some)


def test_the_asked_cell_in_another_options_colour_changes_the_answer_to_that() -> None:
    to = boards_200().part(range(40))
    cells, new = to.questions.cells, (to.questions.right + 1) % 3
    colours = to.questions.options[np.arange(40), new]
    changed = boards.recoloured(to.boards, cells, colours)
    texts = [
        boards.layout_a_text(int(c), o) for c, o in zip(cells, to.questions.options, strict=True)
    ]
    pictures: list[Image.Image] = painted(changed)
    said = answers(*load(weights_path(HOME)), texts, pictures)
    assert said.tolist() == [boards.LETTERS[i] for i in new]
