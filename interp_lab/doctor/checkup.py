"""Every check of `mode=doctor`, in order, and what it prints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from interp_lab.doctor import findings as shown
from interp_lab.doctor.devices import devices
from interp_lab.doctor.file_locks import lock_finding
from interp_lab.doctor.findings import WELL, Finding, failures, verdict
from interp_lab.doctor.kernel_report import kernel_findings
from interp_lab.doctor.kernels import DTYPES
from interp_lab.doctor.launchers import launcher_findings
from interp_lab.doctor.proof import prove
from interp_lab.doctor.space import space_findings
from interp_lab.doctor.versions import tested_range, version_findings
from interp_lab.errors import InterpLabError, MachineError


def report(root: Path, *, as_json: bool = False) -> None:
    """Check this machine and print what was found.

    Args:
        root: where results would go (`output.root`).
        as_json: print JSON instead of a table.

    Raises:
        MachineError: if a promise of the package does not hold here.
    """
    say(list(checkup(root)), as_json)


def report_on_model(kind: Any, values: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print what a model's checkpoint is and whether it can be used, without a run.

    Args:
        kind: the model's class, which can `examine` its node's values.
        values: of the node.
        as_json: print JSON instead of a table.

    Raises:
        MachineError: if it cannot be used.
    """
    group = str(values.get("checkpoint"))
    findings = [Finding(group, *line) for line in kind.examine(values)]
    say(findings, as_json, "it can be measured: the same command without mode=doctor")


def say(findings: list[Finding], as_json: bool, well: str = WELL) -> None:
    """Print findings; raise if one is a failure.

    Raises:
        MachineError: in one line.
    """
    print(shown.as_json(findings, well) if as_json else shown.as_text(findings, well), flush=True)
    broken = failures(findings)
    if broken:
        raise MachineError(f"{verdict(findings)}; the first: {broken[0].text}")


def checkup(root: Path) -> Iterator[Finding]:
    """Yield what every check finds on this machine; takes some seconds for each device."""
    there = devices()
    yield from version_findings()
    for device in there:
        yield from kernel_findings(device, DTYPES)
    for device in there:
        yield from proof_findings(device)
    yield from _figures()
    yield from launcher_findings()
    yield lock_finding(root)
    yield from space_findings(root, there)


def proof_findings(device: torch.device) -> Iterator[Finding]:
    """Yield the proof that runs make by themselves, for each dtype; always made anew here."""
    group = f"capture on {device}"
    for name, dtype in DTYPES.items():
        try:
            proof = prove(device, dtype, "sdpa")
        except InterpLabError as error:
            yield Finding(group, name, "failure", str(error))
            continue
        details = {"checks": proof.checks, "wrong": proof.wrong}
        if proof.wrong:
            text = f"WRONG: {'; '.join(proof.wrong)}; pip install '{tested_range('transformers')}'"
            yield Finding(group, name, "failure", text, details)
            continue
        worst, (difference, bound) = max(
            proof.checks.items(), key=lambda item: item[1][0] / item[1][1]
        )
        text = f"exact in {len(proof.checks)} checks, a padded prompt and generated tokens among "
        text += f"them: largest difference {difference:.1e} of {bound:.1e} ({worst})"
        yield Finding(group, name, "ok", text, details)


def _figures() -> Iterator[Finding]:
    try:
        from interp_lab.doctor.figures import figure_findings
    except ValueError as error:  # matplotlib refuses MPLBACKEND while it is imported
        text = f"matplotlib cannot be imported: {error}; unset MPLBACKEND"
        yield Finding("figures", "matplotlib", "failure", text)
        return
    yield from figure_findings()
