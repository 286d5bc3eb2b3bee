"""Generation on mps takes the fused residual add and RMSNorm, with the roundings that it has on CUDA."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the fused add and norm of a decode step is a Triton kernel, offered for CUDA tensors only",
    upstream=source("unsloth/kernels/fused_add_rms_layernorm.py", "fast_add_rms_layernorm_inference"),
    until="fast_add_rms_layernorm_inference_ok is True for mps without Triton",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.fused_add_rms_layernorm:fast_add_rms_layernorm_inference_ok",
        replacement="patcher.replacements.unsloth.fused_add_rms_layernorm:fast_add_rms_layernorm_inference_ok",
        expects="(X, residual, weight)",
    ),
    _patch(
        target="unsloth.kernels.fused_add_rms_layernorm:fast_add_rms_layernorm_inference",
        replacement="patcher.replacements.unsloth.fused_add_rms_layernorm:fast_add_rms_layernorm_inference",
        expects="(X, residual, weight, eps, add=True)",
    ),
)
