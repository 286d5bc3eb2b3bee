"""Attention as ``unsloth.utils.attention_dispatch`` is asked for it, by `patcher.ops.attention` on mps."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.attention import Pattern, attention, attention_varlen
from patcher.ops.drawn_seed import drawn_seed

KNOWN = {"scale", "dropout_p"}
"""Arguments of torch's attention that a `Pattern` has."""


def run_attention(*, config: Any, context: Any, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Output ``[batch, queries, heads, head]`` for Q ``[batch, heads, queries, head]`` and grouped K and V.

    Packed rows, windows, padding and soft-capped scores are computed without a mask of queries by keys. Plain causal
    rows, and what reads a cache, are upstream's, which goes on to torch's attention.
    """
    if Q.device.type == "mps" and Q.shape[-2] == K.shape[-2] and _is_known(config, context):
        if context.seq_info is not None and context.attention_mask is None:
            attended = _packed(config, context, Q, K, V)
        else:
            attended = _hiding(config, context, Q, K, V)
        if attended is not None:
            return attended
    upstream: Tensor = original("unsloth.utils.attention_dispatch:run_attention")(
        config=config, context=context, Q=Q, K=K, V=V
    )
    return upstream


def _is_known(config: Any, context: Any) -> bool:
    """Whether nothing is asked for but lengths, a window, padding, a scale, dropout and a softcap."""
    if getattr(context, "prefix_seg_info", None) is not None or torch.compiler.is_compiling():
        return False
    mask = context.attention_mask
    return set(config.sdpa_kwargs or ()) <= KNOWN and (mask is None or mask.dim() == 2)


def _packed(config: Any, context: Any, Q: Tensor, K: Tensor, V: Tensor) -> Tensor | None:
    """A row of several texts, which do not see one another; None where their lengths are not those of the row."""
    texts = _texts(context.seq_info, Q.shape[-2]) if Q.shape[0] == 1 else None
    if texts is None:
        return None
    starts, longest = texts
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (Q, K, V))
    return attention_varlen(q, k, v, starts, starts, longest, longest, _pattern(config, context, Q)).unsqueeze(0)


def _texts(seq_info: tuple[Tensor, Tensor, int], tokens: int) -> tuple[Tensor, int] | None:
    """Where the texts of a row begin, and how long the longest is; what is padded at the end of a row is a text.

    None where the lengths are not those of the row, and before 2026.10.1, where nobody knows them on the host.
    """
    packing = import_module("unsloth.utils.packing")
    lengths = getattr(packing, "packed_segment_lengths", None)
    if lengths is None or sum(lengths(seq_info, tokens)) != tokens:
        return None
    covered: tuple[Tensor, int] = packing.cover_padded_cu_seqlens(seq_info, tokens)
    return covered


def _hiding(config: Any, context: Any, Q: Tensor, K: Tensor, V: Tensor) -> Tensor | None:
    """Rows with a window, padding or a softcap; None for those without."""
    window, padding = _window(context), context.attention_mask
    hides = window is not None and window < Q.shape[-2]
    if not (hides or padding is not None or _softcap(config)):
        return None
    seen = None if padding is None else (padding != 0)[:, None, None, :]
    return attention(Q, K, V, _pattern(config, context, Q), bias=seen).transpose(1, 2)


def _softcap(config: Any) -> float | None:
    softcap: float | None = (config.flash_dense_kwargs or {}).get("softcap")
    return softcap


def _window(context: Any) -> int | None:
    """How many keys a query sees, its own among them."""
    width: int | None = context.sliding_window
    return width if width is not None and width > 0 else None


def _pattern(config: Any, context: Any, Q: Tensor) -> Pattern:
    """What is asked of flash-attn where there is a softcap, as Gemma 2 has its window in every second layer only."""
    if _softcap(config):
        asked = config.flash_dense_kwargs
        left = asked["window_size"][0]
        return Pattern(asked["softmax_scale"], True, (None if left < 0 else left, None), asked["softcap"])
    asked, window = config.sdpa_kwargs or {}, _window(context)
    dropout_p = asked.get("dropout_p") or 0.0
    return Pattern(
        scale=asked.get("scale") or Q.shape[-1] ** -0.5,
        causal=getattr(context, "is_causal", True),
        window=(None if window is None else window - 1, None),
        dropout_p=dropout_p,
        seed=drawn_seed(Q.device) if dropout_p else 0,
    )
