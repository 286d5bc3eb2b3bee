"""Generation on mps takes the fused residual add and RMSNorm, with the roundings that it has on CUDA."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    needed_for=None,
    why="The fused add and norm of a decode step is a Triton kernel, offered for CUDA tensors only.",
    upstream="unsloth/kernels/fused_add_rms_layernorm.py in 2026.10.9",
    until="Unsloth computes it without Triton and offers it on mps.",
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
