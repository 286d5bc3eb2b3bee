"""The simulated mps device, started once in the test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from patcher.simulator import Device, start


@pytest.fixture(scope="session", autouse=True)
def device() -> Device:
    torch.set_num_threads(1)
    return start("M3 Max 36GB")


@pytest.fixture
def unlimited(device: Device) -> Iterator[Device]:
    """Puts the Mac and its memory limit back after a test that changes them."""
    mac = device.mac
    yield device
    device.become(mac)
