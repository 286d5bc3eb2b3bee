"""Kernels of linear layers for mps: they call torch's own, in the form in which it is right."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from patcher.ledger import original
from patcher.ops.split_sum import LONGEST, is_long, split_sum

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def linear(keys: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``, (..., k) and (n, k) to (..., n): one 2-D product, with a contiguous bf16 weight."""
    call = partial(original("aten::linear on MPS").call_boxed, keys)
    if weight.dtype is torch.bfloat16 and not weight.is_contiguous():
        weight = weight.contiguous()
    if input.dim() < 2 or weight.dim() != 2 or not input.is_contiguous() or (bias is not None and bias.dim() > 1):
        result: Tensor = call(input, weight, bias)
        return result
    if input.dim() == 2:
        return _linear(call, input, weight, bias)
    return _linear(call, input.flatten(0, -2), weight, bias).view(*input.shape[:-1], weight.size(0))


def _linear(call: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    alone = bias is not None and rows.size(0) == 1
    result: Tensor
    if rows.size(1) > LONGEST and is_long(rows.size(0), rows.size(1), weight.size(0)):
        result = split_sum(lambda a, b: call(a, b.t(), None), rows, weight.t()).to(rows.dtype)
    elif bias is None or alone:
        result = call(rows, weight, None)
    else:
        return call(rows, weight, bias)  # type: ignore[no-any-return]
    return result if bias is None else result.add_(bias)


def linear_backward(keys: Any, self: Tensor, grad_output: Tensor, weight: Tensor, output_mask: list[bool]) -> Gradients:
    """The gradients of input, weight and bias, those that ``output_mask`` asks for."""
    features, inputs = weight.shape if weight.dim() == 2 else (0, 0)
    rows = self.numel() // max(inputs, 1)
    if not (is_long(rows, features, inputs) or is_long(features, rows, inputs)):
        call = original("aten::linear_backward on MPS").call_boxed
        gradients: Gradients = call(keys, self, grad_output, weight, output_mask)
        return gradients
    x, gradient = self.reshape(rows, inputs), grad_output.reshape(rows, features)
    with torch.autocast("mps", enabled=False):
        to_input = _product(gradient, weight).view(self.shape) if output_mask[0] else None
        to_weight = _product(gradient.t(), x) if output_mask[1] else None
        to_bias = gradient.sum(0) if output_mask[2] else None
    return to_input, to_weight, to_bias


def _product(a: Tensor, b: Tensor) -> Tensor:
    long = is_long(a.size(0), a.size(1), b.size(1))
    return split_sum(torch.mm, a, b).to(a.dtype) if long else torch.mm(a, b)
