"""trajectory: rows equal eager's at every step, shares add up, places are where they are."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_qwen import model, sample

from interp_lab.capture.session import watch
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.fields import StepCurve
from interp_lab.models.base import LoadedModel
from interp_lab.run.selfcheck import SelfCheck
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter
from interp_lab.store.results import open_results
from interp_lab.studies.trajectory.analysis import Trajectory, chosen_layers
from interp_lab.studies.trajectory.numbers import AnswerNumbers
from interp_lab.studies.trajectory.points import centres, distances
from interp_lab.tokens import TokenMap


def measured(made: LoadedModel, analysis: Trajectory, samples) -> list[dict]:
    """What the study's loop does with one batch."""
    study = analysis.for_model(made)
    with torch.inference_mode():
        prepared = made.prepare(samples)
        plans = [study.plans(seen.tokens) for seen in prepared.seen]
        with watch(made, prepared, plans) as capture:
            outputs = made.run(prepared)
        return [
            study.update(s, seen, row, {"plain": out})
            for s, seen, row, out in zip(samples, prepared.seen, capture.rows, outputs, strict=True)
        ]


def eager_rows(made, one) -> np.ndarray:
    """(layer, head, step, key) from the model's own eager generation of one sample."""
    prepared = made.prepare([one])
    made.module.set_attn_implementation("eager")
    out = made.module.generate(
        **prepared.inputs,
        max_new_tokens=made.max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        output_attentions=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    made.module.set_attn_implementation("sdpa")
    n_keys = out.sequences.shape[1]
    rows = np.zeros((made.n_layers, made.n_heads, len(out.attentions), n_keys))
    for t, step in enumerate(out.attentions):
        for layer, pattern in enumerate(step):
            rows[layer, :, t, : pattern.shape[-1]] = pattern[0, :, -1].numpy()
    return rows


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_rows_equal_eager_at_every_step_alone_and_in_a_batch(tmp_path: Path, kind: str) -> None:
    made = model(tmp_path, kind, max_new_tokens=9)
    made.module.apply(lambda m: [p.data.mul_(3) for p in m.parameters(recurse=False)])
    two = [sample("one", (48, 32), (16, 64)), sample("two", (24, 24), text="a longer text here?")]
    truth = [eager_rows(made, one) for one in two]
    for batch in (two[:1], two[1:], two):
        values = measured(made, Trajectory(layers="all", heads="all"), batch)
        for value in values:
            expected = (
                truth[0]
                if len(value["layers"]) and value["n_prompt"] == _n(made, two[0])
                else truth[1]
            )
            assert value["rows"].shape == expected.shape
            assert np.abs(value["rows"] - expected).max() < 1e-6
            assert value["rows"].max() > 0.2  # the pattern is not flat


def _n(made, one) -> int:
    return len(made.prepare([one]).seen[0].tokens)


def test_decode_steps_are_checked_and_a_wrong_number_is_found(tmp_path) -> None:
    made = model(tmp_path, max_new_tokens=7)
    analysis = Trajectory(layers="all", heads="all")
    study = analysis.for_model(made)
    two = [sample("one", (48, 32)), sample("two", (24, 24), text="a longer text here?")]
    with torch.inference_mode():
        prepared = made.prepare(two)
        plans = [study.plans(seen.tokens) for seen in prepared.seen]
        check = SelfCheck(made, live=False, verify="all")
        reference = check.reference(prepared, plans, changed=False, method="auto")
        with watch(made, prepared, plans, reference=reference) as capture:
            made.run(prepared)
        check(prepared, plans, capture, reference)
        assert 0 < check.found["verify"]["row/decode"] < 1e-6
        prompt = {name for name, plan in plans[0].items() if plan.when == "prefill"}
        assert check.found["eager_difference"].keys() == prompt
        capture.rows[1]["row/decode"].steps[2][0, 0, 0, 3] += 0.01
        with pytest.raises(UnsupportedModelError, match="row/decode.*differ by 1.0e-02"):
            check(prepared, plans, capture, reference)


def test_mean_and_chosen_heads_are_those_of_all(tmp_path: Path) -> None:
    made = model(tmp_path)
    one = [sample("one", (48, 32))]
    everything = measured(made, Trajectory(layers="all", heads="all"), one)[0]["rows"]
    mean = measured(made, Trajectory(layers=[0, -1]), one)[0]
    assert mean["layers"] == (0, 2)
    np.testing.assert_allclose(mean["rows"][:, 0], everything[[0, 2]].mean(1), atol=1e-7)
    some = measured(made, Trajectory(layers=1, heads=[3, 0]), one)[0]["rows"]
    np.testing.assert_allclose(some[0], everything[1, [0, 3]], atol=1e-7)


def test_shares_are_sums_of_the_rows(tmp_path: Path) -> None:
    made = model(tmp_path)
    value = measured(made, Trajectory(layers="all"), [sample("one", (48, 32), (16, 16))])[0]
    tokens = TokenMap.from_json(value["tokens"])
    rows = value["rows"][:, 0]
    image = list(tokens.where(modality="image"))
    new = list(tokens.where(role="generated"))
    np.testing.assert_allclose(value["share_image"], rows[..., image].sum(-1), atol=1e-6)
    np.testing.assert_allclose(value["share_generated"], rows[..., new].sum(-1), atol=2e-6)
    total = value["share_image"] + value["share_prompt"] + value["share_generated"]
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert value["share_generated"][:, 0].max() == 0


def test_peaks_are_those_of_the_rows_of_all_heads(tmp_path: Path) -> None:
    """Against the stored rows, themselves equal to eager's; heads=[..] keeps the score of all."""
    made = model(tmp_path, max_new_tokens=9)
    made.module.apply(lambda m: [p.data.mul_(3) for p in m.parameters(recurse=False)])
    two = [sample("one", (48, 32), (16, 64)), sample("two", (24, 24), text="a longer text here?")]
    values = measured(made, Trajectory(layers="all", heads="all"), two)
    fewer = measured(made, Trajectory(layers=1, heads=[2]), two)
    for value, few in zip(values, fewer, strict=True):
        image = list(TokenMap.from_json(value["tokens"]).where(modality="image"))
        on_cells = value["rows"][..., image]
        scores = np.zeros(on_cells.shape[:2])
        for layer, head in np.ndindex(*scores.shape):
            best: dict[int, float] = {}
            for row in on_cells[layer, head]:
                best[int(row.argmax())] = max(best.get(int(row.argmax()), 0), float(row.max()))
            ranked = sorted(best.values(), reverse=True)
            scores[layer, head] = ranked[2] if len(ranked) > 2 else 0
        np.testing.assert_allclose(value["moving_peak"], scores, atol=1e-6)
        np.testing.assert_allclose(few["moving_peak"], scores, atol=1e-6)
        heads = value["moving_peak"].argmax(1)
        assert value["peak_head"].tolist() == heads.tolist()
        for layer, head in enumerate(heads):
            own = on_cells[layer, head]
            np.testing.assert_allclose(value["peak_share"][layer], own.max(-1), atol=1e-6)
            assert value["peak_cell"][layer].tolist() == own.argmax(-1).tolist()


def test_without_an_image_there_is_no_score(tmp_path: Path) -> None:
    value = measured(model(tmp_path), Trajectory(), [sample("one")])[0]
    assert "moving_peak" not in value and "peak_cell" not in value


def test_centre_and_distance_by_hand() -> None:
    weights = np.array([[0.0, 0.3, 0.0, 0.1]])  # 2 x 2: right of the first row, of the second
    x, y = centres(weights, (2, 2))
    assert x[0] == pytest.approx(0.75) and y[0] == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)
    # 30 pixels across of 300, 40 down of 400: 50 of a diagonal of 500
    assert distances(np.array(0.6), np.array(0.6), (0.5, 0.5), (300, 400)) == pytest.approx(0.1)
    assert centres(np.zeros((1, 4)), (2, 2))[0][0] == 0.5


def test_points_and_their_distances_are_kept_where_there_are_some(tmp_path: Path) -> None:
    made = model(tmp_path)
    one = replace(sample("one", (48, 32)), facts={"reference_points": ((0.25, 0.5),)})
    value = measured(made, Trajectory(layers=[1]), [one])[0]
    assert value["reference_point"] == (0, 0.25, 0.5)
    assert "predicted_point" not in value and "distance_predicted" not in value
    x, y = value["centre_x"], value["centre_y"]
    expected = np.hypot((x - 0.25) * 48, (y - 0.5) * 32) / np.hypot(48, 32)
    np.testing.assert_allclose(value["distance_reference"], expected)


def test_what_ended_an_answer_is_said(tmp_path: Path, caplog) -> None:
    made = model(tmp_path, max_new_tokens=3)
    with caplog.at_level(logging.WARNING):
        value = measured(made, Trajectory(), [sample("s", (16, 16))])[0]
    assert value["ended"] == "max_new_tokens" and value["n_generated"] == 3
    assert "sample s: cut off at model.max_new_tokens" in caplog.text
    first = int(made.run(made.prepare([sample("s", (16, 16))]))[0].tokens[0])
    made.module.generation_config.eos_token_id = first
    value = measured(made, Trajectory(), [sample("s", (16, 16))])[0]
    assert value["ended"] == "end_token_at_once" and value["rows"].shape[2] == 1


def test_means_are_over_the_samples_that_have_come_so_far(tmp_path: Path) -> None:
    made = model(tmp_path, max_new_tokens=8)
    analysis = Trajectory(layers=[1])
    samples = [
        sample("a", (16, 16)),
        replace(sample("b", (24, 16)), id="b", facts={"reference_points": ((0.1, 0.1),)}),
    ]
    values = [measured(made, analysis, [one])[0] for one in samples]
    short = int(values[0]["n_generated"]) - 3
    values[0] = {
        k: _cut(v, short) if k.startswith(("share", "centre")) else v for k, v in values[0].items()
    }
    writer = PartWriter(tmp_path / "parts", analysis.fields)
    for i, (one, value) in enumerate(zip(samples, values, strict=True)):
        writer.add(i, one.id, value)
    part = writer.flush()
    assert part is not None
    final = tmp_path / "results.h5"
    merge([part], ["a", "b"], final, {"task_name": "trajectory"}, AnswerNumbers().compute)
    with open_results(final) as results:
        counts = results.aggregate("n_samples_at_step").tolist()
        assert counts == [2] * short + [1] * (len(counts) - short)
        mean = results.aggregate("mean_share_image")
        expected = (values[0]["share_image"][:, 0] + values[1]["share_image"][:, 0]) / 2
        np.testing.assert_allclose(mean[:, 0], expected, atol=1e-6)
        np.testing.assert_allclose(mean[:, -1], values[1]["share_image"][:, -1], atol=1e-6)
        assert results.aggregate("n_distance_reference_at_step").tolist() == [1] * len(counts)
        assert isinstance(results.aggregates["mean_distance_reference"], StepCurve)
        AnswerNumbers().export(results, tmp_path)
    records = json.loads((tmp_path / "trajectory_records.json").read_text())
    assert records[0]["reference_point"] is None
    assert records[1]["reference_point"] == {
        "image": 0,
        "x": pytest.approx(0.1),
        "y": pytest.approx(0.1),
    }


def _cut(values: np.ndarray, steps: int) -> np.ndarray:
    return values[:, :steps]


def test_layers_by_number_depth_and_end() -> None:
    assert chosen_layers(None, 28) == (20,)
    assert chosen_layers(None, 36) == (26,)
    assert chosen_layers(-1, 28) == (27,)
    assert chosen_layers([3, 1, 3], 4) == (1, 3)
    with pytest.raises(ConfigError, match="no layer 28; this model has 28"):
        chosen_layers(28, 28)


def test_wrong_heads_and_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no head 4; this model has 4"):
        Trajectory(heads=[4]).for_model(model(tmp_path))
    with pytest.raises(UnsupportedModelError, match="has no answers"):
        Trajectory().for_model(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "unit", "point"),
    [("qwen2_5_vl", "pixels", (0.5, 0.25)), ("qwen2_vl", "thousandths", (0.02, 0.004))],
)
def test_a_written_point_is_read_in_the_models_unit(tmp_path: Path, kind, unit, point) -> None:
    """A picture of 64 x 32 pixels has 40 x 16 for the model: (20, 4) is half and a quarter."""
    made = model(tmp_path, kind, max_pixels=1024)
    one = replace(sample("one", (64, 32)), facts={"reference_points": ((0.5, 0.25),)})
    study = Trajectory().for_model(made)
    seen = made.prepare([one]).seen[0]
    found = study._points(one, seen, "<answer>(20, 4)</answer>")
    assert found == {"predicted": point, "reference": (0.5, 0.25)}


def test_without_a_unit_no_point_is_read_and_that_is_said(tmp_path: Path) -> None:
    made = model(tmp_path)
    made.coordinates = None
    study = Trajectory().for_model(made)
    one = sample("one", (64, 32))
    seen = made.prepare([one]).seen[0]
    assert study._points(one, seen, "(20, 4)")["predicted"] is None
    assert "model.coordinates is not known" in study.notes[0]


def test_a_point_of_the_whole_picture_is_no_point_of_a_crop(tmp_path: Path) -> None:
    made = model(tmp_path)
    one = replace(sample("one", (64, 32)), facts={"reference_points": ((0.5, 0.25),)})
    seen = made.prepare([one]).seen[0]
    cut = replace(seen, pictures=(seen.pictures[0][:, 16:48],))
    assert Trajectory().for_model(made)._points(one, cut, "")["reference"] is None
