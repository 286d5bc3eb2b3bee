"""The device that a traced factory function is told, with mps for CUDA: while it is traced, and when code is made."""

from __future__ import annotations

from typing import Any

import torch

from patcher.engine.ledger import original
from patcher.replacements.torch.cuda_device import MPS, is_cuda, say_once


def _normalize_fake_device(device: torch.device) -> Any:
    """As torch, with mps for CUDA."""
    return original("torch._subclasses.fake_tensor:FakeTensor._normalize_fake_device")(_mps_for_cuda(device))


def decode_device(device: Any) -> Any:
    """As torch, with mps for CUDA."""
    return original("torch._inductor.utils:decode_device")(_mps_for_cuda(device))


def _mps_for_cuda(device: Any) -> Any:
    if not is_cuda(device):
        return device
    say_once()
    return MPS
