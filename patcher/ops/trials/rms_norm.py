"""What the variants of RMSNorm are tried on: Llama's and Gemma's form, with residual, frozen and trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.variants.trial import Sample, Tensors, copied, numbers, strided, whole

EPS = 1e-6
SHAPES = ((3, 5), (5, 33), (4, 128), (37, 300), (3, 1024), (2, 4099), (2, 9001))
"""Rows and columns: far less than a simdgroup, odd, one simdgroup and many, and wider than a threadgroup holds."""

TIMED = ((4096, 128), (1024, 2048), (256, 8192))


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples whose rows lie apart and are not aligned."""
    for rows, columns in SHAPES:
        for weight_dtype in dict.fromkeys((dtype, torch.float32)):
            tensors = _tensors(rows, columns, dtype, weight_dtype)
            name = f"{rows} x {columns} with a weight of {weight_dtype}"
            apart = {key: strided(each) if each.dim() == 2 else each for key, each in tensors.items()}
            yield Sample(name, apart, _all, max(rows, columns), steps=2)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by width, as a training with frozen norms has them."""
    for rows, columns in TIMED:
        yield Sample(str(columns), _tensors(rows, columns, dtype, dtype), _frozen, columns)


def _tensors(rows: int, columns: int, dtype: torch.dtype, weight_dtype: torch.dtype) -> dict[str, Tensor]:
    draw = numbers(rows * columns)
    x, grad, residual = (draw(rows, columns) for _ in range(3))
    x[0] *= 100
    x[-1] *= 1e-3  # so that eps counts
    weight = (draw(columns) * 0.3 + 1).to(weight_dtype)
    return {"x": x.to(dtype), "grad": grad.to(dtype), "residual": residual.to(dtype), "weight": weight}


def _frozen(ops: Any, t: Tensors) -> dict[str, Tensor]:
    y, rstd = ops.rms_norm(t["x"], t["weight"], EPS)
    grad_input = torch.empty_like(t["grad"])
    ops.rms_norm_backward(t["grad"], t["x"], t["weight"], rstd, grad_input=grad_input)
    return {"y": y, "rstd": rstd, "grad_input": grad_input}


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for unit_offset in (False, True):
        y, rstd = ops.rms_norm(t["x"], t["weight"], EPS, unit_offset=unit_offset)
        how = {"unit_offset": unit_offset, "needs_grad_weight": True}
        grad_input = copied(t["grad"])  # which is its own gradient
        grad_weight = ops.rms_norm_backward(grad_input, t["x"], t["weight"], rstd, grad_input=grad_input, **how)
        case = "Gemma's " if unit_offset else ""
        found |= {f"{case}y": y, f"{case}rstd": rstd}
        found |= {f"{case}grad_input": whole(grad_input), f"{case}grad_weight": grad_weight}
    for add in (True, False):
        x, residual = copied(t["x"]), copied(t["residual"])
        ops.add_rms_norm_(x, residual, t["weight"], EPS, add=add)
        found |= {f"sum, add={add}": whole(residual), f"its norm, add={add}": whole(x)}
    return found
