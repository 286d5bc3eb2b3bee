"""Upstream's fused LoRA blocks and its dequantization."""

from __future__ import annotations

import torch
from bitsandbytes.functional import quantize_4bit
from unsloth.kernels import fast_lora
from unsloth.kernels import utils as kernel_utils

from tests.oracle.cases import lora_blocks


def mlp(X, dY, kind, inner, dtype, adapter_dtype, quantized=False):
    """Output, dX and the adapters' gradients of apply_lora_mlp_<kind>."""
    block = lora_blocks.MLP(X.shape[-1], inner, lora_blocks.ACTIVATIONS[kind])
    block = lora_blocks.with_lora(block, dtype, adapter_dtype)
    if quantized:
        lora_blocks.quantize_bases(block)
    return _run(block, X, dY, lambda X: getattr(fast_lora, f"apply_lora_mlp_{kind}")(block, X))


def attention(X, dY, narrow, dtype, adapter_dtype, quantized=False):
    """The same for apply_lora_qkv followed by apply_lora_o, joined into one tensor."""
    block = lora_blocks.with_lora(lora_blocks.Attention(X.shape[-1], narrow), dtype, adapter_dtype)
    if quantized:
        lora_blocks.quantize_bases(block)

    def forward(X):
        Q, K, V = fast_lora.apply_lora_qkv(block, X, inplace=False)
        return torch.cat((fast_lora.apply_lora_o(block, Q), K, V), -1)

    return _run(block, X, dY, forward)


def _run(block, X, dY, forward):
    leaf = X.detach().requires_grad_()
    Y = forward(leaf * 1)  # the backward may write into its input, so this is not the leaf itself
    Y.backward(dY)
    return {"Y": Y.detach(), "dX": leaf.grad, **lora_blocks.gradients(block)}


def dequantize(W, quant_type, double):
    """fast_dequantize of a packed weight, of its transposed view, and fast_gemv with and without ``out``."""
    packed, state = quantize_4bit(W, quant_type=quant_type, compress_statistics=double)
    x = torch.linspace(-1, 1, W.shape[1], dtype=W.dtype).view(1, 1, -1)
    out = torch.empty(1, 1, W.shape[0], dtype=W.dtype)
    kernel_utils.fast_gemv(x, packed, state, out=out)
    return {
        "plain": kernel_utils.fast_dequantize(packed, state),
        "transposed": kernel_utils.fast_dequantize(packed.t(), state),
        "gemv": kernel_utils.fast_gemv(x, packed, state),
        "out": out,
        "x": x,
    }
