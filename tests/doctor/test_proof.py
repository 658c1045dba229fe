"""Capture's proof of itself: made once, remembered, and failed by a planted fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp_lab.doctor import proof, proof_memory
from interp_lab.doctor.proof import Proof, prove, prove_once
from interp_lab.errors import ConfigError, UnsupportedModelError

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_capture_holds_with_the_installed_versions(dtype: torch.dtype, implementation: str) -> None:
    # Tolerance: `exact.largest_difference`, 1e-4 in half precision and 1e-5 in fp32 here.
    made = prove(CPU, dtype, implementation)
    assert made.wrong == []
    models = {"prompt with left padding", "prompt of a generation", "generated tokens"}
    assert models <= set(made.checks)
    assert all(bound < 1.2e-4 for name, (_, bound) in made.checks.items() if name in models)


def test_a_generated_step_that_is_missed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proof.generate_watched

    def one_step_less(*args: object, **options: object) -> object:
        rows = right(*args, **options)
        return [
            replace(r, decode={n: replace(c, steps=c.steps[1:]) for n, c in r.decode.items()})
            for r in rows
        ]

    monkeypatch.setattr(proof, "generate_watched", one_step_less)
    assert any("generated tokens" in line for line in prove(CPU, torch.float32, "sdpa").wrong)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shifted_keys_are_found(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    right = proof.exact_pattern

    def shifted(query: object, key: torch.Tensor, *rest: object) -> object:
        return right(query, key.roll(1, dims=1), *rest)

    monkeypatch.setattr(proof, "exact_pattern", shifted)
    wrong = prove(CPU, dtype, "sdpa").wrong
    assert any("prompt with left padding differs" in line for line in wrong)


def test_random_numbers_and_the_registry_are_left_as_they_were() -> None:
    before = torch.get_rng_state(), dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    prove(CPU, torch.float32, "sdpa")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == before[1]


def test_an_implementation_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="attn_implementation=no_such_thing: cannot be used"):
        prove(CPU, torch.float32, "no_such_thing")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Count proofs instead of making them."""
    made: list[tuple[object, ...]] = []

    def fake(*about: object) -> Proof:
        made.append(about)
        return Proof({"x": (1e-9, 1e-6)})

    monkeypatch.setattr(proof, "prove", fake)
    return made


def test_a_proof_is_made_once_for_each_combination(
    counted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        prove_once(CPU, torch.float32, "sdpa", tmp_path)
        prove_once(CPU, torch.bfloat16, "sdpa", tmp_path)
        prove_once(CPU, torch.float32, "eager", tmp_path)
    assert len(counted) == 3
    stored = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert {s["combination"]["dtype"] for s in stored} == {"float32", "bfloat16"}
    assert all(s["checks"] == {"x": {"difference": 1e-9, "bound": 1e-6}} for s in stored)
    monkeypatch.setattr(torch, "__version__", "99.0")
    prove_once(CPU, torch.float32, "sdpa", tmp_path)
    assert len(counted) == 4


def test_edited_capture_is_proven_again(
    counted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove_once(CPU, torch.float32, "sdpa", tmp_path)
    monkeypatch.setattr(proof_memory, "_code", lambda: "other")
    prove_once(CPU, torch.float32, "sdpa", tmp_path)
    assert len(counted) == 2


def test_a_broken_file_is_no_proof(counted: list[object], tmp_path: Path) -> None:
    prove_once(CPU, torch.float32, "sdpa", tmp_path)
    [path] = tmp_path.iterdir()
    for text in ("", "[]", '{"combination": {}}'):
        path.write_text(text)
        prove_once(CPU, torch.float32, "sdpa", tmp_path)
    assert len(counted) == 4


def test_a_folder_that_cannot_be_written_is_a_note(
    counted: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level("INFO"):
        for _ in range(2):
            prove_once(CPU, torch.float32, "sdpa", tmp_path / "file" / "proofs")
    assert len(counted) == 2
    assert "cannot be written (Not a directory)" in caplog.text
    assert "INTERP_LAB_CACHE" in caplog.text


def test_a_failed_proof_is_one_line_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "prove", lambda *about: Proof({}, ["a differs", "b differs"]))
    for _ in range(2):
        with pytest.raises(UnsupportedModelError) as raised:
            prove_once(CPU, torch.float32, "sdpa", tmp_path)
    line = str(raised.value)
    assert "\n" not in line and "a differs and 1 more" in line
    assert f"torch {torch.__version__}" in line and "pip install 'transformers" in line
    assert list(tmp_path.iterdir()) == []


def test_where_proofs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_LAB_CACHE", "/a")
    assert proof_memory.default_folder() == Path("/a/proofs")
    monkeypatch.delenv("INTERP_LAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert proof_memory.default_folder() == Path("/b/interp_lab/proofs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert proof_memory.default_folder() == Path("~/.cache/interp_lab/proofs").expanduser()
