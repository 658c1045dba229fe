"""What goes into the store comes out: any kind of field, shape and id, bit for bit."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_lab.fields import KINDS
from interp_lab.store.merge import merge
from interp_lab.store.parts import Failure, PartWriter, list_parts
from interp_lab.store.results import open_results

# Any text that UTF-8 and HDF5 can hold: no lone surrogates, no NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
IDS = st.lists(TEXT.filter(bool), min_size=1, max_size=4, unique=True)
DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")


@st.composite
def fields(draw: st.DrawFn) -> list[Any]:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True))
    made = []
    for number, name in enumerate(kinds):
        kind = KINDS[name]
        is_text = kind("x", "x").dtype == "str"
        dtype = "str" if is_text else draw(st.sampled_from(DTYPES))
        ragged = draw(st.booleans())
        about = draw(TEXT)
        made.append(kind(f"f{number}", about, dtype=dtype, ragged=ragged))
    return made


def value(draw: st.DrawFn, field: Any, shape: tuple[int, ...]) -> Any:
    if field.dtype == "str":
        n = int(np.prod(shape, dtype=int))
        texts = draw(st.lists(TEXT, min_size=n, max_size=n))
        return np.array(texts, dtype=object).reshape(shape) if shape else texts[0]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if field.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if field.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(field.dtype)
    info = np.iinfo(field.dtype)
    return rng.integers(info.min, info.max, shape, dtype=field.dtype, endpoint=True)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Any], list[str], list[dict[str, Any]]]:
    made, ids = draw(fields()), draw(IDS)
    sides = st.integers(0, 3)
    fixed = {f.name: tuple(draw(sides) for _ in f.axes) for f in made}
    # Axes of one name have one length.
    lengths: dict[str, int] = {}
    for field in made:
        known = [lengths.setdefault(a, n) for a, n in zip(field.axes, fixed[field.name])]  # noqa: B905
        fixed[field.name] = tuple(known)
    samples = []
    for _ in ids:
        own = {f.name: tuple(draw(sides) for _ in f.axes) for f in made if f.ragged}
        samples.append({f.name: value(draw, f, own.get(f.name, fixed[f.name])) for f in made})
    return made, ids, samples


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(run=runs())
def test_round_trip(run: tuple[list[Any], list[str], list[dict[str, Any]]]) -> None:
    made, ids, samples = run
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.h5"
        writer = PartWriter(Path(folder) / "parts", made, size=2, seconds=1e6)
        for index, (name, values) in enumerate(zip(ids, samples, strict=True)):
            writer.add(index, name, values)
        writer.fail(Failure(len(ids), "failed " + "".join(ids), "load", "why"))
        writer.flush()
        every = [*ids, "failed " + "".join(ids)]
        merge(list_parts(Path(folder) / "parts"), every, path, {"task_name": "t"}, lambda _: [])
        with open_results(path) as results:
            assert results.sample_ids == ids and results.has_checksum
            assert [f.sample_id for f in results.failures] == [every[-1]]
            for field in made:
                assert results.fields[field.name] == field
                for name, values in zip(ids, samples, strict=True):
                    found, stored = results.read(field.name, name), values[field.name]
                    assert np.shape(found) == np.shape(stored)
                    if field.dtype == "str":
                        assert (
                            np.asarray(found, object).tolist()
                            == np.asarray(stored, object).tolist()
                        )
                    else:
                        assert np.asarray(found).tobytes() == np.asarray(stored).tobytes()
