"""Free disk at `output.root`, free memory of the host and of each accelerator."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from interp_lab.doctor.devices import device_name
from interp_lab.doctor.findings import Finding, State
from interp_lab.store.sizes import readable

# Below these even a tiny study may not go through.
LEAST_DISK, LEAST_MEMORY = 2**30, 2 * 2**30


def space_findings(root: Path, devices: list[torch.device]) -> Iterator[Finding]:
    """Yield what is free on the disk, in memory and on each accelerator."""
    folder = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    yield _judged("files", f"disk at {folder}", shutil.disk_usage(folder).free, LEAST_DISK)
    yield _judged("memory", "host", psutil.virtual_memory().available, LEAST_MEMORY)
    for device in devices:
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            text = f"{readable(free)} of {readable(total)} free ({device_name(device)})"
            details = {"free": free, "total": total}
            yield Finding("memory", str(device), "ok", text, details)


def _judged(group: str, name: str, free: int, least: int) -> Finding:
    state: State = "ok" if free >= least else "warning"
    text = f"{readable(free)} free"
    text += "" if free >= least else f", less than {readable(least)}: a study may not go through"
    return Finding(group, name, state, text, {"free": free})
