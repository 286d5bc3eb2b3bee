"""Kernels of linear layers for mps: they call torch's own, in the form in which it is right."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.dense import dense
from patcher.ops.split_sum import FIRST_WRONG, is_long, split_sum

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def linear(keys: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``, (..., k) and (n, k) to (..., n): one 2-D product, the bias of single rows apart."""
    call = partial(original("aten::linear on MPS").call_boxed, keys)
    input, weight = dense(input), dense(weight)
    result: Tensor
    if not _fits(input, weight, bias):
        result = call(input, weight, bias)
        return result
    columns, terms = weight.shape
    long = terms >= FIRST_WRONG and is_long(input.numel() // terms, terms, columns)
    apart = bias is not None and (input.size(-2) == 1 or bias.dim() > 1)
    if input.dim() == 2 or not (long or apart or input.is_contiguous() or _aborts(weight)):
        rows = input
    else:
        rows = input.flatten(0, -2)
    if not (long or apart):
        result = call(rows, weight, bias)
        return result if rows is input else result.view(*input.shape[:-1], columns)
    result = split_sum(lambda a, b: call(a, b.t(), None), rows, weight.t()) if long else call(rows, weight, None)
    result = result.view(*input.shape[:-1], columns)
    return (result if bias is None else result.add_(bias)).to(input.dtype)


def _fits(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are rows that torch takes; if not, its kernel raises its own error."""
    return (
        input.dim() > 1
        and weight.dim() == 2
        and input.size(-1) == weight.size(1)
        and input.dtype is weight.dtype
        and (bias is None or _joins(bias, input, weight))
    )


def _joins(bias: Tensor, input: Tensor, weight: Tensor) -> bool:
    fits = bias.dim() != 1 or bias.size(0) in (1, weight.size(0))
    return fits and bias.dtype is input.dtype and bias.device == input.device


def _aborts(weight: Tensor) -> bool:
    """With an input of three dimensions, on macOS 27."""
    return weight.dtype is torch.bfloat16 and not weight.is_contiguous()


def linear_backward(keys: Any, self: Tensor, grad_output: Tensor, weight: Tensor, output_mask: list[bool]) -> Gradients:
    """The gradients of input, weight and bias, those that ``output_mask`` asks for."""
    self, grad_output, weight = dense(self), dense(grad_output), dense(weight)
    features, inputs = weight.shape if weight.dim() == 2 else (0, 0)
    rows = self.numel() // max(inputs, 1)
    if not (is_long(rows, features, inputs) or is_long(features, rows, inputs)):
        call = original("aten::linear_backward on MPS").call_boxed
        gradients: Gradients = call(keys, self, grad_output, weight, output_mask)
        return gradients
    x, rows_of_grad = self.reshape(rows, inputs), grad_output.reshape(rows, features)
    with torch.autocast("mps", enabled=False):
        grad_input = _product(rows_of_grad, weight).view(self.shape) if output_mask[0] else None
        grad_weight = _product(rows_of_grad.t(), x) if output_mask[1] else None
        grad_bias = rows_of_grad.sum(0) if output_mask[2] else None
    return grad_input, grad_weight, grad_bias


def _product(a: Tensor, b: Tensor) -> Tensor:
    long = is_long(a.size(0), a.size(1), b.size(1))
    return split_sum(torch.mm, a, b).to(a.dtype) if long else torch.mm(a, b)
