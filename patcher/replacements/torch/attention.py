"""The kernel of attention that torch takes on mps where no gradient is needed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original


def _scaled_dot_product_attention_math_for_mps(
    keys: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output (..., heads, queries, values) and weights; with dropout by the products that torch takes for gradients.

    So a forward without gradients draws the mask that its recomputation with gradients draws.
    """
    rest = (dropout_p, is_causal, dropout_mask)
    attended: tuple[Tensor, Tensor]
    if dropout_p == 0:
        call = original("aten::_scaled_dot_product_attention_math_for_mps on MPS").call_boxed
        attended = call(keys, query, key, value, attn_mask, *rest, scale=scale, enable_gqa=enable_gqa)
        return attended
    mask = _additive(attn_mask, query.dtype)
    attended = torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, mask, *rest, scale=scale, enable_gqa=enable_gqa
    )
    return attended


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores: minus infinity where a boolean mask is False."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), -math.inf)
