"""The launchers and entry points of ``unsloth.kernels.qk_norm_rope`` in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from patcher.ops.qk_norm_rope import qk_norm_rope_pair, qk_norm_rope_pair_backward

Wrap = Callable[[Any], Any]


def _launch_forward(
    Q: Tensor,
    K: Tensor,
    Wq: Tensor,
    Wk: Tensor,
    cos: Tensor,
    sin: Tensor,
    rope_indices: Tensor,
    eps_Q: float,
    eps_K: float,
    has_indices: bool,
    wrap: Wrap,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New ``Q`` and ``K`` ``[batch, tokens, heads, head]``, and their norms' statistics ``[batch * tokens, heads]``."""
    positions = rope_indices if has_indices else None
    return qk_norm_rope_pair(Q, K, Wq, Wk, cos, sin, eps_Q, eps_K, positions)


def _launch_backward(
    dQo: Tensor,
    dKo: Tensor,
    Q: Tensor,
    K: Tensor,
    Wq: Tensor,
    Wk: Tensor,
    rq: Tensor,
    rk: Tensor,
    cos: Tensor,
    sin: Tensor,
    rope_indices: Tensor,
    has_indices: bool,
    wrap: Wrap,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``Q`` and ``K``, in the dtypes of ``dQo`` and ``dKo``."""
    positions = rope_indices if has_indices else None
    return qk_norm_rope_pair_backward(dQo, dKo, Q, K, Wq, Wk, rq, rk, cos, sin, positions)


def fast_qk_norm_rope(
    q_norm: Any,
    k_norm: Any,
    Q: Tensor,
    K: Tensor,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalises and rotates heads; upstream's unfused pair of functions where the fused form does not apply.

    Args:
        q_norm: module with ``weight`` ``[head]`` and ``variance_epsilon`` or ``eps``.
        k_norm: the same for ``K``.
        Q: ``[batch, tokens, heads, head]``.
        K: the same with its own number of heads.
        cos: ``[positions, head]``, with dimensions of size 1 in front or not.
        sin: as ``cos``.
        position_ids: one position per token, for all rows or for each; or None for 0, 1, 2, ...

    Returns:
        ``Q`` and ``K`` as ``[batch, heads, tokens, head]``.
    """
    upstream = import_module("unsloth.kernels.qk_norm_rope")

    table_cos, table_sin = cos.squeeze(), sin.squeeze()
    batch, tokens = Q.shape[:2]
    trained = q_norm.weight.requires_grad or k_norm.weight.requires_grad
    indices = _position_of_tokens(position_ids, batch, tokens, table_cos)
    fused = indices is not None and _applies(q_norm, k_norm, Q, K, table_cos, table_sin)
    if trained or not fused or torch.compiler.is_compiling():
        pair: tuple[Tensor, Tensor] = upstream._unfused(q_norm, k_norm, Q, K, cos, sin, position_ids)
        return pair
    Qo, Ko = upstream.Fast_QK_Norm_RoPE.apply(
        Q, K, q_norm.weight, k_norm.weight, table_cos, table_sin, indices,
        _eps(q_norm), _eps(k_norm), position_ids is not None,
    )  # fmt: skip
    return Qo.transpose(1, 2), Ko.transpose(1, 2)


def decode_qk_norm_rope(
    q_norm: Any,
    k_norm: Any,
    Q: Tensor,
    K: Tensor,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """One token's new ``Q`` and ``K`` ``[batch, heads, 1, head]``, or None where the unfused code is to run.

    It applies where the result is that of the unfused code: no gradient, one dtype, one position per row. Off with
    ``UNSLOTH_DECODE_FUSED_ROPE=0``.
    """
    upstream = import_module("unsloth.kernels.qk_norm_rope")

    weights = (q_norm.weight, k_norm.weight)
    if not upstream.DECODE_FUSED_ROPE or torch.compiler.is_compiling() or position_ids is None:
        return None
    if Q.dim() != 4 or K.dim() != 4 or Q.shape[1] != 1 or K.shape[:2] != Q.shape[:2]:
        return None
    if torch.is_grad_enabled() and any(x.requires_grad for x in (Q, K, *weights)):
        return None
    cos, sin = cos.squeeze(), sin.squeeze()
    alike = all(x.dtype == Q.dtype and x.device == Q.device for x in (K, *weights, cos, sin))
    if not alike or position_ids.numel() != Q.shape[0] or not _applies(q_norm, k_norm, Q, K, cos, sin):
        return None
    positions = position_ids.reshape(-1).to(device=Q.device)
    Qo, Ko, _, _ = qk_norm_rope_pair(Q, K, *weights, cos, sin, _eps(q_norm), _eps(k_norm), positions)
    return Qo.transpose(1, 2), Ko.transpose(1, 2)


def _applies(q_norm: Any, k_norm: Any, Q: Tensor, K: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether the table is ``[positions, head]`` and both weights are ``[head]``, for one even ``head``."""
    head = Q.shape[-1]
    return (
        head % 2 == 0
        and K.shape[-1] == head
        and cos.dim() == 2
        and cos.shape == sin.shape
        and cos.shape[1] == head
        and q_norm.weight.shape == k_norm.weight.shape == (head,)
    )


def _position_of_tokens(position_ids: Tensor | None, batch: int, tokens: int, cos: Tensor) -> Tensor | None:
    """``[batch * tokens]`` positions (a placeholder where there are none), or None where they do not fit."""
    if position_ids is None:
        return cos.new_empty(1, dtype=torch.int32) if cos.dim() and tokens <= cos.shape[0] else None
    if position_ids.numel() == tokens and batch != 1:
        position_ids = position_ids.reshape(1, tokens).expand(batch, tokens)
    if position_ids.numel() != batch * tokens:
        return None
    return position_ids.reshape(-1).to(dtype=torch.int32, device=cos.device)


def _eps(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)
