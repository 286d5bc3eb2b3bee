"""`patcher.ops.layer_norm` as Metal shaders: a launch each, and one more for the gradients of weight and bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.metal.library import LARGEST_GROUP, group_of, library, rows_of


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `patcher.ops.layer_norm.layer_norm`."""
    x, weight = rows_of(x), weight.contiguous()
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
    shift = weight if bias is None else bias.contiguous()
    if rows and columns:
        group, norm = group_of(columns), [columns, x.stride(0), 0, bias is not None]
        kernels = _library(x, weight, shift, x)
        kernels.forward(x, weight, shift, y, mean, rstd, norm, float(eps), threads=rows * group, group_size=group)
    return y, mean, rstd


def layer_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    output_mask: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As `patcher.ops.layer_norm.layer_norm_backward`."""
    grad, x, weight, mean, rstd = rows_of(grad_output), rows_of(x), *(t.contiguous() for t in (weight, mean, rstd))
    rows, columns = grad.shape
    made: list[Tensor | None] = [None, None, None]
    kernels, norm = _library(x, weight, weight, grad), [columns, x.stride(0), grad.stride(0), 0]
    if output_mask[0]:
        made[0] = out = torch.empty((rows, columns), dtype=grad.dtype, device=grad.device)
        if rows and columns:
            group = group_of(columns)
            kernels.backward(grad, x, weight, mean, rstd, out, norm, threads=rows * group, group_size=group)
    if output_mask[1] or output_mask[2]:
        new = torch.empty if rows else torch.zeros
        sums = [new(columns, dtype=torch.float32, device=grad.device) for _ in range(2)]
        if rows and columns:
            whole = -(-columns // 32) * LARGEST_GROUP
            tensors = (grad, x, mean, rstd, *sums)
            kernels.parameter_gradients(*tensors, norm, rows, threads=whole, group_size=LARGEST_GROUP)
        made[1:] = [each if wanted else None for each, wanted in zip(sums, output_mask[1:], strict=True)]
    return made[0], made[1], made[2]


def _library(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> Any:
    return library("layer_norm", ("X", x.dtype), ("W", weight.dtype), ("B", bias.dtype), ("G", grad.dtype))
