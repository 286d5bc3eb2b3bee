"""Attention for large heads, against the Triton kernels and against float64."""

from __future__ import annotations

import pytest
import torch

from tests.changes.unsloth.attention import EPS, distances, naive, tensors
from tests.oracle import INTERPRETED, PATCHED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_head_attention_is_as_exact_as_the_triton_kernels(dtype: torch.dtype) -> None:
    """Intervals of a packed row with a sliding window; 19 keys are no multiple of a tile; q is not contiguous."""
    length = 19
    q, k, v, dO = tensors(dtype, (2, length, 4, 32), (2, 2, length, 32), (2, 2, length, 32), (2, length, 4, 32))
    q = q.transpose(1, 2)
    row = torch.arange(length)
    start = torch.where(row < 8, 0, 8)
    lo = torch.stack((start, torch.maximum(row - 5, torch.zeros_like(row)))).int()
    hi = torch.stack((row, row)).int()
    found = PATCHED.call("attention:large_head", q, k, v, lo, hi, dO)
    theirs = INTERPRETED.call("attention:large_head", q, k, v, lo, hi, dO)
    keep = (row >= lo[..., None]) & (row <= hi[..., None])
    bias = torch.zeros(2, 1, length, length, dtype=torch.float64).masked_fill(~keep[:, None], float("-inf"))
    exact = naive(q, k, v, bias, 32**-0.5, None, dO.flatten(2))
    found[0], theirs[0] = found[0].flatten(2), theirs[0].flatten(2)
    for ours, upstream in zip(distances(found, exact), distances(theirs, exact), strict=True):
        assert ours <= 1.1 * upstream + (4 * EPS[dtype] if dtype == torch.float32 else 0)
