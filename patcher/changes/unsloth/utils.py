"""Unsloth's LoRA functions and decoding reach their 4-bit weights through bitsandbytes' operators on mps."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for="4-bit weights, which are read through pointers of a native library otherwise",
    why="4-bit weights go through ctypes pointers of a native library on other devices than CUDA and XPU, and it has "
    "no Metal build",
    upstream=source("unsloth/kernels/utils.py", "fast_dequantize"),
    until="fast_dequantize and fast_gemv call bitsandbytes' operators on mps",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.utils:fast_dequantize",
        replacement="patcher.replacements.unsloth.utils:fast_dequantize",
        expects="(W, quant_state=None, out=None, use_global_buffer=False, dtype=None)",
        may_lack=("dtype",),
    ),
    _patch(
        target="unsloth.kernels.utils:fast_gemv",
        replacement="patcher.replacements.unsloth.utils:fast_gemv",
        needed_for=None,
        expects="(X, W, quant_state, out=None)",
    ),
)
