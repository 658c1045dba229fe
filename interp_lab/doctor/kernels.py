"""Captured blocks of every kernel that sdpa may choose, against float64 arithmetic.

Which kernel runs, and what it returns beside its output, differs between devices, dtypes and
versions of torch. Each is therefore asked for by name, in the shapes that models have, and what
capture makes of it is compared with the definition.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from interp_lab.capture.blocks import KeyPick, Workspace, log_blocks
from interp_lab.capture.kernels import KernelWitness, lse_rows
from interp_lab.capture.masks import read_call
from interp_lab.doctor.exact import exact_pattern, largest_difference, seen_keys
from interp_lab.libraries.huggingface import registered

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What to ask sdpa for; None leaves the choice to it, as models do.
KERNELS: dict[str, SDPBackend | None] = {
    "own choice": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# These two take every case; any other kernel may refuse one.
NEVER_REFUSE = ("own choice", "math")
PADDING, WINDOW = 5, 16


@dataclass(frozen=True)
class Range:
    """The range of random queries and keys: standard deviation, and where they are cut off."""

    name: str
    query: tuple[float, float]
    key: tuple[float, float]


# "Qwen2-7B" is what that model's queries and keys were measured to be.
RANGES = (
    Range("unit", (1.0, 5.0), (1.0, 5.0)),
    Range("Qwen2-7B", (3.2, 26.0), (25.0, 225.0)),
)


@dataclass(frozen=True)
class Case:
    """The shape of one call.

    Args:
        name: what it is called in a report.
        heads, kv_heads: query heads and key heads.
        masked: the model hands a 4D bool mask instead of the causal flag.
        decode: there is one query, the newest token.
        causal, padding, window: see `seen_keys`; padding is that of the first of two rows.
    """

    name: str
    heads: int = 4
    kv_heads: int = 4
    masked: bool = False
    decode: bool = False
    causal: bool = True
    padding: int = 0
    window: int | None = None


CASES = (
    Case("no mask", causal=False),
    Case("causal"),
    Case("left padding", masked=True, padding=PADDING),
    Case("GQA", heads=28, kv_heads=4),
    Case("sliding window", heads=28, kv_heads=4, masked=True, window=WINDOW),
    Case("decode", heads=28, kv_heads=4, decode=True),
)


@dataclass(frozen=True)
class KernelResult:
    """What one kernel gave in one case.

    Args:
        device, dtype, asked, case, range, tokens: what was run.
        kernel: the name of the kernel that ran; empty if it refused.
        lse: whether the kernel's log-sum-exp was there; else full rows were computed.
        difference: largest absolute difference of a pattern value from float64; NaN if refused.
        bound: what arithmetic explains, see `exact.largest_difference`.
        output_equal: the kernel's output is that of an unwatched call, bit by bit.
        refused: why the kernel does not take the case; empty if it did.
    """

    device: str
    dtype: str
    asked: str
    case: str
    range: str
    tokens: int
    kernel: str = ""
    lse: bool = False
    difference: float = math.nan
    bound: float = math.nan
    output_equal: bool = False
    refused: str = ""

    @property
    def holds(self) -> bool:
        """Whether the numbers are right, or the kernel may refuse the case and did."""
        if self.refused:
            return self.asked not in NEVER_REFUSE
        return self.difference <= self.bound and self.output_equal


@dataclass(frozen=True)
class _Call:
    """One call's arguments; what each row sees (query, key), and its first query that is real."""

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    is_causal: bool
    visible: tuple[Tensor, ...]
    first: tuple[int, ...]


def kernel_cases(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    kernels: Sequence[str] = tuple(KERNELS),
    cases: Sequence[Case] = CASES,
    ranges: Sequence[Range] = RANGES,
    tokens: int = 77,
    width: int = 128,
) -> list[KernelResult]:
    """Run every kernel in every case and compare what capture makes of it with float64.

    Args:
        device: where the kernels run.
        dtype: of queries and keys.
        kernels: names out of `KERNELS`.
        cases, ranges: what to run.
        tokens: length of the sequences; an odd number is no multiple of any kernel's tile.
        width: of a head.
    """
    device = torch.device(device)
    return [
        _run(name, case, scale, _call(case, scale, device, dtype, tokens, width), tokens)
        for case in cases
        for scale in ranges
        for name in kernels
    ]


def _call(
    case: Case, scale: Range, device: torch.device, dtype: torch.dtype, tokens: int, width: int
) -> _Call:
    random = torch.Generator().manual_seed(tokens)
    queries = 1 if case.decode else tokens
    q = _random((2, case.heads, queries, width), *scale.query, random)
    k = _random((2, case.kv_heads, tokens, width), *scale.key, random)
    v = torch.randn((2, case.kv_heads, tokens, width), generator=random)
    visible = tuple(
        seen_keys(queries, tokens, padding=p, causal=case.causal, window=case.window)
        for p in (case.padding, 0)
    )
    mask = torch.stack(visible)[:, None].to(device) if case.masked else None
    module = nn.Module()
    module.num_key_value_groups = case.heads // case.kv_heads  # type: ignore[assignment]
    q, k, v = (t.to(device, dtype) for t in (q, k, v))
    return _Call(module, q, k, v, mask, case.causal, visible, (case.padding, 0))


def _random(
    shape: tuple[int, ...], deviation: float, largest: float, random: torch.Generator
) -> Tensor:
    """Return numbers of this standard deviation, unequal between channels, one at the maximum."""
    values = torch.randn(shape, generator=random)
    values *= torch.exp(0.5 * torch.randn(shape[-1], generator=random))
    values = (values * (deviation / values.std())).clamp_(-largest, largest)
    values[..., 0, 0] = largest
    return values


def _run(name: str, case: Case, scale: Range, call: _Call, tokens: int) -> KernelResult:
    device, dtype = str(call.query.device), str(call.query.dtype).removeprefix("torch.")
    about = (device, dtype, name, case.name, scale.name, tokens)
    backend = KERNELS[name]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch lists every reason why a kernel refuses
            plain = _attend(call, backend)
            witness = KernelWitness()
            with witness:
                output = _attend(call, backend)
    except RuntimeError as error:
        why = " ".join(str(error).split()).partition(". ")[0]
        return KernelResult(*about, refused=why[:120])
    difference, bound = _compare(call, witness)
    return KernelResult(
        *about,
        kernel=witness.kernel,
        lse=witness.lse is not None,
        difference=difference,
        bound=bound,
        output_equal=torch.equal(plain, output),
    )


def _attend(call: _Call, backend: SDPBackend | None) -> Tensor:
    """Run attention as transformers' models do, with the kernel that is asked for."""
    run = registered("sdpa")
    assert run is not None
    arguments = (call.module, call.query, call.key, call.value, call.mask)
    if backend is None:
        return run(*arguments, is_causal=call.is_causal)[0]
    with sdpa_kernel(backend):
        return run(*arguments, is_causal=call.is_causal)[0]


def _compare(call: _Call, witness: KernelWitness) -> tuple[float, float]:
    """Return the largest difference over both rows, and its bound; padding rows are left out."""
    worst, largest = 0.0, 0.0
    scaling = call.query.shape[-1] ** -0.5
    for row, (visible, first) in enumerate(zip(call.visible, call.first, strict=True)):
        got = _captured(call, witness, row, first)
        want = exact_pattern(call.query[row, :, first:], call.key[row], scaling, visible[first:])
        found = float((got - want.pattern).abs().max())
        # NaN compares false with everything; it must not pass for a small difference.
        worst = found if not found <= worst else worst
        largest = max(largest, want.largest)
    half_lse = witness.lse is not None and call.query.dtype != torch.float32
    return worst, largest_difference(largest, half_lse=half_lse)


@torch.inference_mode()
def _captured(call: _Call, witness: KernelWitness, row: int, first: int) -> Tensor:
    """Return the pattern as capture makes it, (head, query, key) in float64 on the CPU."""
    arguments = {"is_causal": call.is_causal}
    seen = read_call("sdpa", call.module, call.query, call.key, call.mask, arguments)
    lse = lse_rows(witness.lse, seen)
    n_queries, n_keys = call.query.shape[2], call.key.shape[2]
    blocks = log_blocks(
        seen,
        row,
        slice(first, n_queries),
        KeyPick(slice(0, n_keys), n_keys),
        None,
        None if lse is None else lse[row],
        Workspace(),
    )
    return torch.cat([block.double().exp().cpu() for block in blocks], dim=1)
