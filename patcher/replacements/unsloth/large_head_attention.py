"""The two halves of ``unsloth.kernels.large_head_attention`` in plain torch.

Upstream registers both as custom operators that look these names up when they run. ``lse``, the logarithm of every
row's sum, is only handed from one to the other; the backward here does not need it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.blocked_attention import Scores, blocked_attention_backward, blocked_attention_forward


def _fwd_impl(q: Tensor, k: Tensor, v: Tensor, lo: Tensor, hi: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output, stored as ``[B, S, H, D]``, and zeros for the logarithms."""
    out = blocked_attention_forward(q, k, v, Scores(scale, interval=(lo, hi)))
    return out, q.new_zeros(q.shape[:3], dtype=torch.float32)


def _bwd_impl(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, lo: Tensor, hi: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    return blocked_attention_backward(do, q, k, v, o, Scores(scale, interval=(lo, hi)))
