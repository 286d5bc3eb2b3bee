"""Upstream's block-quantized fp8 weights."""

from __future__ import annotations

from unsloth.kernels import fp8


def block_dequantize(weight, scale, block, dtype):
    """fast_dequantize's helper for block scales, which chooses between kernel and torch."""
    scale.block_size = [block, block]
    return fp8.weight_dequant(weight, scale, dtype)


def block_linear(X, weight, scale, block, dY):
    """Output and dX of the linear layer that transformers' FP8Linear is patched with."""
    scale.block_size = [block, block]
    X = X.detach().requires_grad_()
    Y = fp8.fp8_linear(X, weight, scale)
    Y.backward(dY)
    return Y.detach(), X.grad


def dequantize_blocks(weight, scale, block, dtype):
    """The launching function itself."""
    return fp8.weight_dequant_block(weight, scale, block, dtype)
