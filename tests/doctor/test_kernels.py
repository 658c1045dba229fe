"""Captured blocks of each kernel equal float64, and a planted fault of each kind is found."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_lab.doctor import kernels
from interp_lab.doctor.exact import exact_pattern, largest_difference, seen_keys
from interp_lab.doctor.kernel_report import kernel_findings
from interp_lab.doctor.kernels import CASES, DTYPES, KernelResult, kernel_cases

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_kernel_of_this_cpu_is_exact(dtype: torch.dtype) -> None:
    # The tolerance is `largest_difference`, at most 1.5e-3 at scores of 700.
    results = kernel_cases(CPU, dtype)
    assert len(results) == len(CASES) * 2 * 5
    assert all(r.holds for r in results), [r for r in results if not r.holds]
    assert all(r.bound < 1.6e-3 for r in results if not r.refused)
    ran = {(r.asked, r.case) for r in results if not r.refused}
    assert {(k, c.name) for k in ("own choice", "math") for c in CASES} <= ran
    assert {r.kernel for r in results if r.asked == "math"} == {"math"}
    assert not any(r.lse for r in results if r.asked == "math")


def test_the_reference_is_the_definition() -> None:
    # One head of width 1, two tokens: scores 2 * 0.5 * k.
    query, key = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [5.0]]])
    exact = exact_pattern(query, key, 0.5, seen_keys(2, 2))
    small, large = math.exp(3.0), math.exp(5.0)
    wanted = [[1.0, 0.0], [small / (small + large), large / (small + large)]]
    assert torch.allclose(exact.pattern[0], torch.tensor(wanted).double(), atol=1e-15)
    assert exact.largest == 5.0


def test_query_heads_of_a_group_share_a_key_head() -> None:
    query = torch.ones(4, 1, 1)
    key = torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]])
    pattern = exact_pattern(query, key, 1.0, seen_keys(1, 2)).pattern[:, 0, 1]
    wanted = [1 / (1 + math.exp(-s)) for s in (1, 1, 2, 2)]
    assert torch.allclose(pattern, torch.tensor(wanted).double(), atol=1e-15)


def test_which_keys_are_seen() -> None:
    seen = seen_keys(3, 4, padding=1, window=2)
    assert seen.int().tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen_keys(1, 3).int().tolist() == [[1, 1, 1]]
    assert seen_keys(2, 2, causal=False).all()


def _another_heads_lse(rows: Tensor) -> Tensor:
    return rows.roll(1, dims=1)


def _lse_off_by_a_hundredth(rows: Tensor) -> Tensor:
    return rows + 0.01


def _shifted(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else rows + 1


def _not_a_number(rows: Tensor) -> Tensor:
    return rows * float("nan")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("fault", [_another_heads_lse, _lse_off_by_a_hundredth, _not_a_number])
def test_a_wrong_lse_is_found(
    fault: Callable[[Tensor], Tensor], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kernels.lse_rows
    monkeypatch.setattr(kernels, "lse_rows", lambda lse, call: fault(right(lse, call)))
    results = kernel_cases(CPU, dtype, kernels=("own choice",))
    assert not any(r.holds for r in results if r.lse)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_wrong_scale_is_found(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.read_call

    def scaled(*args: object) -> object:
        call = right(*args)
        call.scaling *= 1.01
        return call

    monkeypatch.setattr(kernels, "read_call", scaled)
    assert not any(r.holds for r in kernel_cases(CPU, dtype, kernels=("own choice",)))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_shifted_keys_and_a_mask_off_by_one_are_found(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kernels.read_call

    def shifted(*args: object) -> object:
        call = right(*args)
        call.key = call.key.roll(1, dims=2)
        return call

    def masked(*args: object) -> object:
        call = right(*args)
        call.causal, call.shift = call.causal, call.shift + 1
        call.mask = None if call.mask is None else call.mask.roll(1, dims=-1)
        return call

    monkeypatch.setattr(kernels, "read_call", shifted)
    assert not any(r.holds for r in kernel_cases(CPU, dtype, kernels=("own choice",)))
    monkeypatch.setattr(kernels, "read_call", masked)
    results = kernel_cases(CPU, dtype, kernels=("own choice",))
    assert not any(r.holds for r in results if r.case not in ("no mask", "decode"))


def test_a_changed_output_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels._attend
    calls = []

    def attend(call: object, backend: object) -> Tensor:
        calls.append(call)
        return right(call, backend) + len(calls) % 2

    monkeypatch.setattr(kernels, "_attend", attend)
    assert not any(r.holds for r in kernel_cases(CPU, torch.float32, kernels=("math",)))


def test_a_refusal_is_no_fault_but_of_a_kernel_that_takes_everything() -> None:
    about = ("cpu", "float32"), ("causal", "unit", 77)
    assert KernelResult(*about[0], "cudnn", *about[1], refused="no").holds
    assert not KernelResult(*about[0], "math", *about[1], refused="no").holds
    assert not KernelResult(*about[0], "math", *about[1]).holds  # NaN


def test_the_bound_grows_with_the_scores_alone() -> None:
    assert largest_difference(0, half_lse=False) == 1e-6
    assert largest_difference(500, half_lse=False) == pytest.approx(9.55e-4, rel=1e-3)
    assert largest_difference(500, half_lse=True) == pytest.approx(1.055e-3, rel=1e-3)


def test_a_report_has_one_line_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.lse_rows
    monkeypatch.setattr(kernels, "lse_rows", lambda lse, call: _shifted(right(lse, call)))
    found = list(kernel_findings(CPU, {"float32": torch.float32}))
    assert [f.name for f in found] == [f"float32 {name}" for name in kernels.KERNELS]
    chosen, math_kernel = found[0], found[-1]
    assert chosen.state == "failure" and "WRONG in no mask, causal" in chosen.text
    assert math_kernel.state == "ok" and "full rows, as there is no lse: all" in math_kernel.text
