"""Attention on mps: what torch's entry point takes, and its kernel where no gradient is needed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from patcher.engine.ledger import original
from patcher.ops import scaled_dot_product_attention as by_blocks
from patcher.ops.attention import VARIANT

LEAST_SCORES = 1 << 22
"""Of one call by blocks in torch: with fewer, torch's own products hold less than 55 MiB, and are fewer kernels. As
shaders attention is three launches, and takes less memory at every length."""


def scaled_dot_product_attention(
    keys: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Output (..., heads, queries, values) by blocks where it is to have a gradient, or dropout; else torch's.

    What was dropped in a forward without gradients is dropped in its recomputation with gradients. Torch's own is taken
    for few scores, for subclasses and whatever traces, transforms or counts operators, and raises its own errors.
    """
    given = query, key, value, attn_mask, dropout_p, is_causal
    asked = dropout_p or _has_gradient(query, key, value, attn_mask)
    if asked and _pays(query, key) and _is_plain(query, key, value) and by_blocks.fits(*given, enable_gqa):
        return by_blocks.scaled_dot_product_attention(*given, scale)
    call = original("aten::scaled_dot_product_attention on AutogradMPS").call_boxed
    attended: Tensor = call(keys, *given, scale=scale, enable_gqa=enable_gqa)
    return attended


def _has_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _pays(query: Tensor, key: Tensor) -> bool:
    if min(query.dim(), key.dim()) < 3:
        return False
    many = query.shape[:-1].numel() * key.size(-2) >= LEAST_SCORES
    return many or (query.is_mps and VARIANT[query.dtype] is not None)  # a shader is one kernel, however few


def _is_plain(*tensors: Tensor) -> bool:
    """Whether nobody but autograd looks at the operators of these tensors."""
    own = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
    watched = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    return own and not watched and forward_ad._current_level < 0


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
