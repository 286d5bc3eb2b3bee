"""bitsandbytes' operators as autocast sees them: native ones, which it does not reach into."""

from __future__ import annotations

from typing import Any

import torch


class BelowAutocast:
    """A kernel for ``AutocastMPS`` that calls the operator itself with autocast off; the arguments stay as they are."""

    def __init__(self, name: str, overload: str = "default") -> None:
        self._name = name
        self._overload = overload

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        operator = getattr(getattr(torch.ops.bitsandbytes, self._name), self._overload)
        with torch.autocast("mps", enabled=False):
            return operator(*args, **kwargs)


dequantize_4bit = BelowAutocast("dequantize_4bit")
dequantize_4bit_out = BelowAutocast("dequantize_4bit", "out")
dequantize_blockwise = BelowAutocast("dequantize_blockwise")
gemm_4bit = BelowAutocast("gemm_4bit")
gemv_4bit = BelowAutocast("gemv_4bit")
gemv_4bit_out = BelowAutocast("gemv_4bit", "out")
int8_linear_matmul = BelowAutocast("int8_linear_matmul")
int8_linear_matmul_out = BelowAutocast("int8_linear_matmul", "out")
int8_mixed_scaled_mm = BelowAutocast("int8_mixed_scaled_mm")
int8_mm_dequant = BelowAutocast("int8_mm_dequant")
int8_scaled_mm = BelowAutocast("int8_scaled_mm")
int8_vectorwise_dequant = BelowAutocast("int8_vectorwise_dequant")
int8_vectorwise_quant = BelowAutocast("int8_vectorwise_quant")
optimizer_update_32bit = BelowAutocast("optimizer_update_32bit")
optimizer_update_8bit_blockwise = BelowAutocast("optimizer_update_8bit_blockwise")
quantize_4bit = BelowAutocast("quantize_4bit")
quantize_blockwise = BelowAutocast("quantize_blockwise")
