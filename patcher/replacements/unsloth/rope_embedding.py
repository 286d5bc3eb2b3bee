"""The launcher and the decode step of ``unsloth.kernels.rope_embedding`` in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from patcher.ops.rope import rope_, rope_pair_


def _rope_launch(
    Q: Tensor,
    Q_out: Tensor,
    K: Tensor | None,
    K_out: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    rope_ptr: Tensor | None,
    has_indices: bool,
    backward: bool,
    cast_to_sin: bool,
    wrap: Callable[[Any], Any],
) -> None:
    """Rotates ``Q`` into ``Q_out`` and ``K``, if there is one, into ``K_out``; each output may be its input.

    Args:
        Q: ``[batch, heads, tokens, head]``, any strides.
        Q_out: the same shape.
        K: as ``Q`` with its own number of heads, or None.
        K_out: the same shape as ``K``.
        cos: ``[positions, head]``.
        sin: as ``cos``.
        rope_ptr: with ``has_indices``, the position of every token, ``[batch * tokens]``.
        has_indices: whether ``rope_ptr`` counts; else positions are 0, 1, 2, ... in every row of the batch.
        backward: rotates back.
        cast_to_sin: computes in the table's dtype.
        wrap: upstream's choice of launcher; there is no kernel.
    """
    positions = rope_ptr if has_indices else None
    how: dict[str, Any] = {"positions": positions, "transpose": backward, "in_table_dtype": cast_to_sin}
    if K is None or K_out is None:
        rope_(Q, cos, sin, out=Q_out, **how)
    else:
        rope_pair_(Q, K, cos, sin, q_out=Q_out, k_out=K_out, **how)


def decode_rope_inplace(Q: Tensor, K: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor | None) -> bool:
    """Rotates one token's ``Q`` and ``K`` ``[batch, heads, 1, head]`` in place; False, and nothing done, elsewhere.

    It applies where the result is that of the unfused code after it: one dtype, one position per row. Off with
    ``UNSLOTH_DECODE_FUSED_ROPE=0``.
    """
    upstream = import_module("unsloth.kernels.rope_embedding")

    if not upstream.DECODE_FUSED_ROPE or torch.compiler.is_compiling() or position_ids is None:
        return False
    cos, sin = cos.squeeze(), sin.squeeze()
    if Q.dim() != 4 or K.dim() != 4 or cos.dim() != 2:
        return False
    batch, _, tokens, head = Q.shape
    one_token = tokens == 1 and (K.shape[0], K.shape[2], K.shape[3]) == (batch, 1, head)
    table = cos.shape == sin.shape and cos.shape[1] == head and head % 2 == 0
    alike = all(x.dtype == Q.dtype and x.device == Q.device for x in (K, cos, sin))
    if not (one_token and table and alike and position_ids.numel() == batch):
        return False
    positions = position_ids.reshape(-1).to(device=Q.device)
    with torch.no_grad():
        rope_pair_(Q, K, cos, sin, q_out=Q, k_out=K, positions=positions)
    return True
