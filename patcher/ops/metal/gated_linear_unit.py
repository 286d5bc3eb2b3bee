"""`patcher.ops.gated_linear_unit` as Metal shaders: a launch each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.gated_linear_unit import Activation, ActivationAndSlope
from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope
from patcher.ops.metal.library import library, rows_of
from patcher.ops.swiglu import silu, silu_and_slope

EACH = 4
"""Elements of a thread; as in the source."""

GROUP = 256

ACTIVATIONS: dict[Any, int] = {
    silu: 0, silu_and_slope: 0, gelu: 1, gelu_and_slope: 1, gelu_tanh: 2, gelu_tanh_and_slope: 2,
}  # fmt: skip
"""The number that the source has for each."""


def gated(e: Tensor, g: Tensor, activation: Activation) -> Tensor:
    """As `patcher.ops.gated_linear_unit.gated`."""
    h = torch.empty(e.shape, dtype=e.dtype, device=e.device)
    types = {"E": e.dtype, "G": g.dtype, "D": e.dtype, "P": e.dtype, "H": e.dtype, "Q": e.dtype, "R": e.dtype}
    _launch("forward", activation, types, [_flat(e), _flat(g), _flat(h)])
    return h


def gated_backward(
    grad_output: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope
) -> tuple[Tensor, Tensor, Tensor]:
    """As `patcher.ops.gated_linear_unit.gated_backward`."""
    dtype = torch.promote_types(grad_output.dtype, g.dtype)
    made = [torch.empty(e.shape, dtype=each, device=e.device) for each in (dtype, *2 * (grad_output.dtype,))]
    _backward(activation, [_flat(grad_output), _flat(e), _flat(g)], [_flat(each) for each in made])
    return made[0], made[1], made[2]


def gated_backward_(
    grad_output: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope
) -> tuple[Tensor, Tensor, Tensor]:
    """As `patcher.ops.gated_linear_unit.gated_backward_`."""
    given = [grad_output, e, g]
    rows = [rows_of(each) for each in given]
    _backward(activation, rows, rows)
    for whole, part in zip(given, rows, strict=True):
        if part is not whole:
            whole.copy_(part)
    return grad_output, e, g


def _backward(activation: ActivationAndSlope, given: list[Tensor], made: list[Tensor]) -> None:
    types = dict(zip("DEGHQR", (each.dtype for each in (*given, *made)), strict=True))
    types["P"] = torch.promote_types(types["D"], types["G"])
    _launch("backward", activation, types, [*given, *made])


def _flat(x: Tensor) -> Tensor:
    return rows_of(x.reshape(-1, x.shape[-1]))


def _launch(
    name: str, activation: Activation | ActivationAndSlope, types: dict[str, torch.dtype], tensors: list[Tensor]
) -> None:
    """Runs a kernel on rows; they are one long row where they lie side by side."""
    rows, columns = tensors[0].shape
    if not rows * columns:
        return
    if all(each.is_contiguous() for each in tensors):
        rows, columns = 1, rows * columns
    unit = [columns, ACTIVATIONS[activation], *(each.stride(0) for each in tensors)]
    kernel = getattr(library("gated_linear_unit", *sorted(types.items())), name)
    kernel(*tensors, unit, threads=(-(-columns // EACH), rows), group_size=(GROUP, 1))
