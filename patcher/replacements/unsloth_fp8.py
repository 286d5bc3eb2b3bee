"""Which fp8 kernels of ``unsloth.kernels.fp8`` can be compiled: none."""

from __future__ import annotations

import torch
from torch import Tensor


def _fp8_kernel_unsupported(tensor: Tensor, kernel_dtype: torch.dtype | None = None) -> bool:
    """True: without Triton every fp8 weight takes upstream's own torch expressions."""
    return True
