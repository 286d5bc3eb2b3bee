"""Upstream's fused LoRA blocks and its dequantization."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import torch
from bitsandbytes.functional import quantize_4bit
from unsloth.kernels import fast_lora
from unsloth.kernels import utils as kernel_utils

from patcher.engine.ledger import original
from tests.oracle.cases import lora_blocks
from tests.oracle.halves import replaced


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


def with_one_half_left_out(X, dY, function, inner, narrow, dtype, left_out):
    """``mlp``, or query, key and value, or the output projection, with halves of a function that are upstream's."""
    with _left_out(function, left_out):
        if function == "LoRA_MLP":
            return mlp(X, dY, "swiglu", inner, dtype, torch.float32)
        block = lora_blocks.with_lora(lora_blocks.Attention(X.shape[-1], narrow), dtype, torch.float32)
        if function == "LoRA_W":
            return _run(block, X, dY, lambda X: fast_lora.apply_lora_o(block, X))
        wide = torch.cat((dY, dY, dY), -1)[..., : X.shape[-1] + 2 * narrow]
        return _run(block, X, wide, lambda X: torch.cat(fast_lora.apply_lora_qkv(block, X, inplace=False), -1))


def not_plain(X, dY, inner, case, left_out=()):
    """``mlp`` with dropout, with a bias of B, or without gradients and adapters."""
    block = lora_blocks.MLP(X.shape[-1], inner, lora_blocks.ACTIVATIONS["swiglu"])
    block = lora_blocks.with_lora(block, torch.float32, torch.float32)
    projections = (block.gate_proj, block.up_proj, block.down_proj)
    for one in projections:
        if case == "dropout":
            one.lora_dropout["default"] = torch.nn.Dropout(0.5)
        elif case == "bias":
            one.lora_B["default"].bias = torch.nn.Parameter(torch.linspace(-1, 1, one.out_features))
        elif case == "disabled":
            one.enable_adapters(False)
    torch.manual_seed(4)
    with _left_out("LoRA_MLP", left_out):
        if case == "disabled":
            with torch.no_grad():
                return {"Y": fast_lora.apply_lora_mlp_swiglu(block, X)}
        return _run(block, X, dY, lambda X: fast_lora.apply_lora_mlp_swiglu(block, X))


def _left_out(function, halves):
    """A context in which ``halves`` of an autograd function of fast_lora are upstream's own."""
    stack = ExitStack()
    for half in halves:
        upstream = original(f"unsloth.kernels.fast_lora:{function}.{half}")
        stack.enter_context(replaced(getattr(fast_lora, function), SimpleNamespace(**{half: upstream}), half))
    return stack


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
