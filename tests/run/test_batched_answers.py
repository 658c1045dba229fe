"""Answers that are written in a batch: the same tokens, the same attention as one by one."""

from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from interp_lab.config.nodes import conf_dir
from interp_lab.run.work import work_on
from interp_lab.store.results import open_results


def result(folder: Path, batch_size: int) -> dict[str, dict[str, object]]:
    """Every stored value of four maps, by field and sample."""
    overrides = ["task=trajectory", f"output.root={folder}", f"batch_size={batch_size}"]
    overrides += ["dataset.sample_idx=null", "dataset.max_samples=4", "output.exports=false"]
    overrides += ["capture.verify=off", "capture.live_check=false", "model.max_new_tokens=12"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        done = work_on(compose("config", overrides=overrides), None)
    with open_results(done.place.results) as results:
        assert len(results) == 4
        return {
            name: {s: results.read(name, s) for s in results.sample_ids if results.holds(name, s)}
            for name in results.fields
        }


def test_rows_written_in_a_batch_of_four_are_those_of_one_by_one(tmp_path: Path) -> None:
    one, four = result(tmp_path / "one", 1), result(tmp_path / "four", 4)
    assert set(one) == set(four)
    compared = 0
    for name, values in one.items():
        for sample, value in values.items():
            other = four[name][sample]
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                # Padding changes the order of sums in fp32; attention is at most 1.
                np.testing.assert_allclose(value, other, atol=1e-5, rtol=1e-4, err_msg=name)
                compared += 1
            else:
                assert np.array_equal(value, other), name
    assert compared >= 8
