"""RMS normalisation of every head, then rotary embedding, as in Qwen3's attention; see `rms_norm` and `rope`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.rms_norm import rms_norm, rms_norm_backward
from patcher.ops.rope import rope_
from patcher.ops.variants.choice import Choice

VARIANT = Choice("qk_norm_rope")


def qk_norm_rope(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Normalises and rotates heads.

    Args:
        x: ``[batch, tokens, heads, head]``, any strides.
        weight: ``[head]``.
        cos: ``[positions, >= head / 2]``.
        sin: as ``cos``.
        eps: of the normalisation.
        positions: as in `rope_`.

    Returns:
        The result, contiguous in ``x``'s shape and dtype, and ``rstd`` ``[batch * tokens, heads]`` in fp32. The
        normalised heads are rounded to ``x``'s dtype; without ``positions`` they are then rounded to the table's.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.qk_norm_rope(x, weight, cos, sin, eps, positions)  # type: ignore[no-any-return]
    batch, tokens, heads, head = x.shape
    normed, rstd = rms_norm(x.reshape(-1, head), weight, eps)
    y = normed.view(batch, tokens, heads, head)
    _rotate(y, cos, sin, y, positions, transpose=False)
    return y, rstd.view(batch * tokens, heads)


def qk_norm_rope_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
) -> Tensor:
    """The gradient of ``x``, contiguous, in ``grad_output``'s dtype; the weight gets none.

    The gradient is rotated back and rounded to its dtype, then goes through the normalisation in fp32.
    """
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.qk_norm_rope_backward(  # type: ignore[no-any-return]
            grad_output, x, weight, rstd, cos, sin, positions
        )
    batch, tokens, heads, head = x.shape
    grad_input = torch.empty((batch, tokens, heads, head), dtype=grad_output.dtype, device=grad_output.device)
    _rotate(grad_output, cos, sin, grad_input, positions, transpose=True)
    flat = grad_input.view(-1, head)
    rms_norm_backward(flat, x.reshape(-1, head), weight, rstd.reshape(-1), grad_input=flat)
    return grad_input


def qk_norm_rope_pair(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_eps: float,
    k_eps: float,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`qk_norm_rope` of queries and of keys, which have heads of their own number: both results, both ``rstd``."""
    if q.is_mps and not is_compiling() and (variant := VARIANT[q.dtype]):
        return variant.qk_norm_rope_pair(  # type: ignore[no-any-return]
            q, k, q_weight, k_weight, cos, sin, q_eps, k_eps, positions
        )
    q_out, q_rstd = qk_norm_rope(q, q_weight, cos, sin, q_eps, positions)
    k_out, k_rstd = qk_norm_rope(k, k_weight, cos, sin, k_eps, positions)
    return q_out, k_out, q_rstd, k_rstd


def qk_norm_rope_pair_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    q_rstd: Tensor,
    k_rstd: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`qk_norm_rope_backward` of queries and of keys."""
    if q.is_mps and not is_compiling() and (variant := VARIANT[q.dtype]):
        return variant.qk_norm_rope_pair_backward(  # type: ignore[no-any-return]
            q_grad, k_grad, q, k, q_weight, k_weight, q_rstd, k_rstd, cos, sin, positions
        )
    return (
        qk_norm_rope_backward(q_grad, q, q_weight, q_rstd, cos, sin, positions),
        qk_norm_rope_backward(k_grad, k, k_weight, k_rstd, cos, sin, positions),
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, positions: Tensor | None, *, transpose: bool) -> None:
    rope_(
        x.transpose(1, 2),
        cos,
        sin,
        out=out.transpose(1, 2),
        positions=positions,
        transpose=transpose,
        in_table_dtype=positions is None and not transpose,
    )
