"""Any vision tower: its hidden states are the model's own, its cells those of the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tower_cases import CLIP_PROCESSOR, LLAVA, MORE, SIDE, SMALL, TOWERS, told_apart, tower

from interp_lab.capture.session import watch
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.models.base import INPUT_OF
from interp_lab.models.patches import tower_patches
from interp_lab.models.vision_tower import VisionTower
from interp_lab.store.results import open_results
from interp_lab.studies.clip_similarity.analysis import ClipSimilarity

CPU = torch.device("cpu")
PINPOINTS = {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}


@pytest.fixture(scope="module")
def towers() -> Any:
    made: dict[str, VisionTower] = {}

    def get(name: str) -> VisionTower:
        if name not in made:
            made[name] = tower(name)
        return made[name]

    return get


def sample(picture: Image.Image, name: str = "x") -> Sample:
    return Sample(name, images=(picture,))


def captured(model: VisionTower, samples: list[Sample], layer: int) -> tuple[Any, list[Any]]:
    """The maps that clip_similarity takes, and the token maps."""
    study = ClipSimilarity(layer=layer).for_model(model)
    with torch.inference_mode():
        prepared = model.prepare(samples)
        plans = [study.plans(seen.tokens) for seen in prepared.seen]
        with watch(model, prepared, plans) as capture:
            model.run(prepared)
    return prepared, [row["maps"] for row in capture.rows]


def states(model: VisionTower, inputs: Any, layer: int) -> torch.Tensor:
    """Hidden state `layer` of the tower from hooks of the test's own: (positions, d_model)."""
    kept: list[torch.Tensor] = []
    blocks = model.network.get_submodule(model.hookpoints["hidden.1"].removeprefix(f"{model.path}.")
                                         .rpartition(".")[0])  # fmt: skip
    block = blocks[max(layer - 1, 0)]
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: kept.append((*args, *kwargs.values())[0]), with_kwargs=True
        ),
        block.register_forward_hook(
            lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out)
        ),
    ]
    with torch.inference_mode():
        model.forward(inputs)
    for hook in hooks:
        hook.remove()
    found = kept[0] if layer == 0 else kept[1]
    return found[0] if found.dim() == 3 else found


@pytest.mark.parametrize("name", TOWERS | MORE)
def test_a_cell_is_the_token_of_its_part_of_the_picture(towers: Any, name: str) -> None:
    """Without attention (hidden state 0) one changed cell moves its own tokens and no other."""
    model = towers(name)
    picture = told_apart(4, 4, SIDE // 4)
    [seen] = model.prepare([sample(picture)]).seen
    tokens = seen.tokens
    (rows, cols), *_ = tokens.grids
    roles = [len(tokens.where(role=r)) for r in ("cls", "register", "special", "image")]
    assert roles == [*(TOWERS | MORE)[name][2:], 0, rows * cols]
    at = np.array(tokens.cells(0)).reshape(rows, cols)
    base = states(model, model.prepare([sample(picture)]).inputs, 0)
    for row, col in ((0, 0), (0, 3), (2, 1), (3, 2)):
        changed = np.array(picture)
        changed[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8] ^= 0x80
        now = states(model, model.prepare([sample(Image.fromarray(changed))]).inputs, 0)
        moved = (now - base).abs().amax(-1).numpy()
        one = rows // 4
        own = at[row * one : row * one + one, col * one : col * one + one].ravel()
        others = np.setdiff1d(np.arange(len(moved)), own)
        assert moved[own].min() > 10 * moved[others].max(initial=1e-9), (name, row, col)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("layer", [0, -1])
def test_maps_are_those_of_the_hidden_states_by_hand(towers: Any, name: str, layer: int) -> None:
    """Registers are no cells and no neighbours; CLS is the first token without a pixel."""
    model = towers(name)
    prepared, [maps] = captured(model, [sample(told_apart(4, 4, 8))], layer)
    hidden = states(model, prepared.inputs, layer % 4).double().numpy()
    # Register tokens begin at zero.
    unit = hidden / np.maximum(np.linalg.norm(hidden, axis=-1, keepdims=True), 1e-30)
    if "qwen" in name:  # by the order that is written by hand for these
        inputs = {"image_grid_thw": prepared.inputs["image_grid_thw"]}
        places = [(p.top, p.left) for p in tower_patches(model.module, inputs) if p]
        first, order = 0, sorted(range(len(places)), key=lambda i: places[i])
    else:
        first = sum(TOWERS[name][2:])
        order = list(range(first, len(hidden)))
    side = int(len(order) ** 0.5)
    cells = unit[order].reshape(side, side, -1)
    expected = {
        "horizontal_right": np.einsum("rcd,rcd->rc", cells[:, :-1], cells[:, 1:]),
        "vertical_down": np.einsum("rcd,rcd->rc", cells[:-1], cells[1:]),
    }
    if first:
        expected["cls_similarity"] = cells @ unit[0]
    assert set(maps) == set(expected)
    for kind, value in expected.items():
        np.testing.assert_allclose(maps[kind].numpy(), value, atol=2e-6)


@pytest.mark.parametrize("name", ["clip", "siglip2", "vit", "dinov2_with_registers", "dinov3"])
def test_hidden_states_are_numbered_as_the_model_does(towers: Any, name: str) -> None:
    model = towers(name)
    inputs = model.prepare([sample(told_apart(4, 4, 8))]).inputs
    with torch.inference_mode():
        given = model.module(**inputs, output_hidden_states=True).hidden_states
    assert len(given) == model.n_layers + 1 == len(model.hookpoints)
    for layer, expected in enumerate(given):
        torch.testing.assert_close(
            states(model, inputs, layer), expected[0], atol=0, rtol=0, msg=f"{name} {layer}"
        )


@pytest.mark.parametrize("name", ["siglip2", "qwen2_5_vl", "qwen3_vl", "dinov3"])
def test_pictures_of_two_shapes_in_a_batch_are_those_one_by_one(towers: Any, name: str) -> None:
    model = towers(name)
    samples = [sample(told_apart(4, 4, 8), "a"), sample(told_apart(4, 8, 8), "b")]
    prepared, together = captured(model, samples, -1)
    alone = [captured(model, [one], -1)[1][0] for one in samples]
    for a, b in zip(together, alone, strict=True):
        for kind, value in b.items():
            torch.testing.assert_close(a[kind], value, atol=1e-5, rtol=0)
    grids = [seen.tokens.grids[0] for seen in prepared.seen]
    assert model.one_grid == (grids[0] == grids[1]) == (name == "dinov3")


def test_towers_without_a_module_of_their_own_for_the_first_state_are_watched_at_its_input(
    towers: Any,
) -> None:
    assert towers("qwen3_vl").hookpoints["hidden.0"] == f"model.visual.blocks.0{INPUT_OF}"
    assert towers("llava").hookpoints["hidden.0"] == "model.vision_tower.pre_layrnorm"


def test_what_a_larger_model_does_not_run_takes_no_memory(towers: Any) -> None:
    model = towers("llava")
    assert next(model.module.model.language_model.parameters()).is_meta
    assert not any(p.is_meta for p in model.network.parameters())


def test_a_map_in_half_precision_is_that_in_full(towers: Any) -> None:
    architecture, processor, _, _ = TOWERS["dinov2_with_registers"]
    half = VisionTower(
        "none", CPU, dtype="bfloat16", init="random", architecture=architecture, processor=processor
    )
    maps = [
        m.prepare([sample(told_apart(4, 4, 8))]).seen[0].tokens
        for m in (half, towers("dinov2_with_registers"))
    ]
    assert maps[0] == maps[1]


def test_a_checkpoint_on_disk_gives_the_same_numbers(tmp_path: Path, towers: Any) -> None:
    model = towers("dinov3")
    model.module.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    loaded = VisionTower(str(tmp_path), CPU)
    [(_, [a]), (_, [b])] = (captured(m, [sample(told_apart(4, 4, 8))], -1) for m in (model, loaded))
    assert all(torch.equal(a[kind], b[kind]) for kind in a)


def test_a_tower_whose_tokens_are_no_grid_is_refused() -> None:
    """A masked autoencoder leaves three quarters of the patches out, in an order of its own."""
    masked = SMALL | {"model_type": "vit_mae", "image_size": 64}
    with pytest.raises(UnsupportedModelError, match="not the cells of one grid|do not keep"):
        VisionTower(
            "none",
            CPU,
            init="random",
            architecture=masked,
            processor={
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": 64, "width": 64},
            },
        )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"processor": None}, ConfigError, "image_processor_type"),
        ({"architecture": {"model_type": "no_such"}}, ConfigError, "model_type='no_such'"),
        ({"tower": "nowhere"}, ConfigError, "model.tower=nowhere"),
        (
            {"processor": CLIP_PROCESSOR | {"crop_size": {"height": 16, "width": 16}}},
            UnsupportedModelError,
            r"gives \(1, 3, 16, 16\), with which the tower does not run",
        ),
        (
            {"architecture": {"model_type": "resnet"}},
            UnsupportedModelError,
            "0 lists of layers that attend",
        ),
        (
            {
                "architecture": {
                    "model_type": "swin",
                    "image_size": SIDE,
                    "patch_size": 4,
                    "embed_dim": 16,
                    "depths": [1, 1],
                    "num_heads": [2, 2],
                    "window_size": 4,
                }
            },
            UnsupportedModelError,
            "reads 64 tokens, and the last writes 16",
        ),
        (
            {
                "architecture": LLAVA | {"model_type": "llava_next", **PINPOINTS},
                "processor": CLIP_PROCESSOR
                | {"image_processor_type": "LlavaNextImageProcessor", **PINPOINTS},
            },
            UnsupportedModelError,
            "cut into parts",
        ),
        ({"architecture": {"model_type": "clip", "vision_config": 3}}, ConfigError, "no conf"),
    ],
)
def test_what_cannot_be_is_one_line(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    architecture, processor, _, _ = TOWERS["clip"]
    values = {"init": "random", "architecture": architecture, "processor": processor} | changes
    with pytest.raises(error, match=message) as raised:
        VisionTower("none", CPU, **values)
    assert "\n" not in str(raised.value)


def test_a_wrong_map_is_caught_by_the_check(towers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that are one off at the last layer: the tower rolls its tokens on the way."""
    model = tower("vit")
    block = model.network.layers[1]
    block.register_forward_hook(
        lambda _, __, out: torch.cat([out[:, :1], out[:, 1:].roll(1, dims=1)], 1)
    )
    model._places.clear()
    with pytest.raises(UnsupportedModelError, match="do not keep their places"):
        model.prepare([sample(told_apart(4, 4, 8))])


def test_patch_sizes_that_leave_a_rest_are_told_by_what_is_seen() -> None:
    """36 pixels in patches of 8: the last 4 reach no token, and 79 % of the area is seen."""
    architecture = TOWERS["dinov2"][0] | {"image_size": 36}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"height": 36, "width": 36},
        "do_center_crop": False,
    }
    model = VisionTower("none", CPU, init="random", architecture=architecture, processor=processor)
    [seen] = model.prepare([sample(told_apart(4, 4, 9))]).seen
    assert seen.shares[0] == pytest.approx((32 / 36) ** 2, abs=0.02)


def test_a_run_over_pictures_of_several_shapes(command: Any, tmp_path: Path, towers: Any) -> None:
    """Maps of their own sizes: pooled values, no mean maps, and files that say both sides."""
    model = towers("siglip2")
    for part in (model.module, model.processor):
        part.save_pretrained(tmp_path / "tower")
    (tmp_path / "pictures").mkdir()
    for cols in (4, 6):
        told_apart(4, cols, 16).save(tmp_path / "pictures" / f"{cols}.png")
    said = command(
        "task=clip_similarity",
        "model=vision_tower",
        f"model.checkpoint={tmp_path}/tower",
        "dataset=images",
        f"dataset.path={tmp_path}/pictures",
        "device=cpu",
        "~visualization.figures",
        "capture.live_check=false",
    )
    assert said.code == 0 and "no maps over all pictures" in said.out + said.err
    [path] = (tmp_path / "outputs").rglob("results.h5")
    with open_results(path) as results:
        shapes = [results.read("horizontal_right", n).shape for n in ("4.png", "6.png")]
        assert shapes == [(4, 3), (3, 4)] and results.fields["horizontal_right"].ragged
        names = [field for field in results.aggregates if "horizontal" in field]
        assert names == ["histogram_horizontal_right"]
    [square, wide] = sorted(path.parent.rglob("similarities.npz"))
    assert np.load(square)["grid_size"] == 4
    assert np.load(wide)["grid_size"].tolist() == [3, 5] and np.load(wide)["num_patches"] == 15
