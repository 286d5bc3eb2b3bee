"""The two halves of ``unsloth.kernels.layernorm.Fast_Layernorm`` in plain torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.ops.layer_norm import layer_norm, layer_norm_backward


def forward(ctx: Any, X: Tensor, W: Tensor, b: Tensor | None, eps: float) -> Tensor:
    """``LayerNorm(X)`` over the last dimension, computed in fp32; ``X``, ``W`` and two numbers per row are saved."""
    rows = X.reshape(-1, X.shape[-1])
    Y, mean, rstd = layer_norm(rows, W, b, eps)
    ctx.bias_dtype = None if b is None else b.dtype
    ctx.save_for_backward(rows, W, mean, rstd)
    return Y.view(X.shape)


def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    """Gradients of ``X``, and of ``W`` and ``b`` where they are trained, each in its tensor's dtype."""
    X, W, mean, rstd = ctx.saved_tensors
    rows = dY.reshape(-1, dY.shape[-1])
    dX, dW, db = layer_norm_backward(rows, X, W, mean, rstd, ctx.needs_input_grad[:3])
    return (
        None if dX is None else dX.view(dY.shape),
        None if dW is None else dW.to(W.dtype),
        None if db is None else db.to(ctx.bias_dtype),
        None,
    )
