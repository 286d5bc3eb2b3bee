"""bitsandbytes' own formulas for 4-bit and blockwise 8-bit values, called without the compiler that wraps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original

_DEFAULT = "bitsandbytes.backends.default.ops"
_MPS = "bitsandbytes.backends.mps.ops"


def _dequantize_blockwise_compute(
    A_flat: Tensor, absmax: Tensor, code: Tensor, blocksize: int, dtype: torch.dtype
) -> Any:
    """Values ``[n]`` of ``dtype`` from 8-bit codes ``[n]``."""
    compute = _uncompiled(f"{_DEFAULT}:_dequantize_blockwise_compute")
    return compute(A_flat, absmax, code, blocksize, dtype)


def _dequantize_4bit_compute(
    A_flat: Tensor, absmax: Tensor, code: Tensor, blocksize: int, shape: Sequence[int], dtype: torch.dtype
) -> Any:
    """Values of ``shape`` and ``dtype`` from packed 4-bit codes ``[n / 2]``."""
    compute = _uncompiled(f"{_DEFAULT}:_dequantize_4bit_compute")
    return compute(A_flat, absmax, code, blocksize, shape, dtype)


def _quantize_blockwise_compute(A_flat: Tensor, code: Tensor, blocksize: int) -> Any:
    """8-bit codes ``[n]`` and the largest magnitude of each block."""
    return _uncompiled(f"{_MPS}:_quantize_blockwise_compute")(A_flat, code, blocksize)


def _quantize_4bit_compute(A_flat: Tensor, blocksize: int, bounds: Tensor, order: Tensor, nf4: bool) -> Any:
    """Packed 4-bit codes ``[n / 2]`` and the largest magnitude of each block."""
    return _uncompiled(f"{_MPS}:_quantize_4bit_compute")(A_flat, blocksize, bounds, order, nf4)


def _uncompiled(target: str) -> Any:
    """The function within ``_try_torch_compile``'s wrapper; the function itself where it was not wrapped."""
    function = original(target)
    return getattr(function, "__wrapped__", function)
