"""What `interp_lab.libraries.torch_inside` assumes of torch, one test an assumption."""

import pytest
import torch
from torch import Tensor

from interp_lab.libraries import torch_inside as inside

ATEN = torch.ops.aten


class Seen(inside.TorchDispatchMode):
    """Keeps the name of every operation, and hands sdpa over if asked to."""

    def __init__(self, apart: bool = False) -> None:
        super().__init__()
        self.names: list[str] = []
        self.results: list[object] = []
        self._apart = apart

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        if self._apart and func is inside.WHOLE_SDPA:
            with self:
                return inside.taken_apart(args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if func in inside.LSE_KERNELS:
            self.results.append(result)
        return result


@pytest.fixture
def states() -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    return q, k, v


@pytest.mark.parametrize("name", ["efficient_attention", "cudnn_attention"])
def test_kernels_of_a_gpu_are_asked_by_a_flag_that_the_schema_names(name: str) -> None:
    kernel = getattr(ATEN, f"_scaled_dot_product_{name}").default
    arguments = [a.name for a in kernel._schema.arguments]
    assert arguments[inside.LSE_KERNELS[kernel]] == "compute_log_sumexp"


@pytest.mark.parametrize("name", ["flash_attention", "flash_attention_for_cpu"])
def test_flash_kernels_always_give_their_lse(name: str) -> None:
    kernel = getattr(ATEN, f"_scaled_dot_product_{name}").default
    assert inside.LSE_KERNELS[kernel] is None
    assert all(a.name != "compute_log_sumexp" for a in kernel._schema.arguments)


def test_the_flag_is_set_where_it_stands_and_nothing_else_changes() -> None:
    kernel = ATEN._scaled_dot_product_efficient_attention.default
    asked = inside.asking_for_lse(kernel, ("q", "k", "v", None, False, 0.5), {"scale": 2.0})
    assert asked == (("q", "k", "v", None, True, 0.5), {"scale": 2.0})
    by_name = inside.asking_for_lse(kernel, ("q", "k", "v", None), {"compute_log_sumexp": False})
    assert by_name == (("q", "k", "v", None), {"compute_log_sumexp": True})
    plain = ATEN._scaled_dot_product_flash_attention_for_cpu.default
    assert inside.asking_for_lse(plain, ("q", "k"), {}) == (("q", "k"), {})


def test_the_second_result_is_the_natural_log_sum_exp(states: tuple[Tensor, ...]) -> None:
    q, k, v = states
    result = ATEN._scaled_dot_product_flash_attention_for_cpu.default(q, k, v, 0.0, True, scale=0.5)
    scores = (q.double() @ k.double().transpose(2, 3)) * 0.5
    scores.masked_fill_(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    lse = inside.lse_in(result)
    assert lse is not None
    # fp32 arithmetic over 5 keys: a few units in the last place of numbers near 3.
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), atol=1e-5, rtol=0)


def test_an_empty_lse_or_a_lone_number_is_none() -> None:
    assert inside.lse_in((torch.ones(2), torch.empty(0))) is None
    assert inside.lse_in((torch.ones(2), torch.tensor(1.0))) is None


def test_a_dispatch_mode_sees_the_kernel_that_sdpa_chose(states: tuple[Tensor, ...]) -> None:
    with torch.no_grad(), Seen() as seen:
        torch.nn.functional.scaled_dot_product_attention(*states, is_causal=True)
    assert "aten._scaled_dot_product_flash_attention_for_cpu.default" in seen.names
    kernel = ATEN._scaled_dot_product_flash_attention_for_cpu.default
    assert inside.kernel_name(kernel) == "flash_attention_for_cpu"


def test_sdpa_arrives_whole_under_inference_mode_and_can_be_taken_apart(
    states: tuple[Tensor, ...],
) -> None:
    plain = torch.nn.functional.scaled_dot_product_attention(*states)
    with torch.inference_mode(), Seen(apart=True) as seen:
        again = torch.nn.functional.scaled_dot_product_attention(*states)
    assert seen.names[0] == "aten.scaled_dot_product_attention.default"
    assert len(seen.results) == 1
    assert torch.equal(plain, again)


def test_a_kernel_that_torch_lacks_or_has_changed_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inside, "_KNOWN", {"none_such": False, "flash_attention": True})
    assert dict(inside._known_kernels()) == {}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_forward_is_told_from_its_second_run(reentrant: bool) -> None:
    told: list[tuple[bool, bool]] = []

    def layer(x: Tensor) -> Tensor:
        told.append((inside.will_run_again(), inside.runs_again()))
        return x.sin()

    def run(x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)

    with torch.enable_grad():
        out = run(torch.ones(2, requires_grad=True)).sum()
        layer(torch.ones(2))
        assert told == [(True, False), (False, False)]
        out.backward()
    assert told[2][1] and len(told) == 3
    with torch.no_grad():
        run(torch.ones(2))
    assert told[3] == (False, False)


def test_a_forward_of_a_backward_hook_is_no_second_run() -> None:
    told: list[bool] = []
    with torch.enable_grad():
        x = torch.ones(2, requires_grad=True)
        x.register_hook(lambda grad: told.append(inside.runs_again()))
        x.sum().backward()
    assert told == [False]
