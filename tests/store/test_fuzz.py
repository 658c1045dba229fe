"""The reader of results against damaged and foreign files: it refuses, or returns what was stored.

`make test-fuzz` tries 2,000 cases, `make test` the first few. A file of today has a checksum, so
every damage must be refused. One of an earlier version has none: there only this is asked, that it
ends in one line or says that it has no checksum.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from interp_lab.errors import InterpLabError
from interp_lab.fields import CellMap, Document, Pattern, Picture, Scalar
from interp_lab.store.merge import merge
from interp_lab.store.parts import Failure, PartWriter, list_parts
from interp_lab.store.results import Results, open_results

CASES = int(os.environ.get("FUZZ_CASES", "40"))
GOLDEN = Path(__file__).parents[1] / "golden"
FIELDS = [
    CellMap("cells", "a map"),
    Scalar("score", "a score"),
    Document("text", "a text"),
    Picture("picture", "a picture", dtype="uint8"),
    Pattern("pattern", "a block", ragged=True),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A result of today as bytes, and all that its reader returns."""
    folder = tmp_path_factory.mktemp("whole")
    writer, rng = PartWriter(folder / "parts", FIELDS, seconds=1e6), np.random.default_rng(0)
    for i in range(4):
        values = {
            "cells": rng.random((3, 4)),
            "score": i / 7,
            "text": f"샘플 {i}",
            "picture": rng.integers(0, 256, (8, 8, 3)),
            "pattern": rng.random((1, 2, 2 + i, 3)),
        }
        writer.add(i, f"s{i}", values)
    writer.fail(Failure(4, "s4", "load", "no such file"))
    writer.flush()
    path = folder / "results.h5"
    ids = [f"s{i}" for i in range(5)]
    attributes = {"task_name": "test", "config": "a: 1", "notes": '["a note"]'}
    mean = [(CellMap("mean", "mean"), np.full((3, 4), 0.5))]
    merge(list_parts(folder / "parts"), ids, path, attributes, lambda results: mean)
    with open_results(path) as results:
        return path.read_bytes(), everything(results)


def everything(results: Results) -> dict[str, Any]:
    """All that a figure, a report or a notebook can read."""
    found: dict[str, Any] = {"ids": results.sample_ids, "notes": results.notes}
    found["failures"], found["definitions"] = results.failures, results.definitions
    for name, field in results.fields.items():
        for row in range(len(results)):
            if results.holds(name, row):
                found[f"{name} {row}"] = np.asarray(results.read(name, row)).tolist()
        if not field.ragged:
            found[name] = [np.asarray(b[name]).tolist() for b in results.stream([name])]
    for name in results.aggregates:
        found[f"all {name}"] = np.asarray(results.aggregate(name)).tolist()
    found["attributes"] = {k: str(v) for k, v in results.attributes.items()}
    return found


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with 1 to 64 bits turned over."""
    out = bytearray(data)
    for place in rng.choice(len(out) * 8, int(rng.choice([1, 1, 2, 8, 64])), replace=False):
        out[place // 8] ^= 1 << (place % 8)
    return bytes(out)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The data cut short, or with rubbish behind."""
    at = int(rng.integers(0, len(data)))
    return data[:at] if rng.random() < 0.8 else data + rng.bytes(at % 999 + 1)


def replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a stretch overwritten by zeros or rubbish."""
    start, n = int(rng.integers(0, len(data))), int(rng.integers(1, 4096))
    stretch = bytes(n) if rng.random() < 0.5 else rng.bytes(n)
    return (data[:start] + stretch + data[start + n :])[: len(data)]


def without_checksum(data: bytes, rng: np.random.Generator) -> bytes:
    """A file of today whose checksum is taken away and a bit of it turned over."""
    return flipped(bytes(512) + data[512:], rng)


DAMAGES: list[Callable[[bytes, np.random.Generator], bytes]] = [
    *(flipped, cut, flipped, replaced, flipped, cut, flipped),
    without_checksum,
]


def read_all(path: Path) -> tuple[dict[str, Any] | None, bool]:
    """What is read of a file, None if it is refused in one line; and whether it has a checksum."""
    try:
        with open_results(path) as results:
            return everything(results), results.has_checksum
    except InterpLabError as error:
        assert "\n" not in str(error)
        return None, False


def test_damage_is_refused_or_does_no_harm(
    whole: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    data, stored = whole
    old = [p.read_bytes() for p in sorted(GOLDEN.glob("*/results.h5"))]
    count: Counter[str] = Counter()
    for case in range(CASES):
        rng = np.random.default_rng(case)
        path = tmp_path / f"{case}.h5"
        if case % 10 == 9:  # of an earlier version
            path.write_bytes(flipped(old[case // 10 % len(old)], rng))
            found, has_checksum = read_all(path)
            assert not has_checksum
            count["old: refused" if found is None else "old: opened, without checksum"] += 1
        elif case % 10 == 8:
            make_foreign(path, rng)
            assert read_all(path)[0] is None, f"foreign case {case} was opened"
            count["foreign: refused"] += 1
        else:
            damage = DAMAGES[case % 10]
            damaged = damage(data, rng)
            path.write_bytes(damaged)
            found, _ = read_all(path)
            # Bytes that changed nothing but the padding of the checksum's block do no harm.
            assert found is None or found == stored, f"case {case} ({damage.__name__})"
            count["damaged: refused" if found is None else "damaged: as stored"] += 1
        path.unlink()
    print(f"fuzz: {CASES} cases: {dict(count)}")
    assert count["damaged: refused"] > 0.7 * CASES


def make_foreign(path: Path, rng: np.random.Generator) -> None:
    """Write an HDF5 file that looks like a result and holds one thing that no result holds."""
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"], file.attrs["complete"] = 2, True
        for name in ("samples", "ragged", "failures", "aggregate"):
            file.create_group(name)
        group, text = file["samples"], h5py.string_dtype()
        group.create_dataset("sample", data=["a", "b"], dtype=text)
        group.create_dataset("index", data=np.arange(2))
        kinds = sorted(FOREIGN)
        FOREIGN[kinds[int(rng.integers(len(kinds)))]](file)


def external_link(file: h5py.File) -> None:
    file["samples/score"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File) -> None:
    file["aggregate/score"] = h5py.SoftLink("/samples/index")


def cycle(file: h5py.File) -> None:
    file["aggregate/again"] = file["samples"]


def object_reference(file: h5py.File) -> None:
    data = np.array([file["samples"].ref], dtype=h5py.ref_dtype)
    file["aggregate"].create_dataset("score", data=data, dtype=h5py.ref_dtype)


def region_reference(file: h5py.File) -> None:
    data = np.array([file["samples/index"].regionref[:1]], dtype=h5py.regionref_dtype)
    file["aggregate"].create_dataset("score", data=data, dtype=h5py.regionref_dtype)


def reference_attribute(file: h5py.File) -> None:
    file.attrs.create("config", file["samples"].ref, dtype=h5py.ref_dtype)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
    file["samples"].create_virtual_dataset("score", layout)


def external_storage(file: h5py.File) -> None:
    file["aggregate"].create_dataset("score", (2,), "u1", external=[("/etc/passwd", 0, 2)])


def absurd_size(file: h5py.File) -> None:
    file["aggregate"].create_dataset("score", (10**12,), "f8")


def absurd_chunks(file: h5py.File) -> None:
    file["samples"].create_dataset("score", (2, 10**9), "f4", chunks=(1, 10**6))


def bomb(file: h5py.File) -> None:
    data = file["aggregate"].create_dataset("s", (2**31 + 8,), "u1", chunks=(2**24,), compression=9)
    data.id.write_direct_chunk((0,), b"x\x9c" + bytes(100))


def compound(file: h5py.File) -> None:
    file["aggregate"].create_dataset("score", data=np.zeros(2, [("a", "f4"), ("b", "i4")]))


def opaque(file: h5py.File) -> None:
    file["aggregate"].create_dataset("score", data=np.zeros(2, "V8"))


def other_filter(file: h5py.File) -> None:
    file["samples"].create_dataset("score", data=np.zeros(64, "f4"), compression="lzf")


def group_in_group(file: h5py.File) -> None:
    file["samples"].create_group("more")


def text_for_version(file: h5py.File) -> None:
    file.attrs["schema_version"] = "2"


def unknown_kind(file: h5py.File) -> None:
    file["samples"].create_dataset("score", data=np.zeros(2)).attrs["kind"] = "Nonsense"


def other_length(file: h5py.File) -> None:
    data = file["samples"].create_dataset("score", data=np.zeros(3, "f4"))
    data.attrs.update({"kind": "Scalar", "long_name": "x", "units": "1", "dtype": "float32"})


def other_type(file: h5py.File) -> None:
    data = file["samples"].create_dataset("score", data=np.zeros(2, "i8"))
    data.attrs.update({"kind": "Scalar", "long_name": "x", "units": "1", "dtype": "float32"})


def no_samples(file: h5py.File) -> None:
    del file["samples"]


def from_the_future(file: h5py.File) -> None:
    file.attrs["schema_version"] = 3  # which has a checksum, and this has none


FOREIGN: dict[str, Callable[[h5py.File], None]] = {
    f.__name__: f
    for f in (
        *(external_link, soft_link, cycle, object_reference, region_reference, virtual, bomb),
        *(reference_attribute, external_storage, absurd_size, absurd_chunks, compound, opaque),
        *(other_filter, group_in_group, text_for_version, unknown_kind, other_length, other_type),
        *(no_samples, from_the_future),
    )
}


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_a_foreign_file_is_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"], file.attrs["complete"] = 2, True
        for name in ("samples", "ragged", "failures", "aggregate"):
            file.create_group(name)
        file["samples"].create_dataset("sample", data=["a", "b"], dtype=h5py.string_dtype())
        file["samples"].create_dataset("index", data=np.arange(2))
        FOREIGN[kind](file)
    # In this process, without the other one that reads files without a checksum first.
    monkeypatch.setattr("interp_lab.store.opening.probe", lambda path: None)
    with pytest.raises(InterpLabError) as caught:
        everything(open_results(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_ends_its_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process dies by a signal, as it does on some damaged files; this one goes on."""
    import subprocess

    done = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    path = tmp_path / "old.h5"
    path.write_bytes(next(GOLDEN.glob("*/results.h5")).read_bytes())
    with pytest.raises(InterpLabError, match=r"damaged: HDF5 cannot read it \(signal 11\)"):
        open_results(path)


def test_an_older_result_opens_and_says_that_it_has_no_checksum() -> None:
    from interp_lab.store.summary import summary

    with open_results(GOLDEN / "semdim") as results:
        assert len(results) == 8 and "no checksum" in summary(results)
