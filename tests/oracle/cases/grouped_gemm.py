"""Upstream's grouped GEMM: its kernels launched directly, its reference in torch, and its autograd Function."""

from __future__ import annotations

import sys
import types

import torch
import unsloth
from unsloth.device_type import DEVICE_TYPE


def _interface():
    unsloth.DEVICE_TYPE = DEVICE_TYPE
    from unsloth.kernels.moe.grouped_gemm import interface

    return interface


class Index(int):
    """A loop index as a kernel sees it: the interpreter's loops count in plain integers."""

    def to(self, dtype):
        return self


def count_in_indices():
    """Lets kernels ask loop indices for their type."""
    from triton.runtime import interpreter

    plain = interpreter._patch_lang_core

    def patch(lang, scope):
        plain(lang, scope)
        if hasattr(lang, "range"):
            counted = lang.range
            scope.set_attr(lang, "range", lambda *args, **kwargs: map(Index, counted(*args, **kwargs)))

    if plain.__name__ != "patch":
        interpreter._patch_lang_core = patch


BLOCKS = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 16, "BLOCK_SIZE_K": 16}


def kernels(X, W, sizes, gather, topk, permute_x, permute_y, dY, weights=None):
    """Forward, dX and dW from one launch each, on one simulated multiprocessor."""
    interface = _interface()
    count_in_indices()
    experts, N, K = W.shape
    total = gather.numel()
    shared = {
        "m_sizes_ptr": sizes, "gather_indices_ptr": gather, "NUM_TOKENS": total // topk, "NUM_EXPERTS": experts,
        "TOPK": topk, "N": N, "K": K, "NUM_SMS": 1, "PERMUTE_X": permute_x, "PERMUTE_Y": permute_y, **BLOCKS,
    }  # fmt: skip
    y, dX = X.new_empty(total, N), X.new_zeros(total, K)
    interface._grouped_gemm_forward_kernel[(1,)](
        x_ptr=X, w_ptr=W.view(-1, K), y_ptr=y, topk_weights_ptr=weights, FUSE_MUL_POST=weights is not None,
        FLATTEN=False, **shared
    )  # fmt: skip
    interface._grouped_gemm_dX_kernel[(1,)](dY_ptr=dY, w_ptr=W.view(-1, K), dX_ptr=dX, FLATTEN=False, **shared)
    dW = torch.zeros_like(W)
    pow2 = 1 << (experts - 1).bit_length()
    grid = (experts * -(-N // 16) * -(-K // 16),)
    interface._grouped_gemm_dW_per_expert_kernel[grid](
        x_ptr=X, dY_ptr=dY, dW_ptr=dW, EXPERTS_POW2=pow2, **shared
    )  # fmt: skip
    return [y, dX, dW]


def functions(X, W, sizes, gather, topk, permute_x, permute_y, dY, weights=None):
    """The same three through the interface's functions."""
    interface = _interface()
    permutes = {"permute_x": permute_x, "permute_y": permute_y}
    return [
        interface.grouped_gemm_forward(
            X, W, topk, sizes, gather, topk_weights=weights, fuse_mul_post=weights is not None, **permutes
        ),
        interface.grouped_gemm_dX(dY, W, gather, sizes, topk, **permutes),
        interface.grouped_gemm_dW(X, dY, sizes, gather, topk, **permutes),
    ]


def autograd(X, W, sizes, gather, topk, permute_x, permute_y, dY, grad=None):
    """Output and gradients of grouped_gemm; ``grad`` is what W.grad holds before."""
    interface = _interface()
    stream = types.SimpleNamespace()
    torch.cuda.current_stream = torch.cuda.default_stream = lambda device=None: stream
    X, W = X.requires_grad_(), W.requires_grad_()
    W.grad = grad
    config = types.SimpleNamespace(
        **BLOCKS, num_warps=4, num_stages=2, use_tma_load_x=False, use_tma_load_w=False, use_tma_load_dy=False,
        use_tma_store=False,
    )  # fmt: skip
    before = dict(interface.DW_ACCUMULATE_STATS)
    Y = interface.grouped_gemm(
        X, W, sizes, topk, gather, permute_x, permute_y, kernel_config_fwd=config, kernel_config_bwd_dX=config,
        kernel_config_bwd_dW=config, is_first_gemm=permute_x,
    )  # fmt: skip
    Y.backward(dY)
    inplace = interface.DW_ACCUMULATE_STATS["inplace"] - before["inplace"]
    assert "triton" in sys.modules
    return {"Y": Y.detach(), "dX": X.grad, "dW": W.grad, "inplace": inplace}
