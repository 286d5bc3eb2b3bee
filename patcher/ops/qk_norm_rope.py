"""RMS normalisation of every head, then rotary embedding, as in Qwen3's attention; see `rms_norm` and `rope`."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.rms_norm import rms_norm, rms_norm_backward
from patcher.ops.rope import rope_


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
    batch, tokens, heads, head = x.shape
    grad_input = torch.empty((batch, tokens, heads, head), dtype=grad_output.dtype, device=grad_output.device)
    _rotate(grad_output, cos, sin, grad_input, positions, transpose=True)
    flat = grad_input.view(-1, head)
    rms_norm_backward(flat, x.reshape(-1, head), weight, rstd.reshape(-1), grad_input=flat)
    return grad_input


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
