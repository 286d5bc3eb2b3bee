"""The simulated mps device, started once in the test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from patcher.macs.mac import default_torch, release_of
from patcher.simulator import Device, start

TORCH = release_of(default_torch())
"""The release of torch that the tests' Mac has; test_torch_releases.py runs them again with the others."""


@pytest.fixture(scope="session", autouse=True)
def device() -> Device:
    torch.set_num_threads(1)
    return start(f"M3 Max 36GB, torch {TORCH}")


@pytest.fixture
def unlimited(device: Device) -> Iterator[Device]:
    """Puts the Mac and its memory limit back after a test that changes them."""
    mac = device.mac
    yield device
    device.become(mac)
