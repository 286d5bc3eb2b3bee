"""Attention whose memory grows with the length, not with its square, forward and backward.

The formulas, and the variant in plain torch, are in `patcher.ops.blocked_attention`. Kept for the backward are the
inputs, the output, and two numbers of every query: the largest logit and the sum of the exponentials. A gradient that
is to be differentiated again is computed by the formula, with the whole matrix of scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.blocked_attention import Problem, blocked_attention_backward, blocked_attention_forward
from patcher.ops.dense_attention import dense_attention_gradients
from patcher.ops.variants.choice import Choice
from patcher.ops.visible_keys import Band, Packed, Pattern

VARIANT = Choice("attention")

__all__ = ["Pattern", "attention", "attention_forward", "attention_varlen", "attention_varlen_forward"]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of a batch, differentiable in query, key, value, sinks, and a bias that requires a gradient.

    Args:
        query: ``[B, H, L, D]``, of any strides.
        key: ``[B, Hkv, S, D]``, where ``H`` is a multiple of ``Hkv``: ``H / Hkv`` query heads in a row share one.
        value: ``[B, Hkv, S, Dv]``.
        pattern: scale, causality, window, soft cap, dropout.
        bias: broadcastable to ``[B, H, L, S]``; added to the scores after the soft cap, or boolean: True is seen.
        sinks: ``[H]``, a logit of every head that joins the softmax's denominator (as in gpt-oss).

    Returns:
        ``[B, H, L, Dv]`` in the query's dtype, stored as ``[B, L, H, Dv]``. A query that sees no key gives zeros, as
        `torch.nn.functional.scaled_dot_product_attention` gives for boolean masks; one whose keys all have the same
        finite bias, however low, gives their mean.

    Raises:
        ValueError: shapes do not fit.
    """
    return _apply(query, key, value, bias, sinks, pattern)[0]


def attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attention`, and of every query the logarithm of the sum of exponentials, ``[B, H, L]`` in fp32.

    Only the output is differentiable. Where nothing is seen the logarithm is the lowest number.
    """
    out, maximum, total = _apply(query, key, value, bias, sinks, pattern)
    return out, maximum + total.log()


def attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts_query: Tensor,
    starts_key: Tensor,
    longest_query: int,
    longest_key: int,
    pattern: Pattern,
    *,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of packed rows, each within itself; differentiable as `attention` is.

    Args:
        query: ``[T, H, D]``, rows one after the other.
        key: ``[U, Hkv, D]``.
        value: ``[U, Hkv, Dv]``.
        starts_query, starts_key: cumulative lengths, int32 or int64 ``[rows + 1]``, from 0 on; rows may be empty. Where
            both are the same tensor object, the host does not wait for the device.
        longest_query, longest_key: no row is longer.
        pattern: as in `attention`. Dropout's mask counts ``i`` and ``j`` from the begin of the pack.
        sinks: ``[H]``.

    Returns:
        ``[T, H, Dv]``. What lies behind the last row is zero.

    Raises:
        ValueError: shapes do not fit.
    """
    given = starts_query, starts_key, longest_query, longest_key, pattern, sinks
    return _apply_varlen(query, key, value, *given)[0].squeeze(0).transpose(0, 1)


def attention_varlen_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts_query: Tensor,
    starts_key: Tensor,
    longest_query: int,
    longest_key: int,
    pattern: Pattern,
    *,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attention_varlen`, and the logarithms that `attention_forward` gives, ``[H, T]``."""
    given = starts_query, starts_key, longest_query, longest_key, pattern, sinks
    out, maximum, total = _apply_varlen(query, key, value, *given)
    return out.squeeze(0).transpose(0, 1), (maximum + total.log()).squeeze(0)


class _Attention(torch.autograd.Function):
    """Output, largest logits and sums of exponentials; the last two have no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        sinks: Tensor | None,
        pattern: Pattern,
        visible: Band | Packed,
    ) -> tuple[Tensor, Tensor, Tensor]:
        problem = Problem(query, key, value, pattern, visible, bias, sinks)
        variant = _variant(problem, ctx.needs_input_grad[3])
        out, maximum, total = (variant.blocked_attention_forward if variant else blocked_attention_forward)(problem)
        ctx.save_for_backward(query, key, value, bias, sinks, out, maximum, total)
        ctx.pattern, ctx.visible = pattern, visible
        ctx.mark_non_differentiable(maximum, total)
        ctx.set_materialize_grads(False)
        return out, maximum, total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * 7
        query, key, value, bias, sinks, out, maximum, total = ctx.saved_tensors
        problem = Problem(query, key, value, ctx.pattern, ctx.visible, bias, sinks)
        if torch.is_grad_enabled():
            return *dense_attention_gradients(problem, grad_output, ctx.needs_input_grad[:5]), None, None
        variant = _variant(problem, ctx.needs_input_grad[3])
        backward = variant.blocked_attention_backward if variant else blocked_attention_backward
        grads = backward(problem, grad_output, out, maximum, total, bias_needs_grad=ctx.needs_input_grad[3])
        return *grads, None, None


def _variant(problem: Problem, bias_needs_grad: bool) -> Any:
    """The module with the functions to take instead of those in torch, None for these."""
    if not problem.query.is_mps or is_compiling():
        return None
    variant = VARIANT[problem.query.dtype]
    return variant if variant is not None and variant.supports(problem, bias_needs_grad=bias_needs_grad) else None


def _check(query: Tensor, key: Tensor, value: Tensor, heads: int) -> None:
    """ValueError where shapes do not fit; ``heads`` is the dimension that counts them, the second of a tensor."""
    fit = (
        query.ndim == key.ndim == value.ndim == 1 - heads
        and query.shape[-1] == key.shape[-1]
        and key.shape[:-1] == value.shape[:-1]
        and query.shape[:-3] == key.shape[:-3]
        and key.shape[heads] > 0
        and query.shape[heads] % key.shape[heads] == 0
    )
    if not fit:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"attention: query, key and value do not fit: {shapes}")


def _mask(bias: Tensor | None) -> Tensor | None:
    """A bias of four dimensions."""
    return bias if bias is None or bias.ndim == 4 else bias.view((1,) * (4 - bias.ndim) + bias.shape)


def _apply(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, sinks: Tensor | None, pattern: Pattern
) -> tuple[Tensor, Tensor, Tensor]:
    _check(query, key, value, -3)
    visible = Band(query.shape[2], key.shape[2], *pattern.reach)
    given = query, key, value, _mask(bias), sinks, pattern, visible
    return _Attention.apply(*given)  # type: ignore[no-any-return, no-untyped-call]


def _apply_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts_query: Tensor,
    starts_key: Tensor,
    longest_query: int,
    longest_key: int,
    pattern: Pattern,
    sinks: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(query, key, value, -2)
    sizes = longest_query, longest_key, len(query), len(key)
    visible = Packed(starts_query, starts_key, *sizes, *pattern.reach)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
    return _Attention.apply(q, k, v, None, sinks, pattern, visible)  # type: ignore[no-any-return, no-untyped-call]
