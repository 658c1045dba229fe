"""scienceqa's maps over the picture: same scores, the asked cell in a figure."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from interp_lab.capture.session import watch
from interp_lab.config.composing import composed_here
from interp_lab.config.nodes import build, conf_dir, run_id
from interp_lab.datasets.base import Sample
from interp_lab.libraries.hydra_inside import composed
from interp_lab.models import family
from interp_lab.models.base import Seen
from interp_lab.models.family import LanguageFamily
from interp_lab.store.results import Results, open_results
from interp_lab.studies.scienceqa.analysis import HeadsOfModel, ScienceQAHeads
from interp_lab.studies.scienceqa.cells import BY_CELL
from interp_lab.studies.scienceqa.figures.on_image import HeadStyle, head_on_image
from interp_lab.visualization.base import NothingToDrawError
from interp_lab.zoo.boards import CELL_NAMES

TRUTH = Path("interp_lab/zoo/data/scienceqa/layout_a/truth.json")


def of(definition: Any, maps: int = 1) -> HeadsOfModel:
    """What measures tiny_llava and keeps the map of the first sample."""
    return HeadsOfModel(ScienceQAHeads(definition, maps=maps), lambda letter: 0, (4, 4))


@pytest.fixture(scope="module")
def boards() -> tuple[Any, list[Seen], torch.Tensor, Any]:
    """tiny_llava with two shipped boards, and its own eager pattern (row, layer, head, q, k)."""
    cfg = composed_here(["task=scienceqa", "device=cpu"])
    model, dataset = build(cfg, "model", device=torch.device("cpu"), seed=0), build(cfg, "dataset")
    samples = [dataset.load(i) for i in range(2)]
    prepared = model.prepare(samples)
    kernel = model.module.config._attn_implementation
    model.module.set_attn_implementation("eager")
    with torch.no_grad():
        out = model.module(**prepared.inputs, output_attentions=True, use_cache=False)
    model.module.set_attn_implementation(kernel)
    return model, list(prepared.seen), torch.stack(out.attentions, 1), prepared


@pytest.mark.parametrize("definition", BY_CELL)
def test_maps_leave_the_scores_what_they_are_to_the_last_bit(boards: Any, definition: Any) -> None:
    model, seen, pattern, prepared = boards
    found = []
    for place in (0, 1):
        study = of(definition).at(place)
        plans = [study.plans(one.tokens) for one in seen]
        with watch(model, prepared, plans, [(), ()]) as capture, torch.no_grad():
            model.forward(prepared.inputs)
        found.append([study._numbers(s.tokens, c) for s, c in zip(seen, capture.rows, strict=True)])
    for row, (mapped, plain) in enumerate(zip(*found, strict=True)):
        assert np.array_equal(mapped[0], plain[0])
        tokens = seen[row].tokens
        image = list(tokens.where(modality="image"))
        text = list(tokens.others(image))
        a = pattern[row, :, :, -len(tokens) :, -len(tokens) :].numpy()
        after = [q for q in text if q > image[-1]]
        want = {
            "max_text_to_image": a[:, :, text][..., image].max(2),
            "last_token_image_mass": a[:, :, -1][..., image],
            "text_to_image_mean": a[:, :, after][..., image].mean(2),
            "image_to_text_mean": a[:, :, image][..., text].sum(-1),
        }[definition]
        assert np.abs(mapped[1] - want).max() < 1e-5


def test_the_figure_s_drawn_numbers_point_at_the_asked_cell(command, tmp_path: Path) -> None:
    """The card: a head has the asked cell as its maximum; here the winner of the first layer."""
    said = command("task=scienceqa", "dataset.max_samples=5", "analysis.maps=4")
    assert said.code == 0, said.err
    path = Path(said.out.strip().splitlines()[-1].removeprefix("results: "))
    drawn = sorted(p.parent.name for p in path.parent.glob("figures/*/head_on_image.png"))
    truth = json.loads(TRUTH.read_text())
    style = HeadStyle(overlay_alpha=0.7)
    with open_results(path) as results:
        assert len(drawn) == 4 and len(results) == 5
        for sample in results.sample_ids[:4]:
            figure = head_on_image(results, style, sample)
            panel = next(a for a in figure.axes if a.get_title(loc="left").startswith("layer 0,"))
            cells = np.asarray(panel.get_images()[-1].get_array())
            assert CELL_NAMES[cells.argmax()] == truth[sample]["cell"]
            score = results.read("scores", sample).max(1)
            assert f"score {score[0]:.3g}" in panel.get_title(loc="left")
            assert np.float32(cells.max()) == score[0]
            words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
            assert f"in cell {truth[sample]['cell']}?" in words
            assert f"right answer: {truth[sample]['answer']}" in words
        chosen_layers_and_head(results)
        with pytest.raises(NothingToDrawError, match="holds no field 'winner_maps'"):
            head_on_image(results, style, results.sample_ids[4])


def chosen_layers_and_head(results: Results) -> None:
    sample = results.sample_ids[0]
    winning = results.read("max_head_per_layer", sample)

    def titles(**asked: Any) -> list[str]:
        axes = head_on_image(results, HeadStyle(**asked), sample).axes
        lines = (a.get_title(loc="left").partition("\n")[0] for a in axes)
        return [line for line in lines if line.startswith("layer")]

    assert titles(layer=2) == [f"layer 2, head {winning[2]}"]
    assert titles(layer=[3, 1]) == [f"layer {n}, head {winning[n]}" for n in (1, 3)]
    head = int(winning[0])
    with_it = [f"layer {n}, head {head}" for n in range(4) if winning[n] == head]
    assert titles(head=head) == with_it
    other = next(h for h in range(4) if h not in winning)
    for asked, says in (({"head": other}, "select.head"), ({"layer": 9}, "layers 0 to 3")):
        with pytest.raises(NothingToDrawError, match=says):
            titles(**asked)


def test_of_a_picture_that_is_cropped_the_middle_is_seen() -> None:
    """A square of the height is a quarter of this width; padded to a square, all is there."""
    wide = Sample("a", images=(Image.new("RGB", (160, 40)),))
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    for handler, share in (
        (CLIPImageProcessor(**size), 0.25),
        (CLIPImageProcessor(**size, do_center_crop=False), 1.0),
        (LlavaImageProcessor(**size, do_pad=True), 1.0),
    ):
        model: Any = SimpleNamespace(processor=SimpleNamespace(image_processor=handler))
        assert LanguageFamily.shares(model, wide) == pytest.approx((share,))


def test_a_text_has_no_map_and_a_wide_picture_says_what_was_seen(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "share_seen", lambda handler, width, height: height / width)
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    wide = Image.fromarray(np.full((40, 160, 3), 200, np.uint8))
    wide.save(folder / "images" / "wide.png")
    ask = "What color is the shape in cell a1?\nA. red\nB. blue\nC. green"
    turns = [{"from": "human", "value": ask}, {"from": "gpt", "value": "A"}]
    with_image = [{"from": "human", "value": f"<image>\n{ask}"}, turns[1]]
    records = [
        {"id": "text", "conversations": turns},
        {"id": "wide", "image": "wide.png", "conversations": with_image},
    ]
    (folder / "q.json").write_text(json.dumps(records))
    said = command(
        "task=scienceqa",
        f"dataset.question_file={folder}/q.json",
        f"dataset.image_folder={folder}/images",
        "dataset.text_only=include",
        "capture.live_check=false",
    )
    assert said.code == 0, said.err
    path = Path(said.out.strip().splitlines()[-1].removeprefix("results: "))
    assert [p.parent.name for p in path.parent.glob("figures/*/head_on_image.png")] == ["wide"]
    with open_results(path) as results:
        assert not results.holds("winner_maps", "text")
        assert results.read("seen_share", "wide") == pytest.approx(0.25)
        figure = head_on_image(results, HeadStyle(), "wide")
    assert any("The model saw 25% of the picture" in text.get_text() for text in figure.texts)


def test_how_many_maps_are_kept_makes_no_other_run() -> None:
    kept, few = (
        run_id(composed(conf_dir(), ["task=scienceqa", *more]))
        for more in ([], ["analysis.maps=3"])
    )
    assert kept == few
