"""How ``unsloth.kernels.utils`` turns a quantized weight into a dense one, without native pointers.

``fast_dequantize`` and ``fast_gemv`` stay Unsloth's own; these are the functions that they hand everything but packed
int4 and MXFP4 weights to.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def _fast_dequantize_bnb(
    W: Tensor,
    quant_state: Any = None,
    out: Tensor | None = None,
    use_global_buffer: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The dense weight of ``W``; ``W`` itself where it is not quantized.

    A packed bitsandbytes weight ``[n, 1]`` gives ``[out, in]``, its transposed view ``[1, n]`` gives ``[in, out]``.
    No scratch buffer is shared between calls, whatever ``use_global_buffer`` says; ``dtype`` steers fp8 only.
    """
    kernels = importlib.import_module("unsloth.kernels.utils")
    dense: Tensor
    if isinstance(W, kernels.Float8Tensor):
        dense = W.dequantize()
    elif quant_state is None:
        dense = W
    elif W.dtype == torch.float8_e4m3fn:
        dense = kernels.weight_dequant(W, quant_state, dtype or torch.bfloat16)
    elif type(quant_state) is kernels.NVFP4QuantState:
        dense = kernels.nvfp4_dequantize(W, quant_state.scale, quant_state.global_scale, quant_state.dtype)
    else:
        dense = kernels.bnb_functional.dequantize_4bit(W, quant_state, out=out)
    return dense


def _fast_gemv_bnb(X: Tensor, W: Tensor, quant_state: Any, out: Tensor | None = None) -> Tensor:
    """``X @ dense(W).T`` for one row ``X``, ``[1, 1, in]``; with no quant state ``X @ W`` for a dense ``W``.

    The packed product is in X's dtype also under autocast, as bitsandbytes' kernel for CUDA computes it.
    """
    if quant_state is None:
        return torch.matmul(X, W, out=out)
    dense = _fast_dequantize_bnb(W, quant_state)
    with torch.autocast(X.device.type, enabled=False):
        return torch.matmul(X, dense.to(X.dtype).t(), out=out)
