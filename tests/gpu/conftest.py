"""Tests of what differs on a GPU; elsewhere they are skipped and say why.

GPU_TEST_DEVICE=cpu runs those that can run there, to rehearse them on a machine without a GPU.
"""

import os

import pytest
import torch

REHEARSED = os.environ.get("GPU_TEST_DEVICE")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    if REHEARSED:
        return torch.device(REHEARSED)
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: torch.cuda.is_available() is False")
    return torch.device("cuda:0")


@pytest.fixture(scope="session")
def card(device: torch.device) -> torch.device:
    """The device under test, which must be a GPU also in a rehearsal."""
    if device.type != "cuda":
        pytest.skip("needs CUDA itself, so it cannot be rehearsed on another device")
    return device
