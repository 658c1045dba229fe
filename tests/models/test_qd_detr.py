"""QD-DETR with gated audio: its parts, its checkpoints, and what it says of a sample.

That its outputs are those of the published code (2e-6 on random weights, 3 gating types, with and
without padding) was measured against that code, which is not part of this repository; the parts of
that comparison that can be written by hand stand here and in test_qd_detr_fusion.py.
"""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qd_detr_cases import SMALL, batch, checkpoint, network, one_row

from interp_lab.datasets.base import Sample
from interp_lab.errors import InterpLabError, MissingInputError, SampleError, UnsupportedModelError
from interp_lab.models.base import GatedModel
from interp_lab.models.moments import Moments
from interp_lab.models.qd_detr.checkpoint import load_network, read_checkpoint
from interp_lab.models.qd_detr.model import QdDetr
from interp_lab.models.qd_detr.network import Architecture, QdDetrNetwork
from interp_lab.models.qd_detr.positions import clip_positions, reference_positions

CPU = torch.device("cpu")
GATES = {"attention": {"hookpoints": ["*.mlp_mha"], "nonlinearity": "tanh"}}


def sample(clips: int = 6, words: int = 4, **facts: Any) -> Sample:
    rng = np.random.default_rng(clips)
    known = {
        "query": "a dog barks loudly",
        "duration": 2.0 * clips,
        "clip_seconds": 2.0,
        "video": rng.normal(size=(clips, SMALL.v_feat_dim)).astype(np.float32),
        "audio": rng.normal(size=(clips, SMALL.a_feat_dim)).astype(np.float32),
        "text": rng.normal(size=(words, SMALL.t_feat_dim)).astype(np.float32),
        "windows": np.array([[2.0, 6.0]], np.float32),
    }
    return Sample(f"s{clips}", (("text", known["query"]),), facts={**known, **facts})


def test_names_and_shapes_are_those_of_a_published_checkpoint() -> None:
    listed = Path(__file__).with_name("qd_detr_state_dict.txt").read_text().splitlines()
    expected = {}
    for line in listed:
        if not line.startswith("#"):
            name, shape = line.split(" ", 1)
            expected[name] = tuple(int(n) for n in shape.strip("(), ").replace(",", " ").split())
    published = Architecture(512, 2818, 2050, "global", fusion_layers=3)
    state = QdDetrNetwork(published).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == expected


def test_positions_are_sines_of_clip_and_reference() -> None:
    made = clip_positions(torch.tensor([[1.0, 1, 1, 0]]), 8)[0]
    for clip in range(3):
        angle = (clip + 1) / (3 + 1e-6) * 2 * math.pi
        for pair in range(4):
            value = angle / 10_000 ** (2 * pair / 8)
            assert made[clip, 2 * pair] == pytest.approx(math.sin(value), abs=1e-6)
            assert made[clip, 2 * pair + 1] == pytest.approx(math.cos(value), abs=1e-6)
    centre, width = reference_positions(torch.tensor([0.25, 0.5]), 8).split(4)
    assert centre.tolist() == pytest.approx([1, 0, *_pair(math.pi / 2 / 100)], abs=1e-6)
    assert width.tolist() == pytest.approx([0, -1, *_pair(math.pi / 100)], abs=1e-6)


def _pair(angle: float) -> list[float]:
    return [math.sin(angle), math.cos(angle)]


@pytest.mark.parametrize("gating_type", ["global", "clipwise", "elementwise", "paper"])
def test_a_prediction_does_not_depend_on_its_batch(gating_type: str) -> None:
    made = network(gating_type, use_txt_pos=True)
    inputs = batch([(9, 6), (5, 6), (7, 3)], 9, 6)
    together = made(**inputs)
    for row in range(3):
        alone = made(**one_row(inputs, row))
        for name in ("pred_logits", "pred_spans", "saliency_scores"):
            there = together[name][row : row + 1][:, : alone[name].shape[1]]
            assert (alone[name] - there).abs().max() < 1e-5


def test_every_input_and_every_weight_that_predicts_counts() -> None:
    made = network().train().requires_grad_(True)
    outputs = made(**batch([(9, 6), (5, 6)], 9, 6))
    outputs_sum = sum(outputs[k].sum() for k in ("pred_logits", "pred_spans", "saliency_scores"))
    (outputs_sum + outputs["saliency_scores_neg"].sum()).backward()
    idle = {n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    # Word positions are off; the first layer's queries are all zero before its attention; a bias
    # that all keys share changes no softmax.
    assert {n for n in idle if not n.endswith("bias")} <= {
        n for n, _ in made.named_parameters() if n.startswith("txt_position_embed")
    } | {f"transformer.decoder.layers.0.sa_{x}content_proj.weight" for x in "qk"} | {
        "transformer.decoder.layers.0.sa_v_proj.weight",
        "transformer.decoder.ref_anchor_head.layers.0.weight",
    }


def test_a_checkpoint_of_the_origin_loads_whole(tmp_path: Path) -> None:
    made = network("clipwise", n_input_proj=3, contrastive_align_loss=True)
    path = checkpoint(tmp_path / "model_best.ckpt", made)
    loaded = QdDetr(str(path), CPU, gates=GATES, audio_gates=["attention"])
    assert isinstance(loaded, GatedModel)
    assert loaded.module.architecture == made.architecture
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value)
    assert loaded.notes == []
    inputs = batch([(9, 6)], 9, 6)
    assert torch.equal(loaded.module(**inputs)["pred_spans"], made(**inputs)["pred_spans"])


def test_the_gating_type_comes_from_the_configuration_where_the_checkpoint_lacks_it(
    tmp_path: Path,
) -> None:
    path = str(checkpoint(tmp_path / "old.ckpt", network("clipwise"), gating_type=None))
    with pytest.raises(UnsupportedModelError, match=r"give model\.gating_type=global or"):
        QdDetr(path, CPU)
    assert QdDetr(path, CPU, gating_type="clipwise").module.architecture.gating_type == "clipwise"
    with pytest.raises(UnsupportedModelError, match="weights are those of global or clipwise"):
        QdDetr(path, CPU, gating_type="elementwise")
    path = str(checkpoint(tmp_path / "wide.ckpt", network("elementwise"), gating_type=None))
    assert QdDetr(path, CPU).module.architecture.gating_type == "elementwise"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gating_type": "clipwise"}, "gating_type is global, the YAML says clipwise"),
        ({"architecture": {"nheads": 8}}, "nheads is 4, the YAML says 8"),
        ({"architecture": {"n_heads": 8}}, "no n_heads in a QD-DETR"),
    ],
)
def test_a_configuration_that_says_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = str(checkpoint(tmp_path / "a.ckpt", network()))
    with pytest.raises(UnsupportedModelError, match=says):
        QdDetr(path, CPU, **change)


class RunsCode:
    """A class whose unpickling runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def damaged(path: Path, kind: str) -> Path:
    """A checkpoint with one thing wrong."""
    made = network()
    checkpoint(path, made)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path
    with torch.serialization.safe_globals([]):
        content = torch.load(path, weights_only=False)
    weights = content["model"]
    if kind == "foreign class":
        content["opt"] = RunsCode()
    elif kind == "missing key":
        del weights["module.query_embed.weight"], weights["module.transformer.decoder.norm.bias"]
    elif kind == "unknown key":
        weights["module.umt_fusion.weight"] = torch.zeros(2)
    elif kind == "wrong shape":
        weights["module.saliency_proj2.weight"] = torch.zeros(3, 16)
    elif kind == "not finite":
        weights["module.span_embed.layers.0.weight"][0, 0] = float("nan")
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("cut off", ["is cut off"]),
        ("foreign class", ["brings the class", "system", "whose code would run"]),
        ("missing key", ["2 missing", "transformer.decoder.norm.bias", "query_embed.weight"]),
        ("unknown key", ["1 unknown", "umt_fusion.weight"]),
        ("wrong shape", ["1 of another shape", "saliency_proj2.weight (3, 16) for (16, 16)"]),
        ("not finite", ["1 not finite", "span_embed.layers.0.weight"]),
    ],
)
def test_a_damaged_checkpoint_is_one_line_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = damaged(tmp_path / "bad.ckpt", kind)
    with pytest.raises(InterpLabError) as error:
        QdDetr(str(path), CPU)
    assert "\n" not in str(error.value)
    for words in [str(path), *says]:
        assert words in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model_best.ckpt", network())
    with pytest.raises(MissingInputError, match="model_best.ckpt"):
        QdDetr(str(tmp_path / "model_bst.ckpt"), CPU)


def test_an_encoder_that_was_never_trained_is_said(tmp_path: Path) -> None:
    made = network()
    for module in made.transformer.encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.reset_parameters()
    loaded = QdDetr(str(checkpoint(tmp_path / "a.ckpt", made)), CPU)
    assert "its video encoder was never trained" in loaded.notes[0]


def test_moments_are_sorted_seconds_with_the_published_loss(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", network())
    model = QdDetr(str(path), CPU)
    samples = [sample(6), sample(9, windows=None, duration=17.5), sample(4, words=6)]
    prepared = model.prepare(samples)
    first, second, third = model.run(prepared)
    assert isinstance(first, Moments)
    assert second.loss is None and first.loss is not None and third.loss is not None
    assert [len(m.saliency) for m in (first, second, third)] == [6, 9, 4]
    outputs = model.module(**model.prepare(samples[:1]).inputs)
    logits, spans = outputs["pred_logits"][0].double(), outputs["pred_spans"][0].double()
    scores = logits.softmax(-1)[:, 0]
    order = scores.argsort(descending=True)
    edges = torch.stack([spans[:, 0] - spans[:, 1] / 2, spans[:, 0] + spans[:, 1] / 2], 1)
    assert first.scores == pytest.approx(scores[order].numpy(), abs=1e-6)
    assert first.spans == pytest.approx((edges[order] * 12).clamp(0, 12).numpy(), abs=1e-4)
    assert first.loss == pytest.approx(loss_by_hand(logits, spans, edges), abs=1e-4)
    assert (second.spans >= 0).all() and (second.spans <= 17.5).all()


def loss_by_hand(logits: torch.Tensor, spans: torch.Tensor, edges: torch.Tensor) -> float:
    """One moment, 2 to 6 of 12 s: the cheapest query answers for it."""
    start, end = 1 / 6, 1 / 2
    low, high = edges[:, 0].clamp(min=start), edges[:, 1].clamp(max=end)
    overlap = (high - low).clamp(min=0)
    union = edges[:, 1] - edges[:, 0] + end - start - overlap
    hull = edges[:, 1].clamp(min=end) - edges[:, 0].clamp(max=start)
    giou = overlap / union - (hull - union) / hull
    error = (spans - torch.tensor([1 / 3, 1 / 3])).abs()
    cost = 10 * error.sum(1) - giou - 4 * logits.softmax(-1)[:, 0]
    best = int(cost.argmin())
    log_share = logits.log_softmax(-1)
    label = -0.1 * log_share[:, 1]
    label[best] = -log_share[best, 0]
    return float(10 * error[best].mean() + 1 - giou[best] + 4 * label.mean())


def test_token_map_has_a_token_a_word_and_a_clip(tmp_path: Path) -> None:
    model = QdDetr(str(checkpoint(tmp_path / "a.ckpt", network())), CPU)
    tokens = model.prepare([sample(6)]).seen[0].tokens
    assert [t.text for t in tokens.tokens[:4]] == ["a", "dog", "barks", "loudly"]
    clips = [t for t in tokens if t.modality == "video"]
    assert [t.seconds for t in clips] == [(2.0 * i, 2.0 * i + 2) for i in range(6)]
    # CLIP's text rows have a start and an end; pieces of words cannot be named.
    framed = model.prepare([sample(6, words=6)]).seen[0].tokens
    assert [t.role for t in framed.tokens[:6]] == ["special", *["user"] * 4, "special"]
    pieces = model.prepare([sample(6, words=5)]).seen[0].tokens
    assert pieces.tokens[4].text == "text 4"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"audio": None}, "no audio features"),
        ({"video": np.zeros((6, 8), np.float32)}, "8 columns, the network takes 10"),
        ({"text": np.zeros((6, 512), np.float32)}, "512 columns, the network takes 12"),
    ],
)
def test_features_that_do_not_fit_are_the_samples_failure(
    tmp_path: Path, facts: dict[str, Any], says: str
) -> None:
    model = QdDetr(str(checkpoint(tmp_path / "a.ckpt", network())), CPU)
    with pytest.raises(SampleError, match=says):
        model.prepare([sample(6, **facts)])


def test_random_weights_are_named_and_repeatable() -> None:
    small = {k: getattr(SMALL, k) for k in Architecture.names()}
    models = [QdDetr("x", CPU, init="random", architecture=small, seed=s) for s in (1, 1, 2)]
    first = [m.module.query_embed.weight for m in models]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert "RANDOM WEIGHTS" in models[0].notes[0]


@pytest.mark.parametrize(
    "values",
    [{"span_loss_type": "ce"}, {"pre_norm": True}, {"gating_type": "globl"}, {"nheads": 3}],
)
def test_networks_that_do_not_exist_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="QD-DETR"):
        replace(SMALL, **values)


def test_a_file_of_weights_alone_needs_what_shapes_do_not_say(tmp_path: Path) -> None:
    made = network()
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    found = read_checkpoint(str(tmp_path / "weights.pt"))
    wanted = {"nheads": 4, "fusion_n_heads": 2}
    loaded = load_network(found, "global", wanted)
    assert loaded.architecture == made.architecture
    with pytest.raises(UnsupportedModelError, match="does not say nheads, fusion_n_heads") as said:
        load_network(found, "global")
    assert "'model.architecture={nheads: 8, fusion_n_heads: 8}'" in str(said.value)
    with pytest.raises(UnsupportedModelError, match="does not say fusion_n_heads"):
        load_network(found, "global", {"nheads": 4})
    model = QdDetr(str(tmp_path / "weights.pt"), CPU, "global", architecture=wanted)
    assert "use_txt_pos: False, span_loss_type: l1, max_v_l: 75, pre_norm: False" in model.notes[0]
    said_all = wanted | {
        "use_txt_pos": False,
        "span_loss_type": "l1",
        "max_v_l": 75,
        "pre_norm": False,
    }
    assert QdDetr(found.where.split("=")[1], CPU, "global", architecture=said_all).notes == []


def test_an_activation_without_weights_is_asked_for(tmp_path: Path) -> None:
    made = network(activation="gelu")
    path = str(checkpoint(tmp_path / "a.ckpt", made))
    with pytest.raises(UnsupportedModelError, match="does not say activation"):
        QdDetr(path, CPU)
    loaded = QdDetr(path, CPU, architecture={"activation": "gelu"}).module
    inputs = batch([(9, 6)], 9, 6)
    assert torch.equal(loaded(**inputs)["pred_spans"], made(**inputs)["pred_spans"])


@pytest.mark.parametrize("name", ["nheads", "fusion_n_heads"])
def test_heads_that_the_options_leave_out_are_asked_for(tmp_path: Path, name: str) -> None:
    path = str(checkpoint(tmp_path / "a.ckpt", network(), **{name: None}))
    with pytest.raises(UnsupportedModelError, match=f"does not say {name}, and its shapes"):
        QdDetr(path, CPU)


def test_video_and_audio_of_other_lengths_are_the_samples_failure(tmp_path: Path) -> None:
    model = QdDetr(str(checkpoint(tmp_path / "a.ckpt", network())), CPU)
    whole = sample(6)
    half = replace(whole, facts=whole.facts | {"audio": whole.facts["audio"][:3]})
    with pytest.raises(SampleError, match="6 clips of video and 3 of audio"):
        model.prepare([half])
