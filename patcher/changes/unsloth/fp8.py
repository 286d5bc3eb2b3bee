"""Block-quantized fp8 weights are expanded by torch, not by a Triton kernel."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.fp8:_fp8_kernel_unsupported",
        replacement="patcher.replacements.unsloth.fp8:_fp8_kernel_unsupported",
        expects="(tensor, kernel_dtype=None)",
        why="only CUDA devices are asked whether Triton can compile fp8 there, and every other one gets the kernels",
        upstream=source("unsloth/kernels/fp8.py", "_fp8_kernel_unsupported"),
        until="_fp8_kernel_unsupported is True for devices without Triton",
    ),
    _patch(
        target="unsloth.kernels.fp8:weight_dequant_block",
        replacement="patcher.replacements.unsloth.fp8:weight_dequant_block",
        expects="(x, s, block_size=128, dtype=None)",
        why="the kernel is launched on any device, also by unsloth_zoo's fp8 experts, which call this function",
        upstream=source("unsloth/kernels/fp8.py", "weight_dequant_block"),
        until="weight_dequant_block has a torch variant",
    ),
)
