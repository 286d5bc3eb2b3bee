"""`patcher.ops.qk_norm_rope` as Metal shaders: one launch for queries and keys, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.metal.library import library
from patcher.ops.metal.rope import rows_of_table

GROUP = (32, 8, 1)
"""Lanes, heads and tokens of a threadgroup."""


def qk_norm_rope(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `patcher.ops.qk_norm_rope.qk_norm_rope`."""
    outputs, rstds = _forward([x], [weight], cos, sin, [eps], positions)
    return outputs[0], rstds[0]


def qk_norm_rope_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
) -> Tensor:
    """As `patcher.ops.qk_norm_rope.qk_norm_rope_backward`."""
    return _backward([grad_output], [x], [weight], [rstd], cos, sin, positions)[0]


def qk_norm_rope_pair(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_eps: float,
    k_eps: float,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `patcher.ops.qk_norm_rope.qk_norm_rope_pair`."""
    if not _alike(q, k) or not _alike(q_weight, k_weight):
        qo, rq = qk_norm_rope(q, q_weight, cos, sin, q_eps, positions)
        ko, rk = qk_norm_rope(k, k_weight, cos, sin, k_eps, positions)
        return qo, ko, rq, rk
    outputs, rstds = _forward([q, k], [q_weight, k_weight], cos, sin, [q_eps, k_eps], positions)
    return outputs[0], outputs[1], rstds[0], rstds[1]


def qk_norm_rope_pair_backward(
    q_grad: Tensor,
    k_grad: Tensor,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    q_rstd: Tensor,
    k_rstd: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `patcher.ops.qk_norm_rope.qk_norm_rope_pair_backward`."""
    if not _alike(q, k) or not _alike(q_weight, k_weight) or not _alike(q_grad, k_grad):
        return (
            qk_norm_rope_backward(q_grad, q, q_weight, q_rstd, cos, sin, positions),
            qk_norm_rope_backward(k_grad, k, k_weight, k_rstd, cos, sin, positions),
        )
    made = _backward([q_grad, k_grad], [q, k], [q_weight, k_weight], [q_rstd, k_rstd], cos, sin, positions)
    return made[0], made[1]


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether one launch takes both: one type, and of heads the same but for their number."""
    return a.dtype == b.dtype and (a.dim() < 4 or (a.shape[:2], a.shape[3]) == (b.shape[:2], b.shape[3]))


def _forward(
    xs: list[Tensor], weights: list[Tensor], cos: Tensor, sin: Tensor, eps: list[float], positions: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    x = xs[0]
    batch, tokens = x.shape[:2]
    made = [torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in xs]
    rstds = [torch.empty(batch * tokens, each.shape[2], dtype=torch.float32, device=x.device) for each in xs]
    dtype = sin.dtype if positions is None else torch.promote_types(x.dtype, cos.dtype)
    tables, how = _tables(cos, sin, positions), _both(xs, xs, weights, cos, sin, positions)
    kernels = _library(x, weights[0], x, tables, dtype)
    tensors = [*_two(xs), *_two(weights), *tables, *_two(made), *_two(rstds)]
    if x.numel():
        kernels.forward(*tensors, how, [float(eps[0]), float(eps[-1])], threads=_grid(xs), group_size=GROUP)
    return made, rstds


def _backward(
    grads: list[Tensor],
    xs: list[Tensor],
    weights: list[Tensor],
    rstds: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
) -> list[Tensor]:
    made = [torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in grads]
    rstds = [each.contiguous() for each in rstds]
    dtype = torch.promote_types(grads[0].dtype, cos.dtype)
    tables, how = _tables(cos, sin, positions), _both(xs, grads, weights, cos, sin, positions)
    kernels = _library(xs[0], weights[0], grads[0], tables, dtype)
    tensors = [*_two(grads), *_two(xs), *_two(weights), *_two(rstds), *tables, *_two(made)]
    if xs[0].numel():
        kernels.backward(*tensors, how, threads=_grid(xs), group_size=GROUP)
    return made


def _two(of: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of queries and of keys; where there are none of these, nothing reads them."""
    return of[0], of[-1]


def _tables(cos: Tensor, sin: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    cos, sin = rows_of_table(cos), rows_of_table(sin)
    return cos, sin, cos if positions is None else positions.reshape(-1).contiguous()


def _both(
    xs: list[Tensor], grads: list[Tensor], weights: list[Tensor], cos: Tensor, sin: Tensor, positions: Tensor | None
) -> list[int]:
    """The source's ``Both``."""
    how = [xs[0].shape[3], xs[0].shape[1], rows_of_table(cos).stride(0), rows_of_table(sin).stride(0)]
    how.append(positions is not None)
    for x, grad, weight in zip(_two(xs), _two(grads), _two(weights), strict=True):
        how += [x.shape[2], *x.stride(), *grad.stride(), weight.stride(0)]
    return how


def _library(x: Tensor, weight: Tensor, grad: Tensor, tables: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> Any:
    cos, sin, at = tables
    types = (x.dtype, weight.dtype, grad.dtype, cos.dtype, sin.dtype, dtype, at.dtype)
    return library("qk_norm_rope", *zip("XWGSNCI", types, strict=True))


def _grid(xs: list[Tensor]) -> tuple[int, int, int]:
    return 32, sum(each.shape[2] for each in xs), xs[0].shape[0] * xs[0].shape[1]
