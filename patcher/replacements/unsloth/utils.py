"""How ``unsloth.kernels.utils`` turns a bitsandbytes weight into a dense one, without native pointers.

What is packed otherwise (int4, MXFP4, NVFP4, fp8) or is dense stays with Unsloth's own functions: no pointers there.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original

_MODULE = "unsloth.kernels.utils"


@torch.no_grad()
def fast_dequantize(
    W: Tensor,
    quant_state: Any = None,
    out: Tensor | None = None,
    use_global_buffer: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The dense weight of ``W``; ``W`` itself where it is not quantized.

    A packed bitsandbytes weight ``[n, 1]`` gives ``[out, in]``, its transposed view ``[1, n]`` gives ``[in, out]``.
    No scratch buffer is shared between calls, whatever ``use_global_buffer`` says; ``dtype`` steers fp8 only, and
    releases before 2026.10.8 do not have it.
    """
    dense: Tensor
    if _is_of_bitsandbytes(quant_state):
        dense = _dequantize(W, quant_state, out)
    else:
        rest = {} if dtype is None else {"dtype": dtype}
        dense = original(f"{_MODULE}:fast_dequantize")(W, quant_state, out, use_global_buffer, **rest)
    return dense


def fast_gemv(X: Tensor, W: Tensor, quant_state: Any, out: Tensor | None = None) -> Tensor:
    """``X @ dense(W).T`` for one row ``X``, ``[1, 1, in]``; with no quant state ``X @ W`` for a dense ``W``.

    The packed product is in X's dtype also under autocast, as bitsandbytes' kernel for CUDA computes it.
    """
    if not _is_of_bitsandbytes(quant_state):
        product: Tensor = original(f"{_MODULE}:fast_gemv")(X, W, quant_state, out)
        return product
    dense = _dequantize(W, quant_state)
    with torch.autocast(X.device.type, enabled=False):
        return torch.matmul(X, dense.to(X.dtype).t(), out=out)


def _is_of_bitsandbytes(quant_state: Any) -> bool:
    return isinstance(quant_state, _functional().QuantState)


def _dequantize(W: Tensor, quant_state: Any, out: Tensor | None = None) -> Tensor:
    dense: Tensor = _functional().dequantize_4bit(W, quant_state, out=out)
    return dense


def _functional() -> ModuleType:
    return importlib.import_module("bitsandbytes.functional")
