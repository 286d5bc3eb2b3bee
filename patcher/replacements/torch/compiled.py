"""The device that traced code is told, with mps for CUDA: while it is traced, and when code is made."""

from __future__ import annotations

from typing import Any

import torch

from patcher.engine.ledger import original
from patcher.replacements.torch.cuda_device import MPS, is_cuda, say_once
from patcher.replacements.torch.mps import device as mps_device


def _normalize_fake_device(device: torch.device) -> Any:
    """As torch, with mps for CUDA."""
    return original("torch._subclasses.fake_tensor:FakeTensor._normalize_fake_device")(_mps_for_cuda(device))


def decode_device(device: Any) -> Any:
    """As torch, with mps for CUDA."""
    return original("torch._inductor.utils:decode_device")(_mps_for_cuda(device))


def get_device_context_manager(device_context: type) -> Any:
    """As torch, but none for the class that stands for ``torch.cuda.device``: Dynamo reads it like any other."""
    if device_context is mps_device:
        return None
    return original("torch._dynamo.variables.ctx_manager:get_device_context_manager")(device_context)


def _mps_for_cuda(device: Any) -> Any:
    if not is_cuda(device):
        return device
    say_once()
    return MPS
