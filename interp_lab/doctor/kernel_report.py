"""The kernels' results as findings: one line for each dtype and kernel of a device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import torch

from interp_lab.doctor.devices import device_name
from interp_lab.doctor.findings import Finding, State
from interp_lab.doctor.kernels import DTYPES, KERNELS, KernelResult, kernel_cases


def kernel_findings(
    device: torch.device, dtypes: Mapping[str, torch.dtype] = DTYPES
) -> Iterator[Finding]:
    """Yield a finding for each dtype and kernel of a device."""
    called = device_name(device)
    group = f"kernels on {device}" + (f" ({called})" if called != str(device) else "")
    for dtype_name, dtype in dtypes.items():
        results = kernel_cases(device, dtype)
        for asked in KERNELS:
            mine = [r for r in results if r.asked == asked]
            yield _finding(group, f"{dtype_name} {asked}", mine)


def _finding(group: str, name: str, results: Sequence[KernelResult]) -> Finding:
    ran = [r for r in results if not r.refused]
    wrong = [r for r in results if not r.holds]
    state: State = "failure" if wrong else "ok" if ran else "note"
    details = {"results": [asdict(r) for r in results]}
    if not ran:
        return Finding(group, name, state, f"n/a: {results[0].refused}", details)
    # The case nearest to its bound tells most.
    worst = max(ran, key=lambda r: r.difference / r.bound if r.difference == r.difference else 1e9)
    refused = dict.fromkeys(r.case for r in results if r.refused)
    rows = dict.fromkeys(r.case for r in ran if not r.lse)
    text = "+".join(dict.fromkeys(r.kernel for r in ran))
    text += f": largest difference {worst.difference:.1e} of {worst.bound:.1e}"
    text += f" ({worst.case}, {worst.range})"
    without = "all" if len(rows) == len({r.case for r in ran}) else ", ".join(rows)
    text += f"; full rows, as there is no lse: {without}" if rows else "; lse in every case"
    text += f"; n/a: {', '.join(refused)}" if refused else ""
    if wrong:
        text = f"WRONG in {', '.join(dict.fromkeys(r.case for r in wrong))}; {text}"
        text += "" if all(r.output_equal for r in ran) else "; watching changes the output"
        text += "; choose another torch, or model.attn_implementation=eager"
    return Finding(group, name, state, text, details)
