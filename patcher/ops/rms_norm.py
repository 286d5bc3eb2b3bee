"""RMS normalisation over the last dimension, with the roundings of Hugging Face's Llama and Gemma modules.

``y = x * rstd * w`` with ``rstd = 1 / sqrt(mean(x^2) + eps)``; statistics and their use are in fp32.

* Llama (``unit_offset=False``): ``x * rstd`` is rounded to the weight's dtype and multiplied there.
* Gemma (``unit_offset=True``): the weight is ``w + 1`` in fp32 and only the product is rounded.

Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.row_chunks import row_chunks
from patcher.ops.variants.choice import Choice

VARIANT = Choice("rms_norm")


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> tuple[Tensor, Tensor]:
    """Normalises rows.

    Args:
        x: ``[rows, columns]``, fp32, fp16 or bf16, any strides.
        weight: ``[columns]``, its own dtype.
        eps: added to the mean square.
        unit_offset: whether the factor is ``weight + 1``.

    Returns:
        ``y`` contiguous in ``x``'s dtype, and ``rstd`` ``[rows]`` in fp32, which the backward needs.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.rms_norm(x, weight, eps, unit_offset=unit_offset)  # type: ignore[no-any-return]
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    factor = weight.float() + 1.0 if unit_offset else weight
    for part in row_chunks(rows, columns):
        wide = x[part].float()
        scale = wide.square().mean(-1).add_(eps).rsqrt_()
        rstd[part] = scale
        normed = wide * scale[:, None]
        y[part] = normed.to(factor.dtype) * factor
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
    """Gradients of `rms_norm`, in fp32 from the saved rows and ``rstd``.

    With ``n = x * rstd`` and ``g = grad_output * w``: ``grad_input = rstd * (g - n * mean(g * n))`` and
    ``grad_weight = sum_rows(grad_output * n)`` where ``n`` is rounded as the forward rounded it.

    Args:
        grad_output: ``[rows, columns]``.
        saved: ``x``, or ``y`` if ``saved_is_output``; then ``n`` is ``y / w``.
        weight: ``[columns]``.
        rstd: ``[rows]`` fp32 from the forward.
        grad_input: where the gradient of ``x`` is written; it may be ``grad_output``.
        unit_offset: as in the forward.
        needs_grad_weight: whether ``grad_weight`` is wanted.
        saved_is_output: what ``saved`` is.

    Returns:
        ``grad_weight`` in the weight's dtype, summed in fp32, or None.
    """
    if saved.is_mps and not is_compiling() and (variant := VARIANT[saved.dtype]):
        return variant.rms_norm_backward(  # type: ignore[no-any-return]
            grad_output, saved, weight, rstd, grad_input=grad_input, unit_offset=unit_offset,
            needs_grad_weight=needs_grad_weight, saved_is_output=saved_is_output,
        )  # fmt: skip
    rows, columns = grad_output.shape
    factor = weight.float() + 1.0 if unit_offset else weight.float()
    total = torch.zeros(columns, dtype=torch.float32, device=grad_output.device) if needs_grad_weight else None
    for part in row_chunks(rows, columns):
        scale = rstd[part, None]
        wide = grad_output[part].float()
        normed = saved[part].float() / factor if saved_is_output else saved[part].float() * scale
        if total is not None:
            total += (wide * (normed if unit_offset else normed.to(weight.dtype).float())).sum(0)
        scaled = wide * factor
        projection = (scaled * normed).mean(-1, keepdim=True)
        grad_input[part] = scaled.sub_(normed.mul_(projection)).mul_(scale)
    return None if total is None else total.to(weight.dtype)


def add_rms_norm_(x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, add: bool = True) -> Tensor:
    """``residual = x + residual``, then ``x = rms_norm(residual) * weight``, both in place; for inference.

    Args:
        x: ``[..., columns]``, overwritten.
        residual: the same shape, overwritten; only written, not read, without ``add``.
        weight: ``[columns]``.
        eps: added to the mean square.
        add: whether ``residual`` is added first; the sum is rounded to ``x``'s dtype.

    Returns:
        ``x``. The normalised row is rounded to ``x``'s dtype before the weight multiplies it in fp32.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.add_rms_norm_(x, residual, weight, eps, add=add)  # type: ignore[no-any-return]
    hidden = x.float()
    if add:
        hidden = (hidden + residual.float()).to(x.dtype).float()
    residual.copy_(hidden)
    normed = hidden * hidden.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return x.copy_(normed.to(x.dtype).float() * weight.float())
