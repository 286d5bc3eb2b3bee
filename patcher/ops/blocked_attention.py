"""Attention with soft-capped scores and a mask that is added, forward and backward, without an ``L x S`` matrix.

For queries ``i`` and keys ``j``, with ``G`` query heads to every key head::

    s_ij = scale * q_i . k_j          z_ij = softcap * tanh(s_ij / softcap) + bias_ij      (or s_ij + bias_ij)
    p_ij = exp(z_ij) / sum_j exp(z_ij)                                                      o_i = sum_j p_ij v_j

    dv_j = sum_i p_ij do_i            ds_ij = p_ij (do_i . v_j - do_i . o_i) (1 - tanh^2) scale
    dq_i = sum_j ds_ij k_j            dk_j = sum_i ds_ij q_i

Everything is computed in fp32 and rounded once, to the dtype of the input that it belongs to. Blocks of query rows
are computed one after the other, and again in the backward (as in Dao et al., "FlashAttention", 2022, but with all
keys at once), so no sum of the backward runs over more rows than one block holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patcher.ops.logit_tiles import MAX_REDUCTION, matmul_split, spans

ELEMENTS = 1 << 23
"""Scores of one block (32 MiB in fp32)."""


@dataclass(frozen=True)
class Scores:
    """How scores become what the softmax sees.

    Attributes:
        scale: factor of the dot products.
        softcap: bound of the scores, or None.
        bias: added to the scores, ``[L, S]`` or ``[B or 1, 1, L, S]``, or None; it gets no gradient.
    """

    scale: float
    softcap: float | None = None
    bias: Tensor | None = None

    def of(self, q: Tensor, k: Tensor, rows: slice, groups: int) -> tuple[Tensor, Tensor | float]:
        """``z`` and ``dz / d(q . k)`` of one block; ``q`` ``[B, Hkv, G n, D]``, ``k`` ``[B, Hkv, S, D]``."""
        s = torch.matmul(q, k.transpose(-1, -2)).mul_(self.scale)
        slope: Tensor | float = self.scale
        if self.softcap is not None:
            s = s.div_(self.softcap).tanh_()
            slope = s.square().neg_().add_(1).mul_(self.scale)
            s.mul_(self.softcap)
        if self.bias is not None:
            bias = self.bias if self.bias.ndim == 2 else self.bias[:, :, None]
            _split(s, 2, groups).add_(bias[..., rows, :])
        return s, slope


def _blocks(query: Tensor, keys: int) -> Iterator[slice]:
    """Rows of the queries whose scores fit into one block, and few enough for a sum over them."""
    batch, heads, length, _ = query.shape
    rows = max(1, min(ELEMENTS // max(1, batch * heads * keys), MAX_REDUCTION // heads))
    for start, end in spans(length, rows):
        yield slice(start, end)


def _split(x: Tensor, dim: int, first: int) -> Tensor:
    """A view whose dimension ``dim`` is two: ``first`` and the rest."""
    return x.view(*x.shape[:dim], first, x.shape[dim] // first, *x.shape[dim + 1 :])


def _grouped(x: Tensor, rows: slice, kv_heads: int) -> Tensor:
    """Rows of ``[B, H, L, D]`` as fp32 ``[B, Hkv, G n, D]``."""
    return _split(x[:, :, rows].to(torch.float32), 1, kv_heads).flatten(2, 3)


def _ungrouped(x: Tensor, groups: int) -> Tensor:
    return _split(x, 2, groups).flatten(1, 2)


@torch.no_grad()
def blocked_attention_forward(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Output ``[B, H, L, D]`` in the query's dtype, stored as ``[B, L, H, D]``.

    ``query`` is ``[B, H, L, D]``; ``key`` and ``value`` are ``[B, Hkv, S, D]`` with ``H`` a multiple of ``Hkv``.
    """
    batch, heads, length, width = query.shape
    groups = heads // key.shape[1]
    out = query.new_empty((batch, length, heads, width)).transpose(1, 2)
    with torch.autocast(query.device.type, enabled=False):
        k, v = key.to(torch.float32), value.to(torch.float32)
        for rows in _blocks(query, key.shape[2]):
            z, _ = scores.of(_grouped(query, rows, key.shape[1]), k, rows, groups)
            out[:, :, rows] = _ungrouped(matmul_split(z.softmax(-1), v), groups).to(query.dtype)
    return out


@torch.no_grad()
def blocked_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, scores: Scores
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value in their dtypes and strides; ``out`` is `blocked_attention_forward`'s."""
    kv_heads = key.shape[1]
    groups = query.shape[1] // kv_heads
    grad_query = torch.empty_like(query)
    with torch.autocast(query.device.type, enabled=False):
        k, v = key.to(torch.float32), value.to(torch.float32)
        grad_key, grad_value = torch.zeros_like(k), torch.zeros_like(v)
        for rows in _blocks(query, key.shape[2]):
            q, do, o = (_grouped(x, rows, kv_heads) for x in (query, grad, out))
            z, slope = scores.of(q, k, rows, groups)
            p = z.softmax(-1)
            grad_value += torch.matmul(p.transpose(-1, -2), do)
            ds = torch.matmul(do, v.transpose(-1, -2)).sub_((do * o).sum(-1, keepdim=True)).mul_(p).mul_(slope)
            grad_query[:, :, rows] = _ungrouped(matmul_split(ds, k), groups).to(query.dtype)
            grad_key += torch.matmul(ds.transpose(-1, -2), q)
    return grad_query, _like(grad_key, key), _like(grad_value, value)


def _like(total: Tensor, tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor).copy_(total)


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        out = blocked_attention_forward(query, key, value, scores)
        ctx.save_for_backward(query, key, value, out)
        ctx.scores = scores
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, out = ctx.saved_tensors
        return *blocked_attention_backward(grad, query, key, value, out, ctx.scores), None


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Differentiable attention; shapes as in `blocked_attention_forward`."""
    result: Tensor = _BlockedAttention.apply(query, key, value, scores)  # type: ignore[no-untyped-call]
    return result
