"""What SwiGLU and GEGLU share: ``h = f * g`` with ``f = activation(e)``, and its gradients written over the inputs.

Shazeer, "GLU Variants Improve Transformer", 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.row_chunks import row_chunks
from patcher.ops.variants.choice import Choice

VARIANT = Choice("gated_linear_unit")

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
    if e.is_mps and not is_compiling() and (variant := VARIANT[e.dtype]):
        return variant.gated(e, g, activation)  # type: ignore[no-any-return]
    h = torch.empty(e.shape, dtype=e.dtype, device=e.device)
    flat_h, flat_e, flat_g = h.view(-1, e.shape[-1]), e.reshape(-1, e.shape[-1]), g.reshape(-1, g.shape[-1])
    for part in row_chunks(*flat_h.shape):
        flat_h[part] = activation(flat_e[part].float()).to(g.dtype) * flat_g[part]
    return h


def gated_backward(
    grad_output: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope
) -> tuple[Tensor, Tensor, Tensor]:
    """``h``, ``grad_g`` and ``grad_e`` as new tensors.

    ``f`` is rounded to ``grad_output``'s dtype; ``h = f * g``, ``grad_g = grad_output * f`` and
    ``grad_f = grad_output * g`` are products in that dtype; ``grad_e = grad_f * slope`` in fp32, then rounded.
    """
    if e.is_mps and not is_compiling() and (variant := VARIANT[e.dtype]):
        return variant.gated_backward(grad_output, e, g, activation)  # type: ignore[no-any-return]
    f32, slope = activation(e.float())
    f = f32.to(grad_output.dtype)
    return f * g, grad_output * f, slope.mul_((grad_output * g).float()).to(grad_output.dtype)


def gated_backward_(
    grad_output: Tensor, e: Tensor, g: Tensor, activation: ActivationAndSlope
) -> tuple[Tensor, Tensor, Tensor]:
    """`gated_backward` into its inputs' memory.

    Args:
        grad_output: ``[rows, columns]``, the gradient of ``h``; becomes ``h``.
        e: ``[rows, columns]``, the activation's input; becomes ``grad_g``.
        g: ``[rows, columns]``, the factor; becomes ``grad_e``.
        activation: ``e`` to ``f`` and its slope.

    Returns:
        The three input tensors.
    """
    if e.is_mps and not is_compiling() and (variant := VARIANT[e.dtype]):
        return variant.gated_backward_(grad_output, e, g, activation)  # type: ignore[no-any-return]
    for part in row_chunks(*e.shape):
        h, grad_g, grad_e = gated_backward(grad_output[part], e[part], g[part], activation)
        grad_output[part], e[part], g[part] = h, grad_g, grad_e
    return grad_output, e, g
