"""Unsloth's grouped GEMM for mixtures of experts runs on mps where it is called."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_MODULE = "unsloth.kernels.moe.grouped_gemm.interface"
_TILES = "BLOCK_SIZE_M=32, BLOCK_SIZE_N=32, BLOCK_SIZE_K=32"

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    why="forward and backward are Triton kernels, behind assertions that ask for CUDA tensors",
    upstream=source("unsloth/kernels/moe/grouped_gemm/interface.py", "grouped_gemm_forward"),
    until="the functions of interface.py have a torch variant",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target=f"{_MODULE}:grouped_gemm_forward",
        replacement="patcher.replacements.unsloth.grouped_gemm:grouped_gemm_forward",
        expects=(
            "(X, W, topk, m_sizes, gather_indices=None, topk_weights=None, permute_x=False, permute_y=False,"
            f" fuse_mul_post=False, autotune=False, {_TILES}, num_warps=4, num_stages=2, use_tma_load_w=False,"
            " use_tma_load_x=False, use_tma_store=False, flatten=True, debug=False)"
        ),
    ),
    _patch(
        target=f"{_MODULE}:grouped_gemm_dX",
        replacement="patcher.replacements.unsloth.grouped_gemm:grouped_gemm_dX",
        expects=(
            f"(dY, W, gather_indices, m_sizes, topk, {_TILES}, debug=False, permute_x=False, permute_y=False,"
            " use_tma_load_w=False, use_tma_load_dy=False, use_tma_store=False, num_warps=4, num_stages=2,"
            " flatten=True, fuse_mul_pre=False, fuse_mul_post=False, autotune=False)"
        ),
    ),
    _patch(
        target=f"{_MODULE}:grouped_gemm_dW",
        replacement="patcher.replacements.unsloth.grouped_gemm:grouped_gemm_dW",
        expects=(
            f"(X, dY, m_sizes, gather_indices, topk, {_TILES}, permute_x=False, permute_y=False,"
            " use_tma_load_dy=False, use_tma_load_x=False, use_tma_store=False, fuse_mul_pre=False,"
            " fuse_mul_post=False, num_warps=4, num_stages=2, flatten=True, autotune=False, debug=False, dW_dtype=None)"
        ),
    ),
    _patch(
        target=f"{_MODULE}:grouped_gemm_dW_accumulate",
        replacement="patcher.replacements.unsloth.grouped_gemm:grouped_gemm_dW_accumulate",
        expects=(
            f"(X, dY, m_sizes, gather_indices, dW, topk, {_TILES}, permute_x=False, permute_y=False,"
            " use_tma_load_dy=False, use_tma_load_x=False, use_tma_store=False, num_warps=4, num_stages=2)"
        ),
    ),
)
