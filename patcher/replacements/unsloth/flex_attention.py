"""Attention with soft-capped scores, as ``unsloth.kernels.flex_attention`` defines it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.attention import Pattern, attention


def slow_attention_softcapping(
    Q: Tensor, K: Tensor, V: Tensor, causal_mask: Tensor, self: Any, bsz: int, q_len: int
) -> Tensor:
    """Output ``[bsz, queries, heads * head_dim]`` for Q ``[bsz, heads, queries, head_dim]`` and grouped K and V.

    A two-dimensional ``causal_mask`` is indexed by absolute position, a four-dimensional one by row; both are added.
    """
    queries, keys = Q.shape[-2], K.shape[-2]
    first = keys - queries if causal_mask.dim() == 2 else 0
    bias = causal_mask[..., first : first + queries, :keys]
    scale = torch.tensor(self.config.query_pre_attn_scalar**-0.5, dtype=Q.dtype).item()  # upstream rounds it as well
    out = attention(Q, K, V, Pattern(scale, softcap=self.config.attn_logit_softcapping), bias=bias)
    return out.transpose(1, 2).flatten(2)
