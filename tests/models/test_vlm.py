"""Image-text-to-text models that have no module of their own: studies, places, refusals.

What the placing says is held against pictures that are changed cell by cell, with the towers as
they are: no code is shared with the measurement or with the spot check.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import vlm_families as families
from PIL import Image

from interp_lab.capture.session import watch
from interp_lab.datasets.base import Sample
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.llava import Llava
from interp_lab.models.patches import box_seen
from interp_lab.models.placing.checking import cell_boxes, check_map
from interp_lab.models.placing.grids import grids_of
from interp_lab.models.placing.local import position_wise
from interp_lab.models.placing.spots import spot_check
from interp_lab.models.qwen_vl import QwenVL
from interp_lab.models.vlm import VisionLanguageModel
from interp_lab.studies.scienceqa.analysis import ScienceQAHeads
from interp_lab.studies.trajectory.analysis import Trajectory
from interp_lab.tokens import TokenMap, View

# The installed transformers' own forward of Llama 4 fails, whatever it is given; Janus writes in a
# way of its own.
RUNS = [f for f in families.PLACED if f not in (families.llama4, families.janus)]
SIZE = (112, 84)
WORDS = "Which is it?\nA. red\nB. blue"


class EnoughError(Exception):
    """Ends a forward."""


def name(family: Any) -> str:
    return family.__name__


@lru_cache(maxsize=32)
def model(family: Any) -> families.Made:
    return families.make(family)


def question(image: bool = True, size: tuple[int, int] = SIZE, text: str = WORDS) -> Sample:
    parts = ((("image", 0),) if image else ()) + (("text", text),)
    facts = {"options": {"A": "red", "B": "blue"}}
    pictures = (families.colours(*size),) if image else ()
    return Sample(text[:5], parts, pictures, answer="A", facts=facts)


def eager_attention(made: families.Made, inputs: dict[str, Any]) -> np.ndarray:
    """The model's own eager pattern of one row, (layer, head, query, key)."""
    made.module.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = made.module(**inputs, output_attentions=True).attentions
    finally:
        made.module.set_attn_implementation("sdpa")
    return torch.stack([a[0] for a in found if a is not None]).float().numpy()


def handed_over(made: families.Made, picture: Image.Image, sample: Sample) -> np.ndarray:
    """What the decoder is given at the image tokens, (token, width); the towers as they are."""
    prompt = made.render(sample)[0]
    batch = made.processed([prompt], [Sample("s", sample.parts, (picture,))])
    seen: list[Any] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["inputs_embeds"][0])
        raise EnoughError

    handle = made.module.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
    tensors = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    with torch.no_grad(), pytest.raises(EnoughError):
        made.module(**tensors)
    handle.remove()
    ids = batch["input_ids"][0]
    return seen[0][ids == made.module.config.image_token_id].numpy()


@pytest.mark.parametrize("family", RUNS, ids=name)
def test_captured_of_both_studies_is_eager_attention(family: Any) -> None:
    made, sample = model(family), question()
    prepared = made.prepare([sample])
    seen = prepared.seen[0]
    image = list(seen.tokens.where(modality="image"))
    text = list(seen.tokens.others(image))
    expected = eager_attention(made, prepared.inputs)
    heads = ScienceQAHeads().for_model(made).at(0)
    walk = Trajectory(layers="all", heads="all").for_model(made)
    plans = {**heads.plans(seen.tokens), **walk.plans(seen.tokens)}
    with torch.inference_mode(), watch(made, prepared, [plans]) as capture:
        answers = made.run(prepared)
    values = heads.update(sample, seen, capture.rows[0], {"plain": answers[0]})
    score = expected[:, :, text][..., image].max((-1, -2))
    np.testing.assert_allclose(values["scores"], score, atol=1e-6)
    steps = walk.update(sample, seen, capture.rows[0], {"plain": answers[0]})
    np.testing.assert_allclose(
        steps["rows"][:, :, 0, : len(seen.tokens)], expected[:, :, -1], atol=1e-6
    )
    share = expected[:, :, -1][..., image].sum(-1).mean(1)
    np.testing.assert_allclose(steps["share_image"][:, 0], share, atol=1e-6)
    shown, view = seen.tokens.view_of(0) or (0, View(0))
    assert values["winner_maps"].shape[1:] == seen.tokens.grids[shown]
    assert values["picture"].shape == seen.pictures[shown].shape
    assert view.picture == 0 and len(seen.pictures) == len(seen.tokens.grids)
    assert TokenMap.from_json(seen.tokens.to_json()) == seen.tokens


@pytest.mark.parametrize("family", families.PLACED, ids=name)
def test_every_image_token_follows_its_own_cell_and_no_other(family: Any) -> None:
    """Cells whose number has a bit are inverted, bit by bit, and then those without it.

    A token changes more with the cells that its own is among, so its changes spell its cell.
    """
    made, sample = model(family), question()
    tokens = made.prepare([sample]).seen[0].tokens
    boxes = cell_boxes(tokens, tokens.views)
    own = [tokens.tokens[at] for at in tokens.where(modality="image")]
    base = handed_over(made, sample.images[0], sample)
    pixels = np.asarray(sample.images[0])
    for image in range(len(tokens.grids)):
        at = np.array([i for i, t in enumerate(own) if t.image == image])
        spelt = np.zeros(len(at), int)
        for bit in range(max(1, (len(at) - 1).bit_length())):
            changes = []
            for value in (0, 1):
                data = pixels.copy()
                for number, box in enumerate(boxes[at]):
                    if number >> bit & 1 == value:
                        edges = np.round(box.clip(0, 1) * [*SIZE, *SIZE]).astype(int)
                        left, top, right, bottom = edges
                        data[top:bottom, left:right] = 255 - data[top:bottom, left:right]
                moved = handed_over(made, Image.fromarray(data), sample) - base
                changes.append(np.linalg.norm(moved, axis=-1)[at])
            spelt += (changes[1] > changes[0]).astype(int) << bit
        assert (spelt == np.arange(len(at))).all(), (image, tokens.views[image])


@pytest.mark.parametrize("family", RUNS, ids=name)
def test_a_batch_is_its_samples(family: Any) -> None:
    """Rows of a batch, with pictures or without, answer and are mapped as alone: 1e-5 of logits."""
    made = model(family)
    samples = [question(), question(size=(84, 120))]
    if family is not families.paligemma:  # its processor takes no prompt without a picture
        samples.insert(1, question(text="Hello", image=False))
    together = made.prepare(samples)
    answers = made.run(together)
    for row, sample in enumerate(samples):
        alone = made.prepare([sample])
        assert alone.seen[0].tokens == together.seen[row].tokens
        torch.testing.assert_close(
            made.run(alone)[0].first_logits, answers[row].first_logits, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("family", families.REFUSED, ids=name)
def test_what_puts_no_patches_into_its_prompt_is_refused_in_one_line(family: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"cannot be placed; take a model") as told:
        families.make(family)
    assert "\n" not in str(told.value)


def test_a_model_that_writes_in_its_own_way_is_refused_in_one_line() -> None:
    made = model(families.janus)
    with pytest.raises(UnsupportedModelError, match=r"its own generate does not call") as told:
        made.run(made.prepare([question()]))
    assert "\n" not in str(told.value)


def test_mixing_tokens_have_no_cell_and_shares_of_the_image_hold() -> None:
    made, sample = model(families.idefics2), question()
    assert "4 of 4 image tokens are each made of most of the picture" in made.notes[-1]
    prepared = made.prepare([sample])
    seen = prepared.seen[0]
    assert seen.tokens.grids == () and seen.pictures == ()
    assert {t.label for t in seen.tokens if t.role == "image"} == {"mixing"}
    expected = eager_attention(made, prepared.inputs)[:, :, -1]
    heads, walk = ScienceQAHeads().for_model(made).at(0), Trajectory("all").for_model(made)
    plans = {**heads.plans(seen.tokens), **walk.plans(seen.tokens)}
    with torch.inference_mode(), watch(made, prepared, [plans]) as capture:
        answers = made.run(prepared)
    steps = walk.update(sample, seen, capture.rows[0], {"plain": answers[0]})
    share = expected[..., list(seen.tokens.where(modality="image"))].sum(-1).mean(1)
    np.testing.assert_allclose(steps["share_image"][:, 0], share, atol=1e-6)
    assert "centre_x" not in steps and "moving_peak" not in steps
    values = heads.update(sample, seen, capture.rows[0], {"plain": answers[0]})
    assert "winner_maps" not in values and values["scores"].max() > 0


# -- planted wrong maps --------------------------------------------------------------------------


def planted(tokens: TokenMap) -> dict[str, np.ndarray]:
    """Boxes of wrong maps of a sample, (token, 4) each."""
    right = cell_boxes(tokens, tokens.views)
    own = [tokens.tokens[at] for at in tokens.where(modality="image")]
    found = {"off by one": np.roll(right, 1, 0)}
    draw = np.random.default_rng(0)
    found["shuffled"] = right[draw.permutation(len(right))]
    rows, cols = tokens.grids[0]
    first = [i for i, t in enumerate(own) if t.image == 0]
    if len(tokens.grids) == 1:
        turned = right.copy()
        turned[first] = right[first].reshape(rows, cols, 4).swapaxes(0, 1).reshape(-1, 4)
        found["transposed"] = turned
        of_window = [(c // 2, r, c) for r in range(rows) for c in range(cols)]
        found["window by window"] = right[[r * cols + c for _, r, c in sorted(of_window)]]
        found["crop forgotten"] = np.array(
            [
                [c / cols, r / rows, (c + 1) / cols, (r + 1) / rows]
                for r in range(rows)
                for c in range(cols)
            ]
        )
    else:
        n = sum(t.image == 1 for t in own)
        found["thumbnail first"] = np.concatenate([right[-n:], right[:-n]])
    return found


@pytest.mark.parametrize(
    ("family", "wrong"),
    [
        (families.llava, ("off by one", "shuffled", "transposed", "crop forgotten")),
        (families.qwen2_5_vl, ("off by one", "shuffled", "transposed", "window by window")),
        (families.internvl, ("off by one", "shuffled", "thumbnail first")),
    ],
    ids=["llava", "qwen2_5_vl", "internvl"],
)
def test_planted_wrong_maps_are_caught_by_both_checks(family: Any, wrong: tuple[str, ...]) -> None:
    made, sample = model(family), question(size=(150, 90))
    tokens = made.prepare([sample]).seen[0].tokens
    prompt = made.render(sample)[0]
    pictures = np.zeros(len(tokens.where(modality="image")), int)

    def process(shown: Any) -> Any:
        return made.processed([prompt], [Sample("s", sample.parts, tuple(shown))])

    assert check_map(made, sample, tokens).bad == ()
    measured = made.placer.places([sample.images[0].size])
    side = measured.boxes[:, 2:] - measured.boxes[:, :2]
    for told in wrong:
        boxes = planted(tokens)[told]
        found = spot_check(made.module, process, [sample.images[0].size], boxes, pictures)
        assert not found.holds, told
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        off = (np.abs(centres - measured.centres) > 0.25 * side).any(1)
        assert off.mean() > 0.2, told


# -- the measurement leaves no trace -------------------------------------------------------------


def state(module: Any) -> tuple[Any, ...]:
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
    names = [c._attn_implementation for m in module.modules() if (c := getattr(m, "config", None))]
    grads = [p.requires_grad or p.grad is not None for p in module.parameters()]
    return hooks, tuple(names), any(grads)


def test_the_model_is_as_before_also_after_an_exception() -> None:
    made = model(families.gemma3)
    before = state(made.module)
    inputs = made.prepare([question()]).inputs
    logits = made.forward(inputs)
    made.placer.places([(91, 77)])
    assert state(made.module) == before
    with pytest.raises(ValueError, match="on purpose"), position_wise(made.module):
        assert state(made.module) != before
        raise ValueError("on purpose")
    assert state(made.module) == before
    assert torch.equal(made.forward(inputs), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_places_alike(dtype: torch.dtype) -> None:
    made = families.make(families.internvl)
    expected = [(g.rows, g.cols, g.tokens) for g in grids_of(made.placer.places([(150, 90)]))]
    half = families.make(families.internvl, dtype=str(dtype).split(".")[1])
    found = grids_of(half.placer.places([(150, 90)]))
    assert [(g.rows, g.cols, g.tokens) for g in found] == expected


def test_places_are_measured_once_for_a_shape_and_asked_once_for_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = families.make(families.gemma3)
    calls: list[Any] = []
    original = made.module.model.vision_tower.forward
    monkeypatch.setattr(
        made.module.model.vision_tower,
        "forward",
        lambda *a, **k: (calls.append(1), original(*a, **k))[1],
    )
    sizes = [(90, 70), (90, 70), (33, 120), (500, 20)]
    boxes = [made.placer.places([size]).boxes for size in sizes]
    assert not calls  # of this shape of input the probe was
    assert boxes[0] is boxes[1]


def test_a_run_in_inference_mode_measures_alike() -> None:
    made = model(families.mistral3)
    expected = made.prepare([question(size=(70, 90))]).seen[0].tokens
    again = families.make(families.mistral3)
    with torch.inference_mode():
        assert again.prepare([question(size=(70, 90))]).seen[0].tokens == expected


def test_old_token_maps_open_and_views_are_stored() -> None:
    old = '{"columns": ["text", "role"], "tokens": [["a", "user"]], "grids": [], "prompt": ""}'
    assert TokenMap.from_json(old).views == ()
    tokens = model(families.internvl).prepare([question(size=(150, 90))]).seen[0].tokens
    assert {view.kind for view in tokens.views} == {"tiles", "thumbnail"}
    assert TokenMap.from_json(tokens.to_json()) == tokens
    rows, cols = tokens.grids[0]
    cells = [tokens.tokens[at].cell for at in tokens.cells(0)]
    assert cells == [(r, c) for r in range(rows) for c in range(cols)]


def test_several_pictures_of_one_sample_are_told_apart() -> None:
    made = model(families.qwen2_5_vl)
    parts = (("image", 0), ("text", "and"), ("image", 1), ("text", "?"))
    images = (families.colours(112, 56), families.colours(56, 112, seed=3))
    tokens = made.prepare([Sample("two", parts, images)]).seen[0].tokens
    assert [v.picture for v in tokens.views] == [0, 1]
    assert tokens.grids == ((2, 4), (4, 2))


# -- families with a map that is written by hand -------------------------------------------------


@pytest.mark.parametrize(("own", "zoo"), [(Llava, "tiny_llava"), (QwenVL, "tiny_qwen_vl")])
def test_a_trained_family_is_measured_as_it_is_written(own: Any, zoo: str) -> None:
    """The same cells and, to the last bit, the same logits as of the family's own module."""
    options = {"device": families.CPU, "dtype": "float32", "max_new_tokens": 4}
    written, measured = own(f"zoo:{zoo}", **options), VisionLanguageModel(f"zoo:{zoo}", **options)
    sample = Sample("s", (("image", 0), ("text", "What is it ?")), (families.colours(64, 48),))
    first, second = (made.prepare([sample]) for made in (written, measured))
    cells = [
        [(t.role, t.image, t.cell) for t in p.seen[0].tokens if t.image == 0]
        for p in (first, second)
    ]
    assert cells[0] == cells[1] and first.seen[0].tokens.grids == second.seen[0].tokens.grids
    assert torch.equal(first.inputs["input_ids"], second.inputs["input_ids"])
    assert torch.equal(written.forward(first.inputs), measured.forward(second.inputs))
    assert measured.notes == []
    assert check_map(written, sample, first.seen[0].tokens).bad == ()


@pytest.mark.parametrize("size", [(150, 90), (60, 140)])
def test_a_padded_picture_lies_in_the_middle_of_its_square(size: tuple[int, int]) -> None:
    from transformers import LlavaImageProcessor

    made, sample = families.make(families.llava), question(size=size)
    handler = LlavaImageProcessor(
        size={"shortest_edge": 56}, crop_size=families.square(), do_pad=True
    )
    made.processor.image_processor = handler
    left, top, right, bottom = box_seen(handler, *size)
    measured = made.prepare([sample]).seen[0].tokens.views
    assert (right - left) * size[0] == pytest.approx(max(size))
    assert (bottom - top) * size[1] == pytest.approx(max(size))
    if len(measured) == 1:  # rows of padding alone are no cells of the measured grid
        assert measured[0].box[0] >= left - 0.02 and measured[0].box[2] <= right + 0.02
