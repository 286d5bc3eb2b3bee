"""Mixed precision does not change what bitsandbytes' operators compute."""

from __future__ import annotations

from patcher.changes.bitsandbytes import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Kernel

OPERATORS = (
    "dequantize_4bit",
    "dequantize_4bit.out",
    "dequantize_blockwise",
    "gemm_4bit",
    "gemv_4bit",
    "gemv_4bit.out",
    "int8_linear_matmul",
    "int8_linear_matmul.out",
    "int8_mixed_scaled_mm",
    "int8_mm_dequant",
    "int8_scaled_mm",
    "int8_vectorwise_dequant",
    "int8_vectorwise_quant",
    "optimizer_update_32bit",
    "optimizer_update_8bit_blockwise",
    "quantize_4bit",
    "quantize_blockwise",
)
"""Every operator of bitsandbytes 0.50.2 that has a kernel without CUDA."""

CHANGES = tuple(
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op=f"bitsandbytes::{name}",
        dispatch_key="AutocastMPS",
        module="bitsandbytes._ops",
        replacement=f"patcher.replacements.bitsandbytes.autocast:{name.replace('.', '_')}",
        needed_for=None,
        why="on mps the operators are torch functions, whose products autocast rounds, and in fp16 the products of "
        "8-bit codes exceed 65504: losses of 0, gradients of NaN",
        upstream=source("bitsandbytes/backends/default/ops.py", "_int8_linear_matmul_impl"),
        until="bitsandbytes registers kernels for AutocastMPS, or has native ones for mps",
    )
    for name in OPERATORS
)
