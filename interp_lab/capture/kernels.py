"""The fused kernel's log-sum-exp, taken from the very call that made the output.

torch's sdpa picks one kernel out of several and throws the log-sum-exp (lse) away. `KernelWitness`
sits below sdpa while the model's own attention function runs, lets it choose and run its kernel,
and keeps the lse; `FlexWitness` does the same for flex attention. Nothing of the choice is repeated
here, so the output cannot differ.
"""

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.masks import Call, Index, take, terms
from interp_lab.libraries import torch_inside
from interp_lab.libraries.huggingface import flex_results


class KernelWitness(torch_inside.TorchDispatchMode):
    """Context manager: keeps the lse of the kernel of sdpa or of a flash-attention package.

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
        if func is torch_inside.WHOLE_SDPA:
            # Under inference_mode sdpa arrives whole; take it apart as the dispatcher would.
            with self:
                return torch_inside.taken_apart(args, kwargs)
        if func in torch_inside.LSE_KERNELS:
            args, kwargs = torch_inside.asking_for_lse(func, args, kwargs)
            return self._kept(func(*args, **kwargs), torch_inside.kernel_name(func))
        result = func(*args, **kwargs)
        return self._kept(result, func.namespace) if _gives_lse(func, result) else result

    def _kept(self, result: Any, kernel: str) -> Any:
        self._runs += 1
        self.kernel = kernel
        self.lse = torch_inside.lse_in(result) if self._runs == 1 else None
        return result


class FlexWitness:
    """Context manager: keeps the lse that flex attention's kernel returns where it gives one.

    Attributes:
        lse, kernel: as in `KernelWitness`.
    """

    def __init__(self) -> None:
        self.lse: Tensor | None = None
        self.kernel = "flex_attention"
        self._stack = ExitStack()

    def __enter__(self) -> "FlexWitness":
        self._seen = self._stack.enter_context(flex_results())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        if len(self._seen) == 1 and isinstance(self._seen[0], tuple):
            second = self._seen[0][1]
            self.lse = torch_inside.lse_in((None, getattr(second, "lse", second)))


def witness_of(implementation: str) -> KernelWitness | FlexWitness | None:
    """Return what sees the lse of an attention implementation; None where nothing does."""
    if implementation == "flex_attention":
        return FlexWitness()
    seen = implementation == "sdpa" or "flash" in implementation
    return KernelWitness() if seen else None


def lse_rows(lse: Tensor | None, call: Call) -> Tensor | None:
    """Return an lse as (batch, head, query) in fp32, or None if it cannot be told apart.

    Kernels may round the query axis up, add an axis of 1, have seen the query heads of a group as
    query rows (a decode step with grouped heads; the order of numbers is the same), or have left
    out padding and put all rows one after the other: (head, token).
    """
    if lse is None or lse.dim() < 2:
        return None
    batch, heads, queries, _ = call.query.shape
    if lse.dim() == 2:
        return _packed_rows(lse, call)
    lse = lse.squeeze(-1) if lse.dim() == 4 else lse
    if call.padding is not None and not bool(call.padding.all()):
        return None
    if lse.shape[:2] == (batch, heads) and lse.shape[2] >= queries:
        return lse[:, :, :queries].float()
    if lse.shape[0] == batch and lse.numel() == batch * heads * queries:
        return lse.reshape(batch, heads, queries).float()
    return None


def _packed_rows(lse: Tensor, call: Call) -> Tensor | None:
    """Return (head, token) of all batch rows, without padding, as (batch, head, query)."""
    batch, heads, queries, _ = call.query.shape
    if call.padding is None:
        real = torch.ones(batch, queries, dtype=torch.bool, device=lse.device)
    else:
        real = call.padding[:, -queries:]
    if lse.shape != (heads, int(real.sum())):
        return None
    rows = lse.new_full((batch, queries, heads), math.inf, dtype=torch.float32)
    rows[real] = lse.float().T
    return rows.transpose(1, 2)


def _gives_lse(func: Any, result: Any) -> bool:
    """Return whether an operation is a flash-attention package's kernel."""
    several = isinstance(result, tuple | list) and len(result) > 1
    return several and torch_inside.of_flash_package(func)


def scores(call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None) -> Tensor:
    """Return masked scores in fp32, (head, query, key), for one block of one batch row.

    They have gradients where those are enabled.
    """
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
    q, k = call.query[row], call.key[row]
    if heads is not None:
        q, k = q.index_select(0, heads), k.index_select(0, heads // call.groups)
    return take(q, queries, 1).float(), take(k, keys, 1).float()


def finish_scores(
    call: Call, row: int, queries: Index, keys: Index, heads: Tensor | None, block: Tensor
) -> Tensor:
    """Apply softcap and masks to a block of scaled scores (or scores minus lse); may change it."""
    if call.softcap is not None and torch.is_grad_enabled():
        # tanh keeps its result for its gradient.
        block = (block / call.softcap).tanh() * call.softcap
    elif call.softcap is not None:
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
def lse_error(call: Call, row: int, query: int, lse: Tensor) -> float:
    """Return by how much one row of a kernel's lse exceeds what fp32 arithmetic explains.

    Kernels differ between devices and versions in what they return; a wrong lse must not pass.
    Both sides are sums in fp32 of the same products, whatever the dtype of the queries and keys:
    they may differ by 1e-3 + 1e-5 of their size. A pattern is then right to about 1 in 1,000 in the
    worst case; `capture.verify` holds it to less.

    Returns:
        0 if they agree, else the largest difference over heads.
    """
    at = slice(query, query + 1)
    full = scores(call, row, at, slice(0, call.key.shape[2]), None)
    want = lse_of(call, full, None)[:, 0]
    gap = (lse[row, :, query] - want).abs()
    if bool((gap <= 1e-3 + 1e-5 * want.abs()).all()):
        return 0.0
    return float(torch.nan_to_num(gap, nan=math.inf).max())
