"""Layer normalisation over the last dimension, computed in fp32 throughout and rounded once, at the end.

``y = (x - mean) * rstd * w + b`` with ``rstd = 1 / sqrt(var(x) + eps)`` and the biased variance.
Ba, Kiros and Hinton, "Layer Normalization", 2016; all in fp32 as torchtune's ``Fp32LayerNorm``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.row_chunks import row_chunks


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises rows ``[rows, columns]`` of any floating dtype.

    Returns:
        ``y`` contiguous in ``x``'s dtype, and ``mean`` and ``rstd`` ``[rows]`` in fp32 for the backward.
    """
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
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    weight_grad: bool = False,
    bias_grad: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `layer_norm` in fp32, summed over rows in fp32.

    With ``n = (x - mean) * rstd`` and ``g = grad * w``: ``dx = rstd * (g - mean(g) - n * mean(g * n))``,
    ``dw = sum_rows(grad * n)``, ``db = sum_rows(grad)``.

    Returns:
        ``dx`` in ``grad``'s dtype, ``dw`` and ``db`` in fp32 or None where not wanted.
    """
    rows, columns = grad.shape
    dx = torch.empty((rows, columns), dtype=grad.dtype, device=grad.device)
    factor = weight.float()
    dw = torch.zeros(columns, dtype=torch.float32, device=grad.device) if weight_grad else None
    db = torch.zeros(columns, dtype=torch.float32, device=grad.device) if bias_grad else None
    for part in row_chunks(rows, columns):
        wide = grad[part].float()
        normed = (x[part].float() - mean[part, None]).mul_(rstd[part, None])
        if dw is not None:
            dw += (wide * normed).sum(0)
        if db is not None:
            db += wide.sum(0)
        scaled = wide * factor
        offset = scaled.mean(-1, keepdim=True)
        projection = (scaled * normed).mean(-1, keepdim=True)
        dx[part] = scaled.sub_(offset).sub_(normed.mul_(projection)).mul_(rstd[part, None])
    return dx, dw, db
