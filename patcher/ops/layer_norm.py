"""Layer normalisation over the last dimension, computed in fp32 throughout and rounded once, at the end.

``y = (x - mean) * rstd * w + b`` with ``rstd = 1 / sqrt(var(x) + eps)`` and the biased variance.
Ba, Kiros and Hinton, "Layer Normalization", 2016; all in fp32 as torchtune's ``Fp32LayerNorm``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.row_chunks import row_chunks
from patcher.ops.variants.choice import Choice

VARIANT = Choice("layer_norm")


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises rows ``[rows, columns]`` of any floating dtype.

    Returns:
        ``y`` contiguous in ``x``'s dtype, and ``mean`` and ``rstd`` ``[rows]`` in fp32 for the backward.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.layer_norm(x, weight, bias, eps)  # type: ignore[no-any-return]
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    mean = torch.empty(rows, dtype=torch.float32, device=x.device)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    factor = weight.float()
    shift = None if bias is None else bias.float()
    for part in row_chunks(rows, columns):
        wide = x[part].float()
        mean[part] = wide.mean(-1)
        centred = wide - mean[part, None]
        rstd[part] = centred.square().mean(-1).add_(eps).rsqrt_()
        scaled = centred.mul_(rstd[part, None]).mul_(factor)
        y[part] = scaled if shift is None else scaled.add_(shift)
    return y, mean, rstd


def layer_norm_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    output_mask: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of `layer_norm` in fp32, summed over rows in fp32.

    With ``n = (x - mean) * rstd`` and ``g = grad_output * w``::

        grad_input  = rstd * (g - mean(g) - n * mean(g * n))
        grad_weight = sum_rows(grad_output * n)
        grad_bias   = sum_rows(grad_output)

    Args:
        grad_output: ``[rows, columns]``.
        x: as in the forward.
        weight: as in the forward.
        mean: of the forward.
        rstd: of the forward.
        output_mask: which of the three are wanted.

    Returns:
        ``grad_input`` in ``grad_output``'s dtype, the other two in fp32; None where not wanted.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.layer_norm_backward(  # type: ignore[no-any-return]
            grad_output, x, weight, mean, rstd, output_mask
        )
    rows, columns = grad_output.shape
    device, factor = grad_output.device, weight.float()
    grad_input = torch.empty((rows, columns), dtype=grad_output.dtype, device=device) if output_mask[0] else None
    grad_weight = torch.zeros(columns, dtype=torch.float32, device=device) if output_mask[1] else None
    grad_bias = torch.zeros(columns, dtype=torch.float32, device=device) if output_mask[2] else None
    for part in row_chunks(rows, columns):
        wide = grad_output[part].float()
        normed = (x[part].float() - mean[part, None]).mul_(rstd[part, None])
        if grad_weight is not None:
            grad_weight += (wide * normed).sum(0)
        if grad_bias is not None:
            grad_bias += wide.sum(0)
        if grad_input is not None:
            scaled = wide * factor
            offset = scaled.mean(-1, keepdim=True)
            projection = (scaled * normed).mean(-1, keepdim=True)
            grad_input[part] = scaled.sub_(offset).sub_(normed.mul_(projection)).mul_(rstd[part, None])
    return grad_input, grad_weight, grad_bias
