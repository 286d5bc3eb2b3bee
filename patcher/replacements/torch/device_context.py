"""The device that ``with torch.device(...)`` chooses."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original


def __init__(self: Any, device: Any) -> None:  # noqa: N807 - it replaces a class's
    """As torch, with mps for CUDA."""
    from patcher.replacements.torch.cuda_device import MPS, is_cuda, say_once

    if is_cuda(device):
        say_once()
        device = MPS
    original("torch.utils._device:DeviceContext.__init__")(self, device)
