"""What is assumed of torch's inside: which kernels sdpa may choose, and where their lse is.

All kernels in the table return (output, lse, ...): the natural log of the sum of exponentials of a
query's scores, after scaling and mask.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import checkpoint

# The class whose instances see every operation of a block; it has no public place.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

_PREFIX = "_scaled_dot_product_"
# The argument that asks a kernel for the lse; without it the kernel returns an empty tensor.
FLAG = "compute_log_sumexp"
# What the schemas call the lse among a kernel's results.
LSE_NAMES = ("logsumexp", "log_sumexp")
# Kernel -> whether the lse must be asked for by the flag.
_KNOWN = {
    "flash_attention_for_cpu": False,
    "flash_attention": False,
    "fused_attention_overrideable": False,
    "efficient_attention": True,
    "cudnn_attention": True,
}
# sdpa itself: it arrives whole at a dispatch mode under inference_mode, where autograd, which
# takes it apart elsewhere, is left out.
WHOLE_SDPA = torch.ops.aten.scaled_dot_product_attention.default


def _known_kernels() -> Iterator[tuple[Any, int | None]]:
    """Yield this torch's kernels and the place of their flag; those it lacks are left out.

    So is a kernel whose schema no longer has what the table says: its rows are then computed.
    """
    for name, asked in _KNOWN.items():
        kernel = getattr(getattr(torch.ops.aten, _PREFIX + name, None), "default", None)
        if kernel is None:
            continue
        places = [i for i, a in enumerate(kernel._schema.arguments) if a.name == FLAG]
        second = kernel._schema.returns[1].name if len(kernel._schema.returns) > 1 else ""
        if bool(places) == asked and second in LSE_NAMES:
            yield kernel, places[0] if asked else None


# Kernel -> place of the flag among its arguments, or None where the lse always comes.
LSE_KERNELS: dict[Any, int | None] = dict(_known_kernels())


def asking_for_lse(
    kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a kernel of `LSE_KERNELS`, with its flag set if it has one."""
    flag = LSE_KERNELS[kernel]
    if flag is None:
        return tuple(args), dict(kwargs)
    if flag < len(args):
        return (*args[:flag], True, *args[flag + 1 :]), dict(kwargs)
    return tuple(args), {**kwargs, FLAG: True}


def lse_in(result: Sequence[Any]) -> Tensor | None:
    """Return the lse among a kernel's results; None where it is empty or a lone number."""
    lse = result[1]
    return lse.detach() if isinstance(lse, Tensor) and lse.dim() and lse.numel() else None


def of_flash_package(kernel: Any) -> bool:
    """Return whether an operator is a flash-attention package's; it too gives its lse second.

    flash-attn registers `flash_attn::_flash_attn_forward`, builds of it from the hub a name space
    that begins with `_flash_attn`.
    """
    return "flash_attn" in kernel.namespace and "backward" not in kernel.__name__


def taken_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run sdpa as the dispatcher would: choose a kernel, which then arrives by itself."""
    return WHOLE_SDPA.decompose(*args, **kwargs)


def kernel_name(kernel: Any) -> str:
    """Return the short name of a kernel of `LSE_KERNELS`, such as `flash_attention`."""
    return kernel.overloadpacket.__name__.removeprefix(_PREFIX)


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute fp32 matrix products in fp32 inside: not in TF32 or bf16, which a user may allow.

    torch has two ways to allow it, and reading the old one raises once the new one has been used.
    What was set is set again in the same way.
    """
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:
        with _exact_backends():
            yield
        return
    if precision == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _exact_backends() -> Iterator[None]:
    """Do it by the new way: a setting for each backend."""
    with ExitStack() as stack:
        # torch's own types do not know the setting of the CPU's library.
        mkldnn: Any = torch.backends.mkldnn
        for backend in (torch.backends.cuda.matmul, mkldnn.matmul):
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        yield


def runs_again() -> bool:
    """Return whether a forward that runs now is gradient checkpointing's second one, in backward.

    Both kinds of checkpointing run it from their own file while autograd carries out a graph.
    """
    return torch._C._current_graph_task_id() != -1 and _within_checkpoint() is not None


def will_run_again() -> bool:
    """Return whether a forward that runs now is one that backward will run once more.

    The reentrant kind runs its first forward without gradients; which inputs need some it keeps.
    """
    frame = _within_checkpoint()
    if frame is None or torch.is_grad_enabled():
        return frame is not None
    return any(getattr(frame.f_locals.get("ctx"), "needs_input_grad", ()))


def _within_checkpoint() -> Any:
    """Return the innermost frame of torch's checkpointing that called us, or None."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != checkpoint.__file__:
        frame = frame.f_back
    return frame
