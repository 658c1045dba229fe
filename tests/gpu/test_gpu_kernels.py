"""Every kernel, dtype and case on the GPU against float64; watching leaves every bit as it was."""

import pytest
import torch
import transformers

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep, Max
from interp_lab.doctor.kernels import CASES, DTYPES, KERNELS, kernel_cases
from interp_lab.doctor.proof import prove

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("tokens", [77, 512])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_kernel_is_exact_at_both_ranges(
    dtype: torch.dtype, kernel: str, tokens: int, device: torch.device
) -> None:
    # Tolerance: `doctor.exact.largest_difference`, at most 1.5e-3 at the 7B model's scores.
    results = kernel_cases(device, dtype, kernels=(kernel,), tokens=tokens)
    assert len(results) == 2 * len(CASES)
    assert all(r.holds for r in results), [r for r in results if not r.holds]
    if all(r.refused for r in results):
        pytest.skip(f"{kernel} takes none of the cases here: {results[0].refused}")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_sdpa_chooses_a_kernel_that_gives_its_lse(dtype: torch.dtype, device: torch.device) -> None:
    results = kernel_cases(device, dtype, kernels=("own choice",))
    assert all(r.lse for r in results), [(r.case, r.kernel) for r in results if not r.lse]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_capture_proves_itself(
    dtype: torch.dtype, implementation: str, device: torch.device
) -> None:
    assert prove(device, dtype, implementation).wrong == []


def qwen2(device: torch.device, dtype: torch.dtype) -> transformers.Qwen2ForCausalLM:
    """Two layers with the heads of Qwen2-7B, random weights."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=200,
        hidden_size=28 * 128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return transformers.Qwen2ForCausalLM(config).to(device, dtype).eval()


@pytest.mark.parametrize("padding", [0, 17])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_watching_leaves_every_bit_of_the_output(
    dtype: torch.dtype, padding: int, device: torch.device
) -> None:
    model = qwen2(device, dtype)
    ids = torch.randint(3, 200, (2, 300), device=device)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    block = AttentionPlan(tuple(range(200, 280)), tuple(range(20, 120)), Max())
    row = AttentionPlan("last", None, Keep())
    with torch.inference_mode():
        plain = model(input_ids=ids, attention_mask=mask).logits
        with watch_attention(model, [{"block": block, "row": row}] * 2) as watched:
            seen = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(plain, seen)
    assert set(watched.results[1]["block"].paths) == {"lse"}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_watching_leaves_every_generated_token(dtype: torch.dtype, device: torch.device) -> None:
    model = qwen2(device, dtype)
    inputs = {"input_ids": torch.randint(3, 200, (2, 60), device=device)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, :9] = 0
    options = {"max_new_tokens": 40, "do_sample": False}
    plain = model.generate(**inputs, **options)[:, 60:]
    row = {"row": AttentionPlan("last", None, Keep())}
    made = generate_watched(model, inputs, [row] * 2, [row] * 2, **options)
    for got, want in zip(made, plain, strict=True):
        assert torch.equal(got.tokens, want)
        assert len(got.decode["row"].steps) == 39
