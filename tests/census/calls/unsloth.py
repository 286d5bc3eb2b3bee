"""Unsloth's norms, activations, rotary embedding and losses, through their autograd functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from unsloth.kernels import (
    cross_entropy_loss,
    fused_add_rms_layernorm,
    geglu,
    layernorm,
    qk_norm_rope,
    rms_layernorm,
    rope_embedding,
    swiglu,
)
from unsloth.optimizers import flash_adamw

from tests.census.registry import NARROW, call
from tests.tiles.registry import Make

EPS = 1e-5


def _trained(make: Make, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    return make.floats(*shape, dtype=dtype).requires_grad_()


@call(terms=300)
def rms_norms(make: Make, dtype: torch.dtype) -> None:
    """A width of many rows for a program and one of one row, with and without a gradient of the weight, Gemma's."""
    for width in (77, 300):
        for gemma in (False, True):
            for trained in (False, True):
                X = _trained(make, 2, 5, width, dtype=dtype)
                weight = make.floats(width, dtype=dtype).requires_grad_(trained)
                layer = SimpleNamespace(weight=weight, variance_epsilon=EPS)
                Y = rms_layernorm.fast_rms_layernorm(layer, X, gemma=gemma)
                Y.backward(make.floats(2, 5, width, dtype=dtype))


@call(terms=77)
def rms_norms_of_narrow_rows(make: Make, dtype: torch.dtype) -> None:
    """In the order of sums of one row for a program, as on NVIDIA's and AMD's devices."""
    for width, warps in ((77, 4), (64, 2), (128, 2)):
        X, W, dY = (make.floats(*shape, dtype=dtype) for shape in ((40, width), (width,), (40, width)))
        block = 64 if width == 64 else 128
        for gemma in (False, True):
            settings = (block, 4096 // block, block // 32, warps)
            _, r = rms_layernorm._rms_forward(X, W, EPS, gemma, lambda k: k, settings)
            dX = torch.empty_like(dY)
            for trained in (False, True):
                W = W.requires_grad_(trained)
                rms_layernorm._rms_backward(dY, dX, X, W.detach(), r, EPS, gemma, lambda k: k, settings)


@call(terms=300)
def rms_norm_saved_by_output(make: Make, dtype: torch.dtype) -> None:
    """The backward reads the output and not the input."""
    rms_layernorm._SAVE_OUTPUT = True
    layer = SimpleNamespace(weight=make.floats(300, dtype=dtype), variance_epsilon=EPS)
    X = _trained(make, 2, 5, 300, dtype=dtype)
    Y = rms_layernorm.fast_rms_layernorm(layer, X, save_output=True, reuse_grad=True)
    Y.backward(make.floats(2, 5, 300, dtype=dtype))
    rms_layernorm._SAVE_OUTPUT = False


@call(terms=300)
def rms_norm_with_residual(make: Make, dtype: torch.dtype) -> None:
    """In place, as decoding does it."""
    for add in (False, True):
        X, residual, W = (make.floats(*s, dtype=dtype) for s in ((3, 1, 300), (3, 1, 300), (300,)))
        fused_add_rms_layernorm.fast_add_rms_layernorm_inference(X, residual, W, EPS, add=add)


@call(terms=301)
def layer_norms(make: Make, dtype: torch.dtype) -> None:
    """With and without a bias, with and without gradients of the weights."""
    for bias in (False, True):
        for trained in (False, True):
            X = _trained(make, 3, 7, 301, dtype=dtype)
            W = make.floats(301, dtype=dtype).requires_grad_(trained)
            b = make.floats(301, dtype=dtype).requires_grad_(trained) if bias else None
            layernorm.Fast_Layernorm.apply(X, W, b, EPS).backward(make.floats(3, 7, 301, dtype=dtype))


@call()
def rotary(make: Make, dtype: torch.dtype) -> None:
    """Grouped heads; positions as they come, and given; one tensor at a time."""
    for indices in (None, make.ints(2, 5, low=0, high=9)):
        Q, K = _trained(make, 2, 6, 5, 48, dtype=dtype), _trained(make, 2, 3, 5, 48, dtype=dtype)
        angles = make.floats(9, 48)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        Qo, Ko = rope_embedding.Fast_RoPE_Embedding_QK.apply(Q, K, cos, sin, indices)
        torch.autograd.backward(
            (Qo, Ko), (make.floats(2, 6, 5, 48, dtype=dtype), make.floats(2, 3, 5, 48, dtype=dtype))
        )
    Q = _trained(make, 2, 5, 6, 48, dtype=dtype)
    out = rope_embedding.Fast_RoPE_Embedding.apply(Q, cos[:5], sin[:5])
    out.backward(make.floats(2, 5, 6, 48, dtype=dtype))


@call(terms=64)
def head_norms_and_rotary(make: Make, dtype: torch.dtype) -> None:
    """Grouped heads, positions as they come and given."""
    for indices in (None, make.ints(10, low=0, high=9)):
        Q, K = _trained(make, 2, 5, 6, 64, dtype=dtype), _trained(make, 2, 5, 3, 64, dtype=dtype)
        Wq, Wk = make.floats(64, dtype=dtype), make.floats(64, dtype=dtype)
        angles = make.floats(9, 64)
        positions = torch.empty(1, dtype=torch.int32) if indices is None else indices
        Qo, Ko = qk_norm_rope.Fast_QK_Norm_RoPE.apply(
            Q, K, Wq, Wk, angles.cos().to(dtype), angles.sin().to(dtype), positions, EPS, EPS, indices is not None
        )
        torch.autograd.backward(
            (Qo, Ko), (make.floats(2, 5, 6, 64, dtype=dtype), make.floats(2, 5, 3, 64, dtype=dtype))
        )


@call()
def gated_units(make: Make, dtype: torch.dtype) -> None:
    """SwiGLU and both GEGLUs over rows that fill no block."""
    for forward, backward in (
        (swiglu.swiglu_fg_kernel, swiglu.swiglu_DWf_DW_dfg_kernel),
        (geglu.geglu_exact_forward_kernel, geglu.geglu_exact_backward_kernel),
        (geglu.geglu_approx_forward_kernel, geglu.geglu_approx_backward_kernel),
    ):
        forward(make.floats(2, 3, 1100, dtype=dtype), make.floats(2, 3, 1100, dtype=dtype))
        backward(*(make.floats(6, 1100, dtype=dtype) for _ in range(3)))


def _cross_entropy(make: Make, dtype: torch.dtype, columns: int, **options: float) -> None:
    logits = _trained(make, 2, 4, columns, dtype=dtype)
    labels = make.ints(2, 4, low=0, high=columns, dtype=torch.int64)
    labels[0, 1] = -100
    loss: Any = cross_entropy_loss.fast_cross_entropy_loss(logits * 1, labels, **options)
    loss.backward()


@call(terms=1001)
def cross_entropy(make: Make, dtype: torch.dtype) -> None:
    """One label is ignored; plain, under a soft cap, and scaled."""
    _cross_entropy(make, dtype, 1001)
    _cross_entropy(make, dtype, 1001, logit_softcapping=30.0)
    _cross_entropy(make, dtype, 1001, logit_scaling=0.25)


@call(terms=65537)
def cross_entropy_in_chunks(make: Make, dtype: torch.dtype) -> None:
    """A vocabulary that goes into no one block."""
    _cross_entropy(make, dtype, 65537)


@call(dtypes=NARROW)
def variance_of_adamw(make: Make, dtype: torch.dtype) -> None:
    """The second moment in fp32, the gradient in the weights' dtype."""
    flash_adamw._variance_update(make.positive(1100), make.floats(1100, dtype=dtype), 0.999)
