"""`patcher.ops.rms_norm` as Metal shaders: a launch each, and one more for the weight's gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.metal.library import LARGEST_GROUP, group_of, library, rows_of


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> tuple[Tensor, Tensor]:
    """As `patcher.ops.rms_norm.rms_norm`."""
    x, weight = rows_of(x), weight.contiguous()
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows and columns:
        group = group_of(columns)
        norm = [columns, x.stride(0), 0, columns, unit_offset, 0]
        kernels = _library(x, weight, x, x)
        kernels.forward(x, weight, y, rstd, norm, float(eps), threads=rows * group, group_size=group)
    return y, rstd


def rms_norm_backward(
    grad_output: Tensor,
    saved: Tensor,
    weight: Tensor,
    rstd: Tensor,
    *,
    grad_input: Tensor,
    unit_offset: bool = False,
    needs_grad_weight: bool = False,
    saved_is_output: bool = False,
) -> Tensor | None:
    """As `patcher.ops.rms_norm.rms_norm_backward`."""
    grad, saved, weight, rstd = rows_of(grad_output), rows_of(saved), weight.contiguous(), rstd.contiguous()
    rows, columns = grad.shape
    out = rows_of(grad_input)
    norm = [columns, saved.stride(0), grad.stride(0), out.stride(0), unit_offset, saved_is_output]
    made = torch.empty if rows else torch.zeros
    grad_weight = made(columns, dtype=weight.dtype, device=grad.device) if needs_grad_weight else None
    if rows and columns:
        kernels, group = _library(saved, weight, grad, out), group_of(columns)
        if grad_weight is not None:
            whole = -(-columns // 32) * LARGEST_GROUP
            tensors = (grad, saved, weight, rstd, grad_weight)
            kernels.weight_gradient(*tensors, norm, rows, threads=whole, group_size=LARGEST_GROUP)
        kernels.backward(grad, saved, weight, rstd, out, norm, threads=rows * group, group_size=group)
    if out is not grad_input:
        grad_input.copy_(out)
    return grad_weight


def add_rms_norm_(x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, add: bool = True) -> Tensor:
    """As `patcher.ops.rms_norm.add_rms_norm_`."""
    columns = x.shape[-1]
    flat, rest, weight = rows_of(x.reshape(-1, columns)), rows_of(residual.reshape(-1, columns)), weight.contiguous()
    rows = len(flat)
    if rows and columns:
        group = group_of(columns)
        norm = [columns, flat.stride(0), rest.stride(0), 0, 0, 0]
        kernels = _library(flat, weight, rest, flat)
        kernels.add_forward(flat, rest, weight, norm, int(add), float(eps), threads=rows * group, group_size=group)
    for whole, part in ((x, flat), (residual, rest)):
        if part.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
            whole.copy_(part.view(whole.shape))
    return x


def _library(x: Tensor, weight: Tensor, grad: Tensor, out: Tensor) -> Any:
    return library("rms_norm", ("X", x.dtype), ("W", weight.dtype), ("G", grad.dtype), ("D", out.dtype))
