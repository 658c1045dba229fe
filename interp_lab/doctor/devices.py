"""Which devices torch can use here, and what their makers call them."""

import torch


def devices() -> list[torch.device]:
    """Return every device of this machine that torch can use."""
    found = [torch.device("cpu")]
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found += [torch.device("cuda", i) for i in range(cards)]
    return [*found, torch.device("mps")] if torch.backends.mps.is_available() else found


def device_name(device: torch.device) -> str:
    """Return what the device is called by its maker, or by torch."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
