"""Matrix products of rows that are grouped by expert: the linear layers of a mixture of experts.

Rows ``M`` are sorted by expert; ``sizes[e]`` of them belong to expert ``e``, whose weight is ``w[e]`` (``[N, K]``)::

    y[rows of e]      = x[rows of e] @ w[e].T               [M, K] -> [M, N]
    grad_x[rows of e] = grad_output[rows of e] @ w[e]            [M, N] -> [M, K]
    grad_w[e]         = grad_output[rows of e].T @ x[rows of e]  [E, N, K]

Sums run in fp32 and are rounded once. ``sizes`` is read on the host: one synchronisation per product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from patcher.ops.split_sum import addmm_fp32_, matmul_split


def _experts(sizes: Tensor) -> Iterator[tuple[int, slice]]:
    start = 0
    for expert, size in enumerate(int(n) for n in sizes.tolist()):
        if size > 0:
            yield expert, slice(start, start + size)
        start += size


def _mm(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """``a`` rounded to ``b``'s dtype, times ``b``, in ``dtype``."""
    if a.dtype == b.dtype == dtype:
        return matmul_split(a, b)
    return matmul_split(a.to(b.dtype).to(torch.float32), b.to(torch.float32)).to(dtype)


@torch.no_grad()
def grouped_mm(x: Tensor, w: Tensor, sizes: Tensor, *, transpose: bool = True) -> Tensor:
    """``y``, or ``grad_x`` with ``transpose=False``, in ``x``'s dtype; rows beyond the sum of ``sizes`` are zero.

    ``x`` is rounded to the weight's dtype first. Shapes: ``[M, K]`` and ``[E, N, K]``, or ``[M, N]`` and ``[E, N, K]``.
    """
    result = x.new_zeros((x.shape[0], w.shape[1] if transpose else w.shape[2]))
    with torch.autocast(x.device.type, enabled=False):
        for expert, rows in _experts(sizes):
            weight = w[expert].t() if transpose else w[expert]
            result[rows] = _mm(x[rows], weight, x.dtype)
    return result


@torch.no_grad()
def grouped_mm_weight_(total: Tensor, x: Tensor, grad_output: Tensor, sizes: Tensor) -> Tensor:
    """``total += grad_w`` in place, ``[E, N, K]``; the sum is added in fp32 and rounded once to ``total``'s dtype.

    ``grad_output`` is rounded to ``x``'s dtype first; experts without rows are left as they are.
    """
    for expert, rows in _experts(sizes):
        sum_ = total[expert].to(torch.float32, copy=True)
        addmm_fp32_(sum_, grad_output[rows].to(x.dtype).t(), x[rows])
        total[expert] = sum_
    return total
