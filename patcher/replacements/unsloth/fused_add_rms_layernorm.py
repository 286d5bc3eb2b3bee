"""The two entry points of ``unsloth.kernels.fused_add_rms_layernorm`` in plain torch."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from patcher.ops.rms_norm import add_rms_norm_


def fast_add_rms_layernorm_inference_ok(X: Tensor, residual: Tensor, weight: Tensor) -> bool:
    """Whether the fused form applies: on any device and layout, unless ``UNSLOTH_FUSED_ADD_RMSNORM=0``."""
    upstream = import_module("unsloth.kernels.fused_add_rms_layernorm")

    return (
        bool(upstream.FUSED_ADD_RMSNORM)
        and residual.shape == X.shape
        and weight.shape == X.shape[-1:]
        and X.device == residual.device == weight.device
        and not torch.compiler.is_compiling()
    )


def fast_add_rms_layernorm_inference(
    X: Tensor, residual: Tensor, weight: Tensor, eps: float, add: bool = True
) -> Tensor:
    """``residual = X + residual`` (only ``X`` without ``add``), then ``X = RMSNorm(residual) * weight``, in place."""
    with torch.no_grad():
        return add_rms_norm_(X, residual, weight, eps, add=add)
