"""What the variants of SwiGLU and GEGLU are tried on: forward, backward, and backward into its inputs' memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope
from patcher.ops.swiglu import silu, silu_and_slope
from patcher.ops.variants.trial import Sample, Tensors, copied, numbers, strided, whole

ACTIVATIONS = {
    "SwiGLU": (silu, silu_and_slope),
    "exact GEGLU": (gelu, gelu_and_slope),
    "GEGLU with tanh": (gelu_tanh, gelu_tanh_and_slope),
}

SHAPES = ((3, 5), (4, 128), (7, 301))
TIMED = ((1024, 2048), (512, 8192))


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples of numbers up to 20, beyond which every activation is 0 or its input; rows side by side and apart."""
    for rows, columns in SHAPES:
        for how, placed in (("side by side", Tensor.clone), ("apart", strided)):
            tensors = {name: placed(each) for name, each in _tensors(rows, columns, dtype).items()}
            yield Sample(f"{rows} x {columns}, {how}", tensors, _all, 1, steps=3)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by width, as a training of Llama's has them."""
    for rows, columns in TIMED:
        yield Sample(str(columns), _tensors(rows, columns, dtype), _swiglu, 1)


def _tensors(rows: int, columns: int, dtype: torch.dtype) -> dict[str, Tensor]:
    draw = numbers(rows * columns)
    e, g, grad = (draw(rows, columns) for _ in range(3))
    for each, first in ((e, 2.0), (g, 1.0), (grad, 1.0)):
        each[:, 0] = first  # not all of a row is of the tail, where 1 + erf has lost its digits
    e[:, 1:] *= torch.linspace(0.1, 6, rows, dtype=torch.float32, device="cpu")[:, None]
    return {"e": e.clamp(-20, 20).to(dtype), "g": g.to(dtype), "grad": grad.to(dtype)}


def _swiglu(ops: Any, t: Tensors) -> dict[str, Tensor]:
    grad, e, g = (t[name].clone() for name in ("grad", "e", "g"))
    ops.gated_backward_(grad, e, g, silu_and_slope)
    return {"h": ops.gated(t["e"], t["g"], silu), "h again": grad, "grad_g": e, "grad_e": g}


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, (activation, slope) in ACTIVATIONS.items():
        found[f"{name}'s h"] = ops.gated(t["e"], t["g"], activation)
        found |= zip(_names(name), ops.gated_backward(t["grad"], t["e"], t["g"], slope), strict=True)
        made = [copied(t[each]) for each in ("grad", "e", "g")]
        ops.gated_backward_(*made, slope)
        found |= zip(_names(f"{name} in place"), map(whole, made), strict=True)
    return found


def _names(of: str) -> list[str]:
    return [f"{of}: {each}" for each in ("h again", "grad_g", "grad_e")]
