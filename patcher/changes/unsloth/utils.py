"""Unsloth's LoRA functions and decoding reach their 4-bit weights through bitsandbytes' operators on mps."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    needed_for="4-bit weights, which are read through pointers of a native library otherwise",
    why="On other devices than CUDA and XPU, 4-bit weights go through ctypes pointers of a native library that has no "
    "Metal build, without a stream and for double quantization only.",
    upstream="unsloth 2026.10.9 unsloth/kernels/utils.py: the else branches of fast_dequantize and fast_gemv",
    until="The else branches call bitsandbytes' operators.",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.utils:_fast_dequantize_bnb",
        replacement="patcher.replacements.unsloth.utils:_fast_dequantize_bnb",
        expects="(W, quant_state=None, out=None, use_global_buffer=False, dtype=None)",
    ),
    _patch(
        target="unsloth.kernels.utils:_fast_gemv_bnb",
        replacement="patcher.replacements.unsloth.utils:_fast_gemv_bnb",
        needed_for=None,
        expects="(X, W, quant_state, out=None)",
    ),
)
