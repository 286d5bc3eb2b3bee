"""LayerNorm through upstream's entry point."""

from __future__ import annotations

import torch
from unsloth.kernels import layernorm


def forward_backward(X, W, b, dY, eps):
    """Output and gradients; ``requires_grad`` of W and b is as given."""
    X = X.detach().requires_grad_()
    layer = torch.nn.LayerNorm(X.shape[-1], eps=eps, bias=b is not None)
    layer.weight = torch.nn.Parameter(W.detach(), requires_grad=W.requires_grad)
    if b is not None:
        layer.bias = torch.nn.Parameter(b.detach(), requires_grad=b.requires_grad)
    Y = layernorm.fast_layernorm(layer, X)
    Y.backward(dY)
    db = None if b is None else layer.bias.grad
    return {"Y": Y.detach(), "dX": X.grad, "dW": layer.weight.grad, "db": db}
