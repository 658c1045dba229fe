"""The fused kernel's log-sum-exp, taken from the very call that made the output.

torch's sdpa picks one kernel out of several and throws the log-sum-exp (lse) away. `KernelWitness`
sits below sdpa while the model's own attention function runs, lets it choose and run its kernel,
and keeps the lse. Nothing of sdpa's choice is repeated here, so the output cannot differ.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from interp_lab.capture.masks import Call, Index, take, terms
from interp_lab.errors import UnsupportedModelError

_ATEN = torch.ops.aten

# Kernel -> place of the flag that asks for the lse among its positional arguments, or None where
# it always comes. All return (output, lse, ...) with the natural log, after scaling and mask.
_KERNELS = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: None,
    _ATEN._scaled_dot_product_flash_attention.default: None,
    _ATEN._scaled_dot_product_fused_attention_overrideable.default: None,
    _ATEN._scaled_dot_product_efficient_attention.default: 4,
    _ATEN._scaled_dot_product_cudnn_attention.default: 4,
}
_COMPOSITE = _ATEN.scaled_dot_product_attention.default


class KernelWitness(TorchDispatchMode):
    """Context manager: keeps the lse of the fused attention kernel that runs inside it.

    Attributes:
        lse: natural log-sum-exp of each query row, any layout of (batch, head, query), or None if
            no kernel that gives it ran exactly once.
        kernel: the kernel's name; "math" if none of the fused kernels ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lse: Tensor | None = None
        self.kernel = "math"
        self._runs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation; take the lse if it is a fused attention kernel."""
        kwargs = kwargs or {}
        if func is _COMPOSITE:
            # Under inference_mode sdpa arrives whole; take it apart as the dispatcher would.
            with self:
                return func.decompose(*args, **kwargs)
        if func not in _KERNELS:
            return func(*args, **kwargs)
        flag = _KERNELS[func]
        if flag is not None:
            args = (*args[:flag], True, *args[flag + 1 :])
        result = func(*args, **kwargs)
        self._runs += 1
        self.kernel = func.overloadpacket.__name__.removeprefix("_scaled_dot_product_")
        self.lse = result[1].detach() if self._runs == 1 else None
        return result

    def rows(self, call: Call) -> Tensor | None:
        """Return the lse as (batch, head, query) in fp32, or None.

        Kernels may round the query axis up, add an axis of 1, or have seen the query heads of a
        group as query rows (a decode step with grouped heads); the order of numbers is the same.
        """
        if self.lse is None:
            return None
        batch, heads, queries, _ = call.query.shape
        lse = self.lse.squeeze(-1) if self.lse.dim() == 4 else self.lse
        if lse.shape[:2] == (batch, heads) and lse.shape[2] >= queries:
            return lse[:, :, :queries].float()
        if lse.shape[0] == batch and lse.numel() == batch * heads * queries:
            return lse.reshape(batch, heads, queries).float()
        return None


@torch.no_grad()
def scores(call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None) -> Tensor:
    """Return masked scores in fp32, (head, query, key), for one block of one batch row."""
    q, k = operands(call, row, queries, keys, heads)
    groups = q.shape[0] // k.shape[0]
    n_heads, n_queries, dim = q.shape
    q = q.reshape(k.shape[0], groups * n_queries, dim)
    block = torch.bmm(q * call.scaling, k.transpose(1, 2)).view(n_heads, n_queries, -1)
    return finish_scores(call, row, queries, keys, heads, block)


def operands(
    call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the block's queries (head, query, dim) and keys (kv_head, key, dim) in fp32.

    Keys are repeated over query heads only where single heads are asked for.
    """
    q, k = call.query[row].detach(), call.key[row].detach()
    if heads is not None:
        q, k = q.index_select(0, heads), k.index_select(0, heads // call.groups)
    return take(q, queries, 1).float(), take(k, keys, 1).float()


def finish_scores(
    call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None, block: Tensor
) -> Tensor:
    """Apply softcap and masks to a block of scaled scores (or scores minus lse), in place."""
    if call.softcap is not None:
        block.div_(call.softcap).tanh_().mul_(call.softcap)
    add, hide = terms(call, row, queries, keys, heads)
    if add is not None:
        block += add
    if hide is not None:
        block.masked_fill_(hide, -math.inf)
    return block


def lse_of(call: Call, block: Tensor, heads: Tensor | None) -> Tensor:
    """Return the lse of full score rows (head, query, key), sinks included, as (head, query)."""
    lse = torch.logsumexp(block, dim=-1)
    if call.sinks is None:
        return lse
    sinks = call.sinks.detach().float().reshape(-1)
    sinks = sinks if heads is None else sinks[heads]
    return torch.logaddexp(lse, sinks[:, None].to(lse.device))


@torch.no_grad()
def check_lse(call: Call, row: int, query: int, lse: Tensor, kernel: str) -> None:
    """Compare one row of a kernel's lse with its definition.

    Kernels differ between devices and versions in what they return; a wrong lse must not pass.

    Raises:
        UnsupportedModelError: if they differ by more than the kernel's arithmetic explains.
    """
    at = slice(query, query + 1)
    full = scores(call, row, at, slice(0, call.key.shape[2]), None)
    want = lse_of(call, full, None)[:, 0]
    got = lse[row, :, query]
    bound = 1e-3 if call.query.dtype == torch.float32 else 3e-2
    error = float((got - want).abs().max())
    if not error <= bound * max(1.0, float(want.abs().max())):
        raise UnsupportedModelError(
            f"kernel {kernel}: its log-sum-exp is off by {error:.3g} at query {query}; capture "
            "with lse=False (slower, exact) and report this device and torch version"
        )
