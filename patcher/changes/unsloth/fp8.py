"""Block-quantized fp8 weights are expanded by torch, not by a Triton kernel."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.fp8:_fp8_kernel_unsupported",
        replacement="patcher.replacements.unsloth.fp8:_fp8_kernel_unsupported",
        expects="(tensor, kernel_dtype=None)",
        why="Only CUDA devices are asked whether Triton can compile fp8 there; every other one gets the kernels.",
        upstream="unsloth 2026.10.9 unsloth/kernels/fp8.py: FP8BlockQuantLinear, _blockwise_weight_dequant_any_shape",
        until="The question is answered for devices without Triton.",
    ),
    _patch(
        target="unsloth.kernels.fp8:weight_dequant_block",
        replacement="patcher.replacements.unsloth.fp8:weight_dequant_block",
        expects="(x, s, block_size=128, dtype=None)",
        why="The kernel is launched on any device; unsloth_zoo's fp8 experts call this function directly.",
        upstream="unsloth 2026.10.9 unsloth/kernels/fp8.py; unsloth_zoo 2026.10.9 temporary_patches/moe_utils_fp8.py",
        until="The function has a torch variant.",
    ),
)
