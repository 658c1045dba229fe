"""Parts and results: whatever the division of the work, one and the same file comes out."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_lab.errors import StoreError
from interp_lab.fields import CellMap, Document, Pattern, RightEdgeMap, Scalar
from interp_lab.store import opening
from interp_lab.store.merge import merge
from interp_lab.store.parts import Failure, PartWriter, finished_samples, list_parts
from interp_lab.store.results import Results, open_results

FIELDS = [
    CellMap("cells", "a map of cells", unit="1", definition="cells/1"),
    RightEdgeMap("edges", "a map of edges"),
    Scalar("score", "a score", unit="s"),
    Document("text", "a text"),
    Pattern("pattern", "a block of attention"),
    Pattern("other", "a block of another size"),
]


def values(index: int) -> dict[str, object]:
    """What sample `index` holds: everything follows from the index."""
    rng = np.random.default_rng(index)
    return {
        "cells": rng.random((3, 4)),
        "edges": rng.random((3, 3)),
        "score": index / 7,
        "text": f"샘플 {index} ɯː",
        "pattern": rng.random((1, 2, 2 + index % 3, 3)),
        "other": rng.random((1, 2, 5, 2)),
    }


def mean_cells(results: Results) -> list[tuple[CellMap, np.ndarray]]:
    blocks = [block["cells"] for block in results.stream(["cells"], chunk=3)]
    return [(CellMap("mean_cells", "mean"), np.concatenate(blocks).mean(0))]


def make(folder: Path, order: list[int], sizes: list[int], failed: frozenset[int]) -> Path:
    """Write the samples in this order, in parts of these sizes, and merge them."""
    parts = folder / "parts"
    todo = list(order)
    while todo:
        writer = PartWriter(parts, FIELDS, size=10**6, seconds=10**6)
        for index in todo[: sizes[0] if sizes else len(todo)]:
            if index in failed:
                writer.fail(Failure(index, f"s{index}", "load", "no such file"))
            else:
                writer.add(index, f"s{index}", values(index))
        writer.flush()
        todo, sizes = todo[sizes[0] if sizes else len(todo) :], sizes[1:]
    ids = [f"s{i}" for i in range(len(order))]
    merge(list_parts(parts), ids, folder / "results.h5", {"task_name": "test"}, mean_cells)
    return folder / "results.h5"


def contents(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), n=st.integers(1, 9))
def test_the_result_does_not_depend_on_order_or_parts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, n: int
) -> None:
    order = data.draw(st.permutations(range(n)))
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=n))
    failed = data.draw(st.frozensets(st.integers(0, n - 1), max_size=n - 1))
    shuffled = make(tmp_path_factory.mktemp("a"), order, sizes, failed)
    straight = make(tmp_path_factory.mktemp("b"), list(range(n)), [], failed)
    assert contents(shuffled) == contents(straight)


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    path = make(tmp_path, [2, 0, 3, 1], [3], frozenset({1}))
    with open_results(path) as results:
        assert results.sample_ids == ["s0", "s2", "s3"]
        assert [(f.sample_id, f.reason) for f in results.failures] == [("s1", "no such file")]
        for index in (0, 2, 3):
            expected = values(index)
            for name in ("cells", "edges", "pattern"):
                got = results.read(name, f"s{index}")
                np.testing.assert_array_equal(got, np.float32(expected[name]))
            assert results.read("text", f"s{index}") == expected["text"]
        assert results.fields["cells"] == FIELDS[0]
        assert results.fields["pattern"].ragged
        assert [f.name for f in results.of_kind(Scalar)] == ["score"]
        mean = np.mean([np.float32(values(i)["cells"]) for i in (0, 2, 3)], axis=0)
        np.testing.assert_allclose(results.aggregate("mean_cells"), mean, rtol=1e-6)


def test_reading_an_array_of_a_sample_checks_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    check = opening.check_dataset

    def counted(dataset: h5py.Dataset, path: Path, size: int, stacked: bool) -> None:
        checked.append(str(dataset.name))
        check(dataset, path, size, stacked)

    path = make(tmp_path, [0, 1, 2], [3], frozenset())
    with open_results(path) as results:
        monkeypatch.setattr(opening, "check_dataset", counted)
        for sample in results.sample_ids:
            results.read("pattern", sample)
    assert len(checked) == 3 and all(name.endswith("/pattern") for name in checked)


def test_xarray_sees_axes_coordinates_and_units(tmp_path: Path) -> None:
    import xarray

    path = make(tmp_path, [0, 1, 2], [], frozenset())
    with xarray.open_dataset(path, engine="h5netcdf", group="samples") as data:
        assert data["cells"].dims == ("sample", "row", "col")
        assert data["edges"].dims == ("sample", "row", "col_edge")
        assert data["score"].attrs["units"] == "s"
        assert data["edges"].col_edge.values.tolist() == [0.5, 1.5, 2.5]
        assert list(data["sample"].values) == ["s0", "s1", "s2"]


def test_finished_samples_come_from_parts_and_from_a_result(tmp_path: Path) -> None:
    path = make(tmp_path, [0, 1, 2], [], frozenset({1}))
    expected = {"s0": True, "s1": False, "s2": True}
    assert finished_samples([path]) == expected
    assert finished_samples(list_parts(tmp_path / "parts")) == expected


def test_samples_that_left_the_data_set_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, [0, 1, 2], [], frozenset())
    merge(list_parts(tmp_path / "parts"), ["s2", "s0"], tmp_path / "r.h5", {}, lambda _: [])
    with open_results(tmp_path / "r.h5") as results:
        assert results.sample_ids == ["s2", "s0"]
        np.testing.assert_array_equal(results.read("pattern", 0), np.float32(values(2)["pattern"]))


def test_an_unfinished_part_is_invisible(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, FIELDS, size=100)
    writer.add(0, "s0", values(0))
    assert list_parts(tmp_path) == []
    (tmp_path / ".00000000-abc.1.tmp").write_bytes(b"half")
    assert list_parts(tmp_path) == []
    writer.flush()
    assert len(list_parts(tmp_path)) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cells": np.zeros(3)}, "axes"),
        ({"cells": np.full((3, 4), np.nan)}, "NaN"),
        ({"sells": 1.0}, "undeclared"),
    ],
)
def test_values_that_do_not_fit_their_field_are_refused(
    tmp_path: Path, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        PartWriter(tmp_path, FIELDS).add(0, "s0", wrong)


def test_shapes_that_differ_need_a_ragged_field(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, FIELDS)
    writer.add(0, "s0", {"cells": np.zeros((3, 4))})
    writer.add(1, "s1", {"cells": np.zeros((3, 5))})
    with pytest.raises(StoreError, match="ragged"):
        writer.flush()


def test_parts_that_hold_different_fields_are_refused(tmp_path: Path) -> None:
    for index, held in enumerate((["score", "cells"], ["score"])):
        writer = PartWriter(tmp_path / "parts", FIELDS)
        writer.add(index, f"s{index}", {name: values(index)[name] for name in held})
        writer.flush()
    with pytest.raises(StoreError, match="cells"):
        merge(list_parts(tmp_path / "parts"), ["s0", "s1"], tmp_path / "r.h5", {}, lambda _: [])


def test_a_missing_field_or_sample_names_the_nearest(tmp_path: Path) -> None:
    with open_results(make(tmp_path, [0, 1], [], frozenset({1}))) as results:
        with pytest.raises(StoreError, match="'cells'"):
            results.read("sells", 0)
        with pytest.raises(StoreError, match="It failed: no such file"):
            results.read("cells", "s1")


def test_a_failing_merge_leaves_the_old_result(tmp_path: Path) -> None:
    path = make(tmp_path, [0, 1], [], frozenset())
    before = path.read_bytes()

    def fail(_: Results) -> list[tuple[CellMap, np.ndarray]]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        merge(list_parts(tmp_path / "parts"), ["s0", "s1"], path, {}, fail)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "results.h5"]


def test_large_samples_fill_a_part_before_there_are_many(tmp_path: Path) -> None:
    big = np.zeros((1, 1, 2**11, 2**11))  # 16 MiB in float32
    writer = PartWriter(tmp_path, FIELDS[4:5], size=1000, seconds=10**6)
    for index in range(5):
        writer.add(index, f"s{index}", {"pattern": big})
    (part,) = list_parts(tmp_path)
    assert list(finished_samples([part])) == [f"s{i}" for i in range(5)]
