"""The allocator's part of a calibration on a Mac that takes a MiB more for tensors of 300 to 400 MiB."""

from __future__ import annotations

from typing import Any

import torch

from patcher.calibration import allocator
from patcher.calibration.allocator import cases, run

__all__ = ["cases", "run"]

right = allocator._tensor


def tensor(length: int) -> Any:
    longer = 300 * 2**20 <= length < 400 * 2**20
    return torch.empty(length + 2**20, dtype=torch.uint8, device="mps") if longer else right(length)


allocator._tensor = tensor
