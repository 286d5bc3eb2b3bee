"""What ``unsloth.kernels.fp8`` does without Triton."""

from __future__ import annotations

import torch
from torch import Tensor


def _fp8_kernel_unsupported(tensor: Tensor, kernel_dtype: torch.dtype | None = None) -> bool:
    """True: without Triton every fp8 weight takes upstream's own torch expressions."""
    return True


def weight_dequant_block(x: Tensor, s: Tensor, block_size: int = 128, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The dense weight ``[M, N]`` of fp8 values and one scale per block: multiplied in fp32, rounded once."""
    rows, columns = x.shape
    scale = s.to(torch.float32).repeat_interleave(block_size, 0)[:rows]
    scale = scale.repeat_interleave(block_size, 1)[:, :columns]
    return scale.mul_(x.to(torch.float32)).to(dtype)
