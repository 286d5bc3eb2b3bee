"""The functions of rows ``[B, L, H, D]`` and of packed rows ``[T, H, D]``.

``return_attn_probs=True`` gives the output, the log of the sum of exponentials (fp32, ``[B, H, L]`` or ``[H, T]``), and
None for the probabilities, which nothing here holds. ``deterministic`` changes nothing: every run gives the same.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from patcher.errors import NotOnMac, compose
from patcher.ops.flash_attention import flash_attention, flash_attention_varlen, pattern_of, refuse

Attended = Tensor | tuple[Tensor, Tensor, None]


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Attended:
    """``[B, L, H, D]`` of queries, keys and values; keys may have fewer heads."""
    refuse(alibi_slopes=alibi_slopes)
    out, lse = flash_attention(
        q,
        k,
        v,
        pattern_of(
            q, dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window_size=window_size, softcap=softcap
        ),
    )
    return (out, lse, None) if return_attn_probs else out


def flash_attn_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Attended:
    """Keys and values in one tensor, ``[B, S, 2, H, D]``."""
    rest = dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    return flash_attn_func(q, *kv.unbind(2), *rest)


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Attended:
    """Queries, keys and values in one tensor, ``[B, L, 3, H, D]``."""
    rest = dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    return flash_attn_func(*qkv.unbind(2), *rest)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Attended:
    """Rows one after the other; ``cu_seqlens`` are int32 ``[rows + 1]``. The same tensor for both saves a wait."""
    refuse(alibi_slopes=alibi_slopes, block_table=block_table)
    out, lse = flash_attention_varlen(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        pattern_of(
            q, dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window_size=window_size, softcap=softcap
        ),
    )
    return (out, lse, None) if return_attn_probs else out


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Attended:
    """Keys and values in one tensor, ``[U, 2, H, D]``."""
    lengths = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
    rest = dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    return flash_attn_varlen_func(q, *kv.unbind(1), *lengths, *rest)


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Attended:
    """Queries, keys and values in one tensor, ``[T, 3, H, D]``."""
    lengths = cu_seqlens, cu_seqlens, max_seqlen, max_seqlen
    rest = dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    return flash_attn_varlen_func(*qkv.unbind(1), *lengths, *rest)


def _wrapped_flash_attn_forward(*args: Any, **kwargs: Any) -> NoReturn:
    """Half of attention; diffusers imports it (0.36) and calls it for rows that several GPUs share."""
    raise _half("_wrapped_flash_attn_forward")


def _wrapped_flash_attn_backward(*args: Any, **kwargs: Any) -> NoReturn:
    """The other half."""
    raise _half("_wrapped_flash_attn_backward")


def _half(name: str) -> NotOnMac:
    return NotOnMac(
        compose(
            "flash_attn's forward and backward do not run one without the other on a Mac",
            found=f"a call of {name}, as for rows that several GPUs share",
            left="nothing was computed",
            run="flash_attn_func(q, k, v), which has a gradient",
        )
    )
