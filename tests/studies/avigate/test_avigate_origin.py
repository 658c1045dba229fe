"""task=avigate on what users bring: a checkpoint and features of the origin's layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qd_detr_cases import checkpoint, network

from interp_lab.store.results import open_results

WIDTHS = {"slowfast_features": 2304, "clip_features": 512, "pann_features": 2048}
FAST = ("numbers.bootstrap=100", "numbers.compare_samples=false")


def results_of(said: Any) -> Path:
    line = next(x for x in said.out.splitlines() if x.startswith("results: "))
    return Path(line.removeprefix("results: "))


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Three annotated videos in the origin's feature folders; the third has no audio file."""
    rng = np.random.default_rng(0)
    for name in (*WIDTHS, "clip_text_features"):
        (tmp_path / "features" / name).mkdir(parents=True)
    lines = []
    for qid in (11, 12, 13):
        vid = f"v{qid}_0.0_150.0"
        for name, width in WIDTHS.items():
            rows = rng.normal(size=(qid, width)).astype(np.float16)
            path = tmp_path / "features" / name / vid
            if name != "pann_features":
                np.savez(path.with_name(f"{vid}.npz"), features=rows)
            elif qid != 13:
                np.save(path.with_name(f"{vid}.npy"), rows)
        words = rng.normal(size=(5, 512)).astype(np.float32)
        np.savez(tmp_path / "features/clip_text_features" / f"qid{qid}", last_hidden_state=words)
        record = {"qid": qid, "query": "a man walks", "duration": 2 * qid, "vid": vid}
        lines.append(json.dumps({**record, "relevant_windows": [[2, 8]]}))
    (tmp_path / "val.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made = network("clipwise", t_feat_dim=512, v_feat_dim=2818, a_feat_dim=2050)
    checkpoint(tmp_path / "model_best.ckpt", made)
    return tmp_path


def test_a_checkpoint_and_its_feature_folders_need_four_keys(command: Any, origin: Path) -> None:
    said = command(
        "task=avigate",
        "model=qd_detr_avigate",
        f"model.checkpoint={origin}/model_best.ckpt",
        "dataset=qvhighlights",
        f"dataset.annotations={origin}/val.jsonl",
        f"dataset.feature_root={origin}/features",
        *FAST,
    )
    assert "2 samples measured, 1 failed" in said.err
    with open_results(results_of(said)) as results:
        assert list(results.sample_ids) == ["11", "12"]
        assert "v13_0.0_150.0.npy is missing" in str(results.failures)
        checks = json.loads(results.attributes["checks"])
        assert checks["live_check"]["audio"] > 0 and checks["live_check"]["video"] > 0
