"""The four products behind ``unsloth.kernels.moe.grouped_gemm.interface.GroupedGemm`` in plain torch.

``gather_indices[i]`` is the slot (token * topk + choice) of the i-th row in expert order. ``permute_x`` describes a
forward that read its rows from token order, ``permute_y`` one that wrote them back to it. How a GPU would tile the
products (blocks, warps, stages, TMA, autotuning) has no meaning here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.grouped_mm import grouped_mm, grouped_mm_weight_


def grouped_gemm_forward(
    X: Tensor,
    W: Tensor,
    topk: int,
    m_sizes: Tensor,
    gather_indices: Tensor | None = None,
    topk_weights: Tensor | None = None,
    permute_x: bool = False,
    permute_y: bool = False,
    fuse_mul_post: bool = False,
    autotune: bool = False,
    **tiling: Any,
) -> Tensor:
    """``[tokens * topk, N]``: in token order with ``permute_y``, otherwise in expert order.

    ``fuse_mul_post`` multiplies with ``topk_weights``, which are in token order, after rounding.
    """
    assert not (permute_x and permute_y), "Cannot permute both X and Y"
    slots = _slots(gather_indices, permute_x or permute_y)
    X = X.reshape(-1, X.shape[-1])
    y = grouped_mm(X[slots // topk] if permute_x else X, _by_expert(W, m_sizes), m_sizes)
    if fuse_mul_post:
        assert permute_y and topk_weights is not None, "FUSE_MUL requires PERMUTE_Y and topk_weights"
        y *= topk_weights.reshape(-1)[slots, None].to(y.dtype)
    return torch.empty_like(y).index_copy_(0, slots, y) if permute_y else y


def grouped_gemm_dX(
    dY: Tensor,
    W: Tensor,
    gather_indices: Tensor | None,
    m_sizes: Tensor,
    topk: int,
    *,
    permute_x: bool = False,
    permute_y: bool = False,
    fuse_mul_pre: bool = False,
    fuse_mul_post: bool = False,
    **tiling: Any,
) -> Tensor:
    """``[tokens * topk, K]``: in token order with ``permute_x`` (not yet summed over topk), otherwise by expert."""
    assert not (fuse_mul_pre or fuse_mul_post), "fused multiplication is for inference, not for training"
    assert not (permute_x and permute_y), "Cannot permute both X and Y"
    slots = _slots(gather_indices, permute_x or permute_y)
    dY = dY.reshape(-1, dY.shape[-1])
    dX = grouped_mm(dY[slots] if permute_y else dY, _by_expert(W, m_sizes), m_sizes, transpose=False)
    return torch.empty_like(dX).index_copy_(0, slots, dX) if permute_x else dX


def grouped_gemm_dW(
    X: Tensor,
    dY: Tensor,
    m_sizes: Tensor,
    gather_indices: Tensor | None,
    topk: int,
    *,
    permute_x: bool = False,
    permute_y: bool = False,
    fuse_mul_pre: bool = False,
    fuse_mul_post: bool = False,
    dW_dtype: torch.dtype | None = None,
    **tiling: Any,
) -> Tensor:
    """``[E, N, K]`` in ``dW_dtype``, or in X's; zero for experts without tokens."""
    assert not (fuse_mul_pre or fuse_mul_post), "fused multiplication is for inference, not for training"
    shape = (m_sizes.shape[0], dY.shape[-1], X.shape[-1])
    dW = X.new_zeros(shape, dtype=X.dtype if dW_dtype is None else dW_dtype)
    grouped_gemm_dW_accumulate(X, dY, m_sizes, gather_indices, dW, topk, permute_x=permute_x, permute_y=permute_y)
    return dW


def grouped_gemm_dW_accumulate(
    X: Tensor,
    dY: Tensor,
    m_sizes: Tensor,
    gather_indices: Tensor | None,
    dW: Tensor,
    topk: int,
    *,
    permute_x: bool = False,
    permute_y: bool = False,
    **tiling: Any,
) -> None:
    """``dW += dY.T @ X`` per expert, in place, rounded once; ``dW`` may be ``[E, N, K]`` or ``[E * N, K]``."""
    assert not (permute_x and permute_y), "Cannot permute both X and Y"
    slots = _slots(gather_indices, permute_x or permute_y)
    X, dY = X.reshape(-1, X.shape[-1]), dY.reshape(-1, dY.shape[-1])
    X = X[slots // topk] if permute_x else X
    dY = dY[slots] if permute_y else dY
    grouped_mm_weight_(dW.view(m_sizes.shape[0], -1, dW.shape[-1]), X, dY, m_sizes)


def _slots(gather_indices: Tensor | None, needed: bool) -> Tensor:
    assert gather_indices is not None or not needed, "gather_indices must be provided when X or Y is permuted"
    return torch.empty(0, dtype=torch.int64) if gather_indices is None else gather_indices.to(torch.int64)


def _by_expert(W: Tensor, m_sizes: Tensor) -> Tensor:
    """``[E, N, K]`` of a weight that may come as ``[E * N, K]``."""
    return W.reshape(m_sizes.shape[0], -1, W.shape[-1])
