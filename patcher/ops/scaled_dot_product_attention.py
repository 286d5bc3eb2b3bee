"""``torch.nn.functional.scaled_dot_product_attention``, with its arguments, by `patcher.ops.attention`.

The two number keys differently. torch's ``is_causal`` lets query ``i`` see keys ``0 .. i`` whatever their number;
`Pattern` counts from the last key, so that the last query sees all of them. With as many keys as queries they agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.attention import Pattern, attention
from patcher.ops.drawn_seed import drawn_seed

WIDEST = 256
"""Elements of a head; wider ones are left to torch."""


def fits(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float, causal: bool, grouped: bool
) -> bool:
    """Whether these are arguments that torch takes and `scaled_dot_product_attention` computes.

    Three or four dimensions, one dtype, batches and heads that agree without broadcasting; a mask that broadcasts.
    """
    dims = query.dim()
    if dims not in (3, 4) or key.dim() != dims or value.dim() != dims or not query.is_floating_point():
        return False
    if not (query.dtype is key.dtype is value.dtype and query.device == key.device == value.device):
        return False
    if key.shape[:-1] != value.shape[:-1] or query.size(-1) != key.size(-1) or query.shape[:-3] != key.shape[:-3]:
        return False
    heads, kv_heads = query.size(-3), key.size(-3)
    if heads != kv_heads and not (grouped and kv_heads and heads % kv_heads == 0):
        return False
    if not (0 < query.size(-1) <= WIDEST and 0 < value.size(-1) <= WIDEST and query.numel() and key.numel()):
        return False
    return 0 <= dropout_p < 1 and (attn_mask is None or (not causal and _broadcasts(attn_mask, query, key)))


def _broadcasts(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    if mask.device != query.device or mask.dtype not in (torch.bool, torch.float32, query.dtype):
        return False
    scores = (*query.shape[:-1], key.size(-2))
    sizes = zip(reversed(mask.shape), reversed(scores), strict=False)
    return 2 <= mask.dim() <= len(scores) and all(size in (1, whole) for size, whole in sizes)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` of arguments that `fits`, ``[B, H, L, Dv]`` in query's dtype.

    A boolean mask is True where a query sees a key; a query that sees none gives zeros. With dropout the device's
    generator is drawn from once.
    """
    if query.dim() == 3:
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask[None]
        whole = scaled_dot_product_attention(
            query[None], key[None], value[None], attn_mask, dropout_p, is_causal, scale
        )
        return whole[0]
    queries, keys = query.size(-2), key.size(-2)
    window: tuple[None, int | None] = (None, None)
    if is_causal and keys > queries:
        key, value = key[:, :, :queries], value[:, :, :queries]
    elif is_causal and keys < queries:
        is_causal, window = False, (None, queries - keys)
    pattern = Pattern(
        scale=query.size(-1) ** -0.5 if scale is None else scale,
        causal=is_causal,
        window=window,
        dropout_p=dropout_p,
        seed=drawn_seed(query.device) if dropout_p else 0,
    )
    return attention(query, key, value, pattern, bias=attn_mask)
