"""Block-quantized fp8 weights are expanded by torch, not by a Triton kernel."""

from __future__ import annotations

from patcher.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="unsloth",
        reviewed="==2026.10.9",
        target="unsloth.kernels.fp8:_fp8_kernel_unsupported",
        replacement="patcher.replacements.unsloth_fp8:_fp8_kernel_unsupported",
        expects="(tensor, kernel_dtype=None)",
        why="Only CUDA devices are asked whether Triton can compile fp8 there; every other one gets the kernels.",
        upstream="unsloth 2026.10.9 unsloth/kernels/fp8.py: FP8BlockQuantLinear, _blockwise_weight_dequant_any_shape",
        until="The question is answered for devices without Triton.",
        required=False,
    ),
)
