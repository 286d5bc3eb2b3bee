"""What SwiGLU and GEGLU share: ``h = f * g`` with ``f = activation(e)``, and its gradients written over the inputs.

Shazeer, "GLU Variants Improve Transformer", 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patcher.ops.row_chunks import row_chunks

Activation = Callable[[Tensor], Tensor]
"""fp32 ``e`` to a new fp32 ``f``."""

ActivationAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""fp32 ``e`` to new fp32 tensors ``f`` and ``df / de``; ``e`` is left alone."""


def gated(e: Tensor, g: Tensor, activation: Activation) -> Tensor:
    """``f * g`` for tensors of one shape.

    ``f`` is computed in fp32 and rounded to ``g``'s dtype before it multiplies, as Hugging Face's modules do.

    Returns:
        A new contiguous tensor in ``e``'s shape and dtype.
    """
    h = torch.empty(e.shape, dtype=e.dtype, device=e.device)
    flat_h, flat_e, flat_g = h.view(-1, e.shape[-1]), e.reshape(-1, e.shape[-1]), g.reshape(-1, g.shape[-1])
    for part in row_chunks(*flat_h.shape):
        flat_h[part] = activation(flat_e[part].float()).to(g.dtype) * flat_g[part]
    return h


def gated_backward(dh: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope) -> tuple[Tensor, Tensor, Tensor]:
    """``h``, ``df`` and ``de`` as new tensors.

    ``f`` is rounded to ``dh``'s dtype; ``h = f * g``, ``df = dh * f`` (the gradient of ``g``) and ``dg = dh * g`` are
    products in that dtype; ``de = dg * slope`` in fp32, then rounded.
    """
    f32, slope = activation(e.float())
    f = f32.to(dh.dtype)
    return f * g, dh * f, slope.mul_((dh * g).float()).to(dh.dtype)


def gated_backward_(dh: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope) -> tuple[Tensor, Tensor, Tensor]:
    """`gated_backward` into its inputs' memory: ``dh`` becomes ``h``, ``e`` becomes ``df``, ``g`` becomes ``de``.

    Args:
        dh: ``[rows, columns]``, the gradient of ``h``.
        e: ``[rows, columns]``, the activation's input.
        g: ``[rows, columns]``, the factor.
        activation: ``e`` to ``f`` and its slope.

    Returns:
        The three input tensors.
    """
    for part in row_chunks(*e.shape):
        h, df, de = gated_backward(dh[part], e[part], g[part], activation)
        dh[part], e[part], g[part] = h, df, de
    return dh, e, g
