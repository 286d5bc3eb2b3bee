"""The backward of convolutions on mps, in batches that its kernel can count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original

MOST_SAMPLES = 65535

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def convolution_backward(
    keys: Any,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> Gradients:
    """The gradients of input, weight and bias; those of weight and bias are added up over parts of a huge batch."""
    call = original("aten::convolution_backward on MPS").call_boxed
    rest = (bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask)
    if input.size(0) <= MOST_SAMPLES or input.dim() > 4 or not output_mask[1]:
        whole: Gradients = call(keys, grad_output, input, weight, *rest)
        return whole
    pieces = zip(torch.split(grad_output, MOST_SAMPLES), torch.split(input, MOST_SAMPLES), strict=True)
    grad_input, grad_weight, grad_bias = zip(*(call(keys, g, x, weight, *rest) for g, x in pieces), strict=True)
    whole_input = torch.cat(grad_input) if output_mask[0] else None
    return whole_input, sum(grad_weight), sum(grad_bias) if output_mask[2] else None
